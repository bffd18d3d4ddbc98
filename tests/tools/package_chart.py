"""The chart as an archive in dist, whose images are those of one owner in the chart's registry.

    python tests/tools/package_chart.py [OWNER]

Who releases a copy of Runonce pushes images under a name of their own, and their chart has to ask for those.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
OWNER = "runonce-dev"  # as values.yaml has it


def package(owner: str, out: Path, *, helm: str = "helm") -> None:
    with tempfile.TemporaryDirectory() as folder:
        chart = Path(shutil.copytree(ROOT / "helm" / "runonce", Path(folder) / "runonce"))
        values = chart / "values.yaml"
        text = values.read_text(encoding="utf-8")
        if text.count(f"repository: {OWNER}/") != 2:
            raise SystemExit(f"{values.name} no longer has two images of {OWNER}")
        values.write_text(text.replace(f"repository: {OWNER}/", f"repository: {owner}/"), encoding="utf-8")
        subprocess.run([helm, "package", str(chart), "--destination", str(out)], check=True)


if __name__ == "__main__":
    package(sys.argv[1] if len(sys.argv) > 1 else OWNER, ROOT / "dist")
