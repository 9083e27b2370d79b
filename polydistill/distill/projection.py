"""Features of tokens and their prototypes in two dimensions, for a picture that a person can judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from polydistill.distill.prototypes import class_means, classes_of
from polydistill.distill.unlabelled import Observed


def picture(source: Observed, target: Observed, labels: Sequence[str], by: str, most: int) -> dict[str, Any]:
    """Some tokens of each class in both languages and all prototypes, on the plane of their two largest variances.

    Args:
        source: Tokens with gold tags.
        target: Tokens in the classes that the teacher finds.
        labels: (L,) tags.
        by: See `prototypes.classes_of`.
        most: Tokens of a class and language; they are taken at even distances.

    Returns:
        `classes`; `explained`, the share of the shown tokens' variance that the plane has; and for `source` and
        `target` `tokens` [x, y, class] and `prototypes` [x, y, class], only of classes that occur.
    """
    names, class_of = classes_of(labels, by)
    table, count = torch.tensor(class_of), len(names)
    classes = {"source": table[source.tags], "target": table[target.logits.argmax(-1)]}
    hidden = {"source": source.hidden, "target": target.hidden}
    shown = {role: _evenly(classes[role], count, most) for role in classes}
    axes, centre, explained = plane(torch.cat([hidden[role][shown[role]] for role in shown]))
    found: dict[str, Any] = {"classes": names, "explained": round(explained, 4)}
    for role in shown:
        means, numbers = class_means(hidden[role], classes[role], count)
        there = numbers > 0
        points = (hidden[role][shown[role]] - centre) @ axes
        middles = (means[there] - centre) @ axes
        found[role] = {
            "tokens": _rows(points, classes[role][shown[role]]),
            "prototypes": _rows(middles, torch.arange(count)[there]),
        }
    return found


def plane(vectors: Tensor) -> tuple[Tensor, Tensor, float]:
    """The plane of the two largest variances (principal components).

    Args:
        vectors: (N, H).

    Returns:
        (axes (H, 2), each with its largest entry positive; centre (H,); share of the variance that they have).
    """
    centre = vectors.mean(0)
    _, sizes, axes = torch.linalg.svd(vectors - centre, full_matrices=False)
    two = axes[:2].T
    if two.shape[1] < 2:
        two = torch.nn.functional.pad(two, (0, 2 - two.shape[1]))
    signs = two.gather(0, two.abs().argmax(0, keepdim=True)).sign()
    total = float(sizes.square().sum())
    return two * signs, centre, float(sizes[:2].square().sum()) / total if total else 0.0


def _evenly(classes: Tensor, count: int, most: int) -> Tensor:
    """Places of up to `most` tokens of each class."""
    found = []
    for k in range(count):
        places = (classes == k).nonzero().squeeze(1)
        step = max(1.0, len(places) / most)
        found.append(places[(torch.arange(min(most, len(places))) * step).long()])
    return torch.cat(found)


def _rows(points: Tensor, classes: Tensor) -> list[list[float]]:
    return [[round(x, 3), round(y, 3), k] for (x, y), k in zip(points.tolist(), classes.tolist(), strict=True)]
