"""The head that a model to tune already has: its outputs are reused by the names of their labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from polydistill.errors import PolydistillError
from polydistill.labelled.checks import label_key
from polydistill.labelled.custom import listed
from polydistill.labelled.schemes import known_type, parts
from polydistill.progress import Progress

NAME_THEM = "To start from its head, name its labels in id2label and label2id of its config.json."
NAMELESS = re.compile(r"LABEL_(\d+)")
HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
ENTITIES = ("PER", "ORG", "LOC")  # types that models call by longer names too


@dataclass(frozen=True)
class Reused:
    """Where the outputs of a model to tune come from.

    Args:
        kept: Labels whose weights are the model's own, found by name.
        new: Labels whose weights begin from the seed.
        dropped: Labels of the model's head that the task does not have.
        why_not: Why a head that is there gives nothing; empty where there is none or some of it is kept.
    """

    kept: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    why_not: str = ""

    def to_json(self) -> dict[str, Any]:
        """What a record says of it."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @property
    def sentence(self) -> str:
        """What the user is told; empty for a model without a head."""
        if self.why_not:
            return f"The output layer is new: {self.why_not}"
        if not self.kept:
            return ""
        said = f"The model's own head is kept, its labels matched by name: {listed(self.kept)}."
        if self.new:
            said += f" New: {listed(self.new)}."
        return said + (f" Dropped: {listed(self.dropped)}." if self.dropped else "")


@dataclass(frozen=True)
class Stored:
    """What a loader says of a model's weights.

    Args:
        missing: Names of those that its folder lacks.
        other_shapes: Names of those that have another shape there -> that shape.
    """

    missing: Collection[str]
    other_shapes: Mapping[str, tuple[int, ...]]

    @property
    def lacking(self) -> list[str]:
        """Names of the weights that begin anew when the model is loaded."""
        return sorted([*self.missing, *self.other_shapes])


def tell(progress: Progress, reused: Reused) -> None:
    """Tells the user what becomes of a head."""
    if reused.sentence:
        (progress.note if reused.kept else progress.warn)(reused.sentence)


def names_of(config: Any) -> list[str]:
    """(L,) what a model's configuration calls its outputs, in their order."""
    return [config.id2label.get(i, f"LABEL_{i}") for i in range(len(config.id2label))]


def rows_by_name(names: Sequence[str], labels: Sequence[str]) -> list[int | None]:
    """The output of each label, None for one that no name says.

    Case does not matter, unless two names differ in it; B-PERSON is B-PER. Outputs without names (`LABEL_0`) are those
    of labels that are such numbers.
    """
    numbers = [match[1] for name in names if (match := NAMELESS.fullmatch(name))]
    if len(numbers) == len(names) and set(labels) <= set(numbers):
        names = numbers
    keys = [_key(name) for name in names]
    found: list[int | None] = []
    for label in labels:
        places = [i for i, key in enumerate(keys) if key == _key(label)]
        found.append(max(places, key=lambda i: names[i] == label) if places else None)
    return found


def _key(name: str) -> str:
    prefix, kind = parts(name.strip())
    return label_key(f"{prefix}-{known_type(kind, ENTITIES) or kind}" if prefix and kind else name)


def output_layer(network: Any, outputs: int) -> tuple[str, Any] | None:
    """(name, linear layer) of a network's outputs: the last layer of that size outside its encoder, None without one.

    Args:
        network: A transformers model with a head, or a stack.
        outputs: How many labels it has.
    """
    import torch

    base = getattr(network, "base_model", network)
    inside = set() if base is network else set(map(id, base.modules()))
    found = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == outputs and id(module) not in inside
    ]
    return found[-1] if found else None


def output_parameters(network: Any, outputs: int) -> frozenset[str]:
    """The names of the parameters of the output layer; empty where there is none."""
    found = output_layer(network, outputs)
    return frozenset(f"{found[0]}.{name}" for name, _ in found[1].named_parameters()) if found else frozenset()


def reuse_head(
    network: Any, config: Any, labels: Sequence[str], kind: str, stored: Stored, reload: Callable[[], Any]
) -> Reused:
    """Gives the output layer of a network to tune the model's own weights by the names of its labels, and new weights
    to all others, in place.

    Args:
        network: The model, loaded with L outputs, whatever weights the loader has put there.
        config: The model's own configuration.
        labels: (L,) the task's labels.
        kind: The ending of the classes that have such a head, such as `ForTokenClassification`.
        stored: What of the head the folder has.
        reload: Loads the model with its own outputs.

    Raises:
        PolydistillError: The output layer cannot be found.
    """
    name, layer = _required_layer(network, len(labels))
    if f"{name}.weight" in stored.missing:
        return Reused((), tuple(labels))
    shape = stored.other_shapes.get(f"{name}.weight", tuple(layer.weight.shape))
    names = names_of(config)
    rows = rows_by_name(names, labels)
    if why_not := _why_not(config, kind, names, rows, shape, layer.in_features):
        _take_over(network, layer, [None] * len(labels), layer)
        return Reused((), tuple(labels), tuple(names), why_not)
    if shape[0] != len(labels):
        _take_over(network, layer, rows, _required_layer(reload(), shape[0])[1])
    elif rows != list(range(len(labels))):
        _take_over(network, layer, rows, layer)
    return Reused(
        tuple(label for label, row in zip(labels, rows, strict=True) if row is not None),
        tuple(label for label, row in zip(labels, rows, strict=True) if row is None),
        tuple(own for i, own in enumerate(names) if i not in rows),
    )


def _why_not(
    config: Any, kind: str, names: Sequence[str], rows: Sequence[int | None], shape: Sequence[int], width: int
) -> str:
    """Why nothing of a head can be used, empty where some of it can."""
    classes = getattr(config, "architectures", None) or []
    ends = [end for end in HEADS for found in classes if found.endswith(end)]
    if ends and kind not in ends:
        return f"the model's head is for another kind of task ({', '.join(classes)})."
    if len(names) != shape[0] or list(shape[1:]) != [width]:
        return f"the model's head has the shape {list(shape)}, and its configuration names {len(names)} labels."
    if any(row is not None for row in rows):
        return ""
    if all(NAMELESS.fullmatch(name) for name in names):
        return f"the {len(names)} labels of the model's head have no names ({listed(names)}). {NAME_THEM}"
    return f"none of the labels of the model's head ({listed(names)}) is one of the task."


def _take_over(network: Any, layer: Any, rows: Sequence[int | None], own: Any) -> None:
    """Fills a layer with rows of another one, or of itself; None begins anew, as the architecture begins."""
    import torch

    fresh = torch.nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    network._init_weights(fresh)
    known = {name: parameter.detach().clone() for name, parameter in own.named_parameters()}
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(getattr(fresh, name))
            for place, row in enumerate(rows):
                if row is not None and name in known:
                    parameter[place] = known[name][row]


def _required_layer(network: Any, outputs: int) -> tuple[str, Any]:
    found = output_layer(network, outputs)
    if found is None:
        raise PolydistillError(
            f"The layer of {type(network).__name__} that gives its {outputs} outputs cannot be found, so they cannot "
            "be matched with labels by name.",
            "Choose a model of another architecture, such as BERT or XLM-R.",
        )
    return found
