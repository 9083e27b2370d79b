"""Batches of two groups at once, and batches of one group each: of languages, or of labelled examples and text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import BatchSampler
from torch.utils.data import Sampler as TorchSampler

from polydistill.distill.samplers.base import Sampler
from polydistill.distill.samplers.examples import ExampleSampler
from polydistill.errors import PolydistillError
from polydistill.training.loop import LengthGrouped


class PairedBatches(TorchSampler[list[int]]):
    """Batches of two groups, as many examples of each: one epoch goes once through the first.

    Neighbours in a group have like lengths. What comes follows from seed and epoch alone; the second group begins again
    where it is used up.

    Args:
        first: (n,) lengths of the examples at places 0 to n - 1.
        second: (m,) lengths of those at places n to n + m - 1.
        batch_size: Examples of each group in a step.
        seed: Of the order.

    Attributes:
        batch_size: Examples of a whole batch; accelerate reads it.
        drop_last: False: the last batch has what is left of the first group.
    """

    drop_last = False

    def __init__(self, first: Sequence[int], second: Sequence[int], batch_size: int, seed: int) -> None:
        self._sizes, self._each, self.batch_size = (len(first), len(second)), batch_size, 2 * batch_size
        self._orders = [LengthGrouped(lengths, batch_size, seed + i) for i, lengths in enumerate((first, second))]
        self._epoch = 0

    @property
    def sampler(self) -> PairedBatches:
        """Itself: `set_epoch` of accelerate's loaders looks for a batch sampler's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self._sizes[0] // self._each)

    def __iter__(self) -> Iterator[list[int]]:
        self._orders[0].set_epoch(self._epoch)
        others = self._others()
        for batch in BatchSampler(list(self._orders[0].once()), self._each, drop_last=False):
            yield [*batch, *itertools.islice(others, self._each)]

    def _others(self) -> Iterator[int]:
        """Places of the second group; laps have numbers of their own in every epoch."""
        for lap in itertools.count():
            self._orders[1].set_epoch(1_000 * self._epoch + lap)
            yield from (self._sizes[0] + place for place in self._orders[1].once())


