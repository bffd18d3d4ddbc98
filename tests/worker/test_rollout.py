"""Tasks that are acted out: the samplers are spread over the processes, and what is learned does not mind how."""

from __future__ import annotations

import time


def test_one_two_and_four_processes_learn_the_same_from_four_samplers(job, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    runs = [job("Acting", processes=n, folder=str(n), env={"MARKS": str(marks)}).run() for n in (1, 2, 4)]
    one, *others = [run.weights() for run in runs]
    for other in others:
        assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-6
    made = {path.name: path.read_text() for path in marks.iterdir()}
    assert made == {"0-of-4": "0", "1-of-4": "1", "2-of-4": "2", "3-of-4": "3"}  # the last run had one in each


def test_fewer_samplers_than_processes_are_refused(job):
    started = job("Acting", processes=3, wrong="too few").start()
    assert started.wait() == [78] * 3
    assert "the pipeline has samplers=2 for 3 processes" in started.log(0)


def test_an_endless_sampler_goes_on_with_any_number_of_processes(job):
    first = job("Acting", processes=2, folder="a", env={"RUNONCE_CHECKPOINT_S": "0"}).start()
    deadline = time.monotonic() + 180
    while not any("e/" in name and name[:-1] + "0" in first.saved() for name in first.saved() if name.endswith("i1")):
        assert time.monotonic() < deadline, first.log(0)
        time.sleep(0.001)
    first.kill()
    again = first.again(processes=4).run()
    assert "goes on from the checkpoint of step" in again.log(0)
    assert again.entries("square")[-1][0] == 30
