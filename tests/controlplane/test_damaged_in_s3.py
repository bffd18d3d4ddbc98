"""Bytes that were flipped within S3, in a cluster: found by the pod that reads them, made anew by the controller."""

from __future__ import annotations

import json
import uuid

import pytest
from weed import KEY, SECRET

from runonce.kube.cluster import StoreAccess
from runonce.store.backend import blob_name
from runonce.store.commit import probe
from runonce.store.restore import read_manifest, restore
from runonce.store.verify import verify

WORK = """set -e
if [ -n "${RUNONCE_INPUT_TRAIN:-}" ]; then cp "$RUNONCE_INPUT_TRAIN/weights" "$RUNONCE_OUTPUT/seen"; exit 0; fi
cp "$RUNONCE_PARAMS" "$RUNONCE_OUTPUT/weights"
"""
ACCESS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.mark.parametrize("versioned", [True, False])
def test_a_damaged_result_in_s3_is_made_anew_by_real_workers_and_then_what_read_it(
    place, node, weed, tmp_path, versioned
):
    """The workers make the same bytes again, and the store says that it has them."""
    place.store = weed.url(f"t/{uuid.uuid4().hex}", versioned=versioned)
    place.cluster_changes["stores"] = {"default": StoreAccess(url=place.store, secret_name="store-access")}
    place.api.must(
        "POST",
        f"/api/v1/namespaces/{place.namespace}/secrets",
        {"metadata": {"name": "store-access"}, "stringData": ACCESS},
    )
    place.start()
    given = {"config": None, "command": ["sh", "-c", WORK], "image": "here", "retries": 0}
    block = {"nprocesses": 1}
    with node.playing(place.namespace, node.run_pod):
        place.apply("made", machineParams={"train": block}, **given)
        place.until("made", "Succeeded")
        (key,) = keys(place)
        (file,) = read_manifest(place.backend, probe(place.backend, key)[0].manifest).files
        weed.flip(*place.backend._location.place(blob_name(file.blobs[0])))
        assert [damage.cache_keys for damage in verify(place.backend)] == [[key]]
        place.apply("reader", machineParams={"train": block, "test": block}, **given)
        place.until("reader", "Succeeded")
    assert list(verify(place.backend)) == []
    assert len(keys(place)) == 2
    for one in keys(place):
        restore(place.backend, read_manifest(place.backend, probe(place.backend, one)[0].manifest), tmp_path / one)
    found = [path for path in tmp_path.glob("*/*") if path.name in ("weights", "seen")]
    assert sorted(path.name for path in found) == ["seen", "weights"]
    assert [json.loads(path.read_text()) for path in found] == [{"lr": 0.1}] * 2


def keys(place) -> list[str]:
    return [name.rpartition("/")[2] for name in place.commits()]
