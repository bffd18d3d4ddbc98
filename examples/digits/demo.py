"""Train the digits by the command line, check what came out, and ask for the same again: `make demo`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
AT_LEAST = 0.95  # held-out accuracy


def run(*arguments: str) -> dict:
    command = [sys.executable, "-m", "runonce", "run", *arguments, "-o", "json"]
    print("$ runonce", *command[3:], flush=True)
    done = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def main() -> None:
    store = sys.argv[1:]
    first = run("digits:Digits", *store)
    again_at = time.perf_counter()
    second = run("digits.yaml", *store)  # says the same as the class
    seconds = time.perf_counter() - again_at
    accuracy = first["modes"]["test"]["metrics"]["accuracy"]
    print(f"held-out accuracy: {accuracy:.4f}")
    for mode, outcome in first["modes"].items():
        print(f"artifacts of {mode}: {outcome['artifacts']}")
    hit = all(outcome["cacheHit"] for outcome in second["modes"].values())
    print(f"second run: {'hit' if hit else 'not a hit'}, {seconds:.2f} s")
    if accuracy < AT_LEAST:
        sys.exit(f"accuracy {accuracy:.4f} is below {AT_LEAST}")
    if not hit:
        sys.exit("the second run was no cache hit")


if __name__ == "__main__":
    main()
