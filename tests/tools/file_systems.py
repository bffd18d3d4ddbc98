"""A file system that machines share, played on this one."""

from __future__ import annotations

from pathlib import Path

from runonce.store.filesystem import FileSystems


class Mounted(FileSystems):
    """Everything below `root` is on NFS; what the real door says holds elsewhere."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def kind(self, path: Path) -> str:
        return "nfs" if path.is_relative_to(self._root) else super().kind(path)
