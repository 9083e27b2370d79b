"""The architecture files say the truth about real transformers models: names, axes, layers, attention."""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from polydistill.distill.student import layer_count
from polydistill.errors import PolydistillError
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source

ARCH = Path(__file__).parents[2] / "polydistill" / "arch"
FILES = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(ARCH.glob("*.toml"))}
TEXT = tiny.sentences("en", "ro", count=3)

each_case = pytest.mark.parametrize("case", tiny.CASES, ids=lambda case: case.name)
each_type = pytest.mark.parametrize("model_type", tiny.MODEL_TYPES)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tiny.Case], Path]:
    """The folder of a case, built on first use."""
    folders: dict[str, Path] = {}

    def build(case: tiny.Case) -> Path:
        if case.name not in folders:
            folder = tmp_path_factory.mktemp(case.model_type)
            folders[case.name] = tiny.model_folder(case.model_type, case.head, folder, **case.options)
        return folders[case.name]

    return build


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in a folder's safetensors files."""
    from safetensors import safe_open

    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return found


def matching(model_type: str, tensor: str) -> list[dict[str, Any]]:
    return [
        entry
        for entry in FILES[model_type]["vocabulary"]
        if tensor == entry["suffix"] or tensor.endswith("." + entry["suffix"])
    ]


def look_up(config: dict[str, Any], dotted: str) -> Any:
    for key in dotted.split("."):
        config = config[key]
    return config


def numbers(value: Any, skip: tuple[str, ...]) -> Iterator[int]:
    """Every integer in a configuration, except under the given keys and under those of token ids."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in skip and not key.endswith(("token_id", "token_index")):
                yield from numbers(inner, skip)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner, skip)
    elif type(value) is int:
        yield value


def test_every_architecture_has_a_file_and_a_case() -> None:
    assert set(FILES) == set(tiny.MODEL_TYPES)
    assert all(name == table["model_type"] for name, table in FILES.items())


def test_the_catalogue_reads_every_file() -> None:
    from polydistill import catalog

    for model_type, table in FILES.items():
        arch = catalog.arch(model_type)
        assert [t.suffix for t in arch.vocabulary] == [t["suffix"] for t in table["vocabulary"]]
        assert arch.supports == tuple(table["supports"])


@each_case
def test_exactly_the_tensors_with_a_vocabulary_axis_are_named(
    case: tiny.Case, built: Callable[[tiny.Case], Path]
) -> None:
    folder, table = built(case), FILES[case.model_type]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    keys = table.get("rows_keys", ["vocab_size"])
    rows = {look_up(config, key) for key in keys}
    # Nothing else may have the size of the vocabulary, or the axes could not be told apart.
    assert rows.isdisjoint(numbers(config, tuple(key.split(".")[-1] for key in keys)))
    tensors = shapes(folder)
    for name, shape in tensors.items():
        axes = [axis for axis, length in enumerate(shape) if length in rows]
        assert [entry.get("axis", 0) for entry in matching(case.model_type, name)] == axes, name
    roles = [matching(case.model_type, name)[0]["role"] for name in tensors if matching(case.model_type, name)]
    assert "embedding" in roles
    if case.options.get("tied") is False:
        assert "head" in roles
    if case.options.get("tied") is True:
        assert "head" not in roles


@each_case
def test_a_folder_loads_with_its_tokenizer_and_auto_class(case: tiny.Case, built: Callable[[tiny.Case], Path]) -> None:
    import torch
    import transformers

    folder = built(case)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model, report = getattr(transformers, tiny.AUTO_CLASS[case.head]).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    rows = model.get_input_embeddings().weight.shape[0]
    assert len(tokenizer) <= rows
    encoded = tokenizer(TEXT[0], return_tensors="pt")["input_ids"]
    assert encoded.max() < rows
    assert encoded.unique().numel() > 5  # real pieces, not only unknown ones
    ids = {"input_ids": encoded}
    if model.config.is_encoder_decoder and case.head in ("base", "seq2seq-lm"):
        ids["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id, 3, 4]])
    with torch.no_grad():
        assert torch.isfinite(model(**ids)[0].float()).all()
    if "shards" in case.options:
        assert len(list(folder.glob("*.safetensors"))) >= 2


def test_every_suffix_names_a_tensor_of_some_model(built: Callable[[tiny.Case], Path]) -> None:
    """Also those that only older files carry: transformers ties them away when it saves."""
    import transformers

    unused = {(name, entry["suffix"]) for name, table in FILES.items() for entry in table["vocabulary"]}
    for case in tiny.CASES:
        if any(model_type == case.model_type for model_type, _ in unused):
            auto = getattr(transformers, tiny.AUTO_CLASS[case.head])
            for name in auto.from_pretrained(built(case)).state_dict():
                unused -= {(case.model_type, entry["suffix"]) for entry in matching(case.model_type, name)}
    assert not unused


@pytest.mark.parametrize(
    ("model_type", "tensor", "axis"),
    [
        ("bert", "cls.predictions.decoder.weight", 0),
        ("bert", "cls.predictions.decoder.bias", 0),
        ("bert", "cls.predictions.bias", 0),
        ("bert", "cls.predictions.transform.dense.bias", None),
        ("bert", "bert.embeddings.position_embeddings.weight", None),
        ("bert", "bert.embeddings.token_type_embeddings.weight", None),
        ("bert", "bert.embeddings.position_ids", None),
        ("distilbert", "vocab_projector.weight", 0),
        ("distilbert", "vocab_transform.weight", None),
        ("xlm-roberta", "lm_head.decoder.weight", 0),
        ("xlm-roberta", "lm_head.decoder.bias", 0),
        ("xlm-roberta", "lm_head.dense.bias", None),
        ("xlm-roberta", "lm_head.layer_norm.bias", None),
        ("deberta-v2", "lm_predictions.lm_head.bias", 0),
        ("deberta-v2", "lm_predictions.lm_head.dense.bias", None),
        ("deberta-v2", "mask_predictions.classifier.bias", None),
        ("deberta-v2", "deberta.encoder.rel_embeddings.weight", None),
        ("electra", "discriminator_predictions.dense.bias", None),
        ("albert", "albert.encoder.embedding_hidden_mapping_in.weight", None),
        ("albert", "predictions.dense.bias", None),
        ("modernbert", "model.embeddings.norm.weight", None),
        ("mt5", "decoder.embed_tokens.weight", 0),
        ("mt5", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", None),
        ("mbart", "model.encoder.embed_tokens.weight", 0),
        ("mbart", "model.encoder.embed_positions.weight", None),
        ("mbart", "final_logits_bias", 1),
        ("m2m_100", "model.decoder.embed_positions.weights", None),
        ("gpt2", "wte.weight", 0),
        ("gpt2", "wpe.weight", None),
        ("bloom", "word_embeddings.weight", 0),
        ("bloom", "word_embeddings_layernorm.weight", None),
        ("gemma3", "language_model.model.embed_tokens.weight", 0),
        ("gemma3", "language_model.lm_head.weight", 0),
        ("gemma3", "vision_tower.vision_model.embeddings.position_embedding.weight", None),
    ],
)
def test_names_in_older_files(model_type: str, tensor: str, axis: int | None) -> None:
    assert [entry.get("axis", 0) for entry in matching(model_type, tensor)] == ([] if axis is None else [axis])


@each_type
def test_layers_are_where_the_file_says(model_type: str, built: Callable[[tiny.Case], Path]) -> None:
    model = base_model(model_type, built)
    layers, config = FILES[model_type]["layers"], model.config.to_dict()
    found = model.get_submodule(layers["path"])
    assert look_up(config, layers["count_key"]) == 2
    if layers.get("shared"):
        assert len(found) == 1
    else:
        assert len(found) == 2
    assert model.config.is_encoder_decoder == ("decoder_path" in layers)
    if "decoder_path" in layers:
        assert len(model.get_submodule(layers["decoder_path"])) == 2


@each_type
def test_files_say_what_is_done_with_such_models(model_type: str, built: Callable[[tiny.Case], Path]) -> None:
    """`reduce` where layers are left out, `masked` where masked tokens are guessed, `relations` where Q can be read."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    case = next(case for case in tiny.CASES if case.model_type == model_type and case.head == "base")
    source = Source.open(resolve(ModelRef.parse(str(built(case)))))
    supports, both = source.arch.supports, "decoder_path" in FILES[model_type]["layers"]
    try:
        reduced = layer_count(source) == 2
    except PolydistillError as error:
        reduced = False
        assert "cannot be left out" in error.message and "polydistill trim" in str(error.hint)
    assert reduced == ("reduce" in supports) == (not both and not FILES[model_type]["layers"].get("shared"))
    assert ("masked" in supports) == (model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not both)
    assert ("relations" in supports) == ("attention" in FILES[model_type])


