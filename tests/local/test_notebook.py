"""The Python API in a real kernel of Jupyter, as a notebook talks to it: cells, their output, the stop button."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from jupyter_client import BlockingKernelClient, KernelManager
from jupyter_core.utils import ensure_event_loop

LIMIT_S = 120

CELL = """%%writefile cell.py
from tiny import Tiny

class Cell(Tiny):
    pass
"""

WAITS = """
import time
from pathlib import Path
from tiny import Tiny


class Waits(Tiny):
    \"\"\"Goes on until there is a file `enough`.\"\"\"

    def train(self, run):
        found = run.latest_checkpoint()
        run.log({"begun_at": found.step if found else 0}, step=0)
        Path("begun").touch()
        step = 7
        while not Path("enough").exists():
            if run.should_stop():
                return run.save_checkpoint({}, step=step)
            time.sleep(0.02)
"""


class Notebook:
    """A kernel and what its cells said."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self._client = manager, client

    def cell(self, code: str) -> dict:
        """text: what it printed or showed at its end. error: its class and message, empty if there was none."""
        said: dict = {"text": "", "shown": "", "error": ""}

        def hear(message: dict) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                said["text"] += content["text"]
            elif message["msg_type"] == "execute_result":
                said["shown"] += content["data"]["text/plain"]
            elif message["msg_type"] == "error":
                said["error"] = f"{content['ename']}: {content['evalue']}"

        self._client.execute_interactive(code, output_hook=hear, timeout=LIMIT_S)
        return said

    def value(self, code: str) -> str:
        said = self.cell(code)
        assert not said["error"], said
        return said["shown"]


@pytest.fixture
def notebook(place, tmp_path, monkeypatch):
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    manager = KernelManager()
    manager.start_kernel(cwd=str(place.folder), env=place.env())
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(LIMIT_S)
        yield Notebook(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
        ensure_event_loop().close()  # which its calls have left open


def test_cells_run_experiments_from_modules_that_they_write_and_edit(notebook):
    assert "running=True" in notebook.value("import asyncio; asyncio.get_running_loop()")
    assert not notebook.cell(CELL)["error"]
    notebook.cell("import runonce\nfrom cell import Cell")
    first = notebook.cell('ran = runonce.run(Cell, {"lr": 0.5})\nran["test"].final')
    assert (first["error"], first["shown"]) == ("", "{'score': 1.0}")
    assert "train" in first["text"]
    assert "\x1b" not in first["text"]  # plain lines where there is no terminal
    assert notebook.value('runonce.run(Cell, {"lr": 0.5}).is_hit') == "True"
    assert notebook.value('len(ran["train"].metrics()), ran["train"].path("weights.json").exists()') == "(3, True)"

    edited = CELL.replace("    pass", '    def test(self, run):\n        run.log({"score": 7.0}, step=0)')
    notebook.cell(edited)
    notebook.value("import importlib, cell; importlib.reload(cell); from cell import Cell")
    assert notebook.value('runonce.run(Cell, {"lr": 0.5}, progress=False)["test"].final') == "{'score': 7.0}"
    assert notebook.value('[r.final["loss"] for r in runonce.results(name="tiny", mode="train")]') == f"{[0.5 / 3] * 2}"


def test_a_class_of_the_notebook_itself_is_refused_with_the_way_out(notebook):
    said = notebook.cell("import runonce\nfrom tiny import Tiny\nclass Own(Tiny): pass\nrunonce.run(Own)")
    assert said["error"].startswith("EntryError: ")
    assert "is in __main__, which no other process can import. Move it into a module." in said["error"]


def test_the_stop_button_ends_a_run_after_a_checkpoint_and_the_same_cell_goes_on_from_it(notebook, place):
    place.write("waits.py", WAITS)
    begun = place.folder / "begun"
    presses = threading.Thread(target=_press, args=(notebook.manager, begun))
    presses.start()
    code = 'import runonce\nfrom waits import Waits\nran = runonce.run(Waits, modes=["train"])\nran["train"].final'
    stopped = notebook.cell(code)
    presses.join()
    assert stopped["error"].startswith("RunStopped: stopped after a checkpoint"), stopped
    assert notebook.value("1 + 1") == "2"  # the kernel lives
    place.write("enough", "")
    assert notebook.value(code) == "{'begun_at': 7.0}"


def _press(manager: KernelManager, when: Path) -> None:
    """The stop button, once the file is there."""
    deadline = time.monotonic() + LIMIT_S
    while not when.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    manager.interrupt_kernel()
    ensure_event_loop().close()
