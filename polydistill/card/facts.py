"""What a record says of a model, read so that a broken or hostile record yields less and never harm."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from polydistill import registry
from polydistill.card.step import MOST_ITEMS, Step
from polydistill.card.text import at, code, joined, mapping, number, objects, plain, texts
from polydistill.card.told import BY, Told
from polydistill.errors import PolydistillError
from polydistill.files.inside import leads_out
from polydistill.files.jsonfiles import read_json
from polydistill.records.record import RunRecord
from polydistill.wording import counted

BESIDE = "onnx"  # what publishing with `onnx` adds to the result of a record: what the export reported
MOST_STEPS = 50
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_DATASET = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?::[\w.,-]+(?:@\S+)?|@[0-9a-f]{40})(?:#\S+)?(?: \S+)?")
_HEADS = {
    "ForTokenClassification": "token-classification",
    "ForSequenceClassification": "text-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "MTModel": "text2text-generation",
}
_KINDS = {
    "tagging": "token-classification",
    "word-tagging": "token-classification",
    "classification": "text-classification",
    "span-extraction": "question-answering",
    "retrieval": "sentence-similarity",
    "similarity": "sentence-similarity",
}


@dataclass(frozen=True)
class Other:
    """A model that took part beside the one that a run began with.

    Attributes:
        role: Such as `teacher` or `llm`.
        source: It, as the source of a step.
        lineage: The steps that made it, newest first.
    """

    role: str
    source: Step
    lineage: tuple[Step, ...]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Other:
        """Reads what `record.other_model` wrote."""
        return cls(plain(raw.get("role"), 20), Step({"source": raw.get("source")}), _lineage(raw.get("record")))


@dataclass(frozen=True)
class Facts:
    """A record, and what its folder says of how it is loaded.

    Attributes:
        lineage: The record's step and those before it, newest first.
        classes: Class names of the model in its config.json.
        embeds_sentences: Whether sentence-transformers loads the folder.
        files: Names of the folder's own files.
    """

    lineage: tuple[Step, ...]
    classes: tuple[str, ...] = ()
    embeds_sentences: bool = False
    files: frozenset[str] = frozenset()

    @classmethod
    def of(cls, record: RunRecord, folder: Path | None) -> Facts:
        """Reads a record, and of the folder the class of the model."""
        steps = _lineage(
            {
                "command": record.command,
                "config": record.config,
                "source": record.source,
                "result": record.result,
                "texts": record.texts,
                "versions": record.versions,
                "scores": [asdict(score) for score in record.scores],
                "costs": record.costs,
                "parent": record.parent,
                "others": record.others,
            }
        )
        if folder is None or not folder.is_dir():
            return cls(steps)
        names = frozenset(path.name for path in folder.iterdir())
        return cls(steps, _classes(folder), "modules.json" in names, names)

    @cached_property
    def others(self) -> list[Other]:
        """Further models that took part in any step, each once."""
        found: dict[str, Other] = {}
        for step in self.lineage:
            for raw in step.others:
                other = Other.of(raw)
                found.setdefault(str(other.source.source.get("weights_hash")), other)
        own = {str(step.source.get("weights_hash")) for step in self.lineage}
        return [other for name, other in found.items() if name not in own][:MOST_STEPS]

    @property
    def newest(self) -> Step:
        """The step that made the model."""
        return self.lineage[0]

    @property
    def name(self) -> str:
        """What the model is called where nobody names it: its folder."""
        return plain(Path(self.newest.output or self.newest.base).name) or "model"

    @cached_property
    def languages(self) -> list[str]:
        """Codes: those that the model was made for, else those that it was tuned on; a score is no claim."""
        for step in self.lineage:
            if told_of(step).cuts and step.languages:
                return _codes(step.languages)
        return _codes([code for step in self.lineage for code in step.languages])

    @cached_property
    def label_languages(self) -> list[str]:
        """Codes of the languages whose labels were read by any step that made it or one of its teachers."""
        steps = [*self.lineage, *(step for other in self.others for step in other.lineage)]
        return _codes([code for step in steps for code in told_of(step).labels_of(step)])

    @cached_property
    def task(self) -> str | None:
        """Name of the task that it was last tuned for."""
        named = (at(step.result, "task") for step in self.lineage)
        return next((plain(name, 60) for name in named if isinstance(name, str) and name), None)

    @cached_property
    def tuned_for(self) -> Mapping[str, Any]:
        """What the step that tuned it says of the task: its `kind`, `labels` and `pairs`; empty if none does."""
        return next((found for step in self.lineage if (found := mapping(at(step.result, "settings", "labelled")))), {})

    @property
    def labels(self) -> list[str]:
        """The labels that it was tuned for, of tags the types."""
        tags = self.tuned_for.get("kind") == "tagging"
        named = [plain(name, 60) for name in texts(self.tuned_for.get("labels"))[:MOST_ITEMS]]
        return list(dict.fromkeys(name.partition("-")[2] for name in named if name != "O")) if tags else named

    @property
    def pairs(self) -> bool:
        """Whether it classifies two texts together."""
        task = known_task(self.task)
        known = task is not None and task.kind == "classification" and task.pairs
        return bool(self.tuned_for.get("pairs", known))

    @cached_property
    def head(self) -> str | None:
        """What the Hub calls what the model does: from its class, else from the task's kind."""
        for name in self.classes:
            for ending, tag in _HEADS.items():
                if name.endswith(ending):
                    return tag
        if self.classes or self.embeds_sentences:
            return "sentence-similarity" if self.embeds_sentences else "feature-extraction"
        return task_head(self.task)

    @property
    def library(self) -> str:
        """The library that loads it."""
        if library := told_of(self.newest).library:
            return library
        vectors = self.head in ("sentence-similarity", "feature-extraction")
        return "sentence-transformers" if self.embeds_sentences and vectors else "transformers"

    @cached_property
    def base_models(self) -> list[str]:
        """Every model of the lineage that the Hub has, nearest first."""
        parents = [name for step in self.lineage for name in (step.hub_name, step.llm)]
        parents += [step.hub_name for other in self.others for step in (other.source, *other.lineage)]
        return list(dict.fromkeys(name for name in parents if name))

    @cached_property
    def licence(self) -> str | None:
        """Licence identifier of the nearest model of the lineage that states one; of a stack, if both parts agree."""
        own = _licence(self.lineage)
        for other in self.others:
            if other.role == "llm" and _licence((other.source, *other.lineage)) != own:
                return None
        return own

    @cached_property
    def datasets(self) -> list[str]:
        """Hub ids of the data that it was made with."""
        steps = [*self.lineage, *(step for other in self.others for step in other.lineage)]
        return list(dict.fromkeys(name for step in steps for text in step.texts if (name := dataset(text))))


