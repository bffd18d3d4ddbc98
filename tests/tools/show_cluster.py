"""`make cluster`: a control plane with the controller and a node on this machine, the examples applied to it, and the table
of how they end. Arguments: only these of EXAMPLES. Exit code 1 where one did not succeed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from control_plane import CONTROLLER, ControlPlane
from node import Node
from place import grant
from programs import find

ROOT = Path(__file__).parents[2]
RUNONCE = str(Path(sys.executable).parent / "runonce")
NAMESPACE = "examples"
EXAMPLES = {  # folder and target
    "cluster": ("cluster", "hello.yaml"),
    "commands": ("commands", "root.yaml"),
    "digits": ("digits", "digits.yaml"),
    "own_loop": ("digits", "own_loop:OwnLoop"),
    "accelerate_loop": ("accelerate_loop", "accelerate_loop:AccelerateLoop"),
    "policy": ("policy", "policy:Policy"),
}
WITHIN_S = 1800
POLL_S = 0.2


def main() -> int:
    chosen = sys.argv[1:] or list(EXAMPLES)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runonce-cluster-")))
        plane = stack.enter_context(ControlPlane(find()))
        grant(plane)
        plane.kubectl("create", "namespace", NAMESPACE)
        images = {image_of(name): ROOT / "examples" / EXAMPLES[name][0] for name in chosen}
        node = stack.enter_context(Node(plane, images, folder / "node"))
        stack.enter_context(controller(plane, folder))
        stack.enter_context(node.playing(NAMESPACE, node.run_pod))
        for name in chosen:
            say(apply(plane, [with_image(one, name) for one in rendered(name)]))
        last = until_ended(plane)
        print("\nThe same once more, under other names: nothing is run.")
        again = [with_image(renamed(one), name) for name in chosen for one in rendered(name)]
        say(apply(plane, again))
        last = until_ended(plane)
        say(plane.kubectl("get", "rexp", "-o", "wide", namespace=NAMESPACE).stdout)
        say(plane.kubectl("get", "jobs", namespace=NAMESPACE).stdout)
    hits = all(one.get("cached") for name, one in last.items() if name.endswith("-again"))
    return 0 if hits and all(one["phase"] == "Succeeded" for one in last.values()) else 1


def image_of(name: str) -> str:
    return f"examples/{name}:here"


def rendered(name: str) -> list[dict[str, Any]]:
    """The example's documents, every field and the version of the code filled in."""
    folder, target = EXAMPLES[name]
    command = [RUNONCE, "render", target, "-o", "json"]
    done = subprocess.run(command, cwd=ROOT / "examples" / folder, capture_output=True, text=True, check=True)
    found: Any = json.loads(done.stdout)
    return found if isinstance(found, list) else [found]


def with_image(resource: dict[str, Any], name: str) -> dict[str, Any]:
    return resource | {"spec": resource["spec"] | {"image": image_of(name)}}


def renamed(resource: dict[str, Any]) -> dict[str, Any]:
    return resource | {"metadata": resource["metadata"] | {"name": f"{resource['metadata']['name']}-again"}}


def apply(plane: ControlPlane, resources: list[dict[str, Any]]) -> str:
    listed = {"apiVersion": "v1", "kind": "List", "items": resources}
    done = plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(listed), namespace=NAMESPACE)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


@contextlib.contextmanager
def controller(plane: ControlPlane, folder: Path) -> Iterator[None]:
    config, store = folder / "runonce.json", folder / "store"
    store.mkdir()
    config.write_text(json.dumps({"namespaces": [NAMESPACE], "stores": {"default": {"url": f"file://{store}"}}}))
    command = [RUNONCE, "controller", "--config", str(config), "--no-election", "--host", "127.0.0.1", "--port", "0"]
    with open(folder / "controller.log", "wb") as log:
        process = subprocess.Popen([*command, f"--kubeconfig={plane.kubeconfig(CONTROLLER)}"], stdout=log, stderr=log)
    try:
        yield
        if process.poll() is not None:
            raise SystemExit(f"the controller ended: {(folder / 'controller.log').read_text()[-2000:]}")
    finally:
        process.terminate()
        process.wait(timeout=60)


def until_ended(plane: ControlPlane) -> dict[str, dict[str, Any]]:
    """Name to status; the table is printed each time that a phase has changed."""
    shown, deadline = "", time.monotonic() + WITHIN_S
    path = f"/apis/runonce.dev/v1alpha1/namespaces/{NAMESPACE}/experiments"
    while True:
        found = {one["metadata"]["name"]: one["status"] for one in plane.api().must("GET", path)["items"]}
        phases = json.dumps({name: (one.get("phase"), one.get("mode")) for name, one in found.items()})
        if phases != shown:
            shown = phases
            say(plane.kubectl("get", "rexp", namespace=NAMESPACE).stdout)
        if all(one.get("phase") in ("Succeeded", "Failed", "Blocked") for one in found.values()):
            return found
        if time.monotonic() > deadline:
            raise SystemExit(f"not ended within {WITHIN_S} s")
        time.sleep(POLL_S)


def say(text: str) -> None:
    print(text.rstrip(), end="\n\n", flush=True)


if __name__ == "__main__":
    os.environ.pop("RUNONCE_STORE", None)
    sys.exit(main())
