"""Samplers of examples: which of the training examples an epoch uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from polydistill.options.settings import Options

if TYPE_CHECKING:
    import numpy as np

    Places = np.ndarray[Any, np.dtype[np.int64]]


class Told(NamedTuple):
    """What student and teacher make of the training examples before training.

    Attributes:
        student: (n,) mean negative log-likelihood of an example's gold labels for the student as it begins.
        teacher: (n,) the same for the teacher.
        margin: (n,) how far the student's likeliest label is ahead of the next, from 0 to 1: the mean over labels.
    """

    student: np.ndarray
    teacher: np.ndarray
    margin: np.ndarray


class ExampleSampler:
    """Which of the training examples an epoch uses.

    Args:
        size: n, number of examples.
        seed: Of what is drawn.

    Attributes:
        options_class: That of its options.
        asks: Whether `told` is called before training.
        count: Examples of an epoch, the same in all of them.
    """

    options_class: ClassVar[type[Options]] = Options
    asks: ClassVar[bool] = False

    def __init__(self, *, size: int, seed: int) -> None:
        self.size, self.seed, self.count = size, seed, size

    def told(self, told: Told) -> None:
        """Called before training with what student and teacher make of all examples."""

    def places(self, epoch: int) -> Places:
        """(count,) numbers of the examples of an epoch; they follow from the seed and what was told alone."""
        import numpy as np

        return np.arange(self.size)


def share_of(size: int, share: float) -> int:
    """How many examples a share is, at least one."""
    return max(1, round(share * size))
