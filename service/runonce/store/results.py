"""A result of a folder store as a folder of files that people can open: hard links to the store's own."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from pathlib import Path

from runonce.errors import Damaged, StoreError
from runonce.experiment.manifest import Commit, File, Manifest
from runonce.store.backend import blob_name
from runonce.store.folder import FolderBackend
from runonce.store.restore import check_path, read_manifest

SHOWN_DIGITS = 12


def link_results(backend: FolderBackend, name: str, commit: Commit) -> Path:
    """Make `results/<name>-<mode>-<12 digits of the key>`, or leave it where it shows this result already.

    The files are read-only, since they are the store's; a copy is free to change. Raises Damaged, StoreError.
    """
    folder = backend.root / "results" / f"{name}-{commit.mode}-{commit.cache_key[:SHOWN_DIGITS]}"
    manifest = read_manifest(backend, commit.manifest)
    for file in manifest.files:
        check_path(file.path)
        _check_blob(backend, file)
    try:
        if not _shows(backend, manifest, folder):
            _replace(backend, manifest, folder)
    except OSError as error:
        raise StoreError(f"cannot make {folder}: {error.strerror or error}.") from error
    return folder


def unlink_results(backend: FolderBackend, commit: Commit) -> None:
    """Remove the folders that show this result, under whatever name; the bytes are the store's to keep or collect."""
    ending = f"-{commit.mode}-{commit.cache_key[:SHOWN_DIGITS]}"
    folder = backend.root / "results"
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.endswith(ending):
            # Renamed first: what a crash leaves half removed must not look like a result.
            old = folder / f".{uuid.uuid4().hex}"
            try:
                path.rename(old)
                shutil.rmtree(old)
            except OSError as error:
                raise StoreError(f"cannot remove {path}: {error.strerror or error}.") from error


def clear_unfinished(backend: FolderBackend, *, older_than_s: float) -> None:
    """Folders that someone was making or removing when it died."""
    folder = backend.root / "results"
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith(".") and time.time() - path.stat().st_mtime > older_than_s:
                shutil.rmtree(path, ignore_errors=True)


def _check_blob(backend: FolderBackend, file: File) -> None:
    """That it is there and has its size; its bytes are not read."""
    name = blob_name(file.sha256)
    found = backend.stat(name)
    if found is None:
        raise Damaged(f"{name} ({file.path}) is lost from {backend.url}.")
    if found.size != file.size:
        raise Damaged(f"{name} ({file.path}) in {backend.url} has {found.size} bytes, not {file.size}.")


def _shows(backend: FolderBackend, manifest: Manifest, folder: Path) -> bool:
    try:
        return folder.is_dir() and all(
            os.path.samefile(folder / file.path, backend.root / blob_name(file.sha256)) for file in manifest.files
        )
    except FileNotFoundError:
        return False


def _replace(backend: FolderBackend, manifest: Manifest, folder: Path) -> None:
    building = folder.with_name(f".{uuid.uuid4().hex}")
    building.mkdir(parents=True)
    for file in manifest.files:
        path = building / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(backend.root / blob_name(file.sha256), path)
    old = folder.with_name(f".{uuid.uuid4().hex}")
    if folder.exists():
        folder.rename(old)
    try:
        building.rename(folder)
    except OSError:
        shutil.rmtree(building)  # another process was faster
        if not folder.is_dir():
            raise
    shutil.rmtree(old, ignore_errors=True)
