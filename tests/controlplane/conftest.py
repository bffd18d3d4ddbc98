"""A control plane for each process that runs tests of this folder, a namespace for each test, and users of both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from control_plane import Api, ControlPlane
from kubelet import Kubelet
from node import Node
from place import Place, grant
from programs import ProgramsMissing, find


@pytest.fixture(scope="session")
def programs():
    try:
        return find()
    except ProgramsMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def control_plane(programs) -> Iterator[ControlPlane]:
    """Shared by the tests of one process, which leave it as they found it; they work in `namespace`."""
    with ControlPlane(programs) as plane:
        yield plane


@pytest.fixture
def own_control_plane(programs) -> Iterator[ControlPlane]:
    """For a test that kills, stops or restores a part of it."""
    with ControlPlane(programs) as plane:
        yield plane


@pytest.fixture
def api(control_plane) -> Api:
    return control_plane.api()


@pytest.fixture
def namespace(control_plane) -> Iterator[str]:
    with control_plane.namespace() as name:
        yield name


@pytest.fixture
def kubelet(api) -> Kubelet:
    return Kubelet(api)


@pytest.fixture
def node(control_plane, tmp_path) -> Iterator[Node]:
    """Runs pods of the image `here` as processes in tmp_path, while it is `playing`."""
    with Node(control_plane, {"here": tmp_path}, tmp_path / "node") as made:
        yield made


@pytest.fixture
def place(control_plane, namespace, kubelet, tmp_path) -> Iterator[Place]:
    """A namespace with a store, for controllers that a test starts; they are stopped at its end."""
    grant(control_plane)
    folder = tmp_path / "store"
    folder.mkdir()
    made = Place(control_plane, namespace, folder, kubelet)
    try:
        yield made
    finally:
        made.stop()
