"""A command's checkpoint folder, from one attempt to the next of the same round and number of processes."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from runonce.errors import Damaged, InputError, StoreError
from runonce.experiment.manifest import File
from runonce.experiment.seal import read_record, write_record
from runonce.store.backend import Backend, shard_prefix
from runonce.store.publish import store_files
from runonce.store.restore import restore_files

SHORTEST_S, AGAIN_S = 0.5, 2.0
SETTLED_S = 0.1  # the clock of a file system ticks a hundred times a second or more

_State = list[tuple[Path, int, int, int]]


class SavedFolder:
    """What one process of a command has in it while it runs, or when it ends without success; the newest is kept."""

    def __init__(self, backend: Backend, *, cache_key: str, round_: str, total: int, index: int) -> None:
        self._backend = backend
        self._name = f"{shard_prefix(cache_key, round_)}{total}/k/folder/i{index}"

    def save(self, folder: Path) -> None:
        """Raises InputError for files that cannot be stored."""
        self._record(store_files(self._backend, folder))

    @contextlib.contextmanager
    def streamed(self, folder: Path, *, every_s: float) -> Iterator[None]:
        """Save it about every `every_s` seconds where it has changed, as it is while nothing changes it."""
        ended = threading.Event()
        # What is there now was restored, and is in the store.
        arguments = (folder, max(every_s, SHORTEST_S), ended, _state(folder))
        thread = threading.Thread(target=self._stream, args=arguments, name="checkpoint folder", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _stream(self, folder: Path, every_s: float, ended: threading.Event, saved: _State) -> None:
        wait_s = every_s
        while not ended.wait(wait_s):
            wait_s = min(every_s, AGAIN_S)
            try:
                state = _state(folder)
                if state != saved and _is_settled(state):
                    files = store_files(self._backend, folder)
                    if _state(folder) == state:
                        self._record(files)
                        saved = state
                if state == saved:
                    wait_s = every_s
            except (OSError, Damaged, InputError):
                pass  # a file that goes or changes meanwhile, or cannot be stored, is no fault while the program runs
            except StoreError as error:
                print(f"warning: the checkpoint folder was not saved: {error}", file=sys.stderr, flush=True)

    def _record(self, files: tuple[File, ...]) -> None:
        self._backend.put(self._name, write_record("folder", files=[file.to_json() for file in files]))

    def restore(self, folder: Path) -> None:
        """Fill the folder, or leave it empty where nothing was saved, or what was saved is damaged."""
        found = self._backend.get(self._name)
        if found is None:
            return
        try:
            files = [File.from_json(file) for file in read_record(found[0])["files"]]
            restore_files(self._backend, files, folder)
        except (Damaged, ValueError, KeyError, TypeError):
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()


def _is_settled(state: _State) -> bool:
    """Whether another change of a file of the same size would show: its time would be another one."""
    return not any(0 <= time.time() - modified / 1e9 < SETTLED_S for _, _, modified, _ in state)


def _state(folder: Path) -> _State:
    """Changes with every file below it. Raises FileNotFoundError where one goes meanwhile."""
    stats = [(path, path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(path, stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in stats]
