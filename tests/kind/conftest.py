"""One cluster a session; a namespace a test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster, Missing, programs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them in one process of xdist: there is one cluster."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("kind"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if not os.environ.get("RUNONCE_KIND"):
        pytest.skip("a cluster takes minutes and most of a machine; make kind runs its tests")
    try:
        made = Cluster(programs())
    except Missing as error:
        pytest.skip(str(error))
    try:
        made.create()
        made.load()
        made.install()
        yield made
    except Missing as error:
        pytest.skip(str(error))
    finally:
        made.delete()


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-")
    cluster.namespace(name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)
