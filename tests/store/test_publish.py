"""From a process's folder to a result and back: publish, commit, restore, results."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest

from runonce.errors import Damaged, InputError, NewerFormat
from runonce.experiment.manifest import Shard
from runonce.store.backend import blob_name, commit_name, lease_name, manifest_name, shard_name, source_name
from runonce.store.commit import DamagedCommit, commit, complete_attempt, newest_round, probe
from runonce.store.earlier import nearest_earlier
from runonce.store.find import find_commit
from runonce.store.publish import publish_shard, republish
from runonce.store.restore import read_manifest, restore
from runonce.store.results import link_results

KEY = "ab" * 32
PARTS = {"mode": "train", "params": "p", "seed": 0}


def shard(index: int = 0, **changes) -> Shard:
    given = {
        "cache_key": KEY, "mode": "train", "round": "r-1", "total": 1, "attempt": "a1", "index": index, "files": (),
    }  # fmt: skip
    return Shard(**(given | changes))


def fill(folder, **files: str):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def write_commit(backend, shards, *, name="mine", nonce="n", **changes):
    given = {
        "parts": PARTS, "params": {"lr": 0.1}, "inputs": {}, "tokens": (), "replaces": "", "missing": (), "created": 1,
    }  # fmt: skip
    return commit(backend, shards, name=name, nonce=nonce, **(given | changes))


def make_result(backend, folder, **changes):
    published = publish_shard(backend, folder, shard(metrics={"loss": (1.5, 3)}))
    return write_commit(backend, [published], **changes)


def test_what_was_published_and_committed_is_restored(backend, tmp_path):
    out = fill(tmp_path / "out", a="1", sub__b="2", empty="")
    record = make_result(backend, out)
    assert (record.files, record.size, record.metrics) == (3, 2, {"loss": 0.5})
    assert probe(backend, KEY)[0] == record
    restore(backend, read_manifest(backend, record.manifest), tmp_path / "in")
    assert (tmp_path / "in" / "sub" / "b").read_text() == "2"
    assert sorted(path.name for path in (tmp_path / "in").rglob("*") if path.is_file()) == ["a", "b", "empty"]


@pytest.mark.parametrize(
    "name", ["metrics_metadata", "i0", "manifest.json", "c/ab", "m/ab/x", "runonce-store.json", "train_big_model"]
)
def test_no_name_of_a_file_meets_a_record_of_the_store(backend, tmp_path, name):
    """The source joins names by `_`: an output `x_metadata` is the record of `x`, and two stages share a file."""
    other = "cd" * 32
    for key, folder in ((KEY, "one"), (other, "two")):
        published = publish_shard(
            backend, fill(tmp_path / folder, **{name: folder, "metrics": "1"}), shard(cache_key=key)
        )
        write_commit(backend, [published])
    for key, text in ((KEY, "one"), (other, "two")):
        record = probe(backend, key)[0]
        restore(backend, read_manifest(backend, record.manifest), tmp_path / f"in-{text}")
        assert (tmp_path / f"in-{text}" / name).read_text() == text
        assert record.files == 2


@pytest.mark.parametrize("names", [(commit_name, lease_name), (manifest_name, blob_name), (blob_name, source_name)])
def test_records_of_one_key_or_digest_have_names_of_their_own(names):
    first, second = (name(KEY) for name in names)
    assert first != second
    assert not first.startswith(second)
    assert not second.startswith(first)


def test_nothing_is_a_result_before_its_commit(backend, tmp_path):
    publish_shard(backend, fill(tmp_path / "out", a="1"), shard())
    assert probe(backend, KEY) is None


def test_the_files_of_other_processes_lie_in_their_own_folders(backend, tmp_path):
    for index in (0, 1):
        publish_shard(backend, fill(tmp_path / f"{index}", a=f"{index}"), shard(index, total=2))
    record = write_commit(backend, complete_attempt(backend, KEY, "r-1"))
    restore(backend, read_manifest(backend, record.manifest), tmp_path / "in")
    assert (tmp_path / "in" / "a").read_text() == "0"
    assert (tmp_path / "in" / "shard-1" / "a").read_text() == "1"


@pytest.mark.parametrize("name", ["shard-1/x", "shard-0", "a\nb", "a\\b"])
def test_a_name_that_cannot_be_an_artifact_is_refused_and_nothing_is_published(backend, tmp_path, name):
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).write_text("")
    with pytest.raises(InputError, match="cannot be an artifact"):
        publish_shard(backend, tmp_path / "out", shard())
    assert list(backend.list("w/")) == []


def test_a_link_counts_as_its_file_and_other_things_are_refused(backend, tmp_path):
    out = fill(tmp_path / "out", a="1")
    (out / "latest").symlink_to("a")
    assert [file.path for file in publish_shard(backend, out, shard()).files] == ["a", "latest"]
    (out / "dangling").symlink_to("nowhere")
    os.mkfifo(out / "pipe")
    with pytest.raises(InputError) as caught:
        publish_shard(backend, out, shard(attempt="a2"))
    assert [fault.path for fault in caught.value.faults] == ["dangling", "pipe"]


def test_the_first_success_of_an_index_wins(backend, tmp_path):
    publish_shard(backend, fill(tmp_path / "one", a="1"), shard())
    publish_shard(backend, fill(tmp_path / "two", a="2"), shard())
    (found,) = complete_attempt(backend, KEY, "r-1")
    assert found.files[0].sha256 == publish_shard(backend, tmp_path / "one", shard(attempt="x")).files[0].sha256


def test_an_attempt_counts_only_when_it_is_whole_and_attempts_never_mix(backend, tmp_path):
    out = fill(tmp_path / "out", a="1")
    publish_shard(backend, out, shard(0, total=2))
    publish_shard(backend, out, shard(1, total=2, attempt="a2"))
    publish_shard(backend, out, shard(1, total=3))
    assert complete_attempt(backend, KEY, "r-1") is None
    publish_shard(backend, out, shard(1, total=2))
    found = complete_attempt(backend, KEY, "r-1")
    assert [(one.index, one.total, one.attempt) for one in found] == [(0, 2, "a1"), (1, 2, "a1")]
    assert complete_attempt(backend, KEY, "r-1", attempt="a2") is None
    assert complete_attempt(backend, KEY, "r-2") is None


def test_an_index_takes_over_what_an_earlier_attempt_of_its_round_published(backend, tmp_path):
    publish_shard(backend, fill(tmp_path / "out", a="1"), shard(1, total=2))
    assert republish(backend, shard(1, total=2, attempt="a2"))
    assert backend.get(shard_name(KEY, "r-1", 2, "a2", 1)) is not None
    assert not republish(backend, shard(0, total=2, attempt="a2"))
    assert not republish(backend, shard(1, total=3, attempt="a2"))
    assert not republish(backend, shard(1, total=2, attempt="a2", round="r-2"))


def test_an_index_whose_files_are_gone_is_not_taken_over(backend, tmp_path):
    published = publish_shard(backend, fill(tmp_path / "out", a="1"), shard())
    backend.delete(blob_name(published.files[0].sha256))
    assert not republish(backend, shard(attempt="a2"))


def test_the_round_that_goes_on_is_the_newest_of_the_same_inputs_that_is_not_committed(backend, tmp_path):
    out = fill(tmp_path / "out", a="1")
    for round_ in ("r-1", "r-2", "s-1"):
        publish_shard(backend, out, shard(round=round_))
    assert newest_round(backend, KEY, prefix="r-") in ("r-1", "r-2")
    assert newest_round(backend, KEY, prefix="r-", than="r-2") == "r-1"
    assert newest_round(backend, KEY, prefix="t-") is None
    assert newest_round(backend, "cd" * 32, prefix="r-") is None


# --- the commit record ---


def test_a_second_commit_adopts_the_first(backend, tmp_path):
    first = make_result(backend, fill(tmp_path / "out", a="1"), nonce="one")
    again = make_result(backend, tmp_path / "out", nonce="two")
    assert again == first


def test_a_commit_whose_answer_was_lost_finds_its_own_nonce(backend, tmp_path):
    first = make_result(backend, fill(tmp_path / "out", a="1"), nonce="one")
    assert make_result(backend, tmp_path / "out", nonce="one") == first


def test_a_commit_replaces_the_one_that_was_seen_and_no_other(backend, tmp_path):
    make_result(backend, fill(tmp_path / "out", a="1"), nonce="one")
    etag = probe(backend, KEY)[1]
    second = make_result(backend, tmp_path / "out", nonce="two", replaces=etag)
    assert probe(backend, KEY)[0].nonce == second.nonce == "two"
    assert make_result(backend, tmp_path / "out", nonce="three", replaces=etag).nonce == "two"


def test_a_commit_that_was_to_be_replaced_and_is_gone_is_written(backend, tmp_path):
    make_result(backend, fill(tmp_path / "out", a="1"), nonce="one")
    etag = probe(backend, KEY)[1]
    backend.delete(commit_name(KEY))
    assert make_result(backend, tmp_path / "out", nonce="two", replaces=etag).nonce == "two"
    assert probe(backend, KEY)[0].nonce == "two"


def test_of_eight_who_commit_one_is_adopted_by_all(backend, tmp_path):
    out = fill(tmp_path / "out", a="1")
    publish_shard(backend, out, shard())
    found = complete_attempt(backend, KEY, "r-1")
    results, barrier = [], threading.Barrier(8)

    def contend(nonce: str) -> None:
        barrier.wait()
        results.append(write_commit(backend, found, nonce=nonce))

    threads = [threading.Thread(target=contend, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({record.nonce for record in results}) == 1
    assert probe(backend, KEY)[0].nonce == results[0].nonce


def test_an_incomplete_set_cannot_be_committed(backend):
    with pytest.raises(ValueError, match="no complete set"):
        write_commit(backend, [shard(0, total=2)])


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format":1,"kind":"commit"}', b'{"format":1,"kind":"shard"}'])
def test_a_damaged_commit_is_no_hit_and_no_clean_miss_and_can_be_replaced(backend, tmp_path, data):
    etag = backend.put(commit_name(KEY), data)
    with pytest.raises(DamagedCommit) as caught:
        probe(backend, KEY)
    assert caught.value.etag == etag
    assert make_result(backend, fill(tmp_path / "out", a="1"), replaces=etag).nonce == "n"


def test_a_commit_of_another_key_is_damage(backend, tmp_path):
    make_result(backend, fill(tmp_path / "out", a="1"))
    backend.put(commit_name("cd" * 32), backend.get(commit_name(KEY))[0])
    with pytest.raises(DamagedCommit, match="of another key"):
        probe(backend, "cd" * 32)


def test_a_newer_format_is_refused_by_name_and_never_a_miss(backend):
    backend.put(commit_name(KEY), b'{"format":2,"kind":"commit"}')
    with pytest.raises(NewerFormat, match="of format 2; this release reads formats up to 1"):
        probe(backend, KEY)


# --- damage ---


def test_a_manifest_that_is_lost_cut_or_changed_is_refused(backend, tmp_path):
    record = make_result(backend, fill(tmp_path / "out", a="1"))
    name = manifest_name(record.manifest)
    whole = backend.get(name)[0]
    for data in (whole[:-1], whole.replace(b'"lr":0.1', b'"lr":0.2')):
        backend.put(name, data)
        with pytest.raises(Damaged, match=record.manifest):
            read_manifest(backend, record.manifest)
    backend.delete(name)
    with pytest.raises(Damaged, match="is lost from"):
        read_manifest(backend, record.manifest)


@pytest.mark.parametrize("damage", [b"1x345", b"123", b"", None], ids=["flip", "cut", "empty", "lose"])
def test_a_damaged_blob_is_refused_by_restore(backend, tmp_path, spoil, damage):
    record = make_result(backend, fill(tmp_path / "out", a="12345"))
    manifest = read_manifest(backend, record.manifest)
    spoil(blob_name(manifest.files[0].sha256), damage)
    with pytest.raises(Damaged):
        restore(backend, manifest, tmp_path / "in")
    assert list((tmp_path / "in").iterdir()) == []


def test_a_manifest_cannot_lead_out_of_the_folder(backend, tmp_path):
    record = make_result(backend, fill(tmp_path / "out", a="1"))
    manifest = read_manifest(backend, record.manifest)
    evil = replace(manifest, files=(replace(manifest.files[0], path="../evil"),))
    with pytest.raises(Damaged, match=r"lists the file '\.\./evil'"):
        restore(backend, evil, tmp_path / "in")
    assert not (tmp_path / "evil").exists()


# --- what people see ---


def test_results_are_links_made_once_and_renewed_with_the_result(folder, tmp_path):
    record = make_result(folder, fill(tmp_path / "out", a="1", sub__b="2"))
    shown = link_results(folder, "mine", record)
    assert shown.name == f"mine-train-{KEY[:12]}"
    assert (shown / "a").stat().st_ino == (folder.root / blob_name(_sha(folder, record, "a"))).stat().st_ino
    inode = shown.stat().st_ino
    assert link_results(folder, "mine", record).stat().st_ino == inode
    second = write_commit(
        folder, [publish_shard(folder, fill(tmp_path / "new", a="3"), shard(attempt="a2"))],
        nonce="two", replaces=probe(folder, KEY)[1],
    )  # fmt: skip
    assert (link_results(folder, "mine", second) / "a").read_text() == "3"
    assert [path.name for path in shown.parent.iterdir()] == [shown.name]


def _sha(backend, record, path):
    return next(file.sha256 for file in read_manifest(backend, record.manifest).files if file.path == path)


def test_a_result_is_found_by_the_first_digits_of_its_key(backend, tmp_path):
    make_result(backend, fill(tmp_path / "out", a="1"))
    assert find_commit(backend, KEY[:6]).cache_key == KEY
    with pytest.raises(InputError, match="no result in"):
        find_commit(backend, "abcd")
    other = publish_shard(backend, tmp_path / "out", shard(cache_key="ab" * 31 + "00"))
    write_commit(backend, [other])
    with pytest.raises(InputError, match="begins 2 keys"):
        find_commit(backend, "abab")


def test_the_nearest_earlier_result_is_the_one_that_differs_least(backend, tmp_path):
    out = fill(tmp_path / "out", a="1")
    for digit, params in (("1", {"lr": 0.1, "n": 1}), ("2", {"lr": 0.2, "n": 2})):
        one = publish_shard(backend, out, shard(cache_key=digit * 64))
        write_commit(backend, [one], name="mine-00000000", params=params, parts=PARTS | {"params": digit})
    found = nearest_earlier(backend, "mine-11111111", PARTS | {"params": "3"}, {"lr": 0.2, "n": 3}, cache_key="3" * 64)
    assert found.cache_key == "2" * 64
    assert [(d.path, d.first, d.second) for d in found.found] == [("/params/n", 2, 3)]
    assert nearest_earlier(backend, "yours", PARTS, {}, cache_key=KEY) is None


@pytest.mark.parametrize("how", ["cut", "flipped", "lost"])
def test_a_damaged_shard_counts_as_missing_and_is_published_anew(backend, spoil, tmp_path, how):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("x")
    shards = [
        Shard(cache_key="ab" * 32, mode="train", round="r", total=2, attempt="a", index=index, files=())
        for index in (0, 1)
    ]
    for shard in shards:
        publish_shard(backend, tmp_path / "out", shard)
    name = shard_name("ab" * 32, "r", 2, "a", 1)
    data = backend.get(name)[0]
    spoil(name, {"cut": data[:-1], "flipped": b"[" + data[1:], "lost": None}[how])
    assert complete_attempt(backend, "ab" * 32, "r") is None
    assert republish(backend, replace(shards[0], attempt="b"))
    assert not republish(backend, replace(shards[1], attempt="b"))
    publish_shard(backend, tmp_path / "out", shards[1])
    assert [shard.index for shard in complete_attempt(backend, "ab" * 32, "r")] == [0, 1]


def test_a_shard_of_a_later_release_is_not_taken_for_a_missing_one(backend):
    backend.put(shard_name("ab" * 32, "r", 1, "a", 0), b'{"format":2,"kind":"shard"}')
    with pytest.raises(NewerFormat, match="reads formats up to 1"):
        complete_attempt(backend, "ab" * 32, "r")
