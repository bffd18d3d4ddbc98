"""Every error that Runonce raises on purpose, and who is to act on it.

RunonceError
├── InputError          the user's text, values or classes; carries every fault found, never retried
│   ├── DocumentError   a file that cannot be read as kubectl would read it
│   ├── SpecError       a document that is no valid Experiment
│   ├── MachineError    machine parameters that no Job can have
│   ├── RenderError     a value that has no form in JSON
│   ├── LoadError       JSON that the declared type cannot take exactly
│   │   └── NotCanonical    right in meaning, but in another spelling than the one that is hashed
│   ├── EntryError      a config or command that cannot be found, imported or used
│   └── CodeError       a code version that is missing, wrong, or cannot be proved
├── OnlyIn              a field read in a mode to which it does not belong
├── ParamsMutated       parameters changed after they were hashed
├── RunFailed           a run that ended without a result
├── RunStopped          a run that was interrupted after a checkpoint; run again, it goes on
├── LoopError           the author's code failed inside the engine; another try may go better
├── LostPeer            a coupled process went away or hangs; the cause is there, not here
├── StoreError          the store did not answer as it should; retried, never taken for a miss
│   ├── PreconditionFailed  a conditional write lost: the object is there, or is another one
│   ├── NotAStore       a folder with other things in it; final
│   ├── NewerFormat     a record written by a later release; final
│   └── Damaged         bytes that do not match their digest, or are gone
├── JobError            a Job is not as the caller believed
│   ├── JobExists       the name is taken
│   ├── StillEnding     the name is a lock until the last process has ended
│   ├── JobGone         no such Job, or another one under its name
│   ├── JobNameTaken    by something that is no Job of the key; told to the user, and looked at again
│   └── JobRefused      the API server will not have it; told to the user, and tried again
└── ApiError            the API server did not do what it was asked
    ├── NotFound        404
    ├── Conflict        409: the name is taken, or a precondition does not hold
    ├── Expired         410: what was asked for is too old; list again
    ├── Invalid         400, 422 and what no retry can help; final
    ├── Refused         401, 403: retried, since a server that starts answers so
    └── Unreachable     no answer, 429, 5xx; retried
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: `path` says where, `what` what was found and why it cannot be, `fix` what to do.

    `path` is written as Python and kubectl write it, `spec.params.layers[2].width`; a key that is no
    identifier stands in brackets, `env["a-b"]`; empty when the whole is meant.
    """

    path: str
    what: str
    fix: str = ""

    def under(self, *segments: str | int) -> Fault:
        """The same fault, seen from further out."""
        return Fault(join_path(*segments, rest=self.path), self.what, self.fix)

    def __str__(self) -> str:
        # Its end names the field, its beginning the file; a key of a user may be of any length.
        path = self.path if len(self.path) <= 160 else f"{self.path[:60]}…{self.path[-99:]}"
        return ": ".join(part for part in (path, " ".join(p for p in (self.what, self.fix) if p)) if part)


def join_path(*segments: str | int, rest: str = "") -> str:
    """`("params", "layers", 2)` to `params.layers[2]`, with `rest` (a path already joined) behind it."""
    out = ""
    for segment in segments:
        if isinstance(segment, int):
            out += f"[{segment}]"
        elif segment.isidentifier() or segment.startswith("$"):
            out += f".{segment}" if out else segment
        else:
            out += f'["{segment}"]'
    if not rest or not out:
        return out + rest
    return out + rest if rest.startswith("[") else f"{out}.{rest}"


def shown(value: Any) -> str:
    """A value in a message: at most 60 characters, whatever it is, and never by a user's `__repr__`."""
    text = _shown(value, 5)
    return text if len(text) <= 60 else text[:57] + "..."


def _shown(value: Any, levels: int) -> str:
    kind = type(value)
    if kind is int and abs(value) >= 10**60:
        return "a whole number of more than 60 digits"
    if kind in (bool, int, float, type(None)):
        return repr(value)
    if kind in (str, bytes):
        return repr(value[:60])
    if kind in (list, tuple, dict) and not levels:
        return "..."
    if kind in (list, tuple):
        inner = ", ".join(_shown(item, levels - 1) for item in value[:30])
        return f"[{inner}]" if kind is list else f"({inner}{',' * (len(value) == 1)})"
    if kind is dict:
        pairs = islice(value.items(), 30)
        return f"{{{', '.join(f'{_shown(key, levels - 1)}: {_shown(item, levels - 1)}' for key, item in pairs)}}}"
    return f"a {kind.__qualname__}"


def near(name: str, names: Iterable[str]) -> str:
    """A suggestion for a misspelled name."""
    import difflib

    known = list(names)
    close = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known) or 'none'}."


class RunonceError(Exception):
    """Root of all errors raised on purpose. `exit_code` is what the command line ends with."""

    exit_code = 1
    reason = ""  # CamelCase, as a condition of the resource shows it; the class name where empty

    def __init_subclass__(cls) -> None:
        if "reason" not in cls.__dict__:
            cls.reason = cls.__name__


class InputError(RunonceError):
    """Something given by the user cannot be; `faults` lists all of it, at least one."""

    exit_code = 2

    def __init__(self, *faults: Fault, reason: str | None = None) -> None:
        super().__init__(*faults)
        self.faults = faults
        if reason is not None:
            self.reason = reason

    @classmethod
    def of(cls, path: str, what: str, fix: str = "", *, reason: str | None = None) -> InputError:
        return cls(Fault(path, what, fix), reason=reason)

    def under(self, *segments: str | int) -> InputError:
        """The same error with every fault's path seen from further out."""
        return type(self)(*(fault.under(*segments) for fault in self.faults), reason=self.reason)

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)


class DocumentError(InputError): ...


class SpecError(InputError): ...


class MachineError(InputError): ...


class RenderError(InputError): ...


class LoadError(InputError): ...


class NotCanonical(LoadError): ...


class EntryError(InputError): ...


class CodeError(InputError): ...


class OnlyIn(RunonceError): ...


class ParamsMutated(RunonceError): ...


class RunFailed(RunonceError): ...


class RunStopped(RunonceError):
    exit_code = 75


class LoopError(RunonceError): ...


class LostPeer(RunonceError): ...


class StoreError(RunonceError):
    """`reason` names what the store refused, where it said so."""

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class PreconditionFailed(StoreError): ...


class NotAStore(StoreError):
    exit_code = 2


class NewerFormat(StoreError): ...


class Damaged(StoreError):
    """etag: of the object that is there in place of the right one, where that is known."""

    def __init__(self, message: str, *, etag: str = "") -> None:
        super().__init__(message)
        self.etag = etag


class JobError(RunonceError): ...


class JobExists(JobError): ...


class StillEnding(JobError): ...


class JobGone(JobError): ...


class JobNameTaken(JobError): ...


class JobRefused(JobError): ...


class ApiError(RunonceError):
    """code: HTTP status, 0 where there was no answer. cause: the server's own word. retry_after_s: what it asks for."""

    code = 0
    cause = ""
    retry_after_s: float | None = None


class NotFound(ApiError): ...


class Conflict(ApiError): ...


class Expired(ApiError): ...


class Invalid(ApiError): ...


class Refused(ApiError): ...


class Unreachable(ApiError): ...


def raise_all(errors: Iterable[InputError]) -> None:
    """Raise one error with the faults of all `errors`, of the first one's class; nothing if there are none."""
    found = list(errors)
    if found:
        raise type(found[0])(*(fault for error in found for fault in error.faults), reason=found[0].reason)
