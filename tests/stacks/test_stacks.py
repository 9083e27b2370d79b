"""The parts of a stack: reading in both directions, language codes, pairs of texts, the folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

import polydistill
from polydistill.errors import PolydistillError, UsageError
from polydistill.models.folder import is_stack
from polydistill.models.loading import load_tokenizer
from polydistill.models.refs import ModelRef, resolve
from polydistill.stacks.description import Description, Parent, sizes
from polydistill.stacks.folder import LoadedStack, build, load_stack, save_stack
from polydistill.stacks.parts import add_lora, input_width, open_encoder, open_llm, states_width, without_embeddings
from polydistill.stacks.reading import Reader, find_code

ENCODERS = ("xlm-roberta", "bert", "m2m_100", "nllb", "mbart", "marian", "mt5", "t5", "deberta-v2")
LLMS = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "xglm",
    "bert",
    "roberta",
    "electra",
    "albert",
    "modernbert",
    "distilbert",
)
TEXTS = ["The red house.", "Ndege mdogo anataka maembe 20!", "a letter from London, bread, milk and salt;"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A tiny model's folder, built once."""
    root, built = tmp_path_factory.mktemp("models"), {}

    def get(name: str, **options: Any) -> Path:
        key = (name, json.dumps(options, sort_keys=True))
        if key not in built:
            model_type, extra = ("m2m_100", {"tokenizer": "nllb"}) if name == "nllb" else (name, {})
            place = root / f"{name}-{len(built)}"
            built[key] = tiny.model_folder(model_type, "base", place, **{**extra, **options})
        return built[key]

    return get


def part(folder: Path) -> Parent:
    return Parent.of(resolve(ModelRef.parse(str(folder))), "float32")


def a_stack(encoder: Path | None, llm: Path | None, **about: Any) -> LoadedStack:
    torch.manual_seed(0)
    lora = {"r": 2, "alpha": 4, "dropout": 0.0} if llm and encoder else None
    description = Description(
        part(encoder) if encoder else None, part(llm) if llm else None, (0, 8, 8), lora, 64, **about
    )
    made = build(description, encoder, llm)
    for name, parameter in made.network.named_parameters():
        if "lora_B" in name:  # 0 at first, so that LoRA changes nothing
            torch.nn.init.normal_(parameter, std=0.1)
    made.network.eval()
    return made


# ---- models


def test_marian_as_its_translator_is_saved(tmp_path: Path) -> None:
    folder = tiny.model_folder("marian", "seq2seq-lm", tmp_path / "marian")
    encoder = open_encoder(folder)
    whole = AutoModelForSeq2SeqLM.from_pretrained(folder)
    table = whole.get_encoder().embed_positions.weight
    assert "model.encoder.embed_positions.weight" not in load_file(folder / "model.safetensors")  # it is computed
    assert (encoder.embed_positions.weight == table).all() and table.abs().sum() > 0


@pytest.mark.parametrize("name", ["encoder.layer.0.output.dense.weight", "encoder.layer.1.output.LayerNorm.weight"])
def test_weights_that_were_lost_are_missed(name: str, model: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model("xlm-roberta"), tmp_path / "m"))
    state = load_file(folder / "model.safetensors")
    del state[name]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PolydistillError, match=f"it lacks {name}"):
        open_encoder(folder)


