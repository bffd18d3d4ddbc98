"""`runonce logs`: what the processes of a Job on this machine wrote, also after it has ended or failed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from runonce.cli.chosen import complete_results, mode_option
from runonce.cli.options import open_given, store_option
from runonce.errors import InputError
from runonce.experiment.job import JobState
from runonce.local.processes import LocalJobs
from runonce.settings import Settings
from runonce.store.backend import Backend
from runonce.store.failures import find_failures
from runonce.store.find import find_named, is_prefix

POLL_S = 0.1


@click.command()
@click.argument("what", metavar="NAME|KEY", shell_complete=complete_results)
@mode_option
@click.option("--index", type=click.IntRange(min=0), help="Only this process.")
@click.option("--follow", is_flag=True, help="Go on until it ends.")
@store_option
def logs(what: str, modes: tuple[str, ...], index: int | None, follow: bool, store: str | None) -> int:
    """The output of an experiment's newest Job on this machine, each line with its mode and process.

    Where that is gone, the end of what failed, from the store. The exit code is 1 where the Job failed.
    """
    jobs = LocalJobs(Settings.from_env().jobs)
    backend = open_given(store)
    keys = {commit.cache_key for commit in find_named(backend, what)}
    found = [job for job in jobs.all() if _is_meant(job, what, keys) and (not modes or _mode(job) in modes)]
    if not found:
        return _from_store(backend, what)
    found.sort(key=lambda job: ("train", "valid", "test").index(_mode(job)))
    return max(_print(jobs, job, index, follow=follow) for job in found)


def _is_meant(job: JobState, what: str, keys: set[str]) -> bool:
    named = job.cache_key in keys or any(owner.name == what for owner in job.owners)
    return named or (is_prefix(what) and job.cache_key.startswith(what))


def _mode(job: JobState) -> str:
    return job.name.split("-")[-2]


def _print(jobs: LocalJobs, job: JobState, index: int | None, *, follow: bool) -> int:
    folder = jobs.logs(job.name, job.uid)
    tails: dict[Path, BinaryIO] = {}
    try:
        while True:
            now = jobs.get(job.name)
            over = now is None or now.uid != job.uid or now.phase != "active"
            for path in sorted(folder.glob("*.log"), key=lambda path: int(path.stem)):
                if index is None or int(path.stem) == index:
                    file = tails.get(path) or tails.setdefault(path, path.open("rb"))
                    for line in _lines(file, whole=over or not follow):
                        click.echo(f"[{_mode(job)} {path.stem}] {line}")
            if over or not follow:
                return int(now is not None and now.uid == job.uid and now.phase == "failed")
            time.sleep(POLL_S)
    finally:
        for file in tails.values():
            file.close()


def _lines(file: BinaryIO, *, whole: bool) -> Iterator[str]:
    """New lines; the last one without its end only when there is no more to come."""
    while line := file.readline():
        if not line.endswith(b"\n") and not whole:
            file.seek(-len(line), 1)
            return
        yield line.decode(errors="replace").rstrip("\n")


def _from_store(backend: Backend, what: str) -> int:
    for attempt in find_failures(backend, what)[:1]:
        click.echo("\n".join(attempt.lines()))
        return 1
    raise InputError.of("", f"no Job of {what} is known on this machine.", "Logs stay until its next attempt here.")
