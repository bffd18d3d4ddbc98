"""What the engine computes: the same as a plain loop, and the same with any number of processes."""

from __future__ import annotations

import pytest
import torch
from trainings import Line, Params, made

from runonce import BatchSampler


def plain(params: Params) -> dict[str, torch.Tensor]:
    """The same training as a script would write it, seeded as the engine seeds."""
    torch.manual_seed(0)
    config = Line(params)
    model = config.create_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=params.lr)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    data = BatchSampler(made(params.items, 1), params.batch_size, seed=1, shuffle=True)
    for _ in range(params.epochs):
        while (batch := data.next_task()) is not None:
            optimizer.zero_grad()
            config.square(model, batch).backward()
            optimizer.step()
            schedule.step()
        data.reset()
    return model.state_dict()


def far(first, second) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_one_process_gives_the_very_weights_of_a_plain_loop(job):
    trained = job().run().weights()
    expected = plain(Params())
    assert all(torch.equal(trained[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "params",
    [{}, {"accumulate": 3}, {"stages": 2}, {"max_grad_norm": 0.1}, {"items": 33, "batch_size": 8}],
    ids=["plain", "accumulated", "two stages", "clipped", "empty slices"],
)
def test_one_two_and_four_processes_agree(job, params):
    """33 items in batches of 8 leave one in the last, of which three of four processes have an empty slice."""
    one, two, four = (job(processes=n, folder=str(n), **params).run() for n in (1, 2, 4))
    assert far(one.weights(), two.weights()) < 1e-6
    assert far(one.weights(), four.weights()) < 1e-6
    assert dict(one.entries("square")) == pytest.approx(dict(four.entries("square")), abs=1e-6)
    assert not (four.output(1) / "weights.pt").exists()


def test_accumulated_batches_are_one_batch(job):
    """Three batches of 8 are one of 24: 37 items are 24 and 13 either way."""
    small = job(accumulate=3, folder="a").run().weights()
    large = job(batch_size=24, folder="b").run().weights()
    assert far(small, large) < 1e-9


def test_the_log_has_losses_of_all_processes_rates_and_validations(job):
    trained = job(processes=2, valid_every=5, stages=2).run()
    steps = [step for step, _ in trained.entries("square")]
    assert steps == [2, 4, 6, 7, 8, 10, 12, 14, 16, 18, 20]
    assert [step for step, _ in trained.entries("valid/error")] == [5, 10, 15, 20]
    assert [step for step, _ in trained.entries("size")] == [2, 4, 6, 7]
    assert trained.entries("lr")[0][1] == pytest.approx(0.05 * 0.99**2)
    assert trained.entries("square", rank=1) == []


def test_the_best_weights_are_kept(job):
    trained = job(lr=0.9, epochs=6, valid_every=3, keep="best:-error").run()
    errors = trained.entries("valid/error")
    model = Line(Params()).create_model()
    model.load_state_dict(trained.weights())
    with torch.no_grad():
        sums = [float(Line.error(model, (x[None], y[None]))[0]) for x, y in made(23, 2)]
    assert sum(sums) / 23 == pytest.approx(min(value for _, value in errors), rel=1e-9)
    assert min(errors, key=lambda entry: entry[1]) != errors[-1]


def test_validation_leaves_no_trace_in_the_training(job):
    with_it = job(valid_every=1, dropout=0.5, folder="a").run().weights()
    without = job(dropout=0.5, folder="b").run().weights()
    assert far(with_it, without) == 0


@pytest.mark.parametrize(("precision", "nonfinite"), [("bfloat16", "stop"), ("float16", "stop"), ("float16", "skip")])
def test_lower_precision_trains_on_the_cpu(job, precision, nonfinite):
    """In float16 the first scale of the loss is too large, so steps are left out until it fits."""
    trained = job("Single", precision=precision, nonfinite=nonfinite, epochs=12).run()
    losses = [value for _, value in trained.entries("square")]
    assert losses[-1] < losses[0] / 3
    assert all(weight.dtype == torch.float32 for weight in trained.weights().values())


def test_a_stage_ends_early_where_its_criterion_says_so_on_all_processes(job):
    trained = job("Early", processes=2, epochs=50).run()
    assert trained.entries("square")[-1][0] == 12


def test_a_trial_run_ends_after_its_steps(job):
    trained = job(quick=3, stages=2, valid_every=2).run()
    assert trained.entries("square")[-1][0] == 6


def test_algorithms_that_repeat_are_asked_for_in_training_and_evaluation_and_samplers_are_told(job):
    job("Repeats").run().commit()
    job("Repeats", mode="test").run()


@pytest.mark.parametrize("mode", ["valid", "test"])
def test_one_and_seven_processes_give_one_answer(job, mode):
    job().run().commit()
    one, seven = (job(mode=mode, processes=n).run().metrics() for n in (1, 7))
    assert one["near"] == seven["near"]
    assert one["near"][1] == seven["error"][1] == 23
    assert one["error"][0] == pytest.approx(seven["error"][0], rel=1e-12)


def test_an_evaluation_reads_the_weights_of_train(job):
    trained = job().run().commit()
    model = Line(Params()).create_model()
    model.load_state_dict(trained.weights())
    x, y = (torch.stack(column) for column in zip(*made(23, 2), strict=True))
    with torch.no_grad():
        expected = float(Line.error(model.eval(), (x, y))[0])
    assert job(mode="test").run().metrics()["error"][0] == pytest.approx(expected, rel=1e-12)
