"""Every backend under the same tests."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from proxy import Proxy
from stored import Store
from weed import Weed

from runonce.store.backend import Backend
from runonce.store.folder import FolderBackend
from runonce.store.location import parse_location
from runonce.store.url import open_store


@pytest.fixture(params=["folder", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of the test's own."""
    if request.param == "folder":
        return str(tmp_path / "store")
    return request.getfixturevalue("weed").url(f"t/{uuid.uuid4().hex}")


@pytest.fixture
def backend(store_url: str) -> Backend:
    return open_store(store_url)


@pytest.fixture
def proxy(weed: Weed) -> Iterator[Proxy]:
    """Between the test and the S3 server."""
    made = Proxy(weed.port)
    yield made
    made.close()


@pytest.fixture
def spoil(backend: Backend, request: pytest.FixtureRequest) -> Callable[[str, bytes | None], None]:
    """Puts other bytes in an object's place, or removes it, behind the store's back."""

    def in_folder(name: str, data: bytes | None) -> None:
        path = Path(backend.url) / name
        path.chmod(0o644)
        path.unlink() if data is None else path.write_bytes(data)

    def in_s3(name: str, data: bytes | None) -> None:
        client, location = request.getfixturevalue("weed").client(), parse_location(backend.url)
        content = name.startswith(("b/", "m/"))
        at = {
            "Bucket": location.blobs_bucket if content else location.bucket,
            "Key": (location.blobs_prefix if content else location.prefix) + name,
        }
        client.delete_object(**at) if data is None else client.put_object(**at, Body=data)
        client.close()

    return in_folder if isinstance(backend, FolderBackend) else in_s3


@pytest.fixture
def folder(tmp_path: Path) -> FolderBackend:
    return FolderBackend(tmp_path / "store")


@pytest.fixture
def s3(weed) -> Backend:
    """Blobs in a bucket with versions, as docs/stores.md recommends."""
    return open_store(weed.url(f"t/{uuid.uuid4().hex}"))


@pytest.fixture
def plain_s3(weed) -> Backend:
    """All in one bucket without versions."""
    return open_store(weed.url(f"t/{uuid.uuid4().hex}", versioned=False))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)
