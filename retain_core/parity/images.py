"""Two jobs on small images of digits, after RL's Razor (arXiv 2509.04259; paper section 5).

The paper has ParityMNIST and FashionMNIST. Here both come from the 1,797 images of 8 x 8 pixels in scikit-learn, half of
them for each: the new job is parity on the images as they are; the old job, in FashionMNIST's place, is ten classes on
the *other* images, transposed, under a permuted label map. As in the paper, a further input says which job it is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DIGITS = 10
INPUTS = 65
"""64 pixels and the flag of the job: +1 parity, -1 the old one."""
PARITY_FLAG = 1.0
OLD_FLAG = -1.0
PRETRAINED = 6
TUNED = 60
OLD_TRAINED = 50
"""Images of each digit: parity before and during fine-tuning (the first among the second), and the old job."""

Pixels = NDArray[np.float32]
Labels = NDArray[np.int64]


class Images(NamedTuple):
    """Inputs (n, 65) with pixels from 0 to 1, and what each shows (n,): the digit, or the class of the old job."""

    inputs: Pixels
    labels: Labels


class World(NamedTuple):
    """One draw of both jobs. No image is in two of `tuned`, `parity_test`, `old_train`, `old_test`.

    `pretrained` is a part of `tuned`. `report` flags every second old test image: learning rates are chosen on the
    others, and shown on these.
    """

    pretrained: Images
    tuned: Images
    parity_test: Images
    old_train: Images
    old_test: Images
    report: NDArray[np.bool_]


def draw_world(rng: np.random.Generator) -> World:
    """Share out the images, every digit alike, and draw the label map of the old job."""
    pixels, digits = _library()
    parity: list[NDArray[np.intp]] = []
    old: list[NDArray[np.intp]] = []
    for digit in range(DIGITS):
        mine = rng.permutation(np.flatnonzero(digits == digit))
        parity.append(mine[: len(mine) // 2])
        old.append(mine[len(mine) // 2 :])
    classes = rng.permutation(DIGITS)

    def as_parity(first: int, last: int | None) -> Images:
        chosen = np.concatenate([images[first:last] for images in parity])
        return Images(_with_flag(pixels[chosen], PARITY_FLAG), digits[chosen])

    def as_old(first: int, last: int | None) -> Images:
        chosen = np.concatenate([images[first:last] for images in old])
        return Images(_with_flag(pixels[chosen].transpose(0, 2, 1), OLD_FLAG), classes[digits[chosen]])

    old_test = as_old(OLD_TRAINED, None)
    return World(
        as_parity(0, PRETRAINED), as_parity(0, TUNED), as_parity(TUNED, None), as_old(0, OLD_TRAINED), old_test,
        np.arange(len(old_test.labels)) % 2 == 1,
    )  # fmt: skip


def parity_labels(digits: Labels, rng: np.random.Generator) -> Labels:
    """For every digit one of the five digits of its parity, each as likely."""
    return digits % 2 + 2 * rng.integers(0, DIGITS // 2, len(digits))


@lru_cache(maxsize=1)
def _library() -> tuple[Pixels, Labels]:
    """All images (1797, 8, 8), from 0 to 1, and their digits; they lie in the installed library."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.asarray(found.images / 16, dtype=np.float32), np.asarray(found.target, dtype=np.int64)


def _with_flag(images: Pixels, flag: float) -> Pixels:
    flags = np.full((len(images), 1), flag, dtype=np.float32)
    return np.concatenate([images.reshape(len(images), -1), flags], axis=1)
