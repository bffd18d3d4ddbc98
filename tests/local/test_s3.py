"""A store in S3 as people have it who share one: each a folder and a home of their own."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runonce.store.backend import blob_name
from runonce.store.url import open_store

FILE = (Path(__file__).parents[1] / "samples" / "tiny.yaml").read_text()
SCRIPT = """set -e
if [ -n "${RUNONCE_INPUT_TRAIN:-}" ]; then cp "$RUNONCE_INPUT_TRAIN/weights.json" "$RUNONCE_OUTPUT/seen.json"; exit 0; fi
mkdir "$RUNONCE_OUTPUT/sub"
cp "$RUNONCE_PARAMS" "$RUNONCE_OUTPUT/weights.json"
head -c 3000000 /dev/zero > "$RUNONCE_OUTPUT/sub/large"
"""


@pytest.fixture
def url(weed) -> str:
    return weed.url(f"t/{uuid.uuid4().hex}")


@pytest.fixture
def people(tmp_path, place) -> Callable[[str], Any]:
    """One more of those who share a store."""

    def another(name: str) -> Any:
        made = type(place)(tmp_path / name / "work", tmp_path / name / "home")
        made.folder.mkdir(parents=True)
        made.write("tiny.yaml", FILE)
        made.write("run.sh", SCRIPT)
        return made

    return another


def hits(done) -> list[bool]:
    assert done.code == 0, done.err
    return [mode["cacheHit"] for mode in done.json["modes"].values()]


def test_what_one_has_run_is_a_hit_to_another_and_is_taken_out_listed_explained_and_collected(people, url, weed):
    ann, bob = people("ann"), people("bob")
    assert hits(ann.runonce("run", "tiny.yaml", "--store", url, "-o", "json")) == [False, False]
    done = bob.runonce("run", "tiny.yaml", "--store", url, "-o", "json")
    assert hits(done) == [True, True]
    assert not (bob.home / "jobs").exists()  # no process was started
    key = done.json["modes"]["train"]["cacheKey"]

    shared = {"RUNONCE_STORE": url}
    listed = bob.runonce("ls", "-o", "json", **shared).json
    assert {one["mode"] for one in listed} == {"train", "test"}
    assert bob.runonce("pull", "tiny", "--mode", "test", **shared).code == 0
    assert (bob.folder / f"tiny-test-{done.json['modes']['test']['cacheKey'][:12]}" / "seen.json").exists()

    bob.write("other.yaml", FILE.replace("0.1", "0.2"))
    explained = bob.runonce("explain", "other.yaml", "-o", "json", **shared).json["modes"]["train"]
    assert explained["cacheKeys"][1] == key
    assert [difference["path"] for difference in explained["differences"]] == ["/params/lr"]

    assert bob.runonce("verify", **shared).out == "nothing is damaged\n"
    assert bob.runonce("gc", "-o", "json", **shared).json == {"deleted": False, "freed": 0, "kinds": {}, "results": []}
    assert bob.runonce("rm", key, "--yes", **shared).code == 0
    gone = bob.runonce("gc", "--delete", "--no-writers", "-o", "json", **shared).json
    assert gone["kinds"]["blobs"]["count"] >= 1
    assert [one["mode"] for one in bob.runonce("ls", "-o", "json", **shared).json] == ["test"]
    assert bob.runonce("verify", **shared).code == 0


def test_a_result_is_exported_as_files_and_objects_that_others_read(people, url, weed, tmp_path):
    ann = people("ann")
    shared = {"RUNONCE_STORE": url}
    assert ann.runonce("run", "tiny.yaml", "--mode", "train", **shared).code == 0
    assert ann.runonce("export", "tiny", "out", **shared).code == 0
    plain = f"t/{uuid.uuid4().hex}"
    place = f"s3://records/{plain}?endpoint={weed.endpoint}"
    done = ann.runonce("export", "tiny", place, **shared)
    assert done.code == 0, done.err
    assert done.out.endswith("2 files, 3 MB\n")
    client = weed.client()
    names = [entry["Key"] for entry in client.list_objects_v2(Bucket="records", Prefix=plain)["Contents"]]
    assert sorted(names) == [f"{plain}/files/sub/large", f"{plain}/files/weights.json", f"{plain}/runonce.json"]
    for name in names:
        data = client.get_object(Bucket="records", Key=name)["Body"].read()
        assert data == (ann.folder / "out" / name.removeprefix(f"{plain}/")).read_bytes()
    assert json.loads((ann.folder / "out" / "runonce.json").read_text())["params"] == {"lr": 0.1}
    for to, what in (("out", "has files in it"), (place, "has objects in it")):
        refused = ann.runonce("export", "tiny", to, **shared)
        assert refused.code == 2
        assert what in refused.err
    client.close()


def spoil(weed, url: str, data: bytes) -> None:
    weed.flip(*open_store(url)._location.place(blob_name(hashlib.sha256(data).hexdigest())))


@pytest.mark.parametrize("versioned", [True, False])
def test_bytes_that_were_flipped_in_the_store_are_found_by_who_reads_them_and_made_anew(people, weed, versioned):
    """The same bytes are made again, and their names are taken by the damaged ones."""
    url = weed.url(f"t/{uuid.uuid4().hex}", versioned=versioned)
    ann = people("ann")
    assert ann.runonce("run", "tiny.yaml", "--mode", "train", "--store", url).code == 0
    weights = json.dumps({"lr": 0.1}).encode()
    spoil(weed, url, weights)
    done = ann.runonce("run", "tiny.yaml", "--store", url, "-o", "json")
    assert done.code == 0, done.err
    assert "the result of train is damaged and is made anew" in done.err
    assert hits(done) == [False, False]
    assert ann.runonce("verify", "--store", url).code == 0
    assert hits(ann.runonce("run", "tiny.yaml", "--store", url, "-o", "json")) == [True, True]


def test_verify_takes_damage_out_and_the_next_run_heals_it(people, weed, url):
    ann = people("ann")
    assert ann.runonce("run", "tiny.yaml", "--store", url).code == 0
    spoil(weed, url, json.dumps({"lr": 0.1}).encode())
    assert ann.runonce("pull", "tiny", "--mode", "train", "--store", url).code == 1
    found = ann.runonce("verify", "--store", url)
    assert found.code == 1
    assert "now a miss" in found.out
    assert False in hits(ann.runonce("run", "tiny.yaml", "--store", url, "-o", "json"))
    assert ann.runonce("verify", "--store", url).out == "nothing is damaged\n"


def test_who_asks_for_signatures_is_served_none_but_signed_results(people, url, tmp_path):
    ann, bob = people("ann"), people("bob")
    (tmp_path / "keys").write_text(f"one {'6e' * 32}")
    (tmp_path / "others").write_text(f"two {'6f' * 32}")
    signed = {"RUNONCE_STORE": url, "RUNONCE_SIGNING_KEY_FILE": str(tmp_path / "keys"), "RUNONCE_REQUIRE_SIGNED": "1"}
    others = signed | {"RUNONCE_SIGNING_KEY_FILE": str(tmp_path / "others")}
    assert hits(bob.runonce("run", "tiny.yaml", "-o", "json", RUNONCE_STORE=url)) == [False, False]
    assert bob.runonce("ls", **signed).out == "" or "is not signed" in bob.runonce("ls", **signed).err
    done = ann.runonce("run", "tiny.yaml", "-o", "json", "--overwrite", **signed)
    assert hits(done) == [False, False]
    assert "is not signed: it is no result" in done.err
    assert hits(bob.runonce("run", "tiny.yaml", "-o", "json", **signed)) == [True, True]
    assert hits(bob.runonce("run", "tiny.yaml", "-o", "json", RUNONCE_STORE=url)) == [True, True]
    assert "key that is not known here" in bob.runonce("ls", **others).err
    (tmp_path / "keys").write_text(f"two {'6f' * 32}\none {'6e' * 32}")
    assert ann.runonce("store", "sign", **signed).out == "2 signed\n"
    assert hits(bob.runonce("run", "tiny.yaml", "-o", "json", **others)) == [True, True]
    for text in (f"two {'6f' * 32}", "6f6f"):
        assert text not in done.out + done.err
    without = ann.runonce("store", "sign", RUNONCE_STORE=url)
    assert (without.code, "no key to sign by" in without.err) == (2, True)


def test_a_secret_is_in_no_answer_and_no_error(people, url, tmp_path, weed):
    ann = people("ann")
    secret = {"AWS_SECRET_ACCESS_KEY": "topsecretsecret", "AWS_SESSION_TOKEN": "topsecrettoken"}
    for command in (["run", "tiny.yaml", "-o", "json"], ["ls"], ["verify"], ["gc"], ["store", "check"], ["pull", "x"]):
        done = ann.runonce(*command, RUNONCE_STORE=url, **secret)
        assert done.code == 1, done.out
        assert "Traceback" not in done.err
        assert "topsecret" not in done.out + done.err
        assert "credentials" in done.err
    for path in Path(ann.home).rglob("*"):
        assert not path.is_file() or b"topsecret" not in path.read_bytes(), path
