"""Prototypes: one vector a class, the mean of the features of its tokens.

A reconstruction of ProKD (Ge et al. 2023, arXiv 2301.08855) in the form that prototype methods take (ProDA, Zhang et
al. 2021, arXiv 2101.10979): moving averages, a contrast of two languages' prototypes, labels rectified by distances.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

BY_TYPE, BY_TAG = "type", "tag"


def classes_of(labels: Sequence[str], by: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The classes that have a prototype each.

    Args:
        labels: (L,) BIO tags.
        by: `type`: O and each entity type, whether a token begins or continues it; `tag`: each tag.

    Returns:
        (names (K,), class of each label (L,)).
    """
    named = [label if by == BY_TAG else label.partition("-")[2] or label for label in labels]
    names = tuple(dict.fromkeys(named))
    return names, tuple(names.index(name) for name in named)


def class_means(features: Tensor, classes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean feature of each class.

    Args:
        features: (N, H).
        classes: (N,) integers below `count`.
        count: K.

    Returns:
        (means (K, H), 0 for a class that is absent; numbers of tokens (K,)), with gradients to the features.
    """
    members = one_hot(classes, count).to(features.dtype)
    numbers = members.sum(0)
    return members.T @ features / numbers.clamp(min=1).unsqueeze(1), numbers


class MovingPrototypes(nn.Module):
    """Moving averages of class means: c <- m c + (1 - m) c_batch, the first value being the first batch's.

    A class that a batch lacks keeps its value. The average so far carries no gradient, the batch's part does.

    Args:
        count: Number of classes K.
        width: Size of a feature H.
        momentum: m.

    Attributes:
        values: (K, H).
        seen: (K,) whether the class has been in any batch.
    """

    values: Tensor
    seen: Tensor

    def __init__(self, count: int, width: int, momentum: float) -> None:
        super().__init__()
        self._momentum = momentum
        self.register_buffer("values", torch.zeros(count, width))
        self.register_buffer("seen", torch.zeros(count, dtype=torch.bool))

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """The averages with a batch in them (K, H); outside of training nothing is kept of it.

        Args:
            features: (N, H).
            classes: (N,).
        """
        means, numbers = class_means(features.float(), classes, len(self.seen))
        here = (numbers > 0).unsqueeze(1)
        mixed = self._momentum * self.values + (1 - self._momentum) * means
        found = torch.where(here, torch.where(self.seen.unsqueeze(1), mixed, means), self.values)
        if self.training:
            self.values, self.seen = found.detach().clone(), self.seen | here.squeeze(1)
        return found


def alignment(anchors: Tensor, others: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Contrast of two languages' prototypes: each anchor is to be nearest to its own class.

    mean_k -log( exp(cos(a_k, b_k) / tau) / sum_j exp(cos(a_k, b_j) / tau) ), over the classes that are present.

    Args:
        anchors: (K, H), the target language's.
        others: (K, H), the source's.
        present: (K,) classes that both have.
        temperature: tau.

    Returns:
        Scalar, 0 where fewer than two classes are present.
    """
    if int(present.sum()) < 2:
        return anchors.sum() * 0
    cosines = normalize(anchors[present], dim=1) @ normalize(others[present], dim=1).T
    return cross_entropy(cosines / temperature, torch.arange(len(cosines), device=cosines.device))


def nearness(features: Tensor, prototypes: Tensor, temperature: float, distance: str = "euclidean") -> Tensor:
    """How near features are to prototypes: log softmax_k(-||h - c_k|| / tau).

    Args:
        features: (N, H).
        prototypes: (K, H); a NaN row is a class without a prototype, to which nothing is near.
        temperature: tau.
        distance: `euclidean`, or `unit` for the distance of vectors scaled to length 1.

    Returns:
        (N, K).
    """
    if distance == "unit":
        features, prototypes = normalize(features, dim=-1), normalize(prototypes, dim=-1)
    distances = torch.cdist(features, prototypes).nan_to_num(nan=torch.inf)
    return (-distances / temperature).log_softmax(-1)


def rectified(probabilities: Tensor, near: Tensor, class_of: Tensor) -> Tensor:
    """Pseudo-labels q, in proportion to p_teacher(tag) times the nearness of the tag's class.

    Args:
        probabilities: (N, L) the teacher's, of tags.
        near: (N, K) from `nearness`.
        class_of: (L,) the class of each tag.

    Returns:
        (N, L), rows that add up to 1.
    """
    return (probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log() + near[:, class_of]).softmax(-1)
