"""Contextual words: some tokens masked, and filled in again by a masked language model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from polydistill.distill.augmentation.base import Augmentation
from polydistill.errors import PolydistillError, UsageError
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class ContextualOptions(Options):
    """The options of `contextual`."""

    model: str = setting("", "Folder of a masked language model with the student's vocabulary. Needed.", "")
    share: float = setting(0.3, "Share of the tokens that are filled in again.", "", above=0, most=1)


class Contextual(Augmentation):
    """Tokens are masked, and drawn again from what a masked language model holds likely (Wu et al. 2019, 1812.06705).

    Args:
        options: Model and share.
        tokenizer: The student's.

    Raises:
        PolydistillError: The model has no head for masked tokens, or another vocabulary.
    """

    options_class = ContextualOptions
    for_words: ClassVar[bool] = True

    def __init__(self, options: ContextualOptions = ContextualOptions(), *, tokenizer: Any) -> None:
        from polydistill.models.loading import load_masked_lm, load_tokenizer

        super().__init__(tokenizer=tokenizer)
        if not options.model:
            raise UsageError(
                "The augmentation `contextual` has no model.", "Write contextual:model=FOLDER, a masked language model."
            )
        folder = Path(options.model)
        self._model, new = load_masked_lm(folder, seed=0)
        if new:
            raise PolydistillError(
                f"{folder} has no head for masked tokens, so it cannot fill any in.", "Give one that has."
            )
        if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
            raise PolydistillError(
                f"{folder} has another vocabulary than the student.", "Cut it to the same with `polydistill trim`."
            )
        self._model.eval()
        self._options, self._special = options, frozenset(tokenizer.all_special_ids)

    def __call__(self, batch: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        """The batch with other tokens in some places; as many as before."""
        import torch

        ids = batch["input_ids"]
        plain = torch.tensor([[token not in self._special for token in row] for row in ids.tolist()])
        chosen = plain & torch.from_numpy(random.random(tuple(ids.shape)) < self._options.share)
        masked = ids.masked_fill(chosen, self.tokenizer.mask_token_id)
        with torch.no_grad():
            logits = self._model(input_ids=masked, attention_mask=batch["attention_mask"]).logits.float()
        logits[..., list(self._special)] = -torch.inf
        noise = torch.from_numpy(random.gumbel(size=tuple(logits.shape)))  # the largest is a draw
        drawn = (logits + noise).argmax(-1)
        return {**batch, "input_ids": torch.where(chosen, drawn, ids)}
