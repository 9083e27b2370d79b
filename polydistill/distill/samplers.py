"""How often each language is seen, and batches of one language each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch.utils.data import BatchSampler
from torch.utils.data import Sampler as TorchSampler

from polydistill.errors import PolydistillError
from polydistill.training.loop import LengthGrouped


class Sampler(Protocol):
    """How often each group of data (a language, a domain) is seen."""

    def weights(self) -> dict[str, float]:
        """Group -> its share of the batches; they add up to 1."""

    def update(self, losses: Mapping[str, float]) -> None:
        """Called with the loss of each group, for samplers that follow it."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep, as JSON."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state_dict` gave."""


class Proportional:
    """Groups by their size, smoothed: p_i is in proportion to n_i^alpha (Conneau et al. 2020, section 3).

    Args:
        sizes: Group -> number of examples.
        exponent: alpha; 1 is by size, 0 equal, 0.3 what XLM-R has.
    """

    def __init__(self, sizes: Mapping[str, int], exponent: float = 1.0) -> None:
        raised = {group: float(size) ** exponent for group, size in sizes.items()}
        self._weights = {group: value / sum(raised.values()) for group, value in raised.items()}

    def weights(self) -> dict[str, float]:
        """Group -> share."""
        return dict(self._weights)

    def update(self, losses: Mapping[str, float]) -> None:
        """Losses change nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the shares follow from the data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""


class Even(Proportional):
    """All groups alike, as in BiStil (Ansell et al. 2023, arXiv 2306.01709, section 3.1).

    Args:
        groups: Their names.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        super().__init__(dict.fromkeys(groups, 1))


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


class GroupBatches(TorchSampler[list[int]]):
    """Batches of one group each, in the proportion of a sampler's weights, shuffled.

    What comes follows from the seed, the epoch and the weights at its start alone. A group that is used up begins
    again in a new order. All batches are full, so that processes can share each of them evenly.

    Args:
        groups: Group -> places of its examples.
        sampler: Its weights are read at the start of each epoch.
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

    @property
    def sampler(self) -> GroupBatches:
        """Itself: `set_epoch` of accelerate's loaders looks for a batch sampler's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._steps * self._parts

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        streams = {group: self._stream(group) for group in self._groups}
        for group in order:
            stream = streams[group]
            for _ in range(self._parts):
                yield [next(stream) for _ in range(self.batch_size)]

    def _order(self) -> list[str]:
        """The group of each batch: shares of the steps rounded to whole batches, largest remainder first."""
        weights = self._sampler.weights()
        exact = np.array([weights[group] for group in self._groups]) * self._steps
        counts = np.floor(exact + 1e-9).astype(int)
        counts[np.argsort(-(exact - counts), kind="stable")[: self._steps - counts.sum()]] += 1
        names = np.repeat(np.array(list(self._groups), object), counts)
        return list(np.random.default_rng([self._seed, self._epoch]).permutation(names))

    def _stream(self, group: str) -> Iterator[int]:
        places, number, lap = self._groups[group], list(self._groups).index(group), 0
        while True:
            random = np.random.default_rng([self._seed, self._epoch, number + 1, lap])
            both = self._epoch + lap  # Cantor's pairing: one number for each (epoch, lap)
            turn = both * (both + 1) // 2 + lap
            yield from (random.permutation(places) + self._stride * turn).tolist()
            lap += 1
