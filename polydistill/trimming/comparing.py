"""When a trimmed model is the original: how near their outputs have to be, and what of the original is no outputs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from polydistill.errors import PolydistillError

MAX_TOKENS = 128  # of a text that is compared
TOLERANCE = 1e-4  # between float32 outputs; only the order of additions may differ
NOT_VERIFIED = "or trim with `verify=False`."
HINT = "Load the original with that library; where that works, please report this with the model's name."


def check_difference(what: str, largest: float, *, exact: bool) -> None:
    """Refuses a trimmed model that is not the original.

    Args:
        what: What differs, with its verb.
        largest: By how much.
        exact: Whether it must be equal but for rounding; not after a change of the weights' type.

    Raises:
        PolydistillError: It differs.
    """
    if not largest <= (TOLERANCE if exact else sys.float_info.max):
        raise PolydistillError(
            f"Verification failed: {what} by up to {largest:.3g}.",
            "Please report this with the model's name; nothing was written.",
        )


def check_numbers(folder: Path, name: str, values: np.ndarray) -> None:
    """Refuses to compare with outputs of the original that are no numbers.

    Args:
        folder: The original.
        name: What the outputs are; logits may be minus infinity, for what a model never says.
        values: The outputs.

    Raises:
        PolydistillError: Some are NaN or infinite.
    """
    fine = np.isfinite(values) | (np.isneginf(values) if "logits" in name else False)
    if not fine.all():
        raise PolydistillError(
            f"The original computes NaN or infinite values ({name}), so nothing can be compared with it: its "
            f"weights are damaged, or overflow ({folder}).",
            f"Fetch or save the model again, {NOT_VERIFIED}",
        )
