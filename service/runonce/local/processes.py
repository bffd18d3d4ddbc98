"""`Jobs` on this machine: what `kube.jobs` is on a cluster, with processes for pods and a folder for the API server."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from runonce.errors import JobExists, JobGone, StillEnding
from runonce.experiment.job import JobPlan, JobState, Owner, Process, Round
from runonce.local.record import JobFolder, Record
from runonce.local.supervisor import Supervisor
from runonce.store.filesystem import is_local

WORKER = (sys.executable, "-m", "runonce.worker")
GRACE_S = 30.0


class LocalJobs:
    """Jobs below `root`, visible to every process that names the same root.

    A Job lives in the process that created it and ends with it; whoever joined it finds it failed by
    SupervisorLost and goes on with the next attempt. workdir: where its processes start.
    """

    def __init__(
        self,
        root: Path,
        *,
        workdir: Path | None = None,
        command: Sequence[str] = WORKER,
        grace_s: float = GRACE_S,
    ) -> None:
        # Whether a process lives is told by its lock: on a file system that machines share, each keeps its own Jobs.
        self._root = root if is_local(root) else root / socket.gethostname()
        self._workdir, self._command, self._grace_s = workdir or Path.cwd(), command, grace_s
        self._supervisors: dict[str, Supervisor] = {}  # by uid of the Job

    def get(self, name: str) -> JobState | None:
        record = self._folder(name).read()
        if record is None or (record.expires is not None and record.expires < time.time()):
            return None
        return record.state

    def owned(self, owner: Owner) -> list[JobState]:
        return [state for state in self.all() if owner.uid in {known.uid for known in state.owners}]

    def living(self, cache_key: str) -> list[Process]:
        return [
            Process(name=state.name, index=-1, job_uid=state.uid)
            for state in self.all()
            if state.cache_key == cache_key and self._folder(state.name).is_alive(state.uid)
        ]

    def create(self, plan: JobPlan) -> JobState:
        folder = self._folder(plan.name)
        with folder.mutex():
            if self.get(plan.name) is not None:
                raise JobExists(f"{plan.name} is there already.")
            return self._start(folder, plan)

    def replace(self, plan: JobPlan, *, uid: str) -> JobState:
        folder = self._folder(plan.name)
        with folder.mutex():
            record = folder.read()
            if record is not None and record.state.uid != uid:
                raise JobGone(f"{plan.name} is another Job by now.")
            if record is not None and folder.is_alive(uid):
                raise StillEnding(f"{plan.name} has processes that have not ended yet.")
            return self._start(folder, plan)

    def join(self, name: str, owner: Owner, *, uid: str, cache_key: str) -> JobState:
        folder = self._folder(name)
        with folder.mutex():
            record = self._same(folder, uid)
            if record.state.phase != "active" or record.state.cache_key != cache_key:
                raise JobGone(f"{name} has ended, or is of another key.")
            owners = record.state.owners
            joined = replace(record.state, owners=owners if owner in owners else (*owners, owner))
            folder.write(replace(record, state=joined))
            return joined

    def leave(self, name: str, owner: Owner, *, uid: str) -> None:
        folder = self._folder(name)
        with folder.mutex():
            record = folder.read()
            if record is not None and record.state.uid == uid:
                owners = tuple(known for known in record.state.owners if known.uid != owner.uid)
                folder.write(replace(record, state=replace(record.state, owners=owners)))

    def record(self, name: str, *, uid: str, data: Round) -> None:
        folder = self._folder(name)
        with folder.mutex():
            record = self._same(folder, uid)
            folder.write(replace(record, state=replace(record.state, round=data)))

    def expire(self, name: str, *, uid: str, seconds: int) -> None:
        folder = self._folder(name)
        with folder.mutex():
            record = self._same(folder, uid)
            folder.write(replace(record, expires=time.time() + seconds))

    def suspend(self, name: str, *, uid: str, value: bool) -> None:
        folder = self._folder(name)
        with folder.mutex():
            record = self._same(folder, uid)
            folder.write(replace(record, state=replace(record.state, suspended=value)))

    def place(self) -> str:
        """A name for this folder of Jobs, the same for all who use it and on no other machine."""
        path = self._root / "place"
        if not path.exists():
            self._root.mkdir(parents=True, exist_ok=True)
            own = self._root / f".{uuid.uuid4().hex}"
            own.write_text(f"{socket.gethostname()}-{uuid.uuid4().hex}")
            with contextlib.suppress(FileExistsError):
                os.link(own, path)
            own.unlink()
        return path.read_text()

    def logs(self, name: str, uid: str) -> Path:
        """The folder of an attempt's logs, one `<index>.log` each."""
        return self._folder(name).attempt(uid) / "logs"

    def begun(self, name: str, uid: str) -> float:
        """When an attempt was made, in seconds since 1970; 0 where nothing of it is left."""
        try:
            return (self._folder(name).attempt(uid) / "spec.json").stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def outputs(self, name: str, uid: str) -> Path:
        """The folder of an attempt's output folders, `<index>-<try>`, while it runs."""
        return self._folder(name).attempt(uid) / "out"

    def close(self, *, hurry: bool = False) -> None:
        """End the Jobs that this process started: SIGTERM and grace, or at once; returns when nothing lives."""
        for uid, supervisor in self._supervisors.items():
            folder = self._folder(supervisor.job_name)
            with folder.mutex():
                record = folder.read()
                if record is not None and record.state.uid == uid and record.state.phase == "active":
                    folder.write(replace(record, state=replace(record.state, owners=())))
            if hurry:
                supervisor.hurry()
        for supervisor in self._supervisors.values():
            supervisor.join()

    def _folder(self, name: str) -> JobFolder:
        return JobFolder(self._root / name)

    def all(self) -> Iterator[JobState]:
        """Every Job whose record is here, ended or not, in the order of their names."""
        if self._root.is_dir():
            for path in sorted(path for path in self._root.iterdir() if path.is_dir()):
                record = JobFolder(path).read()
                if record is not None:
                    yield record.state

    def _same(self, folder: JobFolder, uid: str) -> Record:
        record = folder.read()
        if record is None or record.state.uid != uid:
            raise JobGone(f"{folder.path.name} is not there, or is another Job by now.")
        return record

    def _start(self, folder: JobFolder, plan: JobPlan) -> JobState:
        for path in folder.path.iterdir():
            if path.is_dir() and not folder.is_alive(path.name):
                shutil.rmtree(path, ignore_errors=True)
        state = JobState(
            name=plan.name,
            uid=uuid.uuid4().hex,
            cache_key=plan.cache_key,
            completions=plan.shape.completions,
            round=plan.round,
            owners=(plan.owner,),
            phase="active",
            suspended=plan.suspend,
        )
        # The lock first: a record without it would be that of a Job whose supervisor is gone.
        lock = folder.take_lock(state.uid)
        (folder.attempt(state.uid) / "spec.json").write_text(plan.spec, encoding="utf-8")
        folder.write(Record(state=state))
        supervisor = Supervisor(
            plan,
            state,
            folder=folder.attempt(state.uid),
            lock=lock,
            command=self._command,
            workdir=self._workdir,
            grace_s=self._grace_s,
            watch=lambda: self._watched(folder, state.uid),
            report=lambda seen: self._report(folder, seen),
        )
        self._supervisors[state.uid] = supervisor
        supervisor.start()
        return state

    def _watched(self, folder: JobFolder, uid: str) -> JobState | None:
        record = folder.read()
        if record is None or record.state.uid != uid or not record.state.owners:
            return None
        return record.state

    def _report(self, folder: JobFolder, seen: JobState) -> None:
        """What the supervisor knows goes in; owners, round and suspension are others' to write."""
        with folder.mutex():
            record = folder.read()
            if record is not None and record.state.uid == seen.uid:
                state = replace(
                    record.state,
                    phase=seen.phase,
                    failing=seen.failing,
                    active=seen.active,
                    succeeded=seen.succeeded,
                    failures=seen.failures,
                )
                folder.write(replace(record, state=state))