def told_of(step: Step) -> Told:
    """How the cards of a step's command speak of it."""
    return registry.told(step.command) or Told(
        title=lambda step: f"{step.base} after {step.command or 'an unknown step'}",
        introduction=_made_somehow,
        tag="-".join(step.command.lower().split()),
    )


def _made_somehow(step: Step) -> str:
    return f"Made from {code(step.came_from)} with the command {code(f'polydistill {step.command}')} of {BY}."


def _lineage(raw: Any) -> tuple[Step, ...]:
    """A record and those before it, newest first."""
    steps: list[Step] = []
    while isinstance(raw, Mapping) and len(steps) < MOST_STEPS:
        steps.append(Step(raw))
        raw = raw.get("parent")
    return tuple(steps)


def _licence(steps: Sequence[Step]) -> str | None:
    """What the nearest source that states a licence states."""
    stated = (step.source.get("licence") for step in steps)
    named = (plain(name, 60).strip() for name in stated if isinstance(name, str))
    return next((name for name in named if name and name.lower() != "unknown"), None)


def exported(result: Any) -> str:
    """What an export reported: its files, and how far they are from torch."""
    files = joined([code(at(part, "path")) for part in objects(at(result, "files"))])
    said = f"{files or 'no file'}, with its tokenizer."
    largest, rounded, inputs = (number(at(result, "difference", key)) for key in ("onnx", "int8", "inputs"))
    if largest is not None and inputs is not None:
        eight = "" if rounded is None else f", those of the 8-bit file by at most {rounded:.2g}"
        said += f" On {counted(inputs, 'input')}, outputs differ from torch's by at most {largest:.2g}{eight}."
    return said


def dataset(text: Mapping[str, Any]) -> str | None:
    """The Hub id of a record's text, None if it is no data set of the Hub."""
    found = _DATASET.fullmatch(str(text.get("where")))
    return found[1] if found and ".." not in found[1] else None


def task_head(name: str | None) -> str | None:
    """The Hub's name of what a task asks, None where the task is not known here."""
    kind = known_task(name)
    return None if kind is None else _KINDS.get(kind.kind)


def tags_words(name: str | None) -> bool:
    """Whether a task asks for a class of every word, such as its part of speech."""
    kind = known_task(name)
    return kind is not None and kind.kind == "word-tagging"


def known_task(name: str | None) -> Any:
    """A task that ships, None if there is none of that name."""
    from polydistill.catalog import task
    from polydistill.errors import PolydistillError

    try:
        return task(name) if name else None
    except PolydistillError:
        return None


def _codes(languages: list[str]) -> list[str]:
    return list(dict.fromkeys(code for code in languages if _LANGUAGE.fullmatch(code)))


def _classes(folder: Path) -> tuple[str, ...]:
    """Class names in the folder's config.json; nothing outside the folder is read."""
    path = folder / "config.json"
    try:
        if not path.is_file() or leads_out(path, folder):
            return ()
        return tuple(texts(at(read_json(path), "architectures")))
    except (OSError, PolydistillError):
        return ()
