"""The result of a run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from polydistill.options.settings import plain


@dataclass(frozen=True)
class Result:
    """The result of a run; `to_json` is what the command line prints as JSON.

    Attributes:
        command: The method's name.
        model: Where the model that it began with came from.
        output: The new folder.
        languages: Codes of the languages that the model was made for, or tuned on.
        task: The task that it has learnt, None for none.
        stages: What was made on the way: steps, losses, seconds, folders and facts.
        parameters: Weights, such as `teacher` and `student`.
        bytes: Sizes on disk, likewise.
        settings: Every value that the run went by.
        selection: What chose the checkpoint: languages, split, metric, value, step.
        scores: Scores of the model, and of what it is compared with.
        loyalty: How far it predicts what its teacher does.
        device: Where torch computed: `cpu`, `cuda` or `mps`; None where it computed nothing.
        seconds: Taken by all of it; after it was resumed, since then.
        peak_memory_bytes: Most memory that the process has used.
        facts: What the method says beside that, by name.
    """

    command: str
    model: str
    output: Path
    languages: tuple[str, ...] = ()
    task: str | None = None
    stages: tuple[dict[str, Any], ...] = ()
    parameters: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    selection: dict[str, Any] | None = None
    scores: tuple[dict[str, Any], ...] = ()
    loyalty: Any = None
    device: str | None = None
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One JSON object, with the method's facts among the others."""
        common = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "facts"}
        return {**common, **{name: plain(value) for name, value in self.facts.items()}}
