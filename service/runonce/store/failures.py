"""What failed: of each attempt a record with the end of the log of every process that did not end well. For people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from runonce.experiment.blame import named
from runonce.experiment.job import Failure, Round
from runonce.experiment.seal import read_record, write_record
from runonce.store.backend import Backend, Stat, failure_name
from runonce.store.earlier import stem_of

MAX_FAILURES = 10  # of one attempt; the cause stands first
MAX_TAIL = 4096  # bytes of each log
LOOK_AT = 200  # records that are read to find a name


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """number: of the attempt in its round. when: seconds since 1970. failures: the cause first, at least one."""

    cache_key: str
    name: str
    mode: str
    number: int
    when: float
    failures: Sequence[Failure]

    def lines(self) -> list[str]:
        """Who ended how, each with the end of its log below it."""
        out = []
        for failure in self.failures:
            who = f"process {failure.index}" if failure.index >= 0 else "the Job"
            code = "" if failure.exit_code is None else f" (exit code {failure.exit_code})"
            out.append(f"attempt {self.number}: {who} ended with {named(failure)[0]}{code}")
            out += [f"  {line}" for line in failure.log_tail.rstrip().splitlines()]
        return out

    def to_json(self) -> dict[str, Any]:
        failures = [failure.to_json() | {"reason": named(failure)[0]} for failure in self.failures]
        return {"attempt": self.number, "failures": failures}


def record_failure(
    backend: Backend,
    cache_key: str,
    *,
    name: str,
    mode: str,
    attempt: str,
    round_: Round,
    failures: Sequence[Failure],
) -> None:
    """What is known of an attempt that failed; never read by a decision."""
    record = write_record(
        "failure",
        cacheKey=cache_key,
        name=name,
        mode=mode,
        attempt=attempt,
        round=round_.to_json(),
        failures=[_short(failure).to_json() for failure in failures[:MAX_FAILURES]],
    )
    backend.put(failure_name(cache_key, attempt), record)


def newest_failure(backend: Backend, cache_key: str) -> FailedAttempt | None:
    """Of the newest attempt at this key that failed and can be read."""
    return next((found for entry in _newest(backend, cache_key) if (found := _read(backend, entry))), None)


def find_failures(backend: Backend, what: str) -> list[FailedAttempt]:
    """The newest of each key that begins with `what`, or of whose experiment it is the name, as `find_named` has it."""
    found: dict[str, FailedAttempt] = {}
    for entry in _newest(backend, "")[:LOOK_AT]:
        key = entry.name.split("/")[1]
        if (
            key not in found
            and (attempt := _read(backend, entry))
            and (key.startswith(what) or _is_called(attempt, what))
        ):
            found[key] = attempt
    return list(found.values())


def _newest(backend: Backend, cache_key: str) -> list[Stat]:
    """Their records, the newest first."""
    prefix = failure_name(cache_key, "") if cache_key else "f/"
    return sorted(backend.list(prefix), key=lambda entry: entry.modified, reverse=True)


def _read(backend: Backend, entry: Stat) -> FailedAttempt | None:
    try:
        value: dict[str, Any] = read_record((backend.get(entry.name) or (b"",))[0])
        return FailedAttempt(
            cache_key=value["cacheKey"],
            name=value.get("name", ""),
            mode=value.get("mode", ""),
            number=value["round"]["attempt"],
            when=entry.modified,
            failures=[Failure.from_json(failure) for failure in value["failures"]],
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # of a later release, or damaged: it only explains


def _is_called(attempt: FailedAttempt, what: str) -> bool:
    return bool(attempt.name) and (what in (attempt.name, stem_of(attempt.name)) or fnmatchcase(attempt.name, what))


def _short(failure: Failure) -> Failure:
    data = failure.log_tail.encode("utf-8", "replace")
    return replace(failure, log_tail=data[-MAX_TAIL:].decode("utf-8", "ignore"))
