"""What torch says of tensors that do not fit is known for what it is, and nothing else is taken for it."""

from __future__ import annotations

import pytest
import torch
from torch import nn, rand
from torch.nn import functional
from torch.utils.data import default_collate

from runonce.worker.misfit import is_misfit

LABELS = torch.zeros(8, dtype=torch.long)

MISFITS = {
    "a layer and its batch": lambda: nn.Linear(4, 8)(rand(8, 3)),
    "two matrices": lambda: rand(2, 3) @ rand(2, 3),
    "two batches of matrices": lambda: torch.bmm(rand(2, 3, 4), rand(2, 3, 4)),
    "a matrix and a vector": lambda: torch.mv(rand(2, 3), rand(2)),
    "two vectors": lambda: torch.dot(rand(2), rand(3)),
    "terms of a sum": lambda: rand(8, 4) + rand(8, 3),
    "what is added in place": lambda: rand(8).add_(rand(4, 8)),
    "parts that are joined": lambda: torch.cat([rand(2, 3), rand(2, 4)]),
    "parts of other dimensions": lambda: torch.cat([rand(2, 3), rand(2)]),
    "items of a batch": lambda: default_collate([rand(2), rand(3)]),
    "a view": lambda: rand(6).view(4),
    "an expanded view": lambda: rand(3).expand(4),
    "an unflattened view": lambda: rand(6).unflatten(0, (4, 2)),
    "a split": lambda: rand(5).split([2, 2]),
    "channels of a convolution": lambda: nn.Conv2d(3, 8, 3)(rand(1, 4, 9, 9)),
    "dimensions of a convolution": lambda: nn.Conv2d(3, 8, 3)(rand(4, 9)),
    "an image that is too small": lambda: nn.Conv2d(3, 8, 5)(rand(1, 3, 2, 2)),
    "an image that is too small to pool": lambda: nn.MaxPool2d(4)(rand(1, 3, 2, 2)),
    "a padding that is too large": lambda: functional.pad(rand(1, 3, 2, 2), (5, 5, 5, 5), mode="reflect"),
    "a batch norm": lambda: nn.BatchNorm1d(4)(rand(8, 3)),
    "a layer norm": lambda: nn.LayerNorm(4)(rand(8, 3)),
    "a group norm": lambda: functional.group_norm(rand(2, 5), 2),
    "a recurrent layer": lambda: nn.LSTM(4, 8)(rand(5, 2, 3)),
    "a hidden state": lambda: nn.GRU(4, 8)(rand(2, 5, 4), rand(2, 2, 8)),
    "labels of places": lambda: functional.cross_entropy(rand(8, 10, 4), LABELS),
    "a mean square": lambda: functional.mse_loss(rand(8, 4), rand(8, 3)),
    "indices that are gathered": lambda: torch.gather(rand(2, 3), 1, torch.zeros(3, 3, dtype=torch.long)),
    "a sum over indices": lambda: torch.einsum("ij,jk->ik", rand(2, 3), rand(2, 3)),
    "attention": lambda: functional.scaled_dot_product_attention(rand(1, 2, 3, 4), rand(1, 2, 3, 5), rand(1, 2, 3, 4)),
    "weights of another model": lambda: nn.Linear(4, 2).load_state_dict(nn.Linear(3, 2).state_dict()),
    "a gradient": lambda: rand(3, requires_grad=True).sum().backward(rand(3)),
    "float64 for float32": lambda: nn.Linear(4, 2)(rand(2, 4).double()),
    "labels that are no whole numbers": lambda: functional.cross_entropy(rand(8, 10), rand(8)),
    "indices that are no whole numbers": lambda: nn.Embedding(4, 2)(rand(3)),
    "targets that are whole numbers": lambda: functional.binary_cross_entropy(rand(8), LABELS),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("what", MISFITS)
def test_an_operator_that_refuses_its_tensors_is_known_by_what_it_says(what):
    with pytest.raises(RuntimeError) as caught:
        MISFITS[what]()
    assert is_misfit(caught.value), caught.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. Please try to raise your shared memory limit"),
        RuntimeError("unable to open shared memory object </torch_7> in read-write mode: Too many open files (24)"),
        RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"),
        torch.distributed.DistBackendError("NCCL error: remote process exited"),
        OSError("the size of the file does not match"),
        MemoryError(),
    ],
)  # fmt: skip
def test_what_may_go_better_at_the_next_try_is_none(error):
    assert not is_misfit(error)


def test_a_full_memory_of_the_cpu_is_none():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert not is_misfit(caught.value)
