"""What `run` would find in the store, mode by mode, before anything is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runonce.api.target import Located
from runonce.controller import decide as rules
from runonce.errors import Damaged
from runonce.experiment.manifest import Commit
from runonce.store.backend import Backend
from runonce.store.commit import probe


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """One mode. hit: the result that is served. awaits: modes that are made first, and on which it depends whether the
    result that is there is one. message: why what is there is not served, or not yet.
    """

    hit: Commit | None = None
    awaits: tuple[str, ...] = ()
    message: str = ""


def outlook(located: Located, backend: Backend) -> dict[str, Outlook]:
    """By the rules of `controller.decide`: a result is served as long as what it was made from is the current one, and
    where nothing can make it again.
    """
    found: dict[str, Outlook] = {}
    for mode, (parts, key) in located.keys.items():
        try:
            there = probe(backend, key)
        except Damaged as error:
            found[mode] = Outlook(message=str(error))
            continue
        reads = {name: found[name] for name in parts.inputs}
        found[mode] = Outlook() if there is None else _standing(there[0], located, mode, reads)
    return found


def _standing(commit: Commit, located: Located, mode: str, reads: Mapping[str, Outlook]) -> Outlook:
    if located.spec.overwrite:
        return Outlook(message="overwrite asks for it to be made anew")
    manifests = {name: read.hit.manifest for name, read in reads.items() if read.hit}
    awaits = tuple(name for name in reads if name not in manifests)
    lost = any(_total(located, name) == 0 for name in awaits)
    if rules.is_current(commit, None if lost else manifests, total=_total(located, mode)):
        return Outlook(hit=commit)
    if not awaits:
        return Outlook(message=f"the result that is there was made from another one of {', '.join(reads)}")
    first = ", ".join(awaits)
    why = f"{first} is made first; what is there is a hit only if that comes out the same, byte for byte"
    return Outlook(awaits=awaits, message=why)


def _total(located: Located, mode: str) -> int:
    return located.spec.shape(mode, local=True).completions
