"""Kills of a training as a table: python kill_table.py [MOMENTS], fifty where not given; 15-28 are some of them.

Ends with 1 where a training did not come out the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TEST = Path(__file__).parents[1] / "worker" / "test_kills.py"


def main() -> int:
    moments = sys.argv[1] if len(sys.argv) > 1 else "50"
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table"
        env = {**os.environ, "RUNONCE_KILLS": moments, "RUNONCE_KILL_TABLE": str(table)}
        command = [sys.executable, "-m", "pytest", "-q", "-x", str(TEST)]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True)
        rows = table.read_text().splitlines() if table.exists() else []
    print("| Moment | Processes | Killed | Went on from step | Weights equal |\n|---|---|---|---|---|")
    print("\n".join(rows))
    if done.returncode:
        print(done.stdout, file=sys.stderr)
    return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
