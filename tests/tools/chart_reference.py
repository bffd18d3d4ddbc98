"""docs/chart.md, made from the chart's schema and values: python tests/tools/chart_reference.py"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "runonce"
PAGE = ROOT / "docs" / "chart.md"

HEAD = """# The chart

```
helm install runonce helm/runonce --namespace runonce-system --create-namespace --values values.yaml
```

`image.registry` is the registry of all images, so a cluster without a way out names its mirror once. A name that is not in this table is
refused, and so is a value of another type. The CustomResourceDefinition is renewed by every `helm upgrade` and kept by `helm uninstall`.
`helm test` asks the controller for its health and its metrics.

This page is made from `values.schema.json` by `make generate`.

| Value | Default | Meaning |
|---|---|---|
"""


def page() -> str:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    return HEAD + "".join(f"| `{name}` | {default} | {text} |\n" for name, default, text in _rows(schema, defaults, ""))


def _rows(schema: dict[str, Any], default: Any, path: str) -> Iterator[tuple[str, str, str]]:
    for name, inner in schema.get("properties", {}).items():
        if name == "global" and not path:
            continue
        there = isinstance(default, dict) and name in default
        value = default[name] if there else None
        place = f"{path}{name}"
        if not inner.get("properties"):
            yield place, f"`{json.dumps(value)}`" if there else "", inner["description"].replace("|", "\\|")
            if isinstance(inner.get("additionalProperties"), dict) and inner["additionalProperties"].get("properties"):
                yield from _rows(inner["additionalProperties"], None, f"{place}.<name>.")
        else:
            yield from _rows(inner, value, f"{place}.")


if __name__ == "__main__":
    PAGE.write_text(page())
