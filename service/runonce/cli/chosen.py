"""RESULT as commands about stored results take it, and how a shell completes it."""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from runonce.cli.options import open_given
from runonce.errors import InputError, RunonceError
from runonce.experiment.key import MODES
from runonce.experiment.manifest import Commit
from runonce.store.backend import Backend
from runonce.store.find import find_commit, find_named, is_prefix

MAX_SHOWN = 50

mode_option = click.option("--mode", "modes", multiple=True, type=click.Choice(MODES), help="Only this mode.")


def choose(backend: Backend, texts: Sequence[str], modes: Sequence[str]) -> list[Commit]:
    """All results that the texts mean: of a name every one, newest first; of the first digits of a key the one.

    Raises InputError for a text that means none.
    """
    found: dict[str, Commit] = {}
    for text in texts:
        commits = find_named(backend, text)
        if not commits and is_prefix(text):
            commits = [find_commit(backend, text)]
        chosen = [commit for commit in commits if not modes or commit.mode in modes]
        if not chosen:
            what = f"no result in {backend.url} has the name {text}, or a key that begins with it"
            raise InputError.of("", what + (f", in mode {' or '.join(modes)}." if modes else "."), "See `runonce ls`.")
        found |= {commit.cache_key: commit for commit in chosen}
    return list(found.values())


def newest(commits: Sequence[Commit]) -> list[Commit]:
    """Of each mode the first, modes in their order."""
    first: dict[str, Commit] = {}
    for commit in commits:
        first.setdefault(commit.mode, commit)
    return sorted(first.values(), key=lambda commit: MODES.index(commit.mode))


def complete_results(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names, and keys once four digits are there. A shell that waits for an error would be of no use to anyone."""
    try:
        backend = open_given(ctx.params.get("store"))
        names = {entry.name.split("/")[1] for entry in backend.list(f"n/{incomplete}")}
        if is_prefix(incomplete):
            names |= {entry.name.rpartition("/")[2] for entry in backend.list(f"c/{incomplete[:2]}/{incomplete}")}
    except (RunonceError, OSError):
        return []
    return [CompletionItem(name) for name in sorted(names)[:MAX_SHOWN]]
