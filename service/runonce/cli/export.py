"""`runonce export`: a result for those who have no store: an archive, a folder, or plain objects of S3."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from runonce.api.results import Result
from runonce.cli.chosen import choose, complete_results, mode_option, newest
from runonce.cli.keep import check_empty, commit_json, fetch
from runonce.cli.options import open_given, store_option
from runonce.cli.text import size_text
from runonce.cli.waiting import Waiting
from runonce.errors import InputError
from runonce.experiment.manifest import Commit
from runonce.store.backend import Backend

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
FILES, PROVENANCE = "files", "runonce.json"


@click.command()
@click.argument("result", metavar="RESULT", shell_complete=complete_results)
@click.argument("to", metavar="TO")
@mode_option
@store_option
def export(result: str, to: str, modes: Sequence[str], store: str | None) -> None:
    """Write a result where those read it who have no store: into an archive, a folder, or a bucket of S3.

    TO is a file that ends in .tar, .tar.gz, .tgz or .zip; or s3://bucket/prefix, as of a store; or else a folder. There
    lie the files, below files/, and runonce.json: the parts of the key, parameters, metrics, versions.
    """
    backend = open_given(store)
    found = newest(choose(backend, [result], modes))
    if len(found) > 1:
        names = ", ".join(one.mode for one in found)
        raise InputError.of("RESULT", f"{result} has the modes {names}.", "Name one with --mode.")
    with Waiting() as tell:
        if to.startswith("s3://"):
            _to_s3(backend, found[0], to, tell)
        elif to.endswith(ARCHIVES):
            _to_archive(backend, found[0], Path(to), tell)
        else:
            _to_folder(backend, found[0], Path(to), tell)
    click.echo(f"{to}  {found[0].files} files, {size_text(found[0].size)}")


def _to_folder(backend: Backend, made: Commit, folder: Path, tell: Waiting) -> None:
    check_empty(folder)
    fetch(backend, made, folder / FILES, tell)
    (folder / PROVENANCE).write_bytes(_provenance(Result(backend, made)))


def _to_s3(backend: Backend, made: Commit, url: str, tell: Waiting) -> None:
    from runonce.store.plain import PlainObjects
    from runonce.store.url import parse_s3

    target = PlainObjects(parse_s3(url))
    if target.has_any():
        raise InputError.of("TO", f"{url} has objects in it, which would be mixed up.", "Name a new prefix.")
    with TemporaryDirectory(prefix="runonce-") as scratch:
        folder = Path(scratch)
        fetch(backend, made, folder / FILES, tell)
        (folder / PROVENANCE).write_bytes(_provenance(Result(backend, made)))
        target.put_folder(folder, last=PROVENANCE, moved=tell.moving("writing objects", made.size))


def _to_archive(backend: Backend, made: Commit, file: Path, tell: Waiting) -> None:
    if file.exists():
        raise InputError.of("TO", f"{file} is there already.", "Name another, or remove it.")
    with TemporaryDirectory(prefix=".runonce-", dir=file.absolute().parent) as scratch:
        fetch(backend, made, Path(scratch) / FILES, tell)
        # Under its name only when it is whole.
        unfinished = Path(scratch) / file.name
        _pack(unfinished, Path(scratch) / FILES, f"{made.name}-{made.mode}", _provenance(Result(backend, made)))
        unfinished.rename(file)


def _pack(archive: Path, files: Path, top: str, provenance: bytes) -> None:
    names = sorted(path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file())
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as pack:
            pack.writestr(f"{top}/{PROVENANCE}", provenance)
            for name in names:
                pack.write(files / name, f"{top}/{FILES}/{name}")
        return
    with tarfile.open(archive, "w" if archive.name.endswith(".tar") else "w:gz") as tar:
        info = tarfile.TarInfo(f"{top}/{PROVENANCE}")
        info.size = len(provenance)
        tar.addfile(info, io.BytesIO(provenance))
        for name in names:
            tar.add(files / name, f"{top}/{FILES}/{name}")


def _provenance(result: Result) -> bytes:
    value = {
        **commit_json(result.commit),
        "parts": dict(result.parts),
        "params": dict(result.params),
        "facts": [dict(facts) for facts in result.facts],
    }
    return json.dumps(value, indent=2, ensure_ascii=False).encode()
