"""A store in a folder of this machine, for one user or many processes; every write is atomic and on the disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, TypeVar

from runonce.errors import Damaged, PreconditionFailed, StoreError
from runonce.store.backend import MARKER, RENEW_S, THREADS, Stat, check_name, is_name
from runonce.store.filesystem import is_local
from runonce.store.locks import Turn, in_turn
from runonce.store.marker import Marker
from runonce.store.signing import NO_KEYS, Keyring
from runonce.store.spans import CHUNK, Span, SpanReader, write_whole

TRIES = 100

T = TypeVar("T")

_ABANDONED_S = 24 * 3600  # an unfinished write older than this has no writer any more

_FULL = ("StoreFull", " Free some space, then run again.")
_DENIED = ("AccessDenied", " Give whoever runs this the right to write there.")
_REASONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
}


class FolderBackend:
    """`Backend` over files: an object's name is its path below the root, its ETag the digest of its bytes."""

    blob_size: int | None = None  # people open these files
    keyring: Keyring = NO_KEYS
    threads: int = THREADS
    renew_all: bool = False

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = str(self.root)
        self._marker = Marker(self.root)
        self._ready = False

    @cached_property
    def is_local(self) -> bool:
        """Whether it lies on this machine, so that the locks of its kernel hold for all who use it."""
        return is_local(self.root)

    def get(self, name: str) -> tuple[bytes, str] | None:
        with self._errors("read", name):
            self._check_marker()
            try:
                data = self._path(name).read_bytes()
            except FileNotFoundError:
                return None
        return data, hashlib.sha256(data).hexdigest()

    def put(self, name: str, data: bytes, *, create: bool = False, if_match: str | None = None) -> str:
        with self._errors("write", name), self._temporary() as (file, temporary):
            file.write(data)
            _flush(file)
            path = self._path(name)
            if create:
                try:
                    _placed(lambda: os.link(temporary, path), path.parent)
                except FileExistsError:
                    raise PreconditionFailed(f"{name} is there already.") from None
            else:

                def replace(turn: Turn) -> None:
                    if if_match is not None:
                        self._check_etag(name, if_match)
                    _placed(lambda: turn.place(temporary, path), path.parent)

                self._in_turn(replace)
            _flush_folder(path.parent)
        return hashlib.sha256(data).hexdigest()

    def put_file(self, name: str, path: Path, *, sha256: str) -> None:
        with self._errors("write", name):
            size = path.stat().st_size
        self.put_spans(name, [Span(path, 0, size)], sha256=sha256)

    def put_spans(self, name: str, spans: Sequence[Span], *, sha256: str) -> None:
        with self._errors("write", name):
            target = self._path(name)
            self._check_marker()
            if self._renewed(target, sha256):
                return
            with self._temporary() as (file, temporary):
                with SpanReader(spans) as reader:
                    _copy(iter(reader.read, b""), file, sha256, str(spans[0].path))
                _flush(file)
                # People open these files under another name; what they change by accident must not be the result.
                temporary.chmod(0o444)
                self._in_turn(lambda turn: _placed(lambda: turn.place(temporary, target), target.parent))
                _flush_folder(target.parent)

    def read(self, name: str, *, sha256: str) -> Iterator[bytes]:
        digest = hashlib.sha256()
        with self._errors("read", name):
            try:
                file = self._path(name).open("rb")
            except FileNotFoundError as error:
                raise Damaged(f"{name} is lost from {self.url}.") from error
            with file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    yield chunk
        if digest.hexdigest() != sha256:
            raise Damaged(f"{name} in {self.url} has the digest {digest.hexdigest()}, not {sha256}.")

    def get_file(self, name: str, path: Path, *, sha256: str) -> None:
        with self._errors("read", name):
            write_whole(self.read(name, sha256=sha256), path)

    def stat(self, name: str) -> Stat | None:
        with self._errors("read", name):
            self._check_marker()
            try:
                found = self._path(name).stat()
            except FileNotFoundError:
                return None
            return _stat(name, found)

    def refuses_wrong_bytes(self, name: str) -> bool:
        return True  # put_file and put_spans look at what they have written

    def keeps_versions(self) -> bool:
        return True

    def superseded(self, prefix: str) -> Iterator[Stat]:
        return iter(())

    def list(self, prefix: str) -> Iterator[Stat]:
        with self._errors("list", prefix):
            self._check_marker()
            folder = prefix.rpartition("/")[0]
            yield from self._walk(self.root / folder, f"{folder}/" if folder else "", prefix)

    def _walk(self, folder: Path, lead: str, prefix: str) -> Iterator[Stat]:
        """Below one folder, in the order of whole names, with no more than one folder's names in memory."""
        try:
            with os.scandir(folder) as scan:
                names = sorted(f"{lead}{e.name}{'/' if e.is_dir() else ''}" for e in scan if is_name(e.name))
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            if name.endswith("/"):
                if name.startswith(prefix) or prefix.startswith(name):
                    yield from self._walk(self.root / name, name, prefix)
            elif name.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    yield _stat(name, (self.root / name).stat())

    def delete(self, name: str, *, if_match: str | None = None, version: str | None = None) -> None:
        with self._errors("delete", name):
            path = self._path(name)
            if if_match is None and version is None:
                path.unlink(missing_ok=True)
                return
            self._in_turn(lambda turn: self._delete_if(turn, name, if_match, version))

    def _delete_if(self, turn: Turn, name: str, if_match: str | None, version: str | None) -> None:
        path = self._path(name)
        try:
            found = _stat(name, path.stat()).version
        except FileNotFoundError:
            return
        if if_match is not None:
            self._check_etag(name, if_match)
        if version in (None, found):
            turn.remove(path)

    def remove_empty_folders(self) -> None:
        """What deleted objects left behind; whoever writes there meanwhile makes them again."""
        with self._errors("look through", "the store"):
            for top in "bcdflmnpstw":
                for folder, _, _ in os.walk(self.root / top, topdown=False):
                    with contextlib.suppress(OSError):  # it is gone, or not empty any more
                        if not os.listdir(folder):
                            os.rmdir(folder)

    def locks(self) -> Path:
        """The folder of locks by key; makes the store where there is none."""
        with self._errors("write", "a lock"):
            return self._prepare().parent / "locks"

    def _renewed(self, path: Path, sha256: str) -> bool:
        """Whether these bytes are there, and stay: old ones get a new version."""
        try:
            before = path.stat()
            if file_digest(path) != sha256:
                return False
            if self._now() - before.st_mtime < RENEW_S:
                return True
            return self._in_turn(lambda _: self._touched(path, before))
        except FileNotFoundError:
            return False

    def _touched(self, path: Path, before: os.stat_result) -> bool:
        """Too late it touches what is new anyway, or finds nothing: no turn has to be had for that."""
        if not os.path.samestat(before, path.stat()):
            return False
        os.utime(path)
        return True

    def _now(self) -> float:
        """The clock that gives files their times, which is a server's where the folder is one of a network."""
        with self._temporary() as (file, _):
            return os.fstat(file.fileno()).st_mtime

    def _path(self, name: str) -> Path:
        check_name(name)
        return self.root / name

    def _check_etag(self, name: str, wanted: str) -> None:
        try:
            found = file_digest(self._path(name))
        except FileNotFoundError:
            found = ""
        if found != wanted:
            raise PreconditionFailed(f"{name} is another one by now." if found else f"{name} is gone.")

    def exists(self) -> bool:
        """Whether there is a store, and not only the name of one."""
        with self._errors("read", MARKER):
            return self._marker.check() or self._marker.fault() is not None

    def marker_fault(self) -> str | None:
        """What is wrong with the record that says which format the store has."""
        with self._errors("read", MARKER):
            return self._marker.fault()

    def renew_marker(self) -> None:
        with self._errors("write", MARKER):
            self._ready = False
            self._prepare()

    def _check_marker(self) -> None:
        self._ready = self._ready or self._marker.check()

    def _prepare(self) -> Path:
        """The folder of unfinished writes; makes the store where there is none."""
        folder = self.root / "tmp"
        if self._ready and folder.is_dir():
            return folder
        self._check_marker()
        folder.mkdir(parents=True, exist_ok=True)
        if not self._ready:
            self._marker.write(folder)
        for entry in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - entry.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self._ready = True
        return folder

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[IO[bytes], Path]]:
        path = self._prepare() / uuid.uuid4().hex
        try:
            with path.open("xb") as file:
                yield file, path
        finally:
            path.unlink(missing_ok=True)

    def _in_turn(self, work: Callable[[Turn], T]) -> T:
        return in_turn(self._prepare().parent, work, local=self.is_local)

    @contextlib.contextmanager
    def _errors(self, what: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason, hint = _REASONS.get(error.errno or 0, (None, ""))
            text = f"cannot {what} {name} in {self.url}: {error.strerror or error}.{hint}"
            raise StoreError(text, reason=reason) from error


def _copy(chunks: Iterable[bytes], target: IO[bytes], sha256: str, source: str) -> None:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        target.write(chunk)
    if digest.hexdigest() != sha256:
        raise Damaged(f"{source} has the digest {digest.hexdigest()}, not {sha256}.")


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _placed(put: Callable[[], None], folder: Path) -> None:
    """Put something into a folder that a collector may remove, as long as it is empty."""
    for _ in range(TRIES):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return put()
        except FileNotFoundError:
            continue
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def _flush_folder(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return  # what was put there is deleted already
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stat(name: str, found: os.stat_result) -> Stat:
    return Stat(name, found.st_size, found.st_mtime, f"{found.st_ino}-{found.st_mtime_ns}")
