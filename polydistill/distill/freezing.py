"""Parts of a model that are left as they are while the rest is trained."""

from __future__ import annotations

from typing import Any

from polydistill.catalog import Arch
from polydistill.distill.observer import layers_of
from polydistill.errors import UsageError


def freeze(network: Any, arch: Arch, *, embeddings: bool, layers: int) -> None:
    """Takes word embeddings and the lowest layers out of training (as TSL does).

    Args:
        network: A transformers model.
        arch: Its architecture.
        embeddings: Whether word embeddings are frozen.
        layers: How many of the lowest layers are, word embeddings with them.

    Raises:
        PolydistillError: The architecture's file does not say where the layers are.
        UsageError: There are not so many.
    """
    if embeddings or layers:
        network.get_input_embeddings().weight.requires_grad_(False)
    if not layers:
        return
    found = layers_of(network, arch)
    if arch.layers and arch.layers.shared:
        raise UsageError(f"The layers of {arch.name} models share one set of weights.", "Leave `freeze_layers` out.")
    if layers > len(found):
        raise UsageError(f"`freeze_layers={layers}` is too many.", f"The model has {len(found)} layers.")
    for layer in found[:layers]:
        layer.requires_grad_(False)
