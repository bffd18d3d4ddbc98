"""A local Job on the disk: one folder a name, one record in it, and the lock that says whether anything of it lives.

jobs/<name>/job.json · mutex · <uid>/{alive, spec.json, logs/<index>.log, out/<index>-<try>/}
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from runonce.experiment.job import Failure, JobState, Owner, Round

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Record:
    """The state, and what only the disk has to know. expires: seconds since 1970, None for never."""

    state: JobState
    expires: float | None = None

    def encode(self) -> bytes:
        state = self.state
        value = asdict(state) | {
            "round": state.round.to_json(),
            "failures": [failure.to_json() for failure in state.failures],
        }
        return json.dumps({"format": FORMAT, "expires": self.expires, "state": value}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Record:
        value: dict[str, Any] = json.loads(data)
        state = value["state"] | {
            "round": Round.from_json(value["state"]["round"]),
            "owners": tuple(Owner(**owner) for owner in value["state"]["owners"]),
            "failures": tuple(Failure.from_json(failure) for failure in value["state"]["failures"]),
            "succeeded": tuple(value["state"]["succeeded"]),
        }
        return cls(state=JobState(**state), expires=value["expires"])


class JobFolder:
    """`jobs/<name>`. What is read is whole: records are renamed into place."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def mutex(self) -> Iterator[None]:
        """One change at a time; the system lets go of it when its holder dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "mutex").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read(self) -> Record | None:
        """The record; a Job whose supervisor is gone has failed, whatever it wrote last. None for one that is damaged:
        its result and its checkpoints are in the store, and what still runs of it holds the lease of its key.
        """
        try:
            record = Record.decode((self.path / "job.json").read_bytes())
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        state = record.state
        if state.phase == "active" and not self.is_alive(state.uid):
            # It may have written its end between our two looks.
            record = Record.decode((self.path / "job.json").read_bytes())
            state = record.state
        if state.phase == "active" and not self.is_alive(state.uid):
            lost = Failure(index=-1, exit_code=None, reason="SupervisorLost")
            return replace(record, state=replace(state, phase="failed", active=0, failures=(lost,)))
        return record

    def write(self, record: Record) -> None:
        temporary = self.path / f".{uuid.uuid4().hex}"
        with temporary.open("wb") as file:
            file.write(record.encode())
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name and nothing in it
        temporary.rename(self.path / "job.json")

    def attempt(self, uid: str) -> Path:
        return self.path / uid

    def take_lock(self, uid: str) -> int:
        """Make the attempt's folder and hold its lock; returns the file descriptor, for its processes to inherit."""
        (self.attempt(uid) / "logs").mkdir(parents=True)
        descriptor = os.open(self.attempt(uid) / "alive", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def is_alive(self, uid: str) -> bool:
        """Whether the supervisor or any process of the attempt is there."""
        try:
            descriptor = os.open(self.attempt(uid) / "alive", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False
