"""A command's checkpoint folder, from one attempt to the next of the same round and number of processes."""

from __future__ import annotations

from pathlib import Path

from runonce.errors import Damaged
from runonce.experiment.canonical import canonical, parse
from runonce.experiment.manifest import File
from runonce.store.backend import Backend, shard_prefix
from runonce.store.publish import store_files
from runonce.store.restore import restore_files


class SavedFolder:
    """What one process of a command left when it ended without success; the newest is kept."""

    def __init__(self, backend: Backend, *, cache_key: str, round_: str, total: int, index: int) -> None:
        self._backend = backend
        self._name = f"{shard_prefix(cache_key, round_)}{total}/k/folder/i{index}"

    def save(self, folder: Path) -> None:
        """Raises InputError for files that cannot be stored."""
        files = store_files(self._backend, folder)
        record = {"format": 1, "kind": "folder", "files": [file.to_json() for file in files]}
        self._backend.put(self._name, canonical(record))

    def restore(self, folder: Path) -> None:
        """Fill the folder, or leave it empty where nothing was saved, or what was saved is damaged."""
        found = self._backend.get(self._name)
        if found is None:
            return
        try:
            files = [File.from_json(file) for file in parse(found[0])["files"]]
            restore_files(self._backend, files, folder)
        except (Damaged, ValueError, KeyError, TypeError):
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
