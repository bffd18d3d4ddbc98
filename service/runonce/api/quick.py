"""A trial: a few steps of each stage, in a store of its own that goes when they are done."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from runonce.api.outcome import Context, Ended
from runonce.api.progress import Screen
from runonce.api.sweep import run_all
from runonce.api.target import Located, prove_all
from runonce.settings import Settings
from runonce.store.folder import FolderBackend


def run_quick(found: Sequence[Located], context: Context, screen: Screen) -> list[Ended]:
    """`run_all` with `context.quick` steps. No result of the store is read, and nothing is left in it: Jobs,
    checkpoints and results are in a temporary folder. Raises InputError.
    """
    prove_all(found, context.settings.sources)
    with tempfile.TemporaryDirectory(prefix="runonce-quick-") as name:
        home = Path(name)
        settings = Settings(home=home, store=str(home / "store"))
        trial = replace(context, settings=settings, backend=FolderBackend(home / "store"))
        ended = run_all(found, trial, screen)
    for outcome in (outcome for one in ended for outcome in one.outcomes.values()):
        outcome.artifacts, outcome.cache_hit = "", False
        if outcome.commit is not None:
            outcome.message = f"a trial of {context.quick} step{'' if context.quick == 1 else 's'}; nothing is kept"
    return ended
