"""A student with some of its teacher's layers: which ones, and the folder that holds them. No torch."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.catalog import PAGE, Arch
from polydistill.errors import PolydistillError, UsageError
from polydistill.models.copying import CONFIG, copy_rest
from polydistill.models.loading import load_config
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.progress import SILENT, Progress
from polydistill.trimming import surgery
from polydistill.vocab.tokenizer_config import write_json

if TYPE_CHECKING:
    from polydistill.distill.objectives.base import LayerPairs

ALTERNATE, BOTTOM, TOP, RANDOM = "alternate", "bottom", "top", "random"
INITS = (ALTERNATE, BOTTOM, TOP, RANDOM)
DEFAULT_REDUCTION = 2
DROPOUT = re.compile(r".*(dropout|pdrop|layerdrop).*")
_ENCODERS = (
    "Choose an encoder, such as intfloat/multilingual-e5-small (`masked` in `polydistill ls architectures`); any "
    "supported model is made smaller by `polydistill trim`."
)
PER_LAYER = re.compile(r".*layer.*")  # config keys whose lists have one entry a layer, such as `layer_types`


# --- which layers


def chosen_layers(
    total: int, *, layers: int | None = None, reduction: int | None = None, init: str = ALTERNATE
) -> tuple[int, ...]:
    """The teacher's layers that a student gets.

    Student layer j <- teacher layer r(j+1)-1 with the layer reduction factor r (Ansell et al. 2023, arXiv 2306.01709,
    section 3.1): of 12 layers, 6 are 1, 3, 5, 7, 9, 11.

    Args:
        total: The teacher's layers.
        layers: The student's; by default `total / reduction`, or as many as `init` lists.
        reduction: The layer reduction factor r; 2 where nothing else says how many layers there are.
        init: `alternate` as above, `bottom` (the first ones), `top` (the last ones), a list such as `0,2,4`, or
            `random`: paired as `alternate`, for a student whose layers then get random weights (`randomise_layers`).

    Returns:
        The teacher's layers, ascending, counted from 0.

    Raises:
        UsageError: The numbers do not fit the teacher or each other.
    """
    listed = None if init in INITS else _listed(total, init)
    count = _count(total, layers, reduction, listed)
    if listed is not None:
        return listed
    if init == BOTTOM:
        return tuple(range(count))
    if init == TOP:
        return tuple(range(total - count, total))
    if total % count:
        raise UsageError(
            f"{count} layers cannot be taken at even distances out of {total}.",
            f"Choose {_or(_divisors(total))} layers, or `init=bottom`, `init=top` or a list such as `init=0,2,4`.",
        )
    step = total // count
    return tuple(step * (j + 1) - 1 for j in range(count))


def _count(total: int, layers: int | None, reduction: int | None, listed: tuple[int, ...] | None) -> int:
    """The number of the student's layers."""
    if layers is not None and not 1 <= layers <= total:
        raise UsageError(f"`layers={layers}` is impossible: the teacher has {total}.", f"Choose 1 to {total}.")
    if reduction is not None and (reduction < 1 or total % reduction):
        raise UsageError(
            f"`reduction={reduction}` does not divide the teacher's {total} layers.",
            f"Choose {_or(_divisors(total))}, or set `layers` with `init=bottom` or `init=top`.",
        )
    wanted = {
        "layers": layers,
        "reduction": None if reduction is None else total // reduction,
        "init": None if listed is None else len(listed),
    }
    given = {name: n for name, n in wanted.items() if n is not None}
    if len(set(given.values())) > 1:
        said = ", ".join(f"`{name}` asks for {n}" for name, n in given.items())
        raise UsageError(f"The student's layers are given twice: {said}.", "Leave out all but one.")
    if given:
        return next(iter(given.values()))
    if total % DEFAULT_REDUCTION:
        raise UsageError(
            f"Half of the teacher's {total} layers is not a whole number.",
            f"Choose how many with `layers` ({_or(_divisors(total))}; any number with `init=bottom` or `init=top`).",
        )
    return total // DEFAULT_REDUCTION


