"""Code that is edited while it runs: what may have been read since is published under no key; what was imported is."""

from __future__ import annotations

import pytest

COMMAND = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: program}
spec:
  command: [sh, run.sh]
  code: [run.sh, data.csv]
  machineParams:
    train: {nprocesses: 1}
"""

CLASS = """
from pathlib import Path

import early
from runonce import ExperimentConfig, ExperimentParameters, MachineParams


class Edited(ExperimentConfig):
    Params = ExperimentParameters

    def tag(self): return "edited"
    def machine_params(self, mode="train", **kwargs):
        if mode != "train":
            raise NotImplementedError
        return MachineParams(nprocesses=1)

    def train(self, run):
        for name in Path("edits").read_text().split():
            Path(name).write_text(Path(name).read_text() + "\\n# edited\\n")
        import late
        (run.output / "out").write_text(early.WORD + late.WORD + Path("words.txt").read_text())

"""


@pytest.fixture
def edited(place):
    """A class that edits the files which `edits` names before it imports `late` and reads the data."""
    place.write("edited.py", CLASS)
    place.write("early.py", "WORD = 'early '\n")
    place.write("late.py", "WORD = 'late '\n")
    place.write("words.txt", "words")
    place.write("pyproject.toml", '[tool.runonce.code]\ndata = ["words.txt"]\n')
    place.write("edits", "")

    def run(*edits: str):
        place.write("edits", "\n".join(edits))
        return place.runonce("run", "edited:Edited")

    return run


def commits(place) -> int:
    return len(place.commits())


@pytest.mark.parametrize("name", ["late.py", "words.txt"])
def test_what_is_read_after_an_edit_is_published_under_no_key(place, edited, name):
    before = (place.folder / name).read_text()
    done = edited(name)
    assert done.code == 2, done.out
    shown = name.removesuffix(".py")
    assert f"{shown} changed while this ran, and nobody knows which of the two was read." in done.err
    assert commits(place) == 0
    place.write(name, before)
    assert edited().code == 0
    assert commits(place) == 1


def test_an_edit_of_what_was_imported_before_costs_nothing(place, edited):
    """People write the next version while this one trains."""
    done = edited("early.py", "edited.py")
    assert done.code == 0, done.err
    assert commits(place) == 1
    place.write("early.py", "def (")
    place.write("early.py", "WORD = 'early '\n")
    place.write("edited.py", CLASS)
    assert "hit" in edited().out


@pytest.mark.parametrize("edit", ["echo more >> data.csv", "rm data.csv"])
def test_a_program_whose_files_change_is_published_under_no_key(place, edit):
    place.write("program.yaml", COMMAND)
    place.write("data.csv", "a,b\n")
    place.write("run.sh", f"cat data.csv > $RUNONCE_OUTPUT/out\nif [ -e edits ]; then {edit}; fi\n")
    place.write("edits", "")
    done = place.runonce("run", "program.yaml")
    assert done.code == 2, done.out
    assert "a file of spec.code changed while this ran" in done.err
    assert commits(place) == 0
    place.write("data.csv", "a,b\n")
    (place.folder / "edits").unlink()
    assert place.runonce("run", "program.yaml").code == 0
    assert commits(place) == 1
