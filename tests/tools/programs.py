"""The programs of a Kubernetes control plane: found, or built once from the modules that go.mod here pins.

    python tests/tools/programs.py        says where they are; builds them where they are not

Looked for in KUBEBUILDER_ASSETS, then in the cache folder of the user; else `go build` makes them there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    **{name: f"k8s.io/kubernetes/cmd/{name}" for name in NAMES if name != "etcd"},
}


class ProgramsMissing(Exception):
    """The message says what is missing and how to get it."""


def find(say: Callable[[str], None] = lambda _: None) -> Path:
    """The folder with all of NAMES. Raises ProgramsMissing. Several processes may ask at once: one builds."""
    if given := os.environ.get("KUBEBUILDER_ASSETS"):
        lacking = _lacking(Path(given))
        if lacking:
            raise ProgramsMissing(
                f"KUBEBUILDER_ASSETS={given} has no {', '.join(lacking)}; unset it to have the programs built with Go"
            )
        return Path(given)
    folder = _cache()
    if not _lacking(folder):
        return folder
    if shutil.which("go") is None:
        raise ProgramsMissing(
            "no control plane: set KUBEBUILDER_ASSETS to a folder with "
            f"{', '.join(NAMES)}, or install Go to have them built"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _lacking(folder):
            say(f"building {', '.join(NAMES)} into {folder}: about 7 minutes on two cores, once")
            _build(folder)
    return folder


def version() -> str:
    """Of Kubernetes, as go.mod pins it: v1.37.2."""
    found = re.search(r"^\tk8s\.io/kubernetes (v\S+)$", (HERE / "go.mod").read_text(), re.MULTILINE)
    assert found, "go.mod pins k8s.io/kubernetes"
    return found[1]


def _lacking(folder: Path) -> list[str]:
    return [name for name in NAMES if not os.access(folder / name, os.X_OK)]


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    pinned = hashlib.sha256((HERE / "go.mod").read_bytes()).hexdigest()[:8]
    return Path(home) / "runonce" / f"kubernetes-{version()}-{pinned}"


def _build(folder: Path) -> None:
    """Each program gets its name only when it is whole, so that a build that was stopped goes on next time."""
    minor = version().split(".")[1]
    flags = "-s -w" + "".join(
        f" -X {package}.gitVersion={version()} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    )
    for name in _lacking(folder):
        part = folder / f"{name}.part"
        command = ["go", "build", "-trimpath", "-ldflags", flags, "-o", str(part), PACKAGES[name]]
        done = subprocess.run(
            command, cwd=HERE, env=os.environ | {"CGO_ENABLED": "0"}, stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise ProgramsMissing(f"{name} could not be built: {done.stderr.strip()[-500:]}")
        part.rename(folder / name)


def main() -> None:
    try:
        print(f"control plane: {find(lambda text: print(text, flush=True))}")
    except ProgramsMissing as error:
        print(f"control plane: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