@pytest.mark.parametrize("model_type", [name for name, table in FILES.items() if "attention" in table])
def test_attention_modules_are_query_key_and_value(model_type: str, built: Callable[[tiny.Case], Path]) -> None:
    """One token's Q decides where that token looks, its K where the others look too, its V neither."""
    model = base_model(model_type, built)
    usual = first_attention(model)
    for part, looks_elsewhere in (("query", {2}), ("key", {2, 3, 4}), ("value", set())):
        table = FILES[model_type]
        module = model.get_submodule(table["layers"]["path"])[0].get_submodule(table["attention"][part])
        with silenced(module, token=2):
            difference = np.abs(first_attention(model) - usual).max(axis=(0, 1, 3))
        changed = {row for row in range(5) if difference[row] > 1e-6}
        assert changed - {0, 1} == looks_elsewhere, part  # in an encoder, K changes rows 0 and 1 as well
        assert part == "key" or not changed & {0, 1}, part


def base_model(model_type: str, built: Callable[[tiny.Case], Path]) -> Any:
    import transformers

    case = next(case for case in tiny.CASES if case.model_type == model_type and case.head == "base")
    return transformers.AutoModel.from_pretrained(built(case), attn_implementation="eager").eval()


def first_attention(model: Any) -> np.ndarray:
    """Attention probabilities [1, heads, 5, 5] of the first layer; the encoder's in an encoder-decoder."""
    import torch

    inputs = {"input_ids": torch.tensor([[5, 17, 60, 44, 9]])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    with torch.no_grad():
        out = model(**inputs, output_attentions=True)
    return (out.encoder_attentions if model.config.is_encoder_decoder else out.attentions)[0].numpy()


@contextlib.contextmanager
def silenced(module: Any, token: int) -> Iterator[None]:
    """Within, the module's first call gives 0 for one token.

    DeBERTa calls its modules again, on relative positions; those are left as they are.
    """

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        handle.remove()
        changed = output.clone()
        changed[..., token, :] = 0
        return changed

    handle = module.register_forward_hook(hook)
    yield
    handle.remove()
