"""A student with some of its teacher's layers: which ones, bit for bit, loadable, for every architecture that can."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
from configs import bistil, bistil_config, sparse_train, sparse_train_config
from safetensors.torch import load_file

from polydistill.catalog import arch
from polydistill.distill.student import (
    chosen_layers,
    layer_count,
    layer_pairs,
    parameters,
    reduce_layers,
    student_names,
)
from polydistill.errors import PolydistillError, UsageError
from polydistill.methods.plan import PlanOptions, plan
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source

# ---- which layers ----


@pytest.mark.parametrize(
    ("total", "options", "expected"),
    [
        (12, {"reduction": 2}, (1, 3, 5, 7, 9, 11)),
        (12, {"layers": 6}, (1, 3, 5, 7, 9, 11)),
        (12, {}, (1, 3, 5, 7, 9, 11)),
        (12, {"reduction": 4}, (3, 7, 11)),
        (12, {"layers": 3, "reduction": 4}, (3, 7, 11)),
        (12, {"layers": 12}, tuple(range(12))),
        (12, {"reduction": 12}, (11,)),
        (24, {"layers": 6}, (3, 7, 11, 15, 19, 23)),
        (12, {"layers": 5, "init": "bottom"}, (0, 1, 2, 3, 4)),
        (12, {"reduction": 3, "init": "bottom"}, (0, 1, 2, 3)),
        (12, {"layers": 5, "init": "top"}, (7, 8, 9, 10, 11)),
        (7, {"layers": 3, "init": "top"}, (4, 5, 6)),
        (12, {"init": "0,2,4"}, (0, 2, 4)),
        (12, {"init": " 0, 2,11 ", "layers": 3}, (0, 2, 11)),
        (12, {"init": "5"}, (5,)),
        (5, {"init": "1,2"}, (1, 2)),
    ],
    ids=str,
)
def test_the_layers_of_a_student(total: int, options: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert chosen_layers(total, **options) == expected


@pytest.mark.parametrize(
    ("total", "options", "said"),
    [
        (12, {"reduction": 5}, "does not divide the teacher's 12 layers. Choose 1, 2, 3, 4, 6 or 12"),
        (12, {"reduction": 0}, "Choose 1, 2, 3, 4, 6 or 12"),
        (12, {"reduction": 24}, "does not divide"),
        (12, {"layers": 5}, "5 layers cannot be taken at even distances out of 12. Choose 1, 2, 3, 4, 6 or 12"),
        (12, {"layers": 13}, "Choose 1 to 12"),
        (12, {"layers": 0}, "Choose 1 to 12"),
        (12, {"layers": 6, "reduction": 3}, "`layers` asks for 6, `reduction` asks for 4"),
        (12, {"layers": 2, "init": "0,2,4"}, "`layers` asks for 2, `init` asks for 3"),
        (12, {"init": "0,2,12"}, "layer 12, but the teacher's layers are 0 to 11"),
        (12, {"init": "4,2"}, "is not in ascending order. Write 2,4"),
        (12, {"init": "2,2,4"}, "is not in ascending order. Write 2,4"),
        (12, {"init": "middle"}, "alternate, bottom, top"),
        (12, {"init": "1,x"}, "alternate, bottom, top"),
        (12, {"init": ""}, "alternate, bottom, top"),
        (12, {"init": "-1,3"}, "alternate, bottom, top"),
        (7, {}, "`layers` (1 or 7"),
    ],
    ids=str,
)
def test_layers_that_cannot_be_are_refused_with_those_that_can(total: int, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen_layers(total, **options)
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_each_layer_is_paired_with_the_one_it_began_as() -> None:
    pairs = ((0, 3), (1, 7), (2, 11))
    assert layer_pairs(chosen_layers(12, reduction=4), 12) == pairs
    for init in ("bottom", "top"):  # where its weights come from is not what it is compared with
        assert layer_pairs(chosen_layers(12, reduction=4, init=init), 12) == pairs
    assert layer_pairs((0, 1, 2, 3, 4), 12) == ((0, 2), (1, 4), (2, 7), (3, 9), (4, 11))
    assert layer_pairs((0, 5), 12) == ((0, 0), (1, 5)) and layer_pairs(range(4), 4) == tuple(enumerate(range(4)))


# ---- the folder ----

TOTAL = 4
NORM_AT_THE_END = (
    "modernbert",
    "gpt2",
    "xglm",
    "bloom",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "gemma3",
)
REDUCIBLE = [
    case
    for case in tiny.CASES
    if "reduce" in (found := arch(case.model_type)).supports and found.layers and found.layers.decoder_path is None
]


def build(case: tiny.Case, folder: Path) -> Path:
    """A model of the case, but with four layers (Gemma 3's number stands in a part of its own, and stays 2)."""
    key = arch(case.model_type).layers.count_key  # type: ignore[union-attr]
    options = {**case.options, "config": {key: TOTAL, **case.options.get("config", {})}}
    return tiny.model_folder(case.model_type, case.head, folder, **options)


def opened(folder: Path) -> Source:
    return Source.open(resolve(ModelRef.parse(str(folder))))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def load(folder: Path, head: str = "base") -> tuple[Any, dict[str, Any]]:
    loader = getattr(transformers, tiny.AUTO_CLASS[head])
    model, info = loader.from_pretrained(folder, output_loading_info=True, dtype="auto")
    return model.eval(), info


def layer_of(name: str) -> int | None:
    found = re.search(r"(?:layers?|h)\.(\d+)\.", name)
    return int(found[1]) if found and "vision" not in name else None


def hidden_states(model: Any) -> tuple[torch.Tensor, ...]:
    ids = torch.arange(20, 32).view(2, 6)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states


@pytest.mark.parametrize("case", REDUCIBLE, ids=lambda case: case.name)
def test_it_loads_whole_and_its_tensors_are_the_teachers(case: tiny.Case, tmp_path: Path) -> None:
    teacher = build(case, tmp_path / "teacher")
    (tmp_path / "student").mkdir()
    layers = {"modernbert": (0, 3), "gemma3": (1,)}.get(case.model_type, (1, 3))
    source = opened(teacher)
    reduce_layers(source, layers, tmp_path / "student", dropout=0.0)
    names, old, new = student_names(source, layers), weights(teacher), weights(tmp_path / "student")
    assert set(new) == set(names.values()) and len(new) == len(names)
    for before, after in names.items():
        assert torch.equal(old[before], new[after]) and old[before].dtype == new[after].dtype
    assert {name for name in old if name not in names} == {n for n in old if layer_of(n) not in (None, *layers)}
    model, info = load(tmp_path / "student", case.head)
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    assert set(info["missing_keys"]) == set(load(teacher, case.head)[1]["missing_keys"])
    assert not [m for m in model.modules() if isinstance(m, torch.nn.Dropout) and m.p]
    assert (tmp_path / "student" / "tokenizer_config.json").read_bytes() == (
        teacher / "tokenizer_config.json"
    ).read_bytes()


@pytest.mark.parametrize(
    "case", [c for c in REDUCIBLE if c.head == "base" and not c.options], ids=lambda case: case.name
)
def test_a_bottom_student_sees_what_its_teachers_first_layers_see(case: tiny.Case, tmp_path: Path) -> None:
    teacher = build(case, tmp_path / "teacher")
    (tmp_path / "student").mkdir()
    total = layer_count(opened(teacher))
    layers = chosen_layers(total, layers=total - 1, init="bottom")
    reduce_layers(teacher, layers, tmp_path / "student")
    model, info = load(tmp_path / "student")
    assert not info["missing_keys"] and not info["unexpected_keys"]
    seen, expected = hidden_states(model), hidden_states(load(teacher)[0])
    assert len(seen) == total and len(expected) == total + 1
    final = 1 if case.model_type in NORM_AT_THE_END else 0  # it follows the student's last layer already
    assert all(torch.equal(a, b) for a, b in zip(seen[: total - final], expected, strict=False))
    assert not torch.equal(seen[-1], expected[-1])


def test_the_layers_are_those_asked_for(tmp_path: Path) -> None:
    teacher = build(tiny.Case("bert", "masked-lm", {"tied": False, "shards": 3}), tmp_path / "teacher")
    (tmp_path / "student").mkdir()
    reduce_layers(teacher, (0, 2), tmp_path / "student")
    old, new = weights(teacher), weights(tmp_path / "student")
    key = "bert.encoder.layer.{}.attention.self.query.weight"
    assert torch.equal(new[key.format(0)], old[key.format(0)]) and torch.equal(new[key.format(1)], old[key.format(2)])
    assert not torch.equal(new[key.format(1)], old[key.format(1)]) and key.format(2) not in new
    index = json.loads((tmp_path / "student" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(new)
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in new.values())
    layer = sum(t.numel() for name, t in old.items() if ".layer.1." in name)
    assert sum(t.numel() for t in old.values()) - sum(t.numel() for t in new.values()) == 2 * layer


def test_layers_of_several_types_keep_their_types(tmp_path: Path) -> None:
    teacher = build(tiny.Case("gemma2", "base", {}), tmp_path / "teacher")
    path = teacher / "config.json"
    config = json.loads(path.read_text())
    assert config.pop("layer_types") == ["sliding_attention", "full_attention"] * 2
    path.write_text(json.dumps(config))  # older files leave the types to the class, which goes by the position
    (tmp_path / "student").mkdir()
    reduce_layers(teacher, (1, 3), tmp_path / "student")
    assert load(tmp_path / "student")[0].config.layer_types == ["full_attention", "full_attention"]


def test_the_norm_that_a_first_layer_has_not_is_left_out(tmp_path: Path) -> None:
    teacher = build(tiny.Case("modernbert", "base", {}), tmp_path / "teacher")
    (tmp_path / "student").mkdir()
    reduce_layers(teacher, (1, 3), tmp_path / "student")
    assert "layers.0.attn_norm.weight" not in weights(tmp_path / "student")
    model, info = load(tmp_path / "student")
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.config.layer_types == [load(teacher)[0].config.layer_types[i] for i in (1, 3)]


def test_dropout_stays_unless_it_is_asked_for_and_other_files_are_copied(tmp_path: Path) -> None:
    config = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2, "classifier_dropout": 0.4}
    folder = tiny.model_folder("bert", "base", tmp_path / "teacher", config=config)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    pooling = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    (folder / "modules.json").write_text(json.dumps([pooling]))
    (folder / "polydistill.json").write_text("{}")
    read = []
    for name, dropout in (("as-it-was", None), ("without", 0.0)):
        (tmp_path / name).mkdir()
        reduce_layers(folder, (1,), tmp_path / name, dropout=dropout)
        read.append(json.loads((tmp_path / name / "config.json").read_text()))
        assert (tmp_path / name / "1_Pooling" / "config.json").is_file()
        assert not (tmp_path / name / "polydistill.json").exists()
    before = json.loads((folder / "config.json").read_text())
    assert read[0] == {**before, "num_hidden_layers": 1}
    assert read[1] == {**read[0], **dict.fromkeys(config, 0.0)}  # nothing else, and no sampling or loss setting


@pytest.mark.parametrize(
    ("model_type", "said"),
    [
        ("albert", "all layers have the same weights"),
        ("t5", "a decoder beside its encoder"),
        ("mbart", "a decoder beside its encoder"),
    ],
)
def test_models_whose_layers_cannot_be_left_out_are_refused(model_type: str, said: str, tmp_path: Path) -> None:
    folder = tiny.model_folder(model_type, "base", tmp_path / "teacher")
    with pytest.raises(PolydistillError, match=said):
        reduce_layers(folder, (0,), tmp_path / "student")
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("model_type", ["gemma3_text", "mbart"])
def test_what_guesses_no_masked_tokens_is_taught_by_none(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma's tokenizer has a mask token, and transformers takes mBART for a masked language model."""
    folder = str(tiny.model_folder(model_type, "base", tmp_path / "m"))
    texts = tuple(f"{code}={tmp_path / code}.txt" for code in ("en", "sw"))
    for code in ("en", "sw"):
        (tmp_path / f"{code}.txt").write_text("\n".join(tiny.sentences(code)), encoding="utf-8")
    runs = (
        lambda: bistil(bistil_config(model=folder, text=texts, output=tmp_path / "out")),
        lambda: plan(PlanOptions("en", "sw", model=folder, text=texts)),
        lambda: sparse_train(
            sparse_train_config(model=folder, language="sw", text=(texts[1][3:],), output=tmp_path / "out")
        ),
    )
    for run in runs:
        with pytest.raises(PolydistillError, match=r"masked tokens, and .* models do not predict any") as refused:
            run()
        assert "polydistill trim" in str(refused.value.hint) and not (tmp_path / "out").exists()


def test_weights_that_are_not_what_the_configuration_says_are_refused(tmp_path: Path) -> None:
    folder = tiny.model_folder("bert", "base", tmp_path / "teacher")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(PolydistillError, match=r"weights of 2 layers, but its config\.json says 3"):
        reduce_layers(folder, (0,), tmp_path / "student")


@pytest.mark.parametrize("case", REDUCIBLE, ids=lambda case: case.name)
def test_parameters_are_known_before(case: tiny.Case, tmp_path: Path) -> None:
    teacher = build(case, tmp_path / "teacher")
    source = opened(teacher)
    layers = chosen_layers(layer_count(source))
    predicted = parameters(source, student_names(source, layers), {})
    (tmp_path / "student").mkdir()
    reduce_layers(source, layers, tmp_path / "student")
    assert predicted.total == Checkpoint.open(tmp_path / "student").parameters
    named = re.compile(r"(word_embeddings|tok_embeddings|embed_tokens|wte)\.weight$")
    embedding = next(tensor for name, tensor in weights(teacher).items() if named.search(name))
    assert predicted.embeddings == embedding.numel()
    if case.head == "base":
        assert predicted.head == 0
    elif case.head.endswith("classification") and case.model_type != "gemma3":  # its file does not tell base from head
        assert predicted.head > 0
