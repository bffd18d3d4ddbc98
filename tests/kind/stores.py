"""The S3 servers of the cluster: that of examples/cluster/store.yaml, and one like it that can be put out of action."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from cluster import Cluster

EXAMPLE = list(yaml.safe_load_all((Path(__file__).parents[2] / "examples" / "cluster" / "store.yaml").read_text()))
NAMESPACE, BUCKET, PORT = "store", "runonce", 8333


def _of(kind: str) -> dict[str, Any]:
    (found,) = (one for one in EXAMPLE if one["kind"] == kind)
    return dict(copy.deepcopy(found))


SEAWEED: str = _of("Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]

# The first process lives on while the server is killed, and so do its data: no container is made anew.
_LIFELINE = (
    'while :; do while [ -e /tmp/down ]; do sleep 0.1; done; weed "$@" & echo $! > /tmp/pid; wait; sleep 0.1; done'
)
STOP = "touch /tmp/down; kill -9 $(cat /tmp/pid)"


@dataclass(frozen=True)
class Store:
    name: str

    def url(self, namespace: str = "{namespace}", *, endpoint: str = "") -> str:
        where = endpoint or f"http://{self.name}.{NAMESPACE}.svc:{PORT}"
        return f"s3://{BUCKET}/{namespace}?endpoint={where}&region=us-east-1"

    def credentials(self) -> dict[str, str]:
        (identity,) = json.loads(_of("Secret")["stringData"]["keys.json"])["identities"]
        return _variables(identity)

    @contextlib.contextmanager
    def forwarded(self, cluster: Cluster, namespace: str) -> Iterator[str]:
        """URL by which this machine reaches the prefix of a namespace."""
        command = [cluster.programs["kubectl"], "port-forward", "-n", NAMESPACE, f"service/{self.name}", f":{PORT}"]
        with subprocess.Popen(command, env=cluster.env, stdout=subprocess.PIPE, text=True) as tunnel:
            try:
                assert tunnel.stdout is not None
                first = tunnel.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+)", first)
                assert found, first
                yield self.url(namespace, endpoint=f"http://127.0.0.1:{found[1]}")
            finally:
                tunnel.terminate()

    def stop(self, cluster: Cluster) -> None:
        """SIGKILL, and no new one until `start`: connections break, and no other can be made."""
        self._shell(cluster, STOP)

    @contextlib.contextmanager
    def armed(self, cluster: Cluster) -> Iterator[subprocess.Popen[str]]:
        """A shell beside the server, so that `stop` comes within milliseconds: write its line to standard input."""
        where = ("exec", "-i", "-n", NAMESPACE, f"deployment/{self.name}", "--", "sh")
        command = [cluster.programs["kubectl"], *where]
        with subprocess.Popen(
            command, env=cluster.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as shell:
            assert shell.stdin is not None
            assert shell.stdout is not None
            shell.stdin.write("echo armed\n")
            assert shell.stdout.readline() == "armed\n"
            yield shell
            shell.stdin.close()

    def start(self, cluster: Cluster) -> None:
        """Returns once there is one again, ready or not."""
        self._shell(cluster, "rm -f /tmp/down; until kill -0 $(cat /tmp/pid) 2> /dev/null; do sleep 0.1; done")

    def _shell(self, cluster: Cluster, script: str) -> None:
        cluster.kubectl("exec", "-n", NAMESPACE, f"deployment/{self.name}", "--", "sh", "-c", script)


PLAIN, FRAGILE = Store("seaweedfs"), Store("fragile")


# Somebody who may read the store, and no more.
_READER = {
    "name": "reader",
    "actions": ["Read", "List"],
    "credentials": [{"accessKey": "runonce-reader", "secretKey": "runonce-reader-secret"}],
}


def reader() -> dict[str, str]:
    return _variables(_READER)


def _variables(identity: dict[str, Any]) -> dict[str, str]:
    (keys,) = identity["credentials"]
    return {"AWS_ACCESS_KEY_ID": keys["accessKey"], "AWS_SECRET_ACCESS_KEY": keys["secretKey"]}


def stores() -> list[dict[str, Any]]:
    secret = _of("Secret")
    known = json.loads(secret["stringData"]["keys.json"])
    secret["stringData"]["keys.json"] = json.dumps({"identities": [*known["identities"], _READER]})
    return [secret if one["kind"] == "Secret" else one for one in EXAMPLE] + list(_fragile())


def _fragile() -> Iterator[dict[str, Any]]:
    labels = {"app": FRAGILE.name}
    service, deployment = _of("Service"), _of("Deployment")
    service["metadata"]["name"] = deployment["metadata"]["name"] = FRAGILE.name
    service["spec"]["selector"] = labels
    deployment["spec"]["selector"]["matchLabels"] = labels
    deployment["spec"]["template"]["metadata"]["labels"] = labels
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["command"] = ["sh", "-c", _LIFELINE, "sh"]
    yield service
    yield deployment
