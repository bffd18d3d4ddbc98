"""The command line. A command's module is imported when the command is used: a cache hit must not wait for the rest."""

from __future__ import annotations

import importlib
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
    "version": "look",
    "store": "store",
    "submit": "cluster",
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
    except BrokenPipeError:
        # The reader has seen enough; without this the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