@pytest.mark.parametrize("name", LLMS)
def test_every_position_of_an_llm_sees_every_other(model: Callable[..., Path], name: str) -> None:
    llm = open_llm(model(name))
    width, n = input_width(llm), 7
    inputs = torch.randn(1, n, width, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(1, n, dtype=torch.int64)
    with torch.no_grad():
        before = llm(inputs_embeds=inputs, attention_mask=mask).last_hidden_state
        for changed in (0, n - 1):
            other = inputs.clone()
            other[0, changed] = torch.randn(width, generator=torch.Generator().manual_seed(2))
            after = llm(inputs_embeds=other, attention_mask=mask).last_hidden_state
            assert ((before - after).abs().amax(-1) > 1e-6).all()
        padded = torch.cat([inputs, torch.randn(1, 3, width)], 1)
        wider = torch.cat([mask, torch.zeros(1, 3, dtype=torch.int64)], 1)
        behind = llm(inputs_embeds=padded, attention_mask=wider).last_hidden_state[:, :n]
    assert torch.allclose(behind, before, atol=1e-5)  # and no padding
    assert states_width(llm) == before.shape[-1]
    assert not any(parameter.requires_grad for parameter in llm.parameters())
    with torch.no_grad():
        assert torch.equal(
            llm.train()(inputs_embeds=inputs, attention_mask=mask).last_hidden_state, before
        )  # no dropout


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_gives_states_without_gradients(model: Callable[..., Path], name: str) -> None:
    encoder = open_encoder(model(name))
    stack = a_stack(model(name), model("bert"))
    if stack.reader.codes:
        stack.reader.read_language("en")
    rows = stack.reader(TEXTS[:1])
    batch = {key: torch.tensor(value) for key, value in rows.items()}
    output = stack.network(**batch)
    assert output.vectors.shape == (1, 32) and output.vectors.requires_grad
    output.vectors.sum().backward()
    assert all(parameter.grad is None for parameter in stack.network.encoder.parameters())
    assert stack.network.projection.weight.grad is not None
    assert not encoder.training and stack.network.train().encoder.training is False


def test_what_cannot_be_a_part(model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PolydistillError, match="is an encoder-decoder"):
        open_llm(model("t5"))
    with pytest.raises(PolydistillError, match="is a decoder"):
        open_encoder(model("llama"))
    from transformers import LlamaModel

    forward = LlamaModel.forward
    monkeypatch.setattr(LlamaModel, "forward", lambda self, input_ids=None, attention_mask=None: None)
    with pytest.raises(PolydistillError, match="no `inputs_embeds`"):
        open_llm(model("llama"))

    def one_way(self: Any, inputs_embeds: Any = None, attention_mask: Any = None) -> Any:
        self.config.is_causal = True
        return forward(self, inputs_embeds=inputs_embeds, attention_mask=attention_mask)

    monkeypatch.setattr(LlamaModel, "forward", one_way)
    with pytest.raises(PolydistillError, match="from left to right"):
        open_llm(model("llama"))


def test_lora_is_all_that_is_trained_and_can_be_merged(model: Callable[..., Path], tmp_path: Path) -> None:
    llm = add_lora(open_llm(model("llama")), 2, 4, 0.0)
    trained = {name for name, parameter in llm.named_parameters() if parameter.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    stack = a_stack(model("bert"), model("llama"))
    before = stack.encode(TEXTS)
    merged = stack.merged()
    assert merged.description.lora is None
    assert not any(".lora_" in name for name, _ in merged.network.named_parameters())
    assert np.allclose(merged.encode(TEXTS), before, atol=1e-5)
    for used in (merged, stack):  # what refers to the LLM would not have what is merged
        with pytest.raises(PolydistillError, match="no longer the one"):
            save_stack(used, tmp_path)
    assert not list(tmp_path.iterdir())
    save_stack(merged, tmp_path, whole=True)
    assert np.allclose(load_stack(tmp_path).encode(TEXTS), before, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "bert", "gpt2", "electra"])
def test_an_llm_without_its_vocabulary_does_the_same(model: Callable[..., Path], name: str, tmp_path: Path) -> None:
    llm = open_llm(model(name))
    inputs, mask = torch.randn(2, 5, input_width(llm)), torch.ones(2, 5, dtype=torch.int64)
    with torch.no_grad():
        before = llm(inputs_embeds=inputs, attention_mask=mask).last_hidden_state
        folder = Path(shutil.copytree(model(name), tmp_path / "less"))
        without_embeddings(llm).save_pretrained(folder)
        after = open_llm(folder)(inputs_embeds=inputs, attention_mask=mask).last_hidden_state
    assert torch.equal(before, after)
    assert part(folder).parameters < part(model(name)).parameters


# ---- reading


def test_pairs_are_kept_apart_by_every_tokenizer(model: Callable[..., Path]) -> None:
    for name in (*ENCODERS, "llama", "gpt2", "gemma3_text", "qwen2"):
        folder = model(name)
        reader = Reader.open(folder, None, 64)
        if reader.codes:
            reader.read_language("en")
        whole = reader(["The red house."], ["a letter"])["input_ids"][0]
        first, second = (reader([text])["input_ids"][0] for text in ("The red house.", "a letter"))
        specials = set(reader.tokenizer.all_special_ids)
        inside = [token for token in whole if token not in specials]
        apart = [token for ids in (first, second) for token in ids if token not in specials]
        assert inside == apart, name
        end = max(
            i for i, token in enumerate(whole) if token == apart[len([t for t in first if t not in specials]) - 1]
        )
        assert reader.separator == "native" or whole[end + 1] == reader.tokenizer.convert_tokens_to_ids(
            reader.separator
        )
        cut = reader(["The red house. " * 30], ["a letter"])["input_ids"][0]
        assert len(cut) <= 64 and cut[-3:] == reader(["x"], ["a letter"])["input_ids"][0][-3:], name
    assert Reader.open(model("nllb"), None).separator == "</s>"
    assert Reader.open(model("xlm-roberta"), None).separator == "native"


def test_languages_are_those_of_the_tokenizer(model: Callable[..., Path]) -> None:
    reader = Reader.open(model("nllb"), None)
    assert "swh_Latn" in reader.codes or "ron_Latn" in reader.codes
    known = reader.codes[-1]
    assert reader.read_language(known) == known == reader.language
    ids = reader(["x"])["input_ids"][0]
    assert ids[0] == reader.tokenizer.convert_tokens_to_ids(known)
    codes = ("eng_Latn", "swh_Latn", "zho_Hans", "zho_Hant", "ron_Latn")
    assert find_code(codes, "sw") == find_code(codes, "Swahili") == find_code(codes, "swh_Latn") == "swh_Latn"
    assert find_code(codes, "zh") == find_code(codes, "zh-CN") == "zho_Hans"
    assert {find_code(codes, name) for name in ("zh-TW", "zh_TW", "zh-HK", "zh-Hant")} == {"zho_Hant"}
    with pytest.raises(UsageError) as simplified:
        find_code(("en_XX", "zh_CN"), "zh-TW")
    assert "zh_CN" in (simplified.value.hint or "")
    assert find_code(("en", "sw", "ro"), "Romanian") == "ro"
    assert find_code(("en_XX", "ro_RO", "sw_KE"), "ro") == "ro_RO"
    with pytest.raises(UsageError, match="no code for Hausa"):
        find_code(codes, "hau_Latn")
    with pytest.raises(UsageError) as wrong:
        find_code(codes, "ron_Cyrl")
    assert "ron_Latn" in (wrong.value.hint or "")
    # One of the codes that are wrong in the released configuration: as a name it is Swahili's.
    assert find_code(codes, "swa_Latn") == "swh_Latn"
    with pytest.raises(UsageError, match="needs to know the language"):
        find_code(codes, None)
    with pytest.raises(UsageError, match="needs to know the language"):
        Reader.open(model("nllb"), None)(["x"])
    plain = Reader.open(model("xlm-roberta"), None)
    assert plain.codes == () and plain.read_language("sw") is None


def test_the_language_decides_the_vectors(model: Callable[..., Path]) -> None:
    stack = a_stack(model("nllb"), model("bert"))
    one, other = stack.reader.codes[:2]
    assert not np.allclose(stack.encode(TEXTS, language=one), stack.encode(TEXTS, language=other), atol=1e-4)
    with pytest.raises(UsageError, match="needs to know the language"):
        a_stack(model("nllb"), model("bert")).encode(TEXTS)
    with pytest.raises(UsageError, match="needs to know the language"):  # whatever was read last
        stack.as_sentence_transformer().encode(TEXTS)


def test_long_texts_are_read_in_windows_or_refused(model: Callable[..., Path]) -> None:
    stack = a_stack(model("bert"), model("llama"))
    stack.reader.max_length = 16
    long = " ".join(["the red house"] * 20)
    assert stack.reader.length(long) > 16 >= stack.reader.length("the red house")
    inputs, owners = stack.reader.windows(["short", long])
    assert owners[0] == 0 and set(owners[1:]) == {1} and max(len(i["input_ids"]) for i in inputs) <= 16
    bare = load_tokenizer(model("bert"))(long, add_special_tokens=False, truncation=False)["input_ids"]
    assert [token for i in inputs[1:] for token in i["input_ids"][1:-1]] == bare  # nothing is lost
    found = stack.encode([long])
    pieces = stack.network
    rows = [pieces(**{k: torch.tensor([v]) for k, v in i.items()}).vectors[0].detach().numpy() for i in inputs[1:]]
    lengths = [len(i["input_ids"]) for i in inputs[1:]]
    assert np.allclose(found[0], np.average(rows, axis=0, weights=lengths), atol=1e-5)
    with pytest.raises(PolydistillError, match=r"Text 2 has \d+ tokens, and the stack takes 16"):
        stack.encode(["short", long], long="refuse")
    assert stack.encode(["short"], long="refuse").shape == (1, 32)


# ---- the folder


def test_sentence_transformers_of_one_stack_read_languages_of_their_own(
    model: Callable[..., Path], tmp_path: Path
) -> None:
    stack = a_stack(model("nllb"), model("llama"))
    english, swahili = (stack.as_sentence_transformer(code) for code in ("eng_Latn", "swh_Latn"))
    first, second = (one.encode(TEXTS) for one in (english, swahili))
    assert np.allclose(first, stack.encode(TEXTS, language="eng_Latn"), atol=1e-5)
    assert np.allclose(second, stack.encode(TEXTS, language="swh_Latn"), atol=1e-5)
    assert np.array_equal(english.encode(TEXTS), first) and not np.allclose(first, second)
    english.max_seq_length = 4
    assert stack.reader.max_length == swahili.max_seq_length == 64
    english.max_seq_length = 900
    assert english.max_seq_length == 64
    for save in (english.save, english.save_pretrained):
        with pytest.raises(NotImplementedError, match="load_stack"):
            save(str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists()


def test_a_broken_description_is_said_to_be(model: Callable[..., Path], tmp_path: Path) -> None:
    save_stack(a_stack(model("xlm-roberta"), model("llama")), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    for change in (
        {"lora": {"r": "x", "alpha": 2, "dropout": 0}},
        {"lora": {"r": 2}},
        {"pooling": "median"},
        {"widths": "x"},
        {"widths": [1, 2]},
        {"max_length": "64"},
        {"max_length": 0},
        {"lora": {"r": 0, "alpha": 2, "dropout": 0}},
        {"lora": {"r": 2, "alpha": 2, "dropout": 5}},
        {"llm": {**values["llm"], "name": 5}},
        {"llm": {**values["llm"], "dtype": "int4"}},
        {"encoder": None, "llm": None},
        {"labels": 5},
        {"labels": [5]},
    ):
        (tmp_path / "config.json").write_text(json.dumps({**values, **change}))
        with pytest.raises(PolydistillError, match="is broken"):
            load_stack(tmp_path)


def test_no_warning_reaches_the_user(model: Callable[..., Path], recwarn: pytest.WarningsRecorder) -> None:
    a_stack(model("xlm-roberta"), model("gpt2"))
    assert not [str(w.message) for w in recwarn if "fan_in_fan_out" in str(w.message)]


def test_a_stack_is_loaded_as_it_was(model: Callable[..., Path], tmp_path: Path) -> None:
    stack = a_stack(model("xlm-roberta"), model("llama"), labels=("yes", "no"), task="nli")
    before = stack.encode(TEXTS)
    tmp_path.joinpath("a").mkdir()
    save_stack(stack, tmp_path / "a")
    assert is_stack(tmp_path / "a")
    assert not any(
        name.startswith(("encoder.", "llm.base_model.model.embed"))
        for name in load_file(tmp_path / "a/model.safetensors")
    )
    loaded = polydistill.load_stack(tmp_path / "a")
    assert np.array_equal(loaded.encode(TEXTS), before)
    assert loaded.description == stack.description
    assert loaded.network.llm.get_input_embeddings().weight.shape[0] == 1  # vectors go into it
    assert np.allclose(loaded.as_sentence_transformer().encode(TEXTS), before, atol=1e-5)
    assert loaded.as_sentence_transformer().get_embedding_dimension() == 32
    parameters, nbytes = sizes(tmp_path / "a")
    parents = [part(model(name)) for name in ("xlm-roberta", "llama")]
    own = load_file(tmp_path / "a/model.safetensors")
    assert parameters == sum(p.parameters for p in parents) + sum(t.numel() for t in own.values())
    assert nbytes > sum(p.bytes for p in parents)


@pytest.mark.parametrize(
    ("encoder", "llm"),
    [
        ("m2m_100", "llama"),
        ("mt5", "bert"),
        ("t5", "gpt2"),
        ("marian", "gemma3_text"),
        ("mbart", "qwen3"),
        ("xlm-roberta", "electra"),
        ("bert", "gemma3"),
        ("bert", "roberta"),
        ("bert", "xlm-roberta"),
        ("bert", "mpnet"),
    ],
)
def test_a_whole_stack_needs_neither_parent(model: Callable[..., Path], tmp_path: Path, encoder: str, llm: str) -> None:
    folders = [Path(shutil.copytree(model(name), tmp_path / name)) for name in (encoder, llm)]
    stack = a_stack(folders[0], folders[1])
    language = "en" if stack.reader.codes else None
    before = stack.encode(TEXTS, language=language)
    (tmp_path / "whole").mkdir()
    save_stack(stack, tmp_path / "whole", whole=True)
    for folder in folders:
        shutil.rmtree(folder)
    loaded = load_stack(tmp_path / "whole")
    assert np.allclose(loaded.encode(TEXTS, language=language), before, atol=1e-5)
    assert loaded.description.lora is None and loaded.description.whole
    assert not list((tmp_path / "whole").rglob("*.bin"))
    assert loaded.network.llm.get_input_embeddings().weight.shape[0] <= 2


def test_a_linear_map_and_an_llm_alone_are_stacks_too(model: Callable[..., Path], tmp_path: Path) -> None:
    for name, stack in (("linear", a_stack(model("bert"), None)), ("alone", a_stack(None, model("llama")))):
        before = stack.encode(TEXTS)
        (tmp_path / name).mkdir()
        save_stack(stack, tmp_path / name)
        assert np.array_equal(load_stack(tmp_path / name).encode(TEXTS), before)
    linear = load_stack(tmp_path / "linear").network
    encoder = linear.encoder
    rows = load_stack(tmp_path / "linear").reader(TEXTS[:1])
    batch = {key: torch.tensor(value) for key, value in rows.items()}
    with torch.no_grad():
        mean = encoder(**batch).last_hidden_state.mean(1)
        assert torch.allclose(linear(**batch).vectors, linear.projection(mean), atol=1e-6)


def test_parents_that_are_gone_or_have_changed(model: Callable[..., Path], tmp_path: Path) -> None:
    encoder = Path(shutil.copytree(model("bert"), tmp_path / "encoder"))
    stack = a_stack(encoder, model("llama"))
    (tmp_path / "s").mkdir()
    save_stack(stack, tmp_path / "s")
    state = load_file(encoder / "model.safetensors")
    save_file({k: v + 1 for k, v in state.items()}, encoder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PolydistillError, match="has other weights than the one"):
        load_stack(tmp_path / "s")
    with pytest.raises(PolydistillError, match="has other weights than the one"):
        load_stack(tmp_path / "s", encoder=encoder)
    shutil.rmtree(encoder)
    assert np.array_equal(load_stack(tmp_path / "s", encoder=model("bert")).encode(TEXTS), stack.encode(TEXTS))
    with pytest.raises(PolydistillError, match=r"stands on the encoder .* not found") as gone:
        load_stack(tmp_path / "s")
    assert "`whole`" in (gone.value.hint or "")


def test_a_projection_that_does_not_fit(model: Callable[..., Path], tmp_path: Path) -> None:
    stack = a_stack(model("bert"), model("llama"))
    save_stack(stack, tmp_path)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    save_file({**state, "projection.weight": torch.zeros(32, 31)}, path)
    with pytest.raises(PolydistillError, match=r"projection.weight is \(32, 31\), and \(32, 32\) is needed"):
        load_stack(tmp_path)
    save_file({k: v for k, v in state.items() if k != "projection.bias"}, path)
    with pytest.raises(PolydistillError, match=r"projection\.bias is missing"):
        load_stack(tmp_path)
    path.write_bytes(b"nothing")
    with pytest.raises(PolydistillError, match="cannot be read"):
        load_stack(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "polydistill-stack", "format": 1}')
    with pytest.raises(PolydistillError, match="is broken"):
        load_stack(tmp_path)
    with pytest.raises(PolydistillError, match="is not a stack"):
        load_stack(model("bert"))
