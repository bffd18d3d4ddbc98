"""Writes what is made from the code: `make generate`. With --check it writes nothing and fails where a file is not as made."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import golden_jobs
import resource_reference
import yaml

from runonce.kube.crd import custom_resource_definition

ROOT = Path(__file__).parents[2]

CRD = ROOT / "helm" / "runonce" / "files" / "crds" / "experiments.yaml"
_HEAD = "# Made from the models of the spec and the status, and from docs/resource.md, by `make generate`.\n"


def crd() -> str:
    """With what docs/resource.md says of each field, for `kubectl explain`."""
    made = custom_resource_definition()
    resource_reference.describe(made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])
    return _HEAD + yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=1000)


MADE: dict[Path, Callable[[], str]] = {
    CRD: crd,
    resource_reference.PAGE: resource_reference.page,
    **{path: (lambda path=path: golden_jobs.made(path)) for path in golden_jobs.FILES},
}


def main() -> int:
    stale = [path for path, make in MADE.items() if not path.exists() or path.read_text(encoding="utf-8") != make()]
    for path in stale:
        print(
            f"{path.relative_to(ROOT)} is not as made; `make generate` writes it"
            if checking()
            else path.relative_to(ROOT)
        )
        if not checking():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(MADE[path](), encoding="utf-8")
    return 1 if stale and checking() else 0


def checking() -> bool:
    return "--check" in sys.argv[1:]


if __name__ == "__main__":
    sys.exit(main())
