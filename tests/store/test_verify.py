"""Every kind of damage is found by its name, and what it touches becomes a miss; what is whole is left alone."""

from __future__ import annotations

import hashlib
import json

import pytest

from runonce.errors import Damaged
from runonce.experiment.canonical import canonical, parse
from runonce.experiment.manifest import Shard
from runonce.experiment.seal import sealed, unsealed
from runonce.store.backend import (
    blob_name,
    commit_name,
    failure_name,
    lease_name,
    manifest_name,
    pin_name,
    removed_name,
    shard_prefix,
)
from runonce.store.collect import Limits, check_record, collect
from runonce.store.commit import commit, complete_attempt, probe
from runonce.store.lease import Leases
from runonce.store.publish import publish_shard
from runonce.store.remove import remove
from runonce.store.restore import read_manifest, restore
from runonce.store.verify import discard, verify, verify_result
from runonce.worker.saved import SavedFolder

KEYS = {label: hashlib.sha256(label.encode()).hexdigest() for label in ("a", "b", "c")}


def make(backend, tmp_path, label: str, round_: str = "r") -> None:
    output = tmp_path / f"out-{label}"
    output.mkdir(exist_ok=True)
    (output / "weights").write_text(f"weights of {label}")
    (output / "log").write_text("the same for all")
    shard = Shard(cache_key=KEYS[label], mode="train", round=round_, total=1, attempt="a", index=0, files=())
    publish_shard(backend, output, shard)
    found = None
    if probe(backend, KEYS[label]) is None:
        found = complete_attempt(backend, KEYS[label], round_)
    if found is not None:
        commit(
            backend, found, name="mine", parts={}, params={}, inputs={}, tokens=(), replaces="", missing=(),
            nonce=label, created=1,
        )  # fmt: skip


def names(backend, label: str) -> dict[str, str]:
    made = probe(backend, KEYS[label])[0]
    files = {file.path: file for file in read_manifest(backend, made.manifest).files}
    return {
        "commit": commit_name(KEYS[label]),
        "manifest": manifest_name(made.manifest),
        "blob": blob_name(files["weights"].blobs[0]),
        "shared blob": blob_name(files["log"].blobs[0]),
        "shard": f"{shard_prefix(KEYS[label], 'r')}1/a/i0",
    }


def needed_by(backend, label: str) -> set[str]:
    made = probe(backend, KEYS[label])[0]
    blobs = {blob_name(blob) for file in read_manifest(backend, made.manifest).files for blob in file.blobs}
    return blobs | {commit_name(KEYS[label]), manifest_name(made.manifest)}


def content(backend, name: str) -> bytes:
    return backend.get(name)[0]


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


