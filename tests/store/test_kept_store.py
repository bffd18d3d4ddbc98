"""The kept store of format 1: every later release lists it, hits in it, verifies and restores it. Never made anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from runonce.errors import NewerFormat
from runonce.store.commit import complete_attempt, newest_round, probe
from runonce.store.earlier import nearest_earlier
from runonce.store.find import find_commit
from runonce.store.folder import FolderBackend
from runonce.store.publish import republish
from runonce.store.restore import read_manifest, restore
from runonce.store.results import link_results

KEPT = Path(__file__).parents[1] / "samples" / "stores" / "v1"
TRAIN, TEST = (
    next(path.name for path in (KEPT / "c").glob("*/*") if json.loads(path.read_bytes())["mode"] == mode)
    for mode in ("train", "test")
)


@pytest.fixture
def kept(tmp_path):
    shutil.copytree(KEPT, tmp_path / "store")
    return FolderBackend(tmp_path / "store")


def test_its_results_are_listed_and_hit(kept):
    assert sorted(entry.name.rpartition("/")[2] for entry in kept.list("c/")) == sorted((TRAIN, TEST))
    train, test = probe(kept, TRAIN)[0], probe(kept, TEST)[0]
    assert (train.name, train.total, train.files, train.tokens, train.missing) == (
        "kept",
        2,
        6,
        ("token",),
        ("layers",),
    )
    assert (train.metrics, test.metrics) == ({"loss": 0.5}, {"score": 0.5})
    assert dict(test.inputs) == {"train": train.manifest}
    assert find_commit(kept, TRAIN[:8]) == train


def test_its_results_are_restored_and_shown(kept, tmp_path):
    commit = probe(kept, TRAIN)[0]
    restore(kept, read_manifest(kept, commit.manifest), tmp_path / "in")
    assert (tmp_path / "in" / "weights.json").read_text() == "[0.5]"
    assert (tmp_path / "in" / "shard-1" / "sub" / "ä b.txt").read_text() == "text\n"
    assert (link_results(kept, "kept", commit) / "shard-1" / "weights.json").read_text() == "[1.5]"


def test_its_key_parts_and_facts_are_read(kept):
    manifest = read_manifest(kept, probe(kept, TRAIN)[0].manifest)
    assert manifest.parts["entry"] == "kept:Kept"
    assert manifest.params == {"lr": 0.1, "layers": [1, 2], "name é": {"$tuple": [1]}}
    assert manifest.facts[0]["versions"]["runonce"] == "0.1.0"
    found = nearest_earlier(kept, "kept", dict(manifest.parts), {"lr": 0.2}, cache_key="0" * 64)
    assert found.cache_key == TRAIN


def test_its_shards_are_taken_over(kept):
    round_ = newest_round(kept, TRAIN, prefix="0" * 12)
    shards = complete_attempt(kept, TRAIN, round_)
    assert [shard.index for shard in shards] == [0, 1]
    from dataclasses import replace

    assert republish(kept, replace(shards[1], attempt="later"))


def test_it_is_not_changed_by_those_who_read_it(kept):
    before = {path: path.read_bytes() for path in KEPT.rglob("*") if path.is_file()}
    probe(FolderBackend(KEPT), TRAIN)
    read_manifest(FolderBackend(KEPT), probe(FolderBackend(KEPT), TEST)[0].manifest)
    assert {path: path.read_bytes() for path in KEPT.rglob("*") if path.is_file()} == before


def test_a_newer_store_is_refused_by_name(kept):
    (kept.root / "runonce-store.json").write_text('{"format": 2, "kind": "store"}')
    with pytest.raises(NewerFormat, match="is a store of format 2"):
        probe(FolderBackend(kept.root), TRAIN)
