"""The scripted API server for every test of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest_kube import api, server  # noqa: F401 - fixtures
