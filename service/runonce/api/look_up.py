"""What a user means by TARGET, NAME or KEY: results in the store, and Jobs that run here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runonce.api.results import Result
from runonce.errors import InputError
from runonce.experiment.job import JobState
from runonce.experiment.key import MODES
from runonce.experiment.manifest import Commit
from runonce.local.processes import LocalJobs
from runonce.settings import Settings
from runonce.store.backend import Backend
from runonce.store.commit import probe
from runonce.store.failures import FailedAttempt, find_failures, newest_failure
from runonce.store.find import find_commit, find_named, is_prefix


@dataclass(frozen=True, kw_only=True)
class Found:
    """One mode: its result, its Job on this machine, or neither where a target was not run."""

    name: str
    mode: str
    cache_key: str
    result: Result | None = None
    job: JobState | None = None
    failure: FailedAttempt | None = None  # the newest, where there is no result

    @property
    def is_running(self) -> bool:
        return self.job is not None and self.job.phase == "active"


class Finder:
    """Looks into one store and among the Jobs of this machine."""

    def __init__(self, backend: Backend, settings: Settings) -> None:
        self._backend, self._settings = backend, settings
        self.jobs = LocalJobs(settings.jobs(backend.url))

    def find(self, what: str, params: Sequence[str] = (), grid: Sequence[str] = ()) -> list[Found]:
        """All that `what` means: of a target the modes of its experiments; of a name all that was made or runs under
        it, newest first; of a key the one. Raises InputError where there is nothing.
        """
        found = self._of_target(what, params, grid)
        if found is None and (params or grid):
            raise InputError.of("", f"{what} is no file and no module:Class.", "Leave -p and --grid out.")
        if found is None:
            found = self._of_text(what)
        if not found:
            what = f"{what} is no target, no name of an experiment, and no key of a result in {self._backend.url}."
            raise InputError.of("", what, "See `runonce ls`.")
        return found

    def _of_text(self, what: str) -> list[Found]:
        try:
            return self._of_key(what) or self._of_name(what) or self._of_failures(what)
        except InputError:
            found = self._of_failures(what)
            if not found:
                raise
            return found

    def _of_failures(self, what: str) -> list[Found]:
        """What failed, and never succeeded."""
        return [
            Found(name=attempt.name, mode=attempt.mode, cache_key=attempt.cache_key, failure=attempt)
            for attempt in find_failures(self._backend, what)
            if attempt.mode
        ]

    def again(self, one: Found) -> Found:
        """The same mode as it stands now."""
        commit = probe(self._backend, one.cache_key)
        return self._found(one.name, one.mode, one.cache_key, commit[0] if commit is not None else None)

    def _of_target(self, what: str, params: Sequence[str], grid: Sequence[str]) -> list[Found] | None:
        if what != "-" and ":" not in what and not Path(what).is_file():
            return None
        from runonce.api.target import locate

        found = []
        for located in locate(what, params, grid):
            for mode, (_, key) in located.keys.items():
                commit = probe(self._backend, key)
                found.append(self._found(located.name, mode, key, commit[0] if commit is not None else None))
        return found

    def _of_key(self, what: str) -> list[Found]:
        if not is_prefix(what):
            return []
        running = [job for job in self._running() if job.cache_key.startswith(what)]
        try:
            commit = find_commit(self._backend, what)
        except InputError:
            if len(running) != 1:
                if find_named(self._backend, what):
                    return []
                raise
            return [_running(running[0])]
        return [self._found(commit.name, commit.mode, commit.cache_key, commit)]

    def running(self) -> list[Found]:
        """What runs on this machine, in whatever store its result is to be."""
        return [_running(job) for job in self._running()]

    def _of_name(self, what: str) -> list[Found]:
        running = [job for job in self._running() if what in {owner.name for owner in job.owners}]
        made = find_named(self._backend, what)
        known = {commit.cache_key for commit in made}
        found = [_running(job) for job in running if job.cache_key not in known]
        return found + [self._found(commit.name, commit.mode, commit.cache_key, commit) for commit in made]

    def _found(self, name: str, mode: str, key: str, commit: Commit | None) -> Found:
        result = Result(self._backend, commit, settings=self._settings) if commit is not None else None
        job = next((job for job in self._running() if job.cache_key == key), None)
        failure = newest_failure(self._backend, key) if commit is None else None
        name = commit.name if commit is not None else name
        return Found(name=name, mode=mode, cache_key=key, result=result, job=job, failure=failure)

    def _running(self) -> list[JobState]:
        return [job for job in self.jobs.all() if job.phase == "active" and job.owners]


def newest(found: Sequence[Found]) -> list[Found]:
    """Of each name and mode the first, modes in their order."""
    first: dict[tuple[str, str], Found] = {}
    for one in found:
        first.setdefault((one.name, one.mode), one)
    names = list(dict.fromkeys(one.name for one in found))
    return sorted(first.values(), key=lambda one: (names.index(one.name), MODES.index(one.mode)))


def _running(job: JobState) -> Found:
    mode = next(mode for mode in MODES if f"-{mode}-" in job.name[-30:])
    return Found(name=job.owners[0].name, mode=mode, cache_key=job.cache_key, job=job)
