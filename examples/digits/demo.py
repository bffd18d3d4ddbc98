"""Train the digits and a policy by the command line, check what came out, and ask for the same again: `make demo`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).parents[1]
ACCURACY = 0.95  # held-out, at least
RETURN = 150.0  # of 200, at least


def run(example: str, *arguments: str) -> dict:
    command = [sys.executable, "-m", "runonce", "run", *arguments, "-o", "json"]
    print("$ runonce", *command[3:], flush=True)
    done = subprocess.run(command, cwd=EXAMPLES / example, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def main() -> None:
    store = sys.argv[1:]
    first = run("digits", "digits:Digits", *store)
    again_at = time.perf_counter()
    second = run("digits", "digits.yaml", *store)  # says the same as the class
    seconds = time.perf_counter() - again_at
    accuracy = first["modes"]["test"]["metrics"]["accuracy"]
    print(f"held-out accuracy: {accuracy:.4f}")
    for mode, outcome in first["modes"].items():
        print(f"artifacts of {mode}: {outcome['artifacts']}")
    hit = all(outcome["cacheHit"] for outcome in second["modes"].values())
    print(f"second run: {'hit' if hit else 'not a hit'}, {seconds:.2f} s")
    reached = run("policy", "policy:Policy", *store)["modes"]["test"]["metrics"]["return"]
    print(f"return of the policy: {reached:.1f} of 200")
    if accuracy < ACCURACY:
        sys.exit(f"accuracy {accuracy:.4f} is below {ACCURACY}")
    if not hit:
        sys.exit("the second run was no cache hit")
    if reached < RETURN:
        sys.exit(f"the return {reached:.1f} is below {RETURN}")


if __name__ == "__main__":
    main()
