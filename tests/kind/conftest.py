"""One cluster for the whole session, whatever the number of its processes; a namespace for each test.

RUNONCE_KIND_CLUSTER names a cluster that is made where it is not there, and stays.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster, Missing, programs
from story import Story

FOLDER, NAME = "RUNONCE_KIND_FOLDER", "RUNONCE_KIND_NAME"  # to the processes of xdist
KEPT = os.environ.get("RUNONCE_KIND_CLUSTER")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before xdist starts its processes. Who says `make kind` wants the tests to run: what is missing is an error."""
    wanted = os.environ.get("RUNONCE_KIND") and not session.config.option.collectonly
    if not wanted:
        return
    # A time limit of whoever started this ends all processes of it; their clusters are to go too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if hasattr(session.config, "workerinput"):
        return
    began = time.monotonic()
    os.environ[FOLDER] = tempfile.mkdtemp(prefix="runonce-kind-")
    os.environ[NAME] = KEPT or f"runonce-{os.getpid()}"
    try:
        made = _cluster()
        made.create()
        made.load()
        made.install()
    except Missing as error:
        _end()
        pytest.exit(str(error), returncode=1)
    except BaseException:
        _end()
        raise
    print(f"cluster {made.name}: ready after {time.monotonic() - began:.0f} s")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if FOLDER in os.environ and not hasattr(session.config, "workerinput"):
        _end()


def _cluster() -> Cluster:
    return Cluster(programs(), os.environ[NAME], Path(os.environ[FOLDER]))


def _end() -> None:
    folder = os.environ[FOLDER]
    try:
        if not KEPT:
            _cluster().delete()
    except Missing:
        pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ[FOLDER]


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    if FOLDER not in os.environ:
        pytest.skip("a cluster takes minutes and most of a machine; make kind runs its tests")
    return _cluster()


@pytest.fixture
def story(cluster: Cluster, request: pytest.FixtureRequest):
    claim, _, case = request.node.name.removeprefix("test_").partition("[")
    name = f"{claim.replace('_', '-')[:40].strip('-')}{case and '-'}{case.strip(']')}"
    cluster.namespace(name)
    yield Story(cluster, name)
    if KEPT:  # else all goes with the cluster
        cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)
