"""What every level of tests shares, and the list of what this machine could not run."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from weed import Weed

SAMPLES = Path(__file__).parent / "samples"
sys.path[:0] = [str(SAMPLES), str(Path(__file__).parent / "tools")]

# Begun in the background of a shell, we and all our children would ignore what tests send them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

try:
    from hypothesis import settings
except ImportError:  # the interpreters beside ours run the pure core alone
    pass
else:
    # The same examples every time: a red build is then a change of ours. `make prove` looks further.
    settings.register_profile("runonce", derandomize=True, deadline=None, max_examples=200)
    settings.load_profile("runonce")


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    """A real S3 server of this test process, and the credentials for it in the environment."""
    from weed import KEY, SECRET, running

    with pytest.MonkeyPatch.context() as patch, running(tmp_path_factory.mktemp("weed") / "store") as server:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("not run on this machine")
        for why in sorted({str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped}):
            count = sum(str(report.longrepr[2]).removeprefix("Skipped: ") == why for report in skipped)
            terminalreporter.line(f"{count} tests: {why}")
