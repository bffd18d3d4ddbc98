"""--context, --kubeconfig and -n as kubectl has them, and what they lead to."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from runonce.errors import InputError

if TYPE_CHECKING:
    from runonce.kube.transport import Api


@dataclass(frozen=True)
class Place:
    """Where a command looks: None is what the kubeconfig says."""

    context: str | None
    kubeconfig: str | None
    namespace: str | None

    def connect(self) -> tuple[Api, str]:
        """The API server, and the namespace that is meant. Raises InputError."""
        with needing_client():
            from runonce.kube.transport import Api

        api = Api.connect(context=self.context, kubeconfig=self.kubeconfig)
        return api, self.namespace or api.namespace


def cluster_options(command: Any) -> Any:
    """The command gets what was chosen as `place`."""

    @functools.wraps(command)
    def placed(*args: Any, context: str | None, kubeconfig: str | None, namespace: str | None, **options: Any) -> Any:
        return command(*args, place=Place(context, kubeconfig, namespace), **options)

    for option in (
        click.option("-n", "--namespace", help="Namespace; that of the context, if not given."),
        click.option("--kubeconfig", type=click.Path(), help="File; KUBECONFIG, or ~/.kube/config, if not given."),
        click.option("--context", help="Context of the kubeconfig; the current one, if not given."),
    ):
        option(placed)
    return placed


@contextmanager
def needing_client() -> Iterator[None]:
    """Around imports. Raises InputError where the client of Kubernetes is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("kubernetes", "urllib3"):  # which comes with it
            raise
        what = "commands on a cluster need the client of Kubernetes."
        raise InputError.of("", what, "Install it: pip install 'runonce[controller]'.") from error
