"""Hard examples: of several changes the one on which student and teacher differ most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from polydistill.distill.augmentation.base import Augmentation
from polydistill.errors import UsageError
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    import numpy as np

CANDIDATES = "candidates"  # key of a batch: others, of which the loss takes the hardest


@dataclass(frozen=True)
class HardOptions(Options):
    """The options of `hard`."""

    change: str = setting("words", "Name of the augmentation whose changes are tried, with its defaults.", "")
    tries: int = setting(3, "How many are tried.", "", least=2, most=16)


class Hard(Augmentation):
    """The hardest of several changes of a batch, for the student as it is (after HARD).

    Student and teacher look at all of them, without training; the batch on which the mean KL between their logits is
    largest is trained on.

    Args:
        options: What is tried, and how often.
        tokenizer: The student's.

    Raises:
        UsageError: The augmentation needs options of its own, or is this one.
    """

    options_class = HardOptions
    for_words: ClassVar[bool] = True

    def __init__(self, options: HardOptions = HardOptions(), *, tokenizer: Any) -> None:
        from polydistill.distill.listing import AUGMENTATIONS

        super().__init__(tokenizer=tokenizer)
        if options.change == "hard":
            raise UsageError(
                "The hardest of the hardest is `hard` itself.", "Name another augmentation after `change=`."
            )
        self._tries = options.tries
        self._inner: Augmentation = AUGMENTATIONS.make(AUGMENTATIONS.parse(options.change), {"tokenizer": tokenizer})

    def __call__(self, batch: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        """The first change, and beside it the others."""
        first, *others = (self._inner(batch, random) for _ in range(self._tries))
        return {**first, CANDIDATES: others}
