"""export: every encoder and every head as a graph that gives torch's outputs at sizes other than the traced ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from polydistill.errors import PolydistillError
from polydistill.exporting.graph import write_onnx
from polydistill.exporting.networks import head_of, input_names, load_network, onnx_network
from polydistill.exporting.quantise import quantise
from polydistill.models.loading import load_tokenizer
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source

ONE_LAYER = {"num_hidden_layers": 1}
LONGEST = 64  # of 72 positions, from which RoBERTa's padding and the like take some
# Each architecture once, each head at least twice; float16 and bfloat16 become float32.
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("bert", "token-classification", {"tokenizer": "xlm-roberta", "config": ONE_LAYER}),
    ("distilbert", "sequence-classification", {"config": {"n_layers": 1}, "dtype": "float16"}),
    ("roberta", "question-answering", {"config": ONE_LAYER}),
    ("xlm-roberta", "masked-lm", {"config": ONE_LAYER}),
    ("xmod", "base", {"config": ONE_LAYER}),
    ("deberta-v2", "token-classification", {"config": ONE_LAYER}),
    ("electra", "question-answering", {"config": ONE_LAYER}),
    ("albert", "sequence-classification", {"config": ONE_LAYER}),
    ("modernbert", "base", {"dtype": "bfloat16"}),  # two layers: one attends to all tokens, one to the near ones
    ("mpnet", "base", {"config": ONE_LAYER}),
]


def opened(folder: Path) -> Source:
    return Source.open(resolve(ModelRef.parse(str(folder))))


def batch_of(tokenizer: Any, size: int, length: int, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Tokens at random, the odd rows half padding, the second half of token types 1."""
    torch.manual_seed(size * 100 + length)
    usual = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids]
    batch = {"input_ids": torch.tensor(usual)[torch.randint(len(usual), (size, length))]}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
    batch["token_type_ids"][:, (length + 1) // 2 :] = 1
    if length > 1:
        batch["attention_mask"][1::2, length // 2 :] = 0
        batch["input_ids"][1::2, length // 2 :] = tokenizer.pad_token_id
    return {name: batch[name] for name in names}


@pytest.mark.parametrize(("model_type", "head", "options"), CASES, ids=[f"{m}-{h}" for m, h, _ in CASES])
def test_outputs_at_other_sizes_are_those_of_torch(
    model_type: str, head: str, options: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.model_folder(model_type, head, tmp_path / "m", **options)
    source = opened(folder)
    ends = head_of(source)
    assert ends.name == {
        "sequence-classification": "text-classification",
        "base": "feature-extraction",
        "masked-lm": "feature-extraction",
    }.get(head, head)
    tokenizer = load_tokenizer(folder)
    network = load_network(source.model, ends)
    names = input_names(tokenizer, network)
    assert names[:2] == ("input_ids", "attention_mask")
    path = tmp_path / "model.onnx"
    capfd.readouterr()
    write_onnx(network, batch_of(tokenizer, 2, 11, names), ends.outputs, path)
    assert capfd.readouterr() == ("", "")
    quantise(path, tmp_path / "int8.onnx")
    found, rounded = onnx_network(path, network.config), onnx_network(tmp_path / "int8.onnx", network.config)
    assert (tmp_path / "int8.onnx").stat().st_size < 0.75 * path.stat().st_size
    for size, length in ((1, 1), (3, 17), (2, 11), (1, LONGEST), (5, 2)):
        batch = batch_of(tokenizer, size, length, names)
        real = batch["attention_mask"].bool().numpy()
        with torch.no_grad():
            expected, given, near = network(**batch), found(**batch), rounded(**batch)
        for name in ends.outputs:
            a, b = expected[name].numpy(), getattr(given, name).numpy()
            assert a.shape == b.shape and a.dtype == b.dtype == np.float32
            assert np.abs(a[real] - b[real] if ends.positions else a - b).max() < 1e-5, (size, length)
            assert np.abs(a).max() > 1e-3  # there is something to compare
            if a.size > 9:
                pair = [(x[real] if ends.positions else x).ravel() for x in (a, getattr(near, name).numpy())]
                assert np.corrcoef(*pair)[0, 1] > 0.97, (size, length)


def test_axes_have_names_and_the_file_says_nothing_of_this_machine(tmp_path: Path) -> None:
    import onnx

    folder = tiny.model_folder("bert", "sequence-classification", tmp_path / "m", config=ONE_LAYER)
    network, tokenizer = load_network(folder, head_of(opened(folder))), load_tokenizer(folder)
    path = tmp_path / "model.onnx"
    write_onnx(network, batch_of(tokenizer, 2, 9, input_names(tokenizer, network)), ("logits",), path)
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    whole = ["batch_size", "sequence_length"]
    assert shapes == {"input_ids": whole, "attention_mask": whole, "token_type_ids": whole, "logits": ["batch_size", 2]}
    content = path.read_bytes()
    for place in (b"site-packages", str(Path.home()).encode(), str(tmp_path).encode(), b".py"):
        assert place not in content


def test_a_network_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    class Branches(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, return_dict: bool = True) -> dict[str, torch.Tensor]:
            return {"logits": input_ids if input_ids.sum() > 3 else -input_ids}

    with pytest.raises(PolydistillError, match="torch cannot export Branches to ONNX"):
        write_onnx(Branches(), {"input_ids": torch.ones(2, 3, dtype=torch.long)}, ("logits",), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model_type", "head", "options", "message"),
    [
        ("t5", "seq2seq-lm", {}, "has a decoder"),
        ("mbart", "sequence-classification", {}, "has a decoder"),
        ("m2m_100", "base", {}, "has a decoder"),
        ("gpt2", "causal-lm", {}, "is a decoder"),
        ("llama", "token-classification", {}, "is a decoder"),
        ("gemma3_text", "base", {}, "is a decoder"),
        ("bert", "causal-lm", {"config": {"is_decoder": True}}, "has a decoder"),
        ("roberta", "causal-lm", {}, "RobertaForCausalLM, whose head"),
        ("bert", "causal-lm", {}, "BertLMHeadModel, whose head"),
    ],
)
def test_decoders_and_other_heads_are_refused(
    model_type: str, head: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = tiny.model_folder(model_type, head, tmp_path / "m", **options)
    with pytest.raises(PolydistillError, match=message) as stop:
        head_of(opened(folder))
    assert stop.value.hint
