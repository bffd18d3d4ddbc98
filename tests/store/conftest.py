"""Every backend under the same tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from runonce.store.folder import FolderBackend


@pytest.fixture
def backend(tmp_path: Path) -> FolderBackend:
    return FolderBackend(tmp_path / "store")
