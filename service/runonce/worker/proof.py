"""The code that an experiment pins: as it is here, else from the store; proved before any of it runs."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from runonce.author.agree import prove_code
from runonce.author.bundle import unpack
from runonce.author.changed import check_unchanged, imported
from runonce.author.source import SourceList, unhashed
from runonce.errors import CodeError, Fault
from runonce.experiment.spec import ExperimentSpec
from runonce.store.backend import Backend, source_name


@dataclass(frozen=True)
class Code:
    """listed: the modules that count, None for a command or what nobody can prove. fetched: folder of what the store
    had; None where the code was here.
    """

    spec: ExperimentSpec
    listed: SourceList | None
    fetched: Path | None = None

    def check(self, early: Collection[str] = ()) -> frozenset[str]:
        """The modules that count and are imported by now, which as `early` need not be looked at again.

        Raises CodeError for a module of the author's that is imported and not covered, or came from elsewhere, and for
        what has changed since it was proved, unless it had been imported by then.
        """
        if self.listed is not None:
            self._check_covered(self.listed)
        check_unchanged(self.spec, self.fetched or Path.cwd(), self.listed, early)
        return imported(self.listed) if self.listed is not None else frozenset()

    def _check_covered(self, listed: SourceList) -> None:
        extra = unhashed(sys.modules, listed)
        if extra:
            names = ", ".join(f'"{name}"' for name in extra)
            raise CodeError(
                Fault(
                    "spec.codeVersion",
                    f"does not cover {', '.join(extra)}: imported, but by no import statement that can be followed.",
                    f"Add to pyproject.toml, under [tool.runonce.code]: include = [{names}], and run it again; a file "
                    "that pins its code is rendered anew first.",
                )
            )
        strangers = sorted(self._strangers(listed))
        if strangers:
            shown = ", ".join(f"{name} ({where})" for name, where in strangers[:5])
            raise CodeError(
                Fault(
                    "spec.codeVersion",
                    f"was sent with the experiment, but of it {shown} came from elsewhere.",
                    "Use an image in which these modules are not imported when Python starts.",
                )
            )

    def _strangers(self, listed: SourceList) -> Iterator[tuple[str, str]]:
        if self.fetched is None:
            return
        known, own = {*(name for name, _ in listed.modules), *listed.uncounted}, self.fetched.resolve()
        for name, module in list(sys.modules.items()):
            origin = getattr(getattr(module, "__spec__", None), "origin", None)
            if name in known and origin is not None and not Path(origin).resolve().is_relative_to(own):
                yield name, origin


def prove(spec: ExperimentSpec, backend: Backend, scratch: Path) -> Code:
    """Find the code that the spec pins. What the store has is put first on sys.path; a command is moved to it.

    Raises CodeError when neither is the pinned one.
    """
    try:
        return Code(spec, prove_code(spec, Path.cwd()))
    except CodeError as error:
        digest = (spec.code_version or "").removeprefix("source:")
        found = backend.get(source_name(digest))
        if found is None:
            raise CodeError(*(_with_hint(fault) for fault in error.faults), reason=error.reason) from error
    folder = scratch / "code"
    folder.mkdir()
    unpacked = unpack(found[0], folder, name=source_name(digest))
    sys.path[:0] = unpacked.path
    importlib.invalidate_caches()
    if spec.command is not None:
        os.chdir(folder)
    return Code(spec, prove_code(spec, folder), fetched=folder)


def _with_hint(fault: Fault) -> Fault:
    return Fault(fault.path, fault.what, f"{fault.fix} Or send the code along: runonce submit --with-source.".lstrip())
