"""What the stages of a stacking share: the text, and the description of a new stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from polydistill.methods.stack.job import Job, Lines, read_lines
from polydistill.methods.stack.options import StackOptions
from polydistill.methods.stack.presets import LEAST_SQUARES, LINEAR
from polydistill.models.loading import LONGEST
from polydistill.records.record import versions
from polydistill.stacks.description import Description, Parent


@dataclass(frozen=True)
class Material:
    """What all stages share.

    Attributes:
        options: Of the command.
        job: What they come to.
    """

    options: StackOptions
    job: Job

    @cached_property
    def lines(self) -> Lines:
        """The text of phase 1, read once."""
        preset = self.job.preset
        trained = preset.steps * preset.batch_size if 1 in self.job.phases else 0
        fitted = preset.fit_lines if self.options.init == LEAST_SQUARES and self.options.baseline != LINEAR else 0
        return read_lines(self.job.texts, max(trained, fitted), preset.dev_lines, self.options.computing.seed)

    @property
    def training_lines(self) -> Sequence[str]:
        """Those that the steps of phase 1 see."""
        return self.lines.training[: self.job.preset.steps * self.job.preset.batch_size]

    @cached_property
    def parents(self) -> tuple[Parent, Parent]:
        """Encoder and LLM, hashed once."""
        return self.job.parents()

    @cached_property
    def llm_facts(self) -> dict[str, Any]:
        """What the LLM's vectors depend on."""
        llm = self.parents[1]
        return {
            "llm": llm.weights_hash,
            "config": llm.config_hash,
            "transformers": versions().get("transformers"),
            "dtype": self.options.frozen,
            "pooling": self.options.pooling,
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the task."""
        assert self.job.task is not None
        return tuple(self.job.task.scored_labels)

    @property
    def lora(self) -> Mapping[str, float] | None:
        """Of the stack that the run continues, or of a new one; None for a linear map."""
        if self.options.baseline == LINEAR:
            return None
        return Description.read(self.job.begin).lora if self.job.begin else self.description().lora

    def description(self) -> Description:
        """The description of a new stack of this run."""
        encoder, llm = self.parents
        lora = {"r": self.options.lora.r, "alpha": self.options.lora.alpha, "dropout": self.options.lora.dropout}
        return Description(
            encoder=encoder, llm=llm, widths=(0, 0, 0), lora=lora, max_length=LONGEST, pooling=self.options.pooling
        )
