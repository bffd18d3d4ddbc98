"""`runonce logs`: what the processes of a Job on this machine wrote, also after it has ended or failed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import click

from runonce.cli.chosen import complete_results, mode_option
from runonce.cli.options import open_given, store_option
from runonce.errors import InputError
from runonce.experiment.job import JobState
from runonce.experiment.key import MODES
from runonce.local.processes import LocalJobs
from runonce.settings import Settings
from runonce.store.backend import Backend
from runonce.store.failures import find_failures
from runonce.store.find import find_named, is_prefix

POLL_S = 0.1  # between two looks at a file that grows


@click.command()
@click.argument("what", metavar="NAME|KEY", shell_complete=complete_results)
@mode_option
@click.option("--index", type=click.IntRange(min=0), help="Only this process.")
@click.option("--follow", is_flag=True, help="Go on until it ends.")
@store_option
def logs(what: str, modes: tuple[str, ...], index: int | None, follow: bool, store: str | None) -> int:
    """The output of an experiment's newest Job of each mode on this machine, each line with its mode and process.

    Where that is gone, the end of what failed, from the store. The exit code is 1 where one of these Jobs failed.
    """
    backend = open_given(store)
    jobs = LocalJobs(Settings.from_env().jobs(backend.url))
    keys = {commit.cache_key for commit in find_named(backend, what)}
    found = [job for job in jobs.all() if _is_meant(job, what, keys) and (not modes or _mode(job) in modes)]
    if not found:
        return _from_store(backend, what, modes)
    found.sort(key=lambda job: jobs.begun(job.name, job.uid), reverse=True)
    failed = 0
    for mode in MODES:
        of_mode = [job for job in found if _mode(job) == mode]
        if of_mode:
            _tell_older(mode, of_mode[1:])
            failed |= _print(jobs, of_mode[0], index, follow=follow)
    return failed


def _tell_older(mode: str, older: Sequence[JobState]) -> None:
    keys = [job.cache_key[:12] for job in older]
    if keys:
        shown = ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
        click.echo(f"{mode}: the newest of {len(keys) + 1}; `runonce logs KEY` shows the others ({shown})", err=True)


def _is_meant(job: JobState, what: str, keys: set[str]) -> bool:
    named = job.cache_key in keys or any(owner.name == what for owner in job.owners)
    return named or (is_prefix(what) and job.cache_key.startswith(what))


def _mode(job: JobState) -> str:
    return job.name.split("-")[-2]


def _print(jobs: LocalJobs, job: JobState, index: int | None, *, follow: bool) -> int:
    folder = jobs.logs(job.name, job.uid)
    tails: dict[Path, BinaryIO] = {}
    silent = True
    try:
        while True:
            now = jobs.get(job.name)
            over = now is None or now.uid != job.uid or now.phase != "active"
            for path in sorted(folder.glob("*.log"), key=lambda path: int(path.stem)):
                if index is None or int(path.stem) == index:
                    file = tails.get(path) or tails.setdefault(path, path.open("rb"))
                    for line in _lines(file, whole=over or not follow):
                        click.echo(f"[{_mode(job)} {path.stem}] {line}")
                        silent = False
            if over or not follow:
                if silent:
                    who = "" if index is None else f" by process {index}"
                    click.echo(f"{_mode(job)}: nothing was logged{who} (key {job.cache_key[:12]})", err=True)
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


def _from_store(backend: Backend, what: str, modes: Sequence[str]) -> int:
    for attempt in find_failures(backend, what):
        if not modes or attempt.mode in modes:
            click.echo("\n".join(attempt.lines()))
            return 1
    raise InputError.of("", f"no Job of {what} is known on this machine.", "Logs stay until its next attempt here.")
