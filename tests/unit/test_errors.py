"""What a user reads of an error that nobody foresaw."""

import errno

import pytest
import torch

from retain_core.errors import FULL, NO_MEMORY, InputError, told


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.01 GiB."), NO_MEMORY),
        (
            RuntimeError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in CUDA's pages"),
            NO_MEMORY,
        ),
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        (InputError("the data set has no column `answer`"), "the data set has no column `answer`"),
        (RuntimeError("an answer ran out of memory cells"), "RuntimeError: an answer ran out of memory cells"),
    ],
)
def test_a_known_trouble_is_one_sentence_with_its_mend(error, said):
    assert told(error) == said
