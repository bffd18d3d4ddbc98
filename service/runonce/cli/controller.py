"""`runonce controller`: the role that the controller's image starts."""

from __future__ import annotations

from pathlib import Path

import click

from runonce.errors import InputError


@click.command()
@click.option("--config", "path", required=True, type=click.Path(), help="The administrator's file.")
@click.option("--kubeconfig", type=click.Path(), help="Instead of the pod's own account.")
@click.option("--context", help="A context of the kubeconfig.")
@click.option("--namespace", "-n", help="Where the Lease lies; the pod's own, or the context's, if not given.")
@click.option("--host", default="0.0.0.0", show_default=True, help="Address for /healthz, /readyz and /metrics.")  # noqa: S104
@click.option("--port", type=int, help="Port for them; as the file says, if not given.")
@click.option("--no-election", is_flag=True, help="No other controller is there.")
def controller(
    path: str,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    host: str,
    port: int | None,
    no_election: bool,
) -> int:
    """Reconcile the Experiments of a cluster, until SIGTERM. Exit code 1: leadership was lost."""
    from runonce.controller.main import Controller, run_controller
    from runonce.kube.cluster import parse_cluster
    from runonce.kube.transport import Api
    from runonce.logs import log_as_json

    try:
        cluster = parse_cluster(Path(path).read_bytes())
    except OSError as error:
        raise InputError.of("--config", f"{path} cannot be read: {error.strerror}.", "Name the file.") from error
    cluster.keyring()  # keys that cannot be read are told before anything is started
    log_as_json(cluster.log_level)

    def make() -> Controller:
        api = Api.connect(context=context, kubeconfig=kubeconfig)
        # Its own connection and a short limit: a lease is not renewed behind slow calls.
        elect = None if no_election else Api.connect(context=context, kubeconfig=kubeconfig, timeout_s=3.0)
        return Controller(api, cluster, namespace=namespace or api.namespace, elect=elect, host=host, port=port)

    return run_controller(make)
