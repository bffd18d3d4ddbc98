"""Prints the packages that `pip install "runonce[s3,controller,worker]"` brings, of those installed here."""

from __future__ import annotations

import re
from importlib import metadata

from packaging.requirements import Requirement

EXTRAS = ("s3", "controller", "worker")


def main() -> None:
    found: set[str] = set()
    waiting = [Requirement(f"runonce[{','.join(EXTRAS)}]")]
    while waiting:
        wanted = waiting.pop()
        for text in metadata.requires(wanted.name) or ():
            needed = Requirement(text)
            extras = ["", *wanted.extras]
            if needed.marker is not None and not any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                continue
            name = re.sub(r"[-_.]+", "-", needed.name).lower()
            if name not in found and name != "runonce":
                found.add(name)
                waiting.append(needed)
    print(*sorted(found))


if __name__ == "__main__":
    main()
