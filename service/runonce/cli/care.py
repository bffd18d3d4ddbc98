"""Commands that keep a store whole and small: verify, gc."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import click

from runonce.cli.chosen import choose, complete_results, mode_option
from runonce.cli.options import json_option, open_there, store_option
from runonce.cli.text import size_text
from runonce.cli.waiting import Waiting
from runonce.errors import InputError
from runonce.store.backend import Backend
from runonce.store.collect import DAY_S, Collected, Limits, Tell, collect
from runonce.store.find import is_prefix
from runonce.store.verify import Damage, discard, verify_result
from runonce.store.verify import verify as verify_store

_AGE = re.compile(r"(\d+)([hdw])")
_UNITS = {"h": 3600.0, "d": DAY_S, "w": 7 * DAY_S}


@click.command()
@click.argument("results", nargs=-1, metavar="[RESULT]…", shell_complete=complete_results)
@mode_option
@click.option("--dry-run", is_flag=True, help="Only look; a damaged result goes on being served where it can be.")
@store_option
@json_option
def verify(results: Sequence[str], modes: Sequence[str], dry_run: bool, store: str | None, output: str) -> int:
    """Read every byte of these results, or of the whole store; exit code 1 where any is damaged.

    What is damaged is taken out, and each result that needs it becomes a miss: the next run makes it anew.
    """
    backend = open_there(store)
    with Waiting() as tell:
        found = list(_damages(backend, results, modes, tell))
        for damage in found if not dry_run else ():
            discard(backend, damage)
    if output == "json":
        shown = [{"object": one.name, "message": one.what, "cacheKeys": one.cache_keys} for one in found]
        click.echo(json.dumps({"damaged": shown, "discarded": bool(found) and not dry_run}, indent=2))
        return int(bool(found))
    for one in found:
        click.echo(one.what)
        for key in one.cache_keys:
            click.echo(f"    needed by {key[:12]}{'' if dry_run else ', now a miss: run it again'}")
    click.echo(f"{len(found)} damaged" if found else "nothing is damaged")
    return int(bool(found))


def _damages(backend: Backend, results: Sequence[str], modes: Sequence[str], tell: Tell) -> Iterator[Damage]:
    if not results:
        yield from verify_store(backend, tell=tell)
        return
    seen = set()
    for text in results:
        # By its key alone also where the commit cannot be read.
        keys = (
            [entry.name.rpartition("/")[2] for entry in backend.list(f"c/{text[:2]}/{text}")] if is_prefix(text) else []
        )
        for key in keys if len(keys) == 1 else [commit.cache_key for commit in choose(backend, [text], modes)]:
            for damage in verify_result(backend, key, tell=tell):
                if (damage.name, damage.users) not in seen:
                    seen.add((damage.name, damage.users))
                    yield damage


@click.command()
@click.option("--delete", is_flag=True, help="Do it; without this nothing is changed.")
@click.option("--older-than", metavar="AGE", help="Also results older than 90d, 12w, 36h; not the newest of a name.")
@click.option("--newest-too", is_flag=True, help="With --older-than: also the newest result of each name and mode.")
@click.option("--no-writers", is_flag=True, help="You promise that nothing writes now: what is young goes too.")
@store_option
@json_option
def gc(
    delete: bool, older_than: str | None, newest_too: bool, no_writers: bool, store: str | None, output: str
) -> None:
    """Free what no result needs any more; safe beside running experiments. Looks only, unless told to delete.

    Kept whatever happens: what is younger than two days, results that are in the store, unfinished rounds of the last
    30 days with their checkpoints. A result that is removed frees its space two days later.
    """
    if newest_too and older_than is None:
        raise click.UsageError("--newest-too says which results --older-than removes; give both.")
    limits = Limits(retain=_seconds(older_than) if older_than else None, newest_too=newest_too)
    if no_writers:
        limits = Limits(grace=-1.0, retain=limits.retain, newest_too=newest_too)
    backend = open_there(store)
    with Waiting() as tell:
        found = collect(backend, limits, delete=delete, tell=tell)
    if output == "json":
        click.echo(json.dumps(_json(found, delete), indent=2))
    else:
        _print(found, delete)


def _seconds(age: str) -> float:
    match = _AGE.fullmatch(age)
    if match is None:
        raise InputError.of("--older-than", f"is {age!r}.", "Write a number with h, d or w: 90d.")
    return int(match[1]) * _UNITS[match[2]]


def _json(found: Collected, deleted: bool) -> dict[str, object]:
    kinds = {kind: {"count": found.counts[kind], "size": found.sizes[kind]} for kind in sorted(found.counts)}
    results = [{"cacheKey": key, "name": name, "mode": mode, "size": size} for key, name, mode, size in found.results]
    freed = sum(size for kind, size in found.sizes.items() if kind != "results")
    return {"deleted": deleted, "freed": freed, "kinds": kinds, "results": results}


def _print(found: Collected, deleted: bool) -> None:
    for key, name, mode, size in found.results:
        click.echo(f"{name}  {mode}  {key[:12]}  {size_text(size)}")
    for kind in sorted(found.counts):
        later = "  (their space two days later)" if kind == "results" else ""
        click.echo(f"{found.counts[kind]:8}  {kind:12}  {size_text(found.sizes[kind])}{later}")
    freed = size_text(sum(size for kind, size in found.sizes.items() if kind != "results"))
    if deleted:
        click.echo(f"freed {freed}")
    else:
        click.echo(f"would free {freed}" + ("; --delete does it" if found.counts else ""))
