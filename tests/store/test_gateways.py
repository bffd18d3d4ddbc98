"""Two gateways before one store, as behind a load balancer: what one answers holds at the other."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from runonce.experiment.manifest import Shard
from runonce.store.commit import commit, complete_attempt, probe
from runonce.store.lease import Leases
from runonce.store.publish import publish_shard
from runonce.store.restore import read_manifest, restore
from runonce.store.url import open_store

WRITERS, ROUNDS = 8, 3


@pytest.fixture
def doors(weed):
    """URLs of one store by two gateways."""
    url = weed.url(f"t/{uuid.uuid4().hex}")
    with weed.another_gateway() as port:
        yield url, url.replace(f":{weed.port}", f":{port}")


def test_what_was_published_through_one_is_committed_and_restored_through_the_other(doors, tmp_path):
    first, second = map(open_store, doors)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_bytes(b"x" * 2_000_000)
    shard = Shard(cache_key="ab" * 32, mode="train", round="r", total=1, attempt="a", index=0, files=())
    publish_shard(first, tmp_path / "out", shard)
    commit(
        second, complete_attempt(second, shard.cache_key, "r"), name="mine", parts={}, params={}, inputs={}, tokens=(),
        replaces="", missing=(), nonce="n", created=1,
    )  # fmt: skip
    restore(first, read_manifest(first, probe(first, shard.cache_key)[0].manifest), tmp_path / "in")
    assert (tmp_path / "in" / "a").read_bytes() == b"x" * 2_000_000


def test_of_eight_who_commit_through_two_gateways_one_is_adopted_by_all(doors):
    backends = [open_store(doors[number % 2]) for number in range(WRITERS)]
    for round_ in range(ROUNDS):
        key = f"{round_:064x}"
        shard = Shard(cache_key=key, mode="train", round="r", total=1, attempt="a", index=0, files=())
        gate = threading.Barrier(WRITERS)

        def write(number: int, shard=shard, gate=gate) -> str:
            gate.wait()
            return commit(
                backends[number], [shard], name="mine", parts={}, params={}, inputs={}, tokens=(), replaces="",
                missing=(), nonce=f"{number}", created=number,
            ).nonce  # fmt: skip

        with ThreadPoolExecutor(WRITERS) as pool:
            adopted = set(pool.map(write, range(WRITERS)))
        assert adopted == {probe(backends[0], key)[0].nonce} == {probe(backends[1], key)[0].nonce}


def test_a_lease_is_held_by_one_whatever_the_gateway(doors):
    leases = [Leases(open_store(url), f"at {number}", ttl_s=1000) for number, url in enumerate(doors)]
    with ThreadPoolExecutor(2) as pool:
        held = list(pool.map(lambda one: one.hold("ab" * 32), leases))
    assert held.count(None) == 1
    for one in leases:
        one.close()
