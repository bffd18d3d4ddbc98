"""`BatchSampler`: the same batches whatever the number of processes, and the same again after a resume."""

from __future__ import annotations

import pytest
import torch

from runonce import BatchSampler

DATA = [(torch.tensor([float(i)]), i) for i in range(10)]


def drain(sampler):
    batches = []
    while (batch := sampler.next_task()) is not None:
        batches.append(batch[1].tolist())
    return batches


def test_in_order_every_item_comes_once_and_then_none():
    sampler = BatchSampler(DATA, batch_size=4)
    assert sampler.length == 3
    assert drain(sampler) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert sampler.length == 0
    assert sampler.next_task() is None


@pytest.mark.parametrize("total", [2, 3, 4])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_slices_of_all_processes_are_the_batches_of_one(total, shuffle):
    whole = drain(BatchSampler(DATA, batch_size=4, shuffle=shuffle, seed=5))
    parts = [
        drain(BatchSampler(DATA, batch_size=4, process_ind=i, total_processes=total, shuffle=shuffle, seed=5))
        for i in range(total)
    ]
    assert [sum(slices, []) for slices in zip(*parts, strict=True)] == whole


def test_an_empty_slice_has_the_form_of_a_batch():
    sampler = BatchSampler(DATA[:1], batch_size=4, process_ind=0, total_processes=2)
    features, labels = sampler.next_task()
    assert (features.shape, labels.shape) == ((0, 1), (0,))


def test_the_order_depends_on_seed_and_epoch_alone():
    first, second = (BatchSampler(DATA, batch_size=3, shuffle=True, seed=1) for _ in range(2))
    torch.manual_seed(0)
    epoch0 = drain(first)
    torch.manual_seed(99)
    assert drain(second) == epoch0
    first.reset()
    epoch1 = drain(first)
    assert epoch1 != epoch0
    assert sorted(sum(epoch1, [])) == list(range(10))
    other = BatchSampler(DATA, batch_size=3, shuffle=True, seed=2)
    assert drain(other) != epoch0
    other.set_seed(1)
    other.reset()
    assert drain(other) == epoch1


def test_it_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    drain(BatchSampler(DATA, batch_size=3, shuffle=True, seed=1))
    assert torch.equal(torch.rand(3), expected)


def test_it_goes_on_from_its_state():
    first = BatchSampler(DATA, batch_size=3, shuffle=True, seed=1)
    first.reset()
    first.next_task()
    state = first.state_dict()
    rest = drain(first)
    second = BatchSampler(DATA, batch_size=3, shuffle=True, seed=7)
    second.load_state_dict(state)
    assert second.length == 3
    assert drain(second) == rest
    with pytest.raises(ValueError, match="batch_size=3"):
        BatchSampler(DATA, batch_size=4).load_state_dict(state)


def test_processes_that_read_ahead_give_the_same():
    assert drain(BatchSampler(DATA, batch_size=3, shuffle=True, num_workers=1)) == drain(
        BatchSampler(DATA, batch_size=3, shuffle=True)
    )


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"batch_size": 1, "process_ind": 1}])
def test_what_cannot_be_is_refused(arguments):
    with pytest.raises(ValueError, match="a batch has at least one item"):
        BatchSampler(DATA, **arguments)


class Noisy:
    """Items that are drawn anew each time they are asked for."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.rand(()), index


def test_what_is_drawn_at_random_does_not_depend_on_who_reads_ahead_or_where_it_resumed():
    def values(**options):
        sampler = BatchSampler(Noisy(), batch_size=3, shuffle=True, **options)
        return [batch[0] for batch in iter(sampler.next_task, None)]

    alone = values()
    assert all(torch.equal(a, b) for a, b in zip(alone, values(num_workers=1), strict=True))
    resumed = BatchSampler(Noisy(), batch_size=3, shuffle=True)
    resumed.next_task()
    state = resumed.state_dict()
    torch.manual_seed(5)
    again = BatchSampler(Noisy(), batch_size=3, shuffle=True)
    again.load_state_dict(state)
    assert torch.equal(again.next_task()[0], alone[1])


def test_it_knows_the_items_of_this_process_and_of_all():
    sampler = BatchSampler(DATA, batch_size=4, process_ind=1, total_processes=3)
    counts = [sampler.counts for _ in iter(sampler.next_task, None)]
    assert counts == [(1, 4), (1, 4), (1, 2)]
