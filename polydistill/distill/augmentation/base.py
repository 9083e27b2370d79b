"""What every augmentation has: a batch in, another one out, which the teacher is asked about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from polydistill.options.settings import Options

if TYPE_CHECKING:
    import numpy as np

    from polydistill.training.batching import Feature

REDONE = 3  # epochs after which an example is changed in another way (Distiller, He et al. 2021)
AUGMENTED = "augmented"  # key of a batch that was changed: what was said of its examples before does not hold
LABELS = ("labels", "start_positions", "end_positions")


class Augmentation:
    """Makes other inputs of a batch. Gold labels of what it changes are left out; the teacher says what is right.

    Args:
        tokenizer: The student's.

    Attributes:
        options_class: That of its options.
        for_words: Whether it keeps track of words, so that tags can be learnt.
    """

    options_class: ClassVar[type[Options]] = Options
    for_words: ClassVar[bool] = False

    def __init__(self, *, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, batch: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        """The changed batch; the given one stays as it is.

        Args:
            batch: Padded inputs (B, N), see `training.loop.collator`.
            random: Draws what is drawn.
        """
        raise NotImplementedError


class Augmenting:
    """A collator that changes some batches; which, and how, follows from seed, epoch and examples alone.

    Args:
        collate: Features -> batch.
        augmentations: Of which each changed batch gets one.
        share: Of the batches that are changed.
        epoch: Tells which epoch it is.
        seed: Of what is drawn.
    """

    def __init__(
        self,
        collate: Callable[[list[Feature]], dict[str, Any]],
        augmentations: Sequence[Augmentation],
        share: float,
        epoch: Callable[[], int],
        seed: int,
    ) -> None:
        self._collate, self._augmentations, self._share = collate, tuple(augmentations), share
        self._epoch, self._seed = epoch, seed

    def __call__(self, features: list[Feature]) -> dict[str, Any]:
        """A batch, changed or not."""
        import numpy as np

        batch = self._collate(features)
        examples = batch["example_id"].tolist()
        random = np.random.default_rng([self._seed, self._epoch() // REDONE, *examples])
        chosen = np.random.default_rng([self._seed, self._epoch(), 1, *examples])  # other batches in every epoch
        if chosen.random() >= self._share:
            return batch
        augmentation = self._augmentations[int(chosen.integers(len(self._augmentations)))]
        return {**unlabelled(augmentation(batch, random)), AUGMENTED: True}


def unlabelled(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch, and others that it holds, without gold labels."""

    def plain(key: str, value: Any) -> Any:
        if key in LABELS:
            return value.new_full(value.shape, -100)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return [{**unlabelled(one), AUGMENTED: True} for one in value]
        return value

    return {key: plain(key, value) for key, value in batch.items()}
