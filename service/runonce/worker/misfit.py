"""Tensors that do not fit together, told from errors that may go better at the next try. Pure."""

from __future__ import annotations

import re

# torch has no error class for this, only words: of its operators, of batches that are put together, of DDP.
_SHAPES = (
    r"shapes cannot be multiplied|must match|does(?:n't| not) match|size mismatch|Mismatch in shape|to be equal size|"
    r"is invalid for input of size|expected input|[Ee]xpected \S+ size|Expected size|Expected \dD|to sum exactly|"
    r"divisible by num_groups|same number of (?:dimensions|elements)|should contain \d+ elements|don't multiply up|"
    r"must be (?:equal to input_size|of size)|Kernel size can't|Output size is too small|Padding size should|"
    r"does not broadcast|appears not to match|expects same model across all ranks"
)
_TYPES = r"the same dtype|expected \S+ dtype|Found dtype|scalar types?\b"
_MISFIT = re.compile(f"{_SHAPES}|{_TYPES}")


def is_misfit(error: BaseException) -> bool:
    """Whether shapes or types do not fit: they follow from code, parameters and data, so they are alike at every try.

    A full memory, a driver or a peer have classes of their own, or other words.
    """
    return type(error) is RuntimeError and _MISFIT.search(str(error)) is not None
