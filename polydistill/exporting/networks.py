"""Which networks can be exported, how they are loaded, and an ONNX file in a network's place."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from polydistill.catalog.task import CLASSIFICATION, RETRIEVAL, SIMILARITY, SPAN_EXTRACTION, TAGGING, WORD_TAGGING
from polydistill.errors import PolydistillError
from polydistill.evaluation.heads import TaskModel
from polydistill.models.loading import loading_failed, quiet_transformers
from polydistill.models.source import Source
from polydistill.training.batching import MODEL_KEYS

FEATURES = "feature-extraction"


@dataclass(frozen=True)
class Head:
    """What a network ends in.

    Args:
        name: As pipelines of transformers and transformers.js call what it does.
        auto_class: What loads it.
        outputs: Fields of its output, which are the graph's outputs too.
        positions: Whether their second axis is that of positions.
    """

    name: str
    auto_class: str
    outputs: tuple[str, ...]
    positions: bool = True


HEADS = {
    head.name: head
    for head in (
        Head(FEATURES, "AutoModel", ("last_hidden_state",)),
        Head("text-classification", "AutoModelForSequenceClassification", ("logits",), positions=False),
        Head("token-classification", "AutoModelForTokenClassification", ("logits",)),
        Head("question-answering", "AutoModelForQuestionAnswering", ("start_logits", "end_logits")),
    )
}
OF_KIND = {
    CLASSIFICATION: "text-classification",
    TAGGING: "token-classification",
    WORD_TAGGING: "token-classification",
    SPAN_EXTRACTION: "question-answering",
    RETRIEVAL: FEATURES,
    SIMILARITY: FEATURES,
}
_ENDINGS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "Model": FEATURES,
    "ForMaskedLM": FEATURES,
    "ForPreTraining": FEATURES,
}


def head_of(source: Source) -> Head:
    """The head of a model that can be exported; one that guesses masked tokens counts as the encoder below it.

    Raises:
        PolydistillError: The model is no encoder, or ends in a head of another kind.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS

    config, name = source.config, source.arch.name
    way_out = "Export an encoder, such as BERT, XLM-R, DeBERTa, ModernBERT, or a student of one."
    if config.get("is_encoder_decoder") or (config["model_type"] in ENCODERS and config.get("is_decoder")):
        raise PolydistillError(f"{source.folder} has a decoder ({name}), which cannot be exported to ONNX.", way_out)
    if config["model_type"] not in ENCODERS:
        raise PolydistillError(f"{source.folder} is a decoder ({name}), which cannot be exported to ONNX.", way_out)
    classes = config.get("architectures") or ["Model"]
    for ending, head in _ENDINGS.items():
        if classes[0].endswith(ending) and not classes[0].endswith("LMHeadModel"):
            return HEADS[head]
    raise PolydistillError(
        f"{source.folder} is a {classes[0]}, whose head cannot be exported.",
        "Heads for features, text classification, token classification and question answering can.",
    )


def load_network(folder: Path, head: Head) -> Any:
    """A model with its head, in float32 and evaluation mode.

    Args:
        folder: The part of a snapshot that has config.json.
        head: What it ends in.

    Raises:
        PolydistillError: transformers cannot load it, or it does not have all weights.
    """
    import torch
    import transformers

    try:
        with quiet_transformers():
            network, info = getattr(transformers, head.auto_class).from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:
        raise loading_failed(f"transformers cannot load {folder}", error, "Fetch or save the model again.") from error
    # A pooler is left out of many folders; the features are those before it.
    missing = sorted(n for n in info["missing_keys"] if head.name != FEATURES or not n.startswith("pooler."))
    if missing:
        raise PolydistillError(
            f"{folder} does not have all weights of its model (it lacks {missing[0]}).",
            "Fetch or save the model again, or tune its head first: `polydistill finetune`.",
        )
    return network.eval()


def onnx_network(path: Path, config: Any) -> Any:
    """An ONNX file as a torch module with the inputs and outputs of the network that it was made from.

    It runs on the processor, with as many threads as torch has.

    Args:
        path: The file.
        config: The network's configuration.

    Raises:
        PolydistillError: onnxruntime cannot load it.
    """
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        hint = "Report it with the model's name."
        raise loading_failed(f"onnxruntime cannot load {path.name}", error, hint) from error
    inputs, outputs = ([value.name for value in found] for found in (session.get_inputs(), session.get_outputs()))

    class OnnxNetwork(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = config
            self.place = torch.nn.Parameter(torch.empty(0), requires_grad=False)  # the device and type of the others

        def forward(self, **batch: Any) -> SimpleNamespace:
            values = session.run(outputs, {name: batch[name].numpy() for name in inputs})
            return SimpleNamespace(**{name: torch.from_numpy(v) for name, v in zip(outputs, values, strict=True)})

    return OnnxNetwork().eval()


def with_network(model: TaskModel, network: Any) -> TaskModel:
    """A task's model with another network in the place of its own, or of its encoder; the given one stays as it is."""
    if not hasattr(model.network, "encode"):
        return replace(model, network=network)
    sentences, encoder = copy.copy(model.network), copy.copy(model.network[0])
    encoder._modules = {**encoder._modules, "model": network}
    sentences._modules = {**sentences._modules, next(iter(sentences._modules)): encoder}
    return replace(model, network=sentences)


def input_names(tokenizer: Any, network: Any) -> tuple[str, ...]:
    """What a graph takes: what the tokenizer gives and the network reads."""
    given, read = tokenizer("a"), inspect.signature(network.forward).parameters
    return tuple(name for name in MODEL_KEYS if name in given and name in read)
