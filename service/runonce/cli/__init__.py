"""The command line. A command's module is imported when the command is used: a cache hit must not wait for the rest."""

from __future__ import annotations

import importlib
import io
import os
import sys

import click

from runonce import __version__
from runonce.errors import InputError, RunonceError

_COMMANDS = {
    "run": "run",
    "key": "look",
    "plan": "look",
    "render": "look",
    "explain": "explain",
    "show": "show",
    "compare": "compare",
    "ls": "keep",
    "logs": "logs",
    "pull": "keep",
    "export": "export",
    "verify": "care",
    "rm": "keep",
    "pin": "pin",
    "unpin": "pin",
    "gc": "care",
    "version": "look",
    "store": "store",
    "submit": "submit",
    "cluster": "cluster",
    "controller": "controller",
    "worker": "worker",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"runonce.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="runonce")
def runonce() -> None:
    """Experiments, each one run only once."""


def main() -> None:
    """Entry point of the program. Exit codes: 0 done or cached, 1 failed, 2 wrong input, 75 stopped and resumable."""
    _open_streams()
    try:
        code = runonce.main(prog_name="runonce", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 130
    except InputError as error:
        for fault in error.faults:
            click.echo(f"error: {fault}", err=True)
        code = error.exit_code
    except RunonceError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except OSError as error:
        code = 1
        if error.filename is None:
            # Its output cannot be written; without this the interpreter would complain at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # whose reader has seen enough
            click.echo(f"error: {_surroundings(error)}", err=True)
    sys.exit(code)


def _open_streams() -> None:
    """A standard stream that is closed reads as empty and swallows what is written; and what a terminal cannot show is
    no reason to fail.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # or the next file that is opened would be taken for the stream
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115 - for as long as the program runs
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _surroundings(error: OSError) -> str:
    """What the machine did not let us do, and what can be done about it."""
    from pathlib import Path

    from runonce.settings import Settings

    try:
        os.getcwd()
    except FileNotFoundError:
        return "the working directory is gone. Change into one that is there."
    home = Settings.from_env().home
    said = f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror or error}."
    if error.filename and Path(str(error.filename)).absolute().is_relative_to(home):
        said += " Let RUNONCE_HOME name a folder that can be written; what Runonce remembers lies there."
    return said
