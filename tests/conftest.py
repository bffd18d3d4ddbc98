"""What every level of tests shares, and the list of what this machine could not run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parent / "samples"
sys.path[:0] = [str(SAMPLES), str(Path(__file__).parent / "tools")]

try:
    from hypothesis import settings
except ImportError:  # the interpreters beside ours run the pure core alone
    pass
else:
    # The same examples every time: a red build is then a change of ours. `make prove` looks further.
    settings.register_profile("runonce", derandomize=True, deadline=None, max_examples=200)
    settings.load_profile("runonce")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("not run on this machine")
        for why in sorted({str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped}):
            count = sum(str(report.longrepr[2]).removeprefix("Skipped: ") == why for report in skipped)
            terminalreporter.line(f"{count} tests: {why}")
