"""Collection: what is needed stays, what is not goes after its time, and nothing that a writer relies on is lost."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest
import torch
from stored import EVERYTHING, key_of

from runonce.errors import Damaged, NewerFormat
from runonce.experiment.canonical import canonical
from runonce.experiment.manifest import Shard
from runonce.store.backend import (
    GRACE_S,
    blob_name,
    commit_name,
    experiment_name,
    failure_name,
    lease_name,
    manifest_name,
    removed_name,
    shard_prefix,
    source_name,
)
from runonce.store.collect import DAY_S, Limits, collect
from runonce.store.commit import commit, complete_attempt, probe
from runonce.store.folder import FolderBackend
from runonce.store.pins import pin, read_pins
from runonce.store.publish import publish_shard, store_file, store_files
from runonce.store.remove import remove
from runonce.store.restore import read_manifest, restore
from runonce.store.results import link_results
from runonce.store.verify import discard, verify
from runonce.worker.checkpoint import Checkpoints
from runonce.worker.saved import SavedFolder


def test_what_nothing_needs_goes_after_the_grace_and_not_before(store):
    store.result("a")
    orphan = store.blob("orphan")
    assert collect(store.backend, delete=True).counts == {}
    store.age(GRACE_S + 60)
    young = store.blob("young")
    found = collect(store.backend, delete=True)
    assert (dict(found.counts), dict(found.sizes)) == ({"blobs": 1}, {"blobs": len("orphan")})
    assert (store.has(blob_name(orphan)), store.has(blob_name(young)), store.restores("a")) == (False, True, True)


def test_to_look_deletes_nothing_and_says_how_much_would_go(store):
    store.result("a")
    store.checkpoint("gone", round_="r-0")
    store.blob("orphan")
    before = None
    store.age(31 * DAY_S)
    before = sorted(path for path in store.backend.root.rglob("*") if path.is_file())
    looked = collect(store.backend, Limits(retain=0.0, newest_too=True), delete=False)
    assert sorted(path for path in store.backend.root.rglob("*") if path.is_file()) == before
    assert looked.results == [(key_of("a"), "mine", "train", len("weights of a"))]
    assert looked.counts["blobs"] == 2
    assert looked.counts["checkpoints"] == 1


def test_a_result_that_is_removed_keeps_its_files_for_one_grace(store):
    store.result("a")
    store.age(10 * DAY_S)
    assert remove(store.backend, *probe(store.backend, key_of("a")))
    (file,) = (blob_name(key_of("weights of a")),)
    collect(store.backend, delete=True)
    assert store.has(file)
    store.age(GRACE_S + 60)
    collect(store.backend, delete=True)
    assert not store.has(file)
    assert list(store.backend.list("d/")) == list(store.backend.list("m/")) == []


def test_what_a_replaced_result_was_made_of_stays_for_one_grace(store):
    old = store.result("a")
    store.age(10 * DAY_S)
    (store.folder / "out" / "a").mkdir(exist_ok=True)
    etag = probe(store.backend, key_of("a"))[1]
    store.shard("b")
    store.result("a", round_="r-2", replaces=etag)
    collect(store.backend, delete=True)
    assert read_manifest(store.backend, old.manifest).files
    store.age(GRACE_S + 60)
    collect(store.backend, delete=True)
    with pytest.raises(Damaged, match="is lost"):
        read_manifest(store.backend, old.manifest)


def test_old_results_go_but_the_newest_of_a_name_stays_unless_told(store):
    for label in ("a", "b", "c"):
        store.result(label)
        store.age(DAY_S)
    store.result("other", name="other")
    store.age(100 * DAY_S)
    found = collect(store.backend, Limits(retain=90 * DAY_S), delete=True)
    assert sorted(key for key, *_ in found.results) == sorted((key_of("a"), key_of("b")))
    assert [store.restores(label) for label in ("a", "b", "c", "other")] == [False, False, True, True]
    assert not store.has(experiment_name("mine", key_of("a")))
    collect(store.backend, Limits(retain=90 * DAY_S, newest_too=True), delete=True)
    assert list(store.backend.list("c/")) == []


def test_a_pin_keeps_a_result_of_any_age(store):
    for label in ("a", "b"):
        store.result(label)
        store.age(DAY_S)
    pin(store.backend, "paper", [key_of("a")])
    assert read_pins(store.backend) == {"paper": [key_of("a")]}
    store.age(100 * DAY_S)
    collect(store.backend, Limits(retain=0.0, newest_too=True), delete=True)
    assert [store.restores(label) for label in ("a", "b")] == [True, False]


def test_what_a_kept_result_was_made_from_is_kept(store):
    train = store.result("train", name="old")
    store.result("newer", name="old")
    store.age(100 * DAY_S)
    store.result("test", name="test", inputs={"train": train.manifest})
    collect(store.backend, Limits(retain=90 * DAY_S), delete=True)
    assert [store.restores(label) for label in ("train", "test")] == [True, True]


def test_checkpoints_go_with_the_end_of_their_round_and_those_of_others_stay(store):
    store.result("a")
    done, running = store.checkpoint("a"), store.checkpoint("b")
    store.age(GRACE_S + 60)
    collect(store.backend, delete=True)
    assert (store.has(done), store.has(running)) == (False, True)
    assert (store.has(blob_name(key_of("checkpoint a 1"))), store.has(blob_name(key_of("checkpoint b 1")))) == (
        False,
        True,
    )
    store.age(31 * DAY_S)
    collect(store.backend, delete=True)
    assert not store.has(running)
    assert not store.has(blob_name(key_of("checkpoint b 1")))


def test_what_the_checkpoints_of_workers_name_is_found_and_kept(backend, tmp_path):
    """Records as workers write them: a state cut into many blobs, small files in packs, the folder of a command."""
    given = {"cache_key": key_of("a"), "round_": "r-1", "total": 1, "index": 0}
    checkpoints = Checkpoints(backend, **given, attempt="a", scratch=tmp_path)
    state = {f"layer {i}": torch.rand(300_000) for i in range(3)}
    (tmp_path / "metrics.jsonl").write_text("{}")
    checkpoints.save({"model": state}, {"metrics.jsonl": tmp_path / "metrics.jsonl"}, step=7)
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "mine" / "deep" / "saved").write_text("saved")
    SavedFolder(backend, **given).save(tmp_path / "mine")
    (tmp_path / "orphan").write_text("orphan")
    (orphan,) = store_file(backend, tmp_path / "orphan").blobs
    assert collect(backend, replace(EVERYTHING, unfinished=DAY_S), delete=True).counts == {"blobs": 1}
    assert backend.stat(blob_name(orphan)) is None
    (step,) = checkpoints.newest()
    assert all(torch.equal(checkpoints.load(step, "model")[name], state[name]) for name in state)
    assert checkpoints.fetch(step, "metrics.jsonl", tmp_path / "back").read_text() == "{}"
    SavedFolder(backend, **given).restore(tmp_path / "again")
    assert (tmp_path / "again" / "deep" / "saved").read_text() == "saved"


def test_code_that_was_sent_along_stays_for_its_time_and_as_long_as_a_result_of_it(store):
    names = {label: source_name(key_of(label)) for label in ("used", "forgotten", "young")}
    for label in ("used", "forgotten"):
        store.backend.put(names[label], b"archive")
    store.result("a", parts={"mode": "train", "codeVersion": f"source:{key_of('used')}"})
    store.age(89 * DAY_S)
    collect(store.backend, delete=True)
    assert all(store.has(names[label]) for label in ("used", "forgotten"))
    store.age(2 * DAY_S)
    store.backend.put(names["young"], b"archive")
    found = collect(store.backend, delete=True)
    assert [store.has(names[label]) for label in ("used", "forgotten", "young")] == [True, False, True]
    assert found.counts["sources"] == 1
    remove(store.backend, *probe(store.backend, key_of("a")))
    collect(store.backend, delete=True)
    assert store.has(names["used"])
    store.age(GRACE_S + 60)
    collect(store.backend, delete=True)
    assert not store.has(names["used"])


def test_no_empty_folders_stay_behind(store):
    store.result("a")
    store.checkpoint("gone", round_="r-0")
    store.age(31 * DAY_S)
    remove(store.backend, *probe(store.backend, key_of("a")))
    store.age(GRACE_S + 60)
    collect(store.backend, delete=True)
    folders = {
        path.relative_to(store.backend.root).as_posix() for path in store.backend.root.rglob("*") if path.is_dir()
    }
    assert folders == {"tmp"}


def test_where_no_store_is_none_is_made(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        assert collect(FolderBackend(tmp_path / name), delete=True).counts == {}
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_files_of_others_between_the_objects_stay(store):
    store.result("a")
    store.age(100 * DAY_S)
    for name in ("b/notes.txt", "b/ab/notes.txt", f"w/{key_of('a')}/notes.txt", "c/notes.txt", "l/notes.txt"):
        path = store.backend.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        os.utime(path, (0, 0))
    for damage in list(verify(store.backend)):
        discard(store.backend, damage)
    collect(store.backend, EVERYTHING, delete=True)
    assert len(list(store.backend.root.rglob("notes.txt"))) == 5
    assert complete_attempt(store.backend, key_of("a"), "r-1") is None
    assert store.restores("a")


def test_a_round_counts_as_young_as_its_newest_record(store):
    first = store.checkpoint("b", step=1)
    store.age(31 * DAY_S)
    store.checkpoint("b", step=2)
    collect(store.backend, delete=True)
    assert store.has(first)
    assert store.has(blob_name(key_of("checkpoint b 1")))


def test_shards_that_nobody_committed_keep_their_files(store):
    store.shard("a")
    store.age(GRACE_S + 60)
    collect(store.backend, delete=True)
    assert complete_attempt(store.backend, key_of("a"), "r-1") is not None
    store.result("a")
    assert store.restores("a")


def test_failure_records_and_leases_that_nobody_holds_go(store):
    names = failure_name(key_of("a"), "x"), lease_name(key_of("a"))
    for name in names:
        store.backend.put(name, canonical({"format": 1, "holder": "x"}))
    store.age(GRACE_S + 60)
    collect(store.backend, delete=True)
    assert [store.has(name) for name in names] == [True, False]
    store.age(8 * DAY_S)
    collect(store.backend, delete=True)
    assert [store.has(name) for name in names] == [False, False]


@pytest.mark.parametrize("broken", ["commit", "manifest", "lost manifest", "shard"])
def test_nothing_goes_while_what_is_needed_cannot_be_told(store, broken):
    made = store.result("a")
    store.shard("b")
    orphan = store.blob("orphan")
    store.age(GRACE_S + 60)
    name = {
        "commit": commit_name(key_of("a")),
        "shard": f"{shard_prefix(key_of('b'), 'r-1')}1/a/i0",
    }.get(broken, manifest_name(made.manifest))
    path = store.backend.root / name
    path.unlink() if broken.startswith("lost") else path.write_bytes(b"{")
    with pytest.raises(Damaged, match="`runonce verify` takes it out first"):
        collect(store.backend, delete=True)
    assert store.has(blob_name(orphan))


def test_a_record_of_a_later_release_stops_a_collection(store):
    """Its digests may be written in a way that this release does not see."""
    store.backend.put(f"{shard_prefix(key_of('a'), 'r')}1/a/i0", canonical({"format": 2, "kind": "shard"}))
    orphan = store.blob("orphan")
    store.age(GRACE_S + 60)
    with pytest.raises(NewerFormat, match="has format 2"):
        collect(store.backend, delete=True)
    assert store.has(blob_name(orphan))


def test_what_people_opened_stays_until_the_result_is_removed(store):
    made = store.result("a")
    shown = link_results(store.backend, "mine", made)
    renamed = link_results(store.backend, "other", made)
    collect(store.backend, EVERYTHING, delete=True)
    assert (shown / "weights").read_text() == "weights of a"
    remove(store.backend, *probe(store.backend, key_of("a")))
    assert not shown.exists()
    assert not renamed.exists()


def test_folders_that_someone_died_making_go_after_a_day(store):
    store.result("a")
    old, young = (store.backend.root / "results" / name for name in (".old", ".young"))
    for path in (old, young):
        path.mkdir(parents=True)
    os.utime(old, (time.time() - 2 * DAY_S,) * 2)
    collect(store.backend, delete=True)
    assert (old.exists(), young.exists()) == (False, True)


def test_any_backend_is_collected(backend, tmp_path):
    """Without a hand on its clock: everything counts as old, as where nobody writes."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "weights").write_text("kept")
    shard = Shard(cache_key=key_of("a"), mode="train", round="r", total=1, attempt="a", index=0, files=())
    publish_shard(backend, tmp_path / "out", shard)
    shards = complete_attempt(backend, key_of("a"), "r")
    commit(
        backend, shards, name="mine", parts={}, params={}, inputs={}, tokens=(), replaces="", missing=(), nonce="n",
        created=1,
    )  # fmt: skip
    (tmp_path / "out" / "weights").write_text("orphan")
    (orphan,) = store_files(backend, tmp_path / "out")
    assert collect(backend, EVERYTHING, delete=False).counts["blobs"] == len(orphan.blobs)
    assert collect(backend, EVERYTHING, delete=True).counts["blobs"] == len(orphan.blobs)
    restore(backend, read_manifest(backend, probe(backend, key_of("a"))[0].manifest), tmp_path / "in")
    assert (tmp_path / "in" / "weights").read_text() == "kept"
    assert all(backend.stat(blob_name(blob)) is None for blob in orphan.blobs)
    remove(backend, *probe(backend, key_of("a")))
    collect(backend, EVERYTHING, delete=True)
    assert [entry.name for prefix in "bmcwdft" for entry in backend.list(f"{prefix}/")] == []


def test_a_tombstone_of_a_damaged_manifest_stops_nothing(store):
    made = store.result("a")
    (store.backend.root / manifest_name(made.manifest)).write_bytes(b"{")
    remove(store.backend, *probe(store.backend, key_of("a")))
    assert store.has(removed_name(key_of("a"), made.manifest))
    collect(store.backend, delete=True)