class MixedBatches(TorchSampler[list[int]]):
    """Batches of labelled examples, and between them batches of text: one epoch goes once through the labelled ones.

    A batch is of one group, its examples of like length. Of each text an epoch has a new part in a new order; a text
    that is used up begins again. What comes follows from seed and epoch alone.

    Args:
        labelled: (n,) lengths of the labelled examples, at places 0 to n - 1.
        texts: Language -> (m,) lengths of its examples, whose places go on in the order of the languages.
        share: Of all batches, those of text; below 1.
        sampler: How often each language comes among them.
        batch_size: Examples a step, over all processes.
        chosen: Which of the labelled examples an epoch uses; all of them without it.
        seed: Of the order.
        parts: Into which each batch is split, one after the other, for less memory.

    Attributes:
        batch_size: Examples of a part; accelerate reads it.
        drop_last: True; all batches are full.
    """

    drop_last = True

    def __init__(
        self,
        labelled: Sequence[int],
        texts: Mapping[str, Sequence[int]],
        share: float,
        sampler: Sampler,
        batch_size: int,
        *,
        chosen: ExampleSampler | None = None,
        seed: int = 0,
        parts: int = 1,
    ) -> None:
        groups = [labelled, *texts.values()]
        self._labelled, self._chosen = labelled, chosen
        self._orders = [LengthGrouped(lengths, batch_size, seed + i) for i, lengths in enumerate(groups)]
        self._starts = np.cumsum([0, *map(len, groups)]).tolist()
        own = -(-(chosen.count if chosen else len(labelled)) // batch_size)
        weights = sampler.weights() if texts else {}
        each = np.array([weights[language] for language in texts]) * own * share / (1 - share)
        self._counts = [own, *_rounded(each, round(each.sum())).tolist()]
        self._size, self._parts, self._seed, self._epoch = batch_size, parts, seed, 0
        self.batch_size = batch_size // parts

    @property
    def sampler(self) -> MixedBatches:
        """Itself: `set_epoch` of accelerate's loaders looks for a batch sampler's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self._epoch = epoch

    def epoch(self) -> int:
        """The epoch that `set_epoch` was told."""
        return self._epoch

    def __len__(self) -> int:
        return sum(self._counts) * self._parts

    def __iter__(self) -> Iterator[list[int]]:
        streams = [self._stream(group) for group in range(len(self._orders))]
        groups = np.repeat(np.arange(len(self._counts)), self._counts)
        for group in np.random.default_rng([self._seed, self._epoch]).permutation(groups):
            for _ in range(self._parts):
                yield list(itertools.islice(streams[group], self.batch_size))

    def _stream(self, group: int) -> Iterator[int]:
        """Places of a group; laps have numbers of their own in every epoch."""
        places = self._chosen.places(self._epoch) if self._chosen and not group else None
        order = self._orders[group]
        if places is not None:
            order = LengthGrouped([self._labelled[place] for place in places], self._size, self._seed)
        for lap in itertools.count():
            order.set_epoch(1_000 * self._epoch + lap)
            yield from (int(places[i]) if places is not None else self._starts[group] + i for i in order)


class GroupBatches(TorchSampler[list[int]]):
    """Batches of one group each, in the proportion of a sampler's weights, shuffled.

    What comes follows from the seed, the epoch and the weights alone, which are asked for at the start of each block of
    `sampler.every` batches; what rounding leaves of a block goes to the next. A group that is used up begins again in a
    new order. All batches are full, so that processes can share each of them evenly.

    Args:
        groups: Group -> places of its examples.
        sampler: Gives the weights.
        batch_size: Examples a step, over all processes.
        steps: Batches an epoch.
        seed: Of the order.
        parts: Into which each batch is split, one after the other, for less memory.
        turns: Whether place i comes as `turn * n + i`, n examples in all, with another turn each time that its group
            begins: what `MaskedBlocks` takes. Other data wants plain places.

    Attributes:
        batch_size: Examples of a part; accelerate reads it.
        drop_last: True; there are no smaller batches.

    Raises:
        PolydistillError: A group is empty.
    """

    drop_last = True

    def __init__(
        self,
        groups: Mapping[str, Sequence[int]],
        sampler: Sampler,
        batch_size: int,
        steps: int,
        *,
        seed: int = 0,
        parts: int = 1,
        turns: bool = False,
    ) -> None:
        for group, places in groups.items():
            if not len(places):
                raise PolydistillError(f"There is nothing of {group} to train on.", "Give more text.")
        self._groups = {group: np.asarray(places, np.int64) for group, places in groups.items()}
        self._sampler, self._steps, self._seed, self._parts = sampler, steps, seed, parts
        self.batch_size = batch_size // parts
        self._stride = sum(map(len, groups.values())) if turns else 0
        self._epoch = 0
        self._weights: list[list[float]] = []  # of the blocks of this epoch so far

    @property
    def sampler(self) -> GroupBatches:
        """Itself: `set_epoch` of accelerate's loaders looks for a batch sampler's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        if epoch != self._epoch:
            self._epoch, self._weights = epoch, []

    def state(self) -> dict[str, Any]:
        """The sampler's state, and the weights of this epoch, whose batches are drawn again when a run goes on."""
        return {"epoch": self._epoch, "weights": self._weights, "sampler": self._sampler.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self._epoch, self._weights = state["epoch"], [list(weights) for weights in state["weights"]]
        self._sampler.restore(state["sampler"])

    def __len__(self) -> int:
        return self._steps * self._parts

    def __iter__(self) -> Iterator[list[int]]:
        streams = {group: self._stream(group) for group in self._groups}
        for group in self._order():
            stream = streams[group]
            for _ in range(self._parts):
                yield [next(stream) for _ in range(self.batch_size)]

    def _order(self) -> Iterator[str]:
        """The group of each batch, block by block."""
        every, left = self._sampler.every or self._steps, np.zeros(len(self._groups))
        for block, start in enumerate(range(0, self._steps, every)):
            if block == len(self._weights):
                weights = self._sampler.weights()
                self._weights.append([weights[group] for group in self._groups])
            size = min(every, self._steps - start)
            exact = np.array(self._weights[block]) * size + left
            counts = _rounded(exact, size)
            left = exact - counts
            names = np.repeat(np.array(list(self._groups), object), counts)
            yield from np.random.default_rng([self._seed, self._epoch, 0, block]).permutation(names)

    def _stream(self, group: str) -> Iterator[int]:
        places, number, lap = self._groups[group], list(self._groups).index(group), 0
        while True:
            random = np.random.default_rng([self._seed, self._epoch, number + 1, lap])
            both = self._epoch + lap  # Cantor's pairing: one number for each (epoch, lap)
            turn = both * (both + 1) // 2 + lap
            yield from (random.permutation(places) + self._stride * turn).tolist()
            lap += 1


def _rounded(exact: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers from 0 on that add up to a total, largest remainder first; so does what is rounded."""
    counts = np.floor(exact + 1e-9).astype(int).clip(min=0)
    while (missing := total - counts.sum()) > 0:
        counts[np.argsort(-(exact - counts), kind="stable")[:missing]] += 1
    while (extra := counts.sum() - total) > 0:  # a group may have had more than its share before
        counts[np.argsort(np.where(counts > 0, exact - counts, np.inf), kind="stable")[:extra]] -= 1
    return counts
