"""A sparse language fine-tuning: masked tokens of one language (LT-SFT, Ansell et al. 2022, arXiv 2110.07560).

As in the paper's own training of languages the output matrix is its own copy of the word embeddings and stays fixed,
and so do the norms: otherwise most of the chosen entries would be word embeddings, which learn fastest beside the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from polydistill.distill.general import GeneralText, learn
from polydistill.distill.loss import DistilLoss
from polydistill.distill.objectives.base import Weighted
from polydistill.distill.objectives.mlm import MaskedTokens
from polydistill.errors import UsageError
from polydistill.models.loading import load_masked_lm, load_tokenizer
from polydistill.progress import Progress
from polydistill.sparse import training as sparse
from polydistill.sparse.files import LANGUAGE, Difference
from polydistill.training.loop import Curves, Schedule

TUNED = "tuned.safetensors"


@dataclass(frozen=True)
class LanguageTuning:
    """What both stages have in common; each begins with the model as it is, and with the same new head.

    Args:
        model: Its folder.
        text: Blocks of the language.
        language: Its code.
        density: Share of the base model's parameters that gets entries.
        schedule: How fast; `epochs` is 1.
        steps: Optimizer steps of a stage.
        progress: Where to report.
    """

    model: Path
    text: GeneralText
    language: str
    density: float
    schedule: Schedule
    steps: int
    progress: Progress

    def full(self, work: Path) -> tuple[Curves, Callable[[Path], None]]:
        """The first stage: everything is trained.

        Returns:
            (what was seen, what writes the tuned parameters into a folder).

        Raises:
            PolydistillError: The model cannot have such a head.
            UsageError: The density is too high or too low.
        """
        network, new = self._network()
        self._entry_count(network)
        if new:
            self.progress.warn(
                "The model has no head for masked tokens, so a new one learns beside it and is not kept."
            )
        curves = self._train(network, work, None)

        def write(out: Path) -> None:
            sparse.save_parameters(network, out / TUNED)

        return curves, write

    def chosen(self, tuned: Path, work: Path) -> tuple[Curves, Difference]:
        """The second stage, from the beginning again: the entries that moved furthest, and the head.

        Args:
            tuned: The folder that the first stage wrote.
            work: Folder for checkpoints.
        """
        network, _ = self._network()
        work.mkdir(parents=True, exist_ok=True)
        before = sparse.save_parameters(network, work / "theta0.safetensors")
        out = sparse.head_of(network) | {name for name, p in network.named_parameters() if not p.requires_grad}
        entries = sparse.choose_entries(before, sparse.Stored(tuned / TUNED), self._entry_count(network), dense=out)
        curves = self._train(network, work, entries)
        return curves, sparse.difference_of(network, before, entries, kind=LANGUAGE, languages=(self.language,))

    def _network(self) -> tuple[Any, bool]:
        network, new = load_masked_lm(self.model, seed=self.schedule.seed)
        fix_outputs_and_norms(network)
        return network, new

    def _entry_count(self, network: Any) -> int:
        """K; refused before anything is trained where there are not so many."""
        count = sparse.entry_count(network, self.density)
        free = sum(p.numel() for p in network.base_model.parameters() if p.requires_grad)
        if count > free:
            raise UsageError(f"{count:,} of {free:,} entries cannot be chosen.", "Lower the density.")
        return count

    def _train(self, network: Any, work: Path, entries: Any) -> Curves:
        dense = {name for name in sparse.head_of(network) if network.get_parameter(name).requires_grad}
        loss = DistilLoss(network, Weighted({"mlm": (MaskedTokens(), 1.0)}), None, None)
        only = sparse.training_only(
            network, entries, dense=dense, lr=self.schedule.lr, weight_decay=self.schedule.weight_decay
        )
        with only as optimizer:
            return learn(
                network,
                load_tokenizer(self.model),
                self.text,
                loss,
                self.schedule,
                self.steps,
                work,
                self.progress,
                optimizer,
            )


def fix_outputs_and_norms(network: Any) -> None:
    """The output matrix becomes a copy of its own; it and the base model's norms are no longer trained."""
    outputs = network.get_output_embeddings()
    if outputs is not None:
        outputs.weight = nn.Parameter(outputs.weight.detach().clone(), requires_grad=False)
        network.config.tie_word_embeddings = False
    for module in network.base_model.modules():
        if "Norm" in type(module).__name__:
            module.requires_grad_(False)