HOW = {
    "cut": lambda data: data[:-1],
    "flipped": lambda data: flip(data, 0),
    "flipped in a value": lambda data: flip(data, len(data) // 2),  # a record stays JSON, mostly
    "lost": lambda data: None,
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("what", ["commit", "manifest", "blob", "shared blob", "shard"])
def test_damage_is_found_taken_out_and_healed_when_it_is_made_again(backend, spoil, tmp_path, what, how):
    make(backend, tmp_path, "a")
    make(backend, tmp_path, "b")
    assert list(verify(backend)) == []
    name = names(backend, "a")[what]
    touched = [label for label in "ab" if name in needed_by(backend, label)]
    assert touched == {"shard": [], "shared blob": ["a"] if backend.blob_size else ["a", "b"]}.get(what, ["a"])
    spoil(name, HOW[how](content(backend, name)))
    found = list(verify(backend))
    if what in ("commit", "shard") and how == "lost":
        assert found == []  # a miss, and a record that a result does not need any more
        return
    assert [damage.name for damage in found] == [name]
    assert found[0].cache_keys == sorted(KEYS[label] for label in touched)
    for damage in found:
        discard(backend, damage)
    assert list(verify(backend)) == []
    for label in "ab":
        assert (probe(backend, KEYS[label]) is None) is (label in touched)
        make(backend, tmp_path, label)
        restore(backend, read_manifest(backend, probe(backend, KEYS[label])[0].manifest), tmp_path / f"in-{label}")
        assert (tmp_path / f"in-{label}" / "weights").read_text() == f"weights of {label}"


def test_one_result_is_verified_by_itself(backend, spoil, tmp_path):
    make(backend, tmp_path, "a")
    make(backend, tmp_path, "b")
    spoil(names(backend, "a")["blob"], b"x")
    assert [damage.name for damage in verify_result(backend, KEYS["a"])] == [names(backend, "a")["blob"]]
    assert list(verify_result(backend, KEYS["b"])) == []


def test_a_lost_file_of_one_result_is_found_by_that_result(backend, spoil, tmp_path):
    make(backend, tmp_path, "a")
    spoil(names(backend, "a")["blob"], None)
    (damage,) = verify_result(backend, KEYS["a"])
    assert damage.cache_keys == [KEYS["a"]]
    assert "is lost from" in damage.what


def test_a_damaged_failure_record_is_found_and_taken_out(backend, spoil, tmp_path):
    make(backend, tmp_path, "a")
    backend.put(failure_name(KEYS["a"], "x"), b"{}")
    (damage,) = verify(backend)
    assert damage.cache_keys == []
    discard(backend, damage)
    assert list(verify(backend)) == []
    assert probe(backend, KEYS["a"]) is not None


def test_after_a_damaged_manifest_the_shards_are_still_there_to_commit(backend, spoil, tmp_path):
    make(backend, tmp_path, "a")
    spoil(names(backend, "a")["manifest"], b"{")
    for damage in verify(backend):
        discard(backend, damage)
    assert complete_attempt(backend, KEYS["a"], "r") is not None


def test_to_find_damage_changes_nothing(folder, tmp_path):
    make(folder, tmp_path, "a")
    path = folder.root / names(folder, "a")["blob"]
    path.chmod(0o644)
    path.write_bytes(b"x")
    before = {path: path.stat().st_mtime_ns for path in folder.root.rglob("*") if path.is_file()}
    assert len(list(verify(folder))) == 1
    assert {path: path.stat().st_mtime_ns for path in folder.root.rglob("*") if path.is_file()} == before


def record_of(backend, tmp_path, what: str) -> str:
    """A record beside the results, as it comes to be there; its name."""
    if what == "checkpoint":
        (tmp_path / "saved").mkdir()
        (tmp_path / "saved" / "state").write_text("at step 1")
        saved(backend).save(tmp_path / "saved")
        return f"{shard_prefix(KEYS['a'], 'r-2')}1/k/folder/i0"
    if what == "lease":
        gone = Leases(backend, "a machine that is gone", outlives=True)
        assert gone.hold(KEYS["a"]) is None
        gone.close()
        return lease_name(KEYS["a"])
    if what == "removal":
        make(backend, tmp_path, "c")
        found = probe(backend, KEYS["c"])
        assert remove(backend, *found)
        return removed_name(KEYS["c"], found[0].manifest)
    record = {"format": 1, "kind": what, "nonce": "n"}
    name = pin_name("paper") if what == "pin" else failure_name(KEYS["a"], "x")
    backend.put(name, sealed(canonical(record | ({"cacheKey": KEYS["a"]} if what == "pin" else {}))))
    return name


def saved(backend) -> SavedFolder:
    return SavedFolder(backend, cache_key=KEYS["a"], round_="r-2", total=1, index=0)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("what", ["checkpoint", "pin", "lease", "removal", "failure"])
def test_damage_of_a_record_beside_the_results_is_found_and_costs_no_result(backend, spoil, tmp_path, what, how):
    make(backend, tmp_path, "a")
    make(backend, tmp_path, "b")
    name = record_of(backend, tmp_path, what)
    assert list(verify(backend)) == []
    right = content(backend, name)
    spoil(name, HOW[how](right))
    found = list(verify(backend))
    assert [damage.name for damage in found] == ([] if how == "lost" else [name])
    assert [key for damage in found for key in damage.cache_keys] == []
    for damage in found:
        discard(backend, damage)
    expires = what in ("pin", "lease")  # by itself, or by its owner: whoever holds it may be at work
    assert [damage.name for damage in verify(backend)] == ([name] if expires and how != "lost" else [])
    if what == "checkpoint":  # its process begins anew
        (tmp_path / "in").mkdir()
        saved(backend).restore(tmp_path / "in")
        assert list((tmp_path / "in").iterdir()) == []
    if what == "lease":
        next_one = Leases(backend, "another machine", ttl_s=0.0)
        assert next_one.hold(KEYS["a"]) == (None if how == "lost" else "a damaged record")
        assert next_one.hold(KEYS["a"]) is None
        next_one.close()
    if what == "pin":
        backend.put(name, right)
    assert list(verify(backend)) == []
    collect(backend, Limits(grace=-1.0, unfinished=-1.0), delete=True)
    for label in ("a", "b"):
        restore(backend, read_manifest(backend, probe(backend, KEYS[label])[0].manifest), tmp_path / f"in-{label}")
        assert (tmp_path / f"in-{label}" / "weights").read_text() == f"weights of {label}"


@pytest.mark.parametrize("how", HOW)
def test_a_checkpoint_whose_bytes_are_damaged_is_none_and_is_found(backend, spoil, tmp_path, how):
    make(backend, tmp_path, "a")
    name = record_of(backend, tmp_path, "checkpoint")
    (file,) = parse(content(backend, name))["files"]
    blob = blob_name(file["sha256"])
    spoil(blob, HOW[how](content(backend, blob)))
    (tmp_path / "in").mkdir()
    saved(backend).restore(tmp_path / "in")
    assert list((tmp_path / "in").iterdir()) == []
    assert [damage.name for damage in verify(backend)] == ([] if how == "lost" else [blob])
    for damage in verify(backend):
        discard(backend, damage)
    assert list(verify(backend)) == []
    saved(backend).save(tmp_path / "saved")  # by the next attempt that is stopped
    saved(backend).restore(tmp_path / "in")
    assert (tmp_path / "in" / "state").read_text() == "at step 1"


@pytest.mark.parametrize("what", ["commit", "shard", "checkpoint", "lease", "removal", "failure"])
def test_no_bit_of_a_record_can_flip_unseen(folder, tmp_path, what):
    """But within the name of the seal, where nothing is lost by it."""
    make(folder, tmp_path, "a")
    name = names(folder, "a")[what] if what in ("commit", "shard") else record_of(folder, tmp_path, what)
    right = content(folder, name)
    assert unsealed(right) != right
    seal = right.rindex(b',"check":"')
    passed = []
    for at in range(len(right)):
        for bit in range(8):
            data = right[:at] + bytes([right[at] ^ (1 << bit)]) + right[at + 1 :]
            try:
                check_record(data, name)
            except Damaged:
                continue
            passed.append(at)
            assert json.loads(data) | json.loads(unsealed(right)) == json.loads(data)
    assert all(at >= seal for at in passed)
