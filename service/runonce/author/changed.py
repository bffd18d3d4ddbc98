"""What of the code that was proved is another by now, and may have been read since: people edit while it runs."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from runonce.author.agree import prove_code
from runonce.author.source import SourceList, content_of, data_files, digest_of, few
from runonce.errors import CodeError, Fault
from runonce.experiment.spec import ExperimentSpec


def imported(listed: SourceList) -> frozenset[str]:
    """The modules of the list that are imported by now: an edit of their files changes nothing that runs."""
    return frozenset(name for name, _ in listed.modules if name in sys.modules)


def check_unchanged(spec: ExperimentSpec, folder: Path, listed: SourceList | None, early: Collection[str] = ()) -> None:
    """Raises CodeError. folder: where a command's globs begin. early: modules that were imported before."""
    if listed is not None:
        names = sorted(_changed(listed, early))
    else:
        names = [] if _is_proved(spec, folder) else ["a file of spec.code"]
    if not names:
        return
    what = f"{few(names)} changed while this ran, and nobody knows which of the two was read."
    fix = "Nothing is published, and checkpoints stay: put the files back and run it again, or run what they are now."
    raise CodeError(Fault("spec.codeVersion", what, fix))


def _changed(listed: SourceList, early: Collection[str]) -> Iterator[str]:
    try:
        data = data_files(listed.settings)
    except CodeError:
        data = {}  # one of them is gone
    for name, sha256 in listed.modules:
        if name.startswith("data:"):
            changed = data.get(name) != sha256
        else:
            changed = name in sys.modules and name not in early and not _is(name, sha256)
        if changed:
            yield name.removeprefix("data:")


def _is(name: str, sha256: str) -> bool:
    spec = getattr(sys.modules[name], "__spec__", None)
    if spec is None or spec.name != name:
        return True  # what stands there under the name was not imported by it
    try:
        content = content_of(spec)
    except CodeError:
        return False
    return content is None or digest_of(content) == sha256


def _is_proved(spec: ExperimentSpec, folder: Path) -> bool:
    try:
        prove_code(spec, folder)
    except CodeError:
        return False
    return True
