"""The main job with its results in S3, as people share them: from two folders, two homes, one bucket."""

from __future__ import annotations

import uuid

import pytest

import runonce


@pytest.fixture
def url(weed) -> str:
    return weed.url(f"t/{uuid.uuid4().hex}")


@pytest.fixture
def second_place(tmp_path, place):
    """Another user's: the same code and file elsewhere, and nothing else in common."""
    other = type(place)(tmp_path / "elsewhere" / "work", tmp_path / "elsewhere" / "home")
    for name in ("tiny.py", "tiny.yaml"):
        other.write(name, (place.folder / name).read_text())
    return other


def test_what_one_ran_is_a_hit_for_another_and_a_miss_is_explained_from_the_store_alone(place, second_place, url):
    first = place.runonce("run", "tiny.yaml", "--store", url, "-o", "json")
    assert first.code == 0, first.err
    assert [mode["cacheHit"] for mode in first.json["modes"].values()] == [False, False]
    second = second_place.runonce("run", "tiny.yaml", "--store", url, "-o", "json")
    assert second.code == 0, second.err
    assert [mode["cacheHit"] for mode in second.json["modes"].values()] == [True, True]
    assert second.json["modes"]["test"]["metrics"] == {"score": 0.2}
    assert not (second_place.home / "jobs").exists()
    text = (second_place.folder / "tiny.yaml").read_text()
    second_place.write("tiny.yaml", text.replace("lr: 0.1", "lr: 0.3"))
    planned = second_place.runonce("plan", "tiny.yaml", "--store", url, "-o", "json")
    nearest = planned.json["modes"]["train"]["nearest"]
    assert nearest["cacheKey"] == first.json["modes"]["train"]["cacheKey"]
    assert [entry["path"] for entry in nearest["differences"]] == ["/params/lr"]


def test_a_file_that_was_restored_and_then_changed_is_restored_again(place, url, monkeypatch):
    assert place.runonce("run", "tiny.yaml", "--mode", "train", "--store", url).code == 0
    monkeypatch.setenv("RUNONCE_HOME", str(place.home))
    (train,) = runonce.results(name="tiny", store=url)
    weights = train.path("weights.json")
    before = weights.read_bytes()
    weights.write_bytes(b"X" + before[1:])
    assert train.path("weights.json").read_bytes() == before


def test_no_word_of_the_credentials_is_in_any_output_or_file(place, weed, url):
    from weed import KEY, SECRET

    done = [
        place.runonce("run", "tiny.yaml", "--store", url, "-o", "json"),
        place.runonce("run", "tiny.yaml", "--store", url),
        place.runonce("plan", "tiny.yaml", "--store", url),
        place.runonce("run", "tiny.yaml", "--store", url.replace("s3://records", "s3://absent")),
    ]
    assert [one.code for one in done] == [0, 0, 0, 1]
    written = [path.read_bytes() for path in place.home.rglob("*") if path.is_file()]
    client = weed.client()
    for bucket in ("records", "blobs"):
        keys = client.list_objects_v2(Bucket=bucket, Prefix=url.split("/", 3)[3].split("?")[0]).get("Contents", [])
        written += [client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read() for entry in keys]
    client.close()
    assert len(written) > 10
    for text in (*(one.out + one.err for one in done), *(data.decode(errors="replace") for data in written)):
        assert KEY not in text
        assert SECRET not in text


def test_a_store_that_cannot_be_reached_is_an_error_and_no_miss(place, url):
    done = place.runonce("run", "tiny.yaml", "--store", url.replace("s3://records", "s3://absent"))
    assert done.code == 1
    assert "the bucket does not exist" in done.err
    assert "Traceback" not in done.err
    assert not (place.home / "jobs").exists()
