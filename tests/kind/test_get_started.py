"""The page of the first five minutes, line by line, on a cluster of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from cluster import ROOT, SITE
from stores import SEAWEED

PAGE = ROOT / "docs" / "get-started.md"

# What the page takes from elsewhere: the node image of this run, images that are built already, and the store's image, which
# a cluster would pull. Everything else is done as it stands there.
SHIMS = {
    "make": '#!/bin/sh\n[ "$*" = images ]\n',
    "kind": """#!/bin/sh
set -e
if [ "$*" = "create cluster" ]; then
  "$REAL_KIND" create cluster ${KIND_NODE_IMAGE:+--image "$KIND_NODE_IMAGE"}
  exec "$REAL_KIND" load docker-image "$STORE_IMAGE"
fi
exec "$REAL_KIND" "$@"
""",
}


def section(title: str) -> str:
    return PAGE.read_text().split(f"\n## {title}\n", 1)[1].split("\n## ")[0]


def test_the_five_minutes_of_the_page_end_with_a_result(cluster, tmp_path):
    blocks = re.findall(r"^```\n(.*?)^```", section("On a cluster of your own making"), re.MULTILINE | re.DOTALL)
    shims, copy = tmp_path / "bin", tmp_path / "copy"
    shims.mkdir()
    for name, text in SHIMS.items():
        (shims / name).write_text(text)
        (shims / name).chmod(0o755)
    for name in ("examples", "helm"):
        shutil.copytree(ROOT / name, copy / name)
    folders = [shims, SITE / "bin", *{Path(path).parent for path in cluster.programs.values()}]
    env = os.environ | {
        "PATH": os.pathsep.join([*map(str, folders), os.environ["PATH"]]),
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "KIND_CLUSTER_NAME": f"runonce-page-{os.getpid()}",
        "REAL_KIND": cluster.programs["kind"],
        "STORE_IMAGE": SEAWEED,
        "RUNONCE_HOME": str(tmp_path / "home"),
    }
    (tmp_path / "page.sh").write_text("set -euxo pipefail\n" + "".join(blocks))
    with (tmp_path / "log").open("w") as log:
        # A session of its own: the page leaves a tunnel running.
        run = subprocess.Popen(
            ["bash", str(tmp_path / "page.sh")], cwd=copy, env=env, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = run.wait(timeout=540)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            delete = [cluster.programs["kind"], "delete", "cluster"]
            subprocess.run(delete, env=env, capture_output=True, check=False)
    told = (tmp_path / "log").read_text()
    assert code == 0, told
    (found,) = copy.glob("hello-train-*")
    assert (found / "hello.txt").read_text() == "hello\n"
    assert re.search(r"hello +train +hit", told), told  # the last run here, of what the cluster made
