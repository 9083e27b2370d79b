"""Models with the head that a kind of task needs, and their labels in the task's words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polydistill.catalog import Language
from polydistill.catalog.task import CLASSIFICATION, RETRIEVAL, SIMILARITY, SPAN_EXTRACTION, TAGGING, WORD_TAGGING
from polydistill.devices import current
from polydistill.errors import PolydistillError
from polydistill.evaluation.custom_labels import own_output_labels
from polydistill.evaluation.reuse import NAMELESS, Reused, Stored, names_of, output_layer, reuse_head
from polydistill.labelled.schemes import IOB2, ModelTags, model_tags, taught_labels
from polydistill.models.folder import is_stack, model_folder
from polydistill.models.loading import (
    load_config,
    load_sentence_model,
    load_tokenizer,
    loading_failed,
    longest_input,
    quiet_transformers,
)

AUTO_CLASSES = {
    CLASSIFICATION: "AutoModelForSequenceClassification",
    TAGGING: "AutoModelForTokenClassification",
    WORD_TAGGING: "AutoModelForTokenClassification",
    SPAN_EXTRACTION: "AutoModelForQuestionAnswering",
}
ANSWER = ("start", "end")  # the outputs of a head for answers, which have no names
VECTOR_KINDS = (RETRIEVAL, SIMILARITY)


@dataclass(frozen=True)
class TaskModel:
    """A loaded model and its tokenizer.

    Args:
        network: The torch module.
        tokenizer: A fast tokenizer that pads and truncates on the right.
        labels: (L,) the task's label of each output; empty for span extraction.
        max_length: Most tokens of an input, special tokens included.
        read_language: Tells a model that has to know it which language comes next; None for all others.
        reused: Where the outputs of a model to tune come from; None for a model that is used as it is.
        tags: What each output of a tagger means in its own scheme; None where that is what `labels` says in IOB2.
    """

    network: Any
    tokenizer: Any
    labels: tuple[str, ...]
    max_length: int
    read_language: Callable[[Language | str], object] | None = None
    reused: Reused | None = None
    tags: ModelTags | None = None


def open_model(
    folder: Path,
    kind: str,
    labels: Sequence[str],
    *,
    not_scored: Collection[str] = (),
    max_length: int | None = None,
    prompt: str | None = None,
    language: Language | str | None = None,
    own: bool = False,
) -> TaskModel:
    """Loads a model that was fine-tuned for a kind of task, in float32; for sentence vectors, any encoder.

    It lies on the device that `devices.current` names.

    Args:
        folder: A local snapshot.
        kind: A key of `AUTO_CLASSES`, or one of `VECTOR_KINDS`.
        labels: The task's labels.
        not_scored: Entity types that the task leaves out of the score; the model may know them.
        max_length: Most tokens of an input; the model's own limit if that is lower.
        prompt: What stands before every sentence whose vector is taken.
        language: Of the text, for models that have to know it.
        own: Whether the labels are those of the user's data, which the model need not share; see `own_labels`.

    Raises:
        PolydistillError: It lacks the head, its labels have no names, or they are not the task's.
    """
    if is_stack(folder):
        found = _stack_model(folder, kind, labels, max_length, prompt, own)
        if language is not None and found.read_language is not None:
            found.read_language(language)
    elif kind in VECTOR_KINDS:
        found = _sentence_model(folder, max_length, prompt)
    else:
        found = _tuned_model(model_folder(folder), kind, labels, not_scored, max_length, own)
    found.network.to(current())
    return found


def _tuned_model(
    folder: Path, kind: str, labels: Sequence[str], not_scored: Collection[str], max_length: int | None, own: bool
) -> TaskModel:
    """A model of transformers with its head.

    Raises:
        PolydistillError: It lacks the head, its labels have no names, or they are not the task's.
    """
    model, stored = _load(folder, kind)
    if stored.lacking:
        raise PolydistillError(
            f"{folder} has no head for {kind} (it lacks {stored.lacking[0]}).",
            "Tune it first: `polydistill finetune model=...`.",
        )
    names = names_of(model.config)
    tokenizer = _tokenizer(folder, model.config)
    length = longest_input(tokenizer, model.config, max_length)
    if kind == TAGGING:
        tags = tagger_tags(names, labels, not_scored, folder, own=own)
        return TaskModel(model.eval(), tokenizer, tags.labels, length, tags=None if tags.scheme == IOB2 else tags)
    read = own_output_labels if own else output_labels
    found = () if kind == SPAN_EXTRACTION else read(names, kind, labels, not_scored, folder)
    return TaskModel(model.eval(), tokenizer, found, length)


def _stack_model(
    folder: Path, kind: str, labels: Sequence[str], max_length: int | None, prompt: str | None, own: bool
) -> TaskModel:
    """A stack as the predict loops know models.

    Raises:
        PolydistillError: It gives no such outputs.
    """
    from polydistill.stacks.folder import load_stack

    stack = load_stack(folder, max_length)
    if kind in VECTOR_KINDS:
        network = stack.as_sentence_transformer().eval()
        if prompt is not None:
            network.prompts, network.default_prompt_name = {"given": prompt}, "given"
        return _stack_reading(network, network[0].reader, ())
    if kind != CLASSIFICATION or not stack.description.labels:
        raise PolydistillError(
            f"{folder} is a stack without a head for {kind}.",
            "A stack can be given a head for classes of texts: `polydistill stack ENCODER LLM stack=... task=nli`.",
        )
    read = own_output_labels if own else output_labels
    found = read(stack.description.labels, kind, labels, (), folder)
    return _stack_reading(stack.network, stack.reader, found)


def _stack_reading(network: Any, reader: Any, labels: tuple[str, ...]) -> TaskModel:
    return TaskModel(network, reader, labels, reader.max_length, reader.read_language if reader.codes else None)


def _sentence_model(folder: Path, max_length: int | None, prompt: str | None) -> TaskModel:
    """A model of sentence vectors as sentence-transformers reads it; a bare encoder gets mean pooling."""
    model = load_sentence_model(folder)
    longest = min(n for n in (model.max_seq_length, max_length, _room_of_encoder(model, folder)) if n)
    model.max_seq_length = longest
    if prompt is not None:
        model.prompts, model.default_prompt_name = {"given": prompt}, "given"
    return TaskModel(model.eval(), model.tokenizer, (), longest)


def _room_of_encoder(model: Any, folder: Path) -> int:
    """Most tokens that the encoder inside a model of sentence vectors takes."""
    return longest_input(model.tokenizer, load_config(model_folder(folder)))


def new_head(
    folder: Path, kind: str, labels: Sequence[str], *, seed: int, max_length: int | None = None, eager: bool = False
) -> TaskModel:
    """Loads a model to tune for a kind of task; what it lacks of the head is initialised from the seed.

    A head that it has is reused by the names of its labels, as `reuse.reuse_head` says; `reused` says how.
    With `eager` attention is computed without fused kernels, which is the only way to get its probabilities.

    Raises:
        PolydistillError: transformers cannot load it with such a head, or it lacks more than the head.
    """
    import transformers

    refuse_stack(folder)
    transformers.set_seed(seed)
    named: dict[str, Any] = {"num_labels": len(ANSWER)}
    if kind != SPAN_EXTRACTION:
        named = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    if kind == CLASSIFICATION:  # whatever the model's own head was trained for
        named["problem_type"] = "single_label_classification"
    model, stored = _load(folder, kind, new=True, eager=eager, **named)
    inside = f"{model.base_model_prefix}."  # a pooler is left out of many folders, and no more than a part of the head
    lost = [name for name in stored.lacking if name.startswith(inside) and "pooler" not in name]
    if lost and len(lost) == sum(name.startswith(inside) for name, _ in model.named_parameters()):
        raise PolydistillError(
            f"transformers' {type(model).__name__} reads none of the weights of {folder}.",
            "Choose a model of an architecture that has such a head.",
        )
    if lost:
        raise PolydistillError(
            f"{folder} does not have all weights of its model (it lacks {lost[0]}, or has it in another shape).",
            "Fetch or save the model again: what it lacks would begin as noise.",
        )
    reused = _reused(model, folder, kind, labels, stored)
    tokenizer = _tokenizer(folder, model.config)
    length = longest_input(tokenizer, model.config, max_length)
    return TaskModel(model, tokenizer, tuple(labels), length, reused=reused)


def _reused(model: Any, folder: Path, kind: str, labels: Sequence[str], stored: Stored) -> Reused:
    """Puts the weights of a head under the labels that they were trained for; those of an answer have no names."""
    if kind == SPAN_EXTRACTION:
        layer = output_layer(model, len(ANSWER))
        is_new = layer is None or f"{layer[0]}.weight" in stored.lacking
        return Reused((), ANSWER) if is_new else Reused(ANSWER, ())
    ending = AUTO_CLASSES[kind].removeprefix("AutoModel")
    return reuse_head(model, load_config(folder), labels, ending, stored, lambda: _load(folder, kind)[0])


def refuse_stack(folder: Path) -> None:
    """Refuses a stack in the place of a model to tune.

    Raises:
        PolydistillError: It is one.
    """
    if is_stack(folder):
        raise PolydistillError(
            f"{folder} is a stack, which cannot be tuned like one model.",
            "Teach it a task with `polydistill stack ENCODER LLM stack=... task=...`.",
        )


def output_labels(
    names: Sequence[str], kind: str, labels: Sequence[str], not_scored: Collection[str], model: object
) -> tuple[str, ...]:
    """The task's label of each output of a model; outputs of types that are not scored become O.

    Raises:
        PolydistillError: The outputs have no names, other names, or lack one of the task's labels.
    """
    _check_named(names, model)
    if kind == TAGGING:
        return taught_labels(names, labels, not_scored, model).labels
    wanted = {label.casefold(): label for label in labels if label not in not_scored}
    found = tuple(wanted.get(name.casefold(), "") for name in names)
    if "" in found:
        unknown = names[found.index("")]
        raise PolydistillError(
            f"{model} has the label {unknown}, which the task does not know ({', '.join(labels)}).",
            "Choose a model or a task with the same labels.",
        )
    if missing := [label for label in wanted.values() if label not in found]:
        raise PolydistillError(
            f"{model} cannot predict {', '.join(missing)}, which the task scores.",
            "Choose a model that was tuned with these labels.",
        )
    return found


def tagger_tags(
    names: Sequence[str], labels: Sequence[str], not_scored: Collection[str], model: object, *, own: bool = False
) -> ModelTags:
    """What the outputs of a tagger mean, in whichever scheme it tags; see `schemes.model_tags`.

    Raises:
        PolydistillError: The outputs have no names, other names, or lack one of the task's types.
    """
    _check_named(names, model)
    return model_tags(names, labels, not_scored, model, own=own)


def _check_named(names: Sequence[str], model: object) -> None:
    if any(NAMELESS.fullmatch(name) for name in names):
        raise PolydistillError(
            f"The labels of {model} have no names ({', '.join(names[:3])}), so their order is unknown.",
            "Name them in id2label and label2id of its config.json.",
        )


def _tokenizer(folder: Path, config: Any) -> Any:
    """The folder's tokenizer; where it has no padding, the end of text pads, and the configuration says so too."""
    tokenizer = load_tokenizer(folder)
    if not tokenizer.is_fast:
        raise PolydistillError(
            f"The tokenizer of {folder} has no tokenizer.json, without which words and answers cannot be found again.",
            "Save it once with transformers' AutoTokenizer, which converts it.",
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    for part in (config, config.get_text_config()):  # without it a decoder does not find the last token of a text
        if part.pad_token_id is None:
            part.pad_token_id = tokenizer.pad_token_id
    return tokenizer


def _load(folder: Path, kind: str, *, new: bool = False, eager: bool = False, **options: Any) -> tuple[Any, Stored]:
    """The model, and what of its weights the folder has."""
    import torch
    import transformers

    loader = getattr(transformers, AUTO_CLASSES[kind])
    try:
        with quiet_transformers():
            model, info = loader.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=new,
                attn_implementation="eager" if eager else None,
                **options,
            )
    except Exception as error:
        hint = "Choose a model of an architecture that has such a head."
        raise loading_failed(f"transformers cannot load {folder} for {kind}", error, hint) from error
    return model, Stored(info["missing_keys"], {name: tuple(shape) for name, shape, _ in info["mismatched_keys"]})