def _listed(total: int, init: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\s*\d{1,9}\s*(,\s*\d{1,9}\s*)*", init):
        raise UsageError(
            f"`init={init!r}` is unknown.", f"Choose {', '.join(INITS)}, or list the teacher's layers, such as 0,2,4."
        )
    found = tuple(int(part) for part in init.split(","))
    if max(found) >= total:
        raise UsageError(
            f"`init={init}` names layer {max(found)}, but the teacher's layers are 0 to {total - 1}.",
            "Layers are counted from 0.",
        )
    if any(a >= b for a, b in itertools.pairwise(found)):
        raise UsageError(
            f"`init={init}` is not in ascending order.", f"Write {','.join(map(str, sorted(set(found))))}."
        )
    return found


def _divisors(total: int) -> list[int]:
    return [n for n in range(1, total + 1) if total % n == 0]


def _or(numbers: Sequence[int]) -> str:
    return " or ".join(filter(None, [", ".join(map(str, numbers[:-1])), str(numbers[-1])]))


def layer_pairs(layers: Sequence[int], total: int) -> LayerPairs:
    """(student's layer, teacher's layer) from 0: which of them are compared.

    Student layer j with teacher layer r(j+1)-1, r = `total` / their number (rounded up where that is none), whichever
    layers its weights come from (Ansell et al. 2023, arXiv 2306.01709, section 3.1): a copy of the lowest layers is to
    learn what the whole teacher does. Layers that the user lists are compared with those that they began as.

    Args:
        layers: The teacher's layers that the student begins with, ascending.
        total: The teacher's layers.
    """
    count = len(layers)
    if tuple(layers) in (tuple(range(count)), tuple(range(total - count, total))):
        return tuple((j, -(-total * (j + 1) // count) - 1) for j in range(count))
    return tuple(enumerate(layers))


# --- the folder


def layer_count(source: Source) -> int:
    """The number of a model's layers, of which some are to be left out.

    Raises:
        PolydistillError: They cannot be left out, or their number is nowhere.
    """
    arch = source.arch
    if "reduce" not in arch.supports:
        why = arch.lacks("reduce") or "its architecture file does not say that they can"
        raise PolydistillError(f"Layers of {arch.name} models cannot be left out: {why}.", _ENCODERS)
    return hidden_layers(source)


def check_masked(source: Source, what: str) -> None:
    """Refuses models that do not guess masked tokens: what others learn from masked text makes no sense.

    Args:
        source: The model.
        what: Which training is asked for.

    Raises:
        PolydistillError: Its architecture is such a one.
    """
    if "masked" not in source.arch.supports:
        raise PolydistillError(
            f"{what} learns from masked tokens, and {source.arch.name} models do not predict any.", _ENCODERS
        )


def hidden_layers(source: Source) -> int:
    """The number of a model's layers, of the encoder's where there are two; shared ones as often as they run.

    Raises:
        PolydistillError: The number is nowhere.
    """
    arch = source.arch
    if arch.layers is None:
        raise PolydistillError(
            f"The architecture file of {arch.name} does not say where the layers are.",
            f"Describe it in a file of your own: {PAGE} shows how.",
        )
    part, key = _counting_part(source, _full_config(source))
    if not isinstance(part.get(key), int):
        raise PolydistillError(
            f"The config.json of {source.model} does not say its number of layers ({arch.layers.count_key}).",
            "Save the model again with transformers' save_pretrained.",
        )
    count: int = part[key]
    return count


def student_names(source: Source, layers: Sequence[int]) -> dict[str, str]:
    """Which of a model's tensors a student with some of its layers has, and what they are called there.

    Args:
        source: The teacher.
        layers: From `chosen_layers`.

    Returns:
        Name in the teacher -> name in the student.

    Raises:
        PolydistillError: The weights do not have the layers that config.json says, or a layer cannot stand where it
            would: it lacks what a layer there has.
    """
    total = layer_count(source)
    parts = {name: found for name in source.checkpoint.tensors if (found := _layer_of(source, name))}
    inside: dict[int, set[str]] = {}
    for found in parts.values():
        inside.setdefault(found.layer, set()).add(found.rest)
    if set(inside) != set(range(total)):
        raise PolydistillError(
            f"{source.model} has the weights of {len(inside)} layers, but its config.json says {total}.",
            "Fetch or save the model again.",
        )
    places = {layer: place for place, layer in enumerate(layers)}
    for layer, place in places.items():
        if lacking := inside[place] - inside[layer]:
            raise PolydistillError(
                f"Layer {layer} of {source.model} cannot be layer {place}: it has no {min(lacking)}.",
                "Choose other layers, for instance `init=bottom`.",
            )
    names = {}
    for name in source.checkpoint.tensors:
        part = parts.get(name)
        if part is None:
            names[name] = name
        # ModernBERT's first layer has no norm at its start: one that becomes the first loses it.
        elif part.layer in places and part.rest in inside[places[part.layer]]:
            names[name] = f"{part.prefix}{part.path}.{places[part.layer]}.{part.rest}"
    return names


def reduce_layers(
    source: Source | Path,
    layers: Sequence[int],
    out: Path,
    *,
    dropout: float | None = None,
    progress: Progress = SILENT,
) -> None:
    """Writes a model that has only some of another's layers, with the rest of its folder.

    Args:
        source: The teacher, or its folder.
        layers: From `chosen_layers`.
        out: An existing, empty folder.
        dropout: What all dropout rates become, 0 for BiStil; None leaves them.
        progress: Where to report.

    Raises:
        PolydistillError: The architecture does not allow it, or the folder is not whole.
    """
    if isinstance(source, Path):
        source = Source.open(resolve(ModelRef.parse(str(source))))
    names = student_names(source, layers)
    config = student_config(source, layers, dropout)
    target = source.place_in(out)
    for note in copy_rest(source, out, vocabulary=True):
        progress.note(note)
    write_json(target / CONFIG, config)
    total = sum(source.checkpoint.tensors[name].nbytes for name in names)
    with progress.bar("taking layers", total, "B") as done:
        surgery.write_renamed(source.checkpoint, names, target, progress=done)


def randomise_layers(folder: Path, arch: Arch, seed: int) -> None:
    """Gives the layers of a model fresh weights, as transformers initialises them; embeddings stay.

    Args:
        folder: The model, without a head; its weights are replaced.
        arch: Its architecture.
        seed: Of the weights.
    """
    import torch
    from transformers import AutoModel

    from polydistill.models.loading import load_encoder, quiet_transformers

    assert arch.layers is not None
    network = load_encoder(folder)
    torch.manual_seed(seed)
    fresh = AutoModel.from_config(network.config, trust_remote_code=False)
    layers, new = (net.get_submodule(arch.layers.path) for net in (network, fresh))
    layers.load_state_dict(new.state_dict())
    with quiet_transformers():
        network.save_pretrained(folder)


def student_config(source: Source, layers: Sequence[int], dropout: float | None = None) -> dict[str, Any]:
    """config.json of a student with some of its teacher's layers; see `reduce_layers`."""
    total = layer_count(source)
    full = _full_config(source)
    config = _copied(source.config)
    part, count_key = _counting_part(source, config)
    known, _ = _counting_part(source, full)
    for key, value in known.items():
        # Written even where the teacher's file leaves it to its class, which would go by the new position.
        if isinstance(value, list) and len(value) == total and PER_LAYER.fullmatch(key):
            part[key] = [value[layer] for layer in layers]
    part[count_key] = len(layers)
    if dropout is not None:
        for written, read in ((config, full), (part, known)):
            rates = [k for k, v in read.items() if DROPOUT.fullmatch(k) and type(v) in (int, float)]
            written.update(dict.fromkeys(rates, dropout))
        config["classifier_dropout"] = dropout  # heads of decoders have one of 0.1 that their configuration hides
    return config


@dataclass(frozen=True)
class _LayerTensor:
    """A tensor's name in parts: that of the base model, the path of the layers, the layer, the name in the layer."""

    prefix: str
    path: str
    layer: int
    rest: str


def _layer_of(source: Source, name: str) -> _LayerTensor | None:
    """Which layer a tensor belongs to; None for those outside."""
    assert source.arch.layers is not None
    # Files of a model with a head have a prefix (`bert.`), and multimodal ones `model.` inside the path.
    path = r"\.(?:model\.)?".join(map(re.escape, source.arch.layers.path.split(".")))
    match = re.fullmatch(rf"((?:.*?\.)?)({path})\.(\d+)\.(.+)", name)
    return _LayerTensor(match[1], match[2], int(match[3]), match[4]) if match else None


def _full_config(source: Source) -> dict[str, Any]:
    """The configuration with everything that its file leaves to its class."""
    full: dict[str, Any] = load_config(source.model).to_dict()
    return full


def _counting_part(source: Source, config: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The part of a configuration that says how many layers there are, and the key there."""
    assert source.arch.layers is not None
    *parents, key = source.arch.layers.count_key.split(".")
    for parent in parents:
        config = config.setdefault(parent, {})
    return config, key


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list) else value


# --- its size


@dataclass(frozen=True)
class Parameters:
    """Stored values of a model.

    Args:
        embeddings: Of word embeddings.
        rest: Of layers, positions, norms, a pooler.
        head: Of what stands behind the base model.
    """

    embeddings: int
    rest: int
    head: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.embeddings + self.rest + self.head


def parameters(source: Source, names: Mapping[str, str], cuts: Mapping[str, surgery.Cut]) -> Parameters:
    """The parameters of the student that cutting vocabulary and layers would write.

    Args:
        source: The teacher.
        names: From `student_names`; the teacher's own names for itself.
        cuts: From a trim's plan; none for an uncut vocabulary.
    """
    base = next((found.prefix for name in source.checkpoint.tensors if (found := _layer_of(source, name))), "")
    counted = {"embeddings": 0, "rest": 0, "head": 0}
    for name in names:
        tensor, spec = source.checkpoint.tensors[name], source.arch.vocabulary_tensor(name)
        behind = spec.role != "embedding" if spec else not name.startswith(base)
        kind = "head" if behind else "embeddings" if spec else "rest"
        counted[kind] += math.prod(surgery.new_shape(tensor, cuts.get(name)))
    return Parameters(**counted)
