"""Special tokens and rows: named in one file alone, without a row, without a token, dropped, or worth dropping."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import Cut, Trimmed, read, write

from polydistill.errors import PolydistillError, UsageError

pytestmark = pytest.mark.usefixtures("quick_verification")

FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


def change(path: Path, **values: Any) -> None:
    write(path, {**(read(path) if path.is_file() else {}), **values})


def tokenizer(folder: Path, **options: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, **options)


def model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def length(recipe: str) -> int:
    return tiny._ids(recipe, 0, 380)["length"]


def chat_model(folder: Path, *, spare: int = 0, recipe: str = "qwen2", name: str = "qwen2", **options: Any) -> Path:
    """A decoder whose matrix has `spare` rows more than its tokenizer has tokens."""
    options.setdefault("rows", length(recipe) + spare)
    return tiny.model_folder(name, "causal-lm", folder, tokenizer=recipe, **options)


def put_into_vocabulary(folder: Path, *tokens: str) -> int:
    """Gives tokens to the model of tokenizer.json, under the next ids, after its added tokens; the first of them."""
    data = read(folder / "tokenizer.json")
    vocab = data["model"]["vocab"]
    vocab.update({token["content"]: token["id"] for token in data["added_tokens"]})
    first = len(vocab)
    vocab.update({token: first + i for i, token in enumerate(tokens)})
    write(folder / "tokenizer.json", data)
    return first


def add_tokens(folder: Path, *tokens: str, **flags: bool) -> int:
    """Appends added tokens to tokenizer.json, under the next ids; the first of them."""
    data = read(folder / "tokenizer.json")
    first = max([*data["model"]["vocab"].values(), *(t["id"] for t in data["added_tokens"])]) + 1
    new = [{"id": first + i, "content": token, **FLAGS, "special": False, **flags} for i, token in enumerate(tokens)]
    data["added_tokens"] += new
    write(folder / "tokenizer.json", data)
    return first


def check_one_token(token: str, before: Any, folder: Path, new: Trimmed) -> None:
    """A token is still one token, alone and in text, with the flags that it had."""
    after = tokenizer(new.folder)
    new_id = after.convert_tokens_to_ids(token)
    assert new.kept[0][new_id] == before.convert_tokens_to_ids(token)
    for text in (token, f"a{token}b", f"a {token} b"):
        assert after.encode(text).count(new_id) == before.encode(text).count(new.kept[0][new_id]) == 1
    assert (token in after.all_special_tokens) == (token in before.all_special_tokens)
    flags = [repr(t.added_tokens_decoder[t.convert_tokens_to_ids(token)]) for t in (before, after)]
    assert flags[0] == flags[1]


# ---- special tokens that one file alone names ----

TOKEN = {"content": "<|tool|>", **FLAGS, "special": True}
PLACES = {
    "extra_special_tokens": ("tokenizer_config.json", {"extra_special_tokens": ["<|tool|>"]}),
    "additional_special_tokens": ("tokenizer_config.json", {"additional_special_tokens": ["<|tool|>"]}),
    "roles": ("tokenizer_config.json", {"extra_special_tokens": {"tool_token": "<|tool|>"}}),
    "role": ("tokenizer_config.json", {"tool_token": "<|tool|>"}),
    "special_tokens_map": ("special_tokens_map.json", {"additional_special_tokens": ["<|tool|>"]}),
    "added_tokens_decoder": ("tokenizer_config.json", {"added_tokens_decoder": {}}),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_special_token_that_one_file_names_stays_one_token(place: str, cut: Cut, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "old", spare=1)
    for path in (folder / "chat_template.jinja", folder / "special_tokens_map.json"):
        path.unlink(missing_ok=True)
    config = read(folder / "tokenizer_config.json")
    config.pop("extra_special_tokens", None)
    write(folder / "tokenizer_config.json", config)
    first = put_into_vocabulary(folder, "<|tool|>")
    name, values = PLACES[place]
    if place == "added_tokens_decoder":
        values = {"added_tokens_decoder": {str(first): TOKEN}}
    change(folder / name, **values)
    before = tokenizer(folder)
    assert before.encode("<|tool|>") == [first] and before.added_tokens_decoder[first].special
    new = cut(folder, tmp_path / "new", verify=True)
    check_one_token("<|tool|>", before, folder, new)


def test_a_special_token_without_an_id_gets_the_row_that_transformers_gives_it(cut: Cut, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "old", spare=4)
    change(folder / "tokenizer_config.json", extra_special_tokens=["<|a|>", "<|b|>"], pad_token="<|pad|>")
    before = tokenizer(folder)
    assert before.convert_tokens_to_ids("<|b|>") >= length("qwen2")
    new = cut(folder, tmp_path / "new", verify=True)
    for token in ("<|a|>", "<|b|>", "<|pad|>"):
        check_one_token(token, before, folder, new)
    weights = [model(f).get_input_embeddings().weight for f in (folder, new.folder)]
    assert torch.equal(weights[0][new.kept[0]], weights[1])


def test_ids_of_older_files_beside_tokenizer_json_are_mended(cut: Cut, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "old", spare=1)
    first = add_tokens(folder, "<|tool|>", normalized=True)
    write(folder / "added_tokens.json", {"<|tool|>": first + 77})
    new = cut(folder, tmp_path / "new", verify=True)
    assert read(new.folder / "added_tokens.json") == {
        "<|tool|>": tokenizer(new.folder).convert_tokens_to_ids("<|tool|>")
    }


def test_a_special_token_that_a_trim_loses_is_noticed(
    cut: Cut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polydistill.vocab.tokenizer_config import TokenizerConfig

    folder = chat_model(tmp_path / "old", spare=1)
    put_into_vocabulary(folder, "<|tool|>")
    change(folder / "tokenizer_config.json", tool_token="<|tool|>")
    monkeypatch.setattr(TokenizerConfig, "special", lambda self: [])
    with pytest.raises(PolydistillError, match=r"<\|tool\|>") as caught:
        cut(folder, tmp_path / "new", verify=True)
    assert "`keep_token='<|tool|>'`" in caught.value.hint
    new = cut(folder, tmp_path / "new", verify=True, keep_token=("<|tool|>",))  # as it says
    assert new.result.verification


# ---- tokens that are not special, when others go ----


@pytest.mark.parametrize("legacy", [False, True])
def test_dropping_tokens_leaves_the_flags_of_the_others(legacy: bool, cut: Cut, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "old", spare=8)
    (folder / "chat_template.jinja").unlink()
    config = read(folder / "tokenizer_config.json")
    config.pop("extra_special_tokens", None)
    write(folder / "tokenizer_config.json", config)
    add_tokens(folder, "<think>", "</think>")
    for flag in ("lstrip", "rstrip", "single_word", "normalized"):
        add_tokens(folder, f"<{flag}>", **{flag: True})
    add_tokens(folder, "<gone>", special=True)
    add_tokens(folder, "<tool>", special=True)
    model_part = read(folder / "tokenizer.json")["model"]
    write(folder / "vocab.json", model_part["vocab"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in model_part["merges"]))
    if legacy:
        tiny._write_version_4_config(folder)
    new = cut(folder, tmp_path / "new", drop_added=("<gone>",), verify=True)
    assert "<gone>" not in tokenizer(new.folder).get_vocab()
    for without in ([], ["tokenizer.json"]) if legacy else ([],):  # transformers with tokenizer.json, and without it
        old, cut_folder = (Path(shutil.copytree(f, tmp_path / f"{f.name}{len(without)}")) for f in (folder, new.folder))
        for name in without:
            (old / name).unlink()
            (cut_folder / name).unlink()
        before, after = tokenizer(old), tokenizer(cut_folder)
        flags = [{str(t): repr(t) for t in names.added_tokens_decoder.values()} for names in (before, after)]
        assert flags[0].pop("<gone>") and flags[0] == flags[1] and len(flags[1]) >= 9
        assert [t for t in before.all_special_tokens if t != "<gone>"] == after.all_special_tokens
        text = "a<think>b</think>c<tool>d<normalized>"
        for skip in (False, True):
            shown = [names.decode(names.encode(text), skip_special_tokens=skip) for names in (before, after)]
            assert shown[0] == shown[1] and "<think>" in shown[1] and ("<tool>" in shown[1]) is not skip


# ---- tokens without a row ----


def gemma3(folder: Path, **options: Any) -> Path:
    """Gemma 3 1B: one added token beyond the rows, which only its larger sisters use."""
    chat_model(folder, recipe="gemma", name="gemma3_text", **options)
    first = add_tokens(folder, "<image_soft_token>", special=True)
    extra = {"image_token": "<image_soft_token>", "boi_token": "<start_of_turn>"}
    change(folder / "tokenizer_config.json", extra_special_tokens=extra, image_token="<image_soft_token>")
    write(folder / "added_tokens.json", {"<image_soft_token>": first})
    return folder


@pytest.mark.parametrize("legacy", [False, True])
def test_a_token_without_a_row_is_left_out_of_every_file(legacy: bool, cut: Cut, tmp_path: Path) -> None:
    folder = gemma3(tmp_path / "old", beside=True)
    if legacy:
        config = read(folder / "tokenizer_config.json")
        tiny._write_version_4_config(folder)
        change(folder / "tokenizer_config.json", image_token=config["image_token"])
    assert len(tokenizer(folder)) == length("gemma") + 1
    new = cut(folder, tmp_path / "new", verify=True)
    said = (
        f"The model has {length('gemma'):,} rows and none for '<image_soft_token>', so the tokenizer loses this token."
    )
    assert new.result.notes == (said,)
    assert len(tokenizer(new.folder)) == new.result.rows["after"] == len(new.kept[0])
    for path in new.folder.iterdir():
        if path.suffix == ".json" and path.name != "polydistill.json":
            assert "image_soft_token" not in path.read_text(encoding="utf-8"), path.name
    again = cut(new.folder, tmp_path / "again", verify=True)
    assert again.result.notes == () and again.result.rows["after"] == new.result.rows["after"]


def test_a_token_without_a_row_that_the_tokenizer_writes_is_refused_with_a_way_out(cut: Cut, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "old")
    add_tokens(folder, "<|user|>", special=True)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<|user|>{{ m.content }}{% endfor %}")
    with pytest.raises(PolydistillError, match=r"none of them for <\|user\|> .*the chat template writes it") as caught:
        cut(folder, tmp_path / "new")
    assert "model.resize_token_embeddings(len(tokenizer))" in caught.value.hint
    wider, names = model(folder), tokenizer(folder)  # as it says
    wider.resize_token_embeddings(len(names))
    wider.save_pretrained(tmp_path / "wider")
    names.save_pretrained(tmp_path / "wider")
    new = cut(tmp_path / "wider", tmp_path / "new", verify=True)
    assert len(tokenizer(new.folder).encode("<|user|>")) == 1


def test_a_padding_token_without_a_row_loses_its_role(cut: Cut, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "old")
    change(folder / "tokenizer_config.json", pad_token="[PAD]")  # never resized for it
    new = cut(folder, tmp_path / "new", verify=True)
    assert "'[PAD]'" in new.result.notes[0]
    assert "[PAD]" not in tokenizer(new.folder).get_vocab()


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_a_configuration_that_names_a_token_without_a_row_is_no_hindrance(file: str, cut: Cut, tmp_path: Path) -> None:
    """GPT-2 and others are tuned with a padding token of their own, and not always resized for it."""
    folder = chat_model(tmp_path / "old", recipe="gpt2", name="gpt2")
    pad = add_tokens(folder, "[PAD]", special=True)
    change(folder / "tokenizer_config.json", pad_token="[PAD]")
    change(folder / file, pad_token_id=pad)
    new = cut(folder, tmp_path / "new", verify=True)
    assert "'[PAD]'" in new.result.notes[0] and new.result.rows["before"] == pad
    assert read(new.folder / file)["pad_token_id"] == pad
    assert model(new.folder).generate(torch.tensor([[1, 2]]), max_new_tokens=2).shape == (1, 4)


def test_a_tokenizer_of_another_model_is_refused_and_the_right_one_works(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("gpt2", "base", tmp_path / "old", size=300)
    right = shutil.copytree(folder, tmp_path / "right")
    tiny.tokenizer_files("gpt2", folder, size=380)
    with pytest.raises(PolydistillError, match=r"too small for .* tokens") as caught:
        cut(folder, tmp_path / "new")
    assert "put the one that they were trained with beside them" in caught.value.hint
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(right / name, folder / name)
    assert cut(folder, tmp_path / "new", verify=True).result.verification


# ---- rows without a token ----


@pytest.mark.parametrize("recipe", ["qwen2", "llama"])
def test_an_id_of_the_configuration_beyond_the_tokenizer_keeps_its_row(recipe: str, cut: Cut, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "old", spare=8, recipe=recipe, name=recipe, tied=False)
    pad, end = length(recipe) + 3, length(recipe) + 5
    change(folder / "config.json", pad_token_id=pad)
    change(folder / "generation_config.json", pad_token_id=pad, eos_token_id=[end, 1])
    new = cut(folder, tmp_path / "new", verify=True)
    size = len(tokenizer(new.folder))
    config, generation = read(new.folder / "config.json"), read(new.folder / "generation_config.json")
    assert new.kept[0][size:] == [pad, end]
    assert config["pad_token_id"] == generation["pad_token_id"] == size
    assert generation["eos_token_id"][0] == size + 1
    assert new.result.rows["after"] == config["vocab_size"] == size + 2 and new.result.vocabulary["after"] == size
    weights = [model(f) for f in (folder, new.folder)]
    for part in ("get_input_embeddings", "get_output_embeddings"):
        rows = [getattr(m, part)().weight for m in weights]
        assert torch.equal(rows[0][[pad, end]], rows[1][size:])
    again = cut(new.folder, tmp_path / "again", verify=True)
    assert again.kept[0] == list(range(size + 2)) and again.result.vocabulary["after"] == size


def test_an_id_in_a_hole_of_the_vocabulary_keeps_its_row(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("bert", "masked-lm", tmp_path / "old", beside=True)
    data = read(folder / "tokenizer.json")
    token, hole = max(data["model"]["vocab"].items(), key=lambda entry: entry[1] if len(entry[0]) == 1 else -1)
    del data["model"]["vocab"][token]
    write(folder / "tokenizer.json", data)
    change(folder / "config.json", eos_token_id=hole)
    new = cut(folder, tmp_path / "new", verify=True)
    assert new.kept[0][-1] == hole and read(new.folder / "config.json")["eos_token_id"] == len(new.kept[0]) - 1
    assert len(tokenizer(new.folder)) == len(new.kept[0]) - 1


def test_an_id_beyond_the_rows_stays_as_it_is(cut: Cut, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "old", spare=2)
    change(folder / "config.json", image_token_index=9_000)
    new = cut(folder, tmp_path / "new", verify=True)
    assert read(new.folder / "config.json")["image_token_index"] == 9_000
    assert new.result.rows["after"] == len(tokenizer(new.folder))


# ---- what added tokens cost ----


def test_spare_tokens_are_worth_a_note_whose_option_works(cut: Cut, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "old", spare=151)
    add_tokens(folder, *(f"<unused{i}>" for i in range(150)), "<think>")
    kept = cut(folder, tmp_path / "all", dry_run=True)
    (note,) = kept.result.notes
    rows = kept.result.rows["after"]
    assert note == (
        f"150 added tokens such as '<unused0>' take 150 of {rows:,} rows; `polydistill trim drop_added='<unused*>'` "
        "leaves them out."
    )
    new = cut(folder, tmp_path / "new", drop_added=(note.split("'")[3],), verify=True)
    assert new.result.rows["after"] == rows - 150 and new.result.notes == ()
    assert "<think>" in tokenizer(new.folder).get_vocab()


def test_no_note_asks_for_what_would_be_refused(cut: Cut, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "old", spare=150)
    first = add_tokens(folder, *(f"<unused{i}>" for i in range(150)))
    change(folder / "config.json", pad_token_id=first + 7)
    result = cut(folder, tmp_path / "new").result
    rows = result.rows["after"]
    assert result.notes == ()
    with pytest.raises(PolydistillError, match="would be dropped") as caught:
        cut(folder, tmp_path / "less", drop_added=("<unused*>",))
    assert "Leave it out of `drop_added`" in caught.value.hint
    spared = tuple(f"<unused{i}>" for i in range(150) if i != 7)  # as it says
    assert cut(folder, tmp_path / "less", drop_added=spared).result.rows["after"] < rows - 100


def test_language_codes_are_worth_a_note_whose_option_works(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("m2m_100", "base", tmp_path / "old", tokenizer="nllb")
    (note,) = cut(folder, tmp_path / "all", dry_run=True).result.notes
    assert "201 added tokens" in note and "drop_added='lang:*'" in note
    assert cut(folder, tmp_path / "new", drop_added=("lang:*",)).result.notes == ()


# ---- the other ways out ----


def test_a_pattern_that_catches_a_needed_token_can_be_left_out_or_changed(cut: Cut, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "old", spare=2)
    add_tokens(folder, "<|spare_a|>", "<|spare_b|>")
    with pytest.raises(UsageError, match="must stay") as caught:
        cut(folder, tmp_path / "new", drop_added=("<|*",))
    assert caught.value.hint == "Leave the pattern out, or use one that spares it."
    assert cut(folder, tmp_path / "all").result.output
    assert cut(folder, tmp_path / "new", drop_added=("<|spare_*|>",), verify=True).result.verification


@pytest.mark.parametrize("wanted", [3, 10**6])
def test_a_size_that_cannot_be_had_says_one_that_can(wanted: int, cut: Cut, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "old")
    with pytest.raises(UsageError, match="`vocab_size`") as caught:
        cut(folder, tmp_path / "new", vocab_size=wanted)
    size = int("".join(filter(str.isdigit, caught.value.hint.split(" or more")[0].split(" at most")[0])))
    assert cut(folder, tmp_path / "new", vocab_size=size, verify=True).result.rows["after"] == size


def test_a_language_that_the_post_processor_writes_can_stay(cut: Cut, corpus: Path, tmp_path: Path) -> None:
    folder = tiny.model_folder("mbart", "base", tmp_path / "old")
    swahili = {"languages": ("sw",), "text": (str(corpus),)}  # mBART has no code for it
    with pytest.raises(PolydistillError, match="post-processor inserts en_XX") as caught:
        cut(folder, tmp_path / "new", drop_added=("lang:*",), **swahili)
    assert caught.value.hint == "Leave it out of `drop_added`, or keep its language with `languages`."
    assert cut(folder, tmp_path / "new", drop_added=("lang:f*",), **swahili).result.output
    both = {"languages": ("sw", "en"), "text": (f"sw={corpus}", f"en={corpus}")}
    assert cut(folder, tmp_path / "two", drop_added=("lang:*",), verify=True, **both).result.verification


def test_a_token_that_the_model_does_not_have_can_be_left_out(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("bert", "base", tmp_path / "old")
    with pytest.raises(UsageError, match="The model has no tokens for") as caught:
        cut(folder, tmp_path / "new", keep_token=("漢漢", "a"))
    assert caught.value.hint == "Leave it out."
    assert cut(folder, tmp_path / "new", keep_token=("a",)).result.output


def test_a_tensor_that_the_architecture_does_not_name_can_be_added_to_its_file(cut: Cut, tmp_path: Path) -> None:
    from importlib.resources import files

    from safetensors.numpy import load_file, save_file

    folder = tiny.model_folder("gpt2", "base", tmp_path / "old")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    rows = tensors["wte.weight"].shape[0]
    save_file({**tensors, "frequencies": np.arange(rows, dtype=np.float32)}, path, {"format": "pt"})
    with pytest.raises(PolydistillError, match="frequencies has the shape") as caught:
        cut(folder, tmp_path / "new")
    assert caught.value.hint == "Add it to a copy of that file and pass it with `include_path`."
    text = files("polydistill").joinpath("arch/gpt2.toml").read_text(encoding="utf-8")
    entry = '[[vocabulary]]\nsuffix = "frequencies"\nrole = "bias"\n\n[layers]'
    (tmp_path / "arch").mkdir()
    (tmp_path / "arch" / "gpt2.toml").write_text(text.replace("[layers]", entry), encoding="utf-8")
    new = cut(folder, tmp_path / "new", include_path=(tmp_path / "arch",))
    assert load_file(new.folder / "model.safetensors")["frequencies"].tolist() == new.kept[0]


def test_weights_too_large_for_half_precision_fit_the_other_type(cut: Cut, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tiny.model_folder("gpt2", "base", tmp_path / "old")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["ln_f.bias"][0] = 1e6
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(PolydistillError, match="too large for float16") as caught:
        cut(folder, tmp_path / "new", dtype="float16")
    assert caught.value.hint == "Use `dtype=bfloat16`."
    assert cut(folder, tmp_path / "new", dtype="bfloat16").result.output


def test_a_missing_tokenizer_can_be_saved_beside_the_model(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("bert", "base", tmp_path / "old")
    names = tokenizer(folder)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(PolydistillError, match="has no tokenizer") as caught:
        cut(folder, tmp_path / "new")
    assert ".save_pretrained(" in caught.value.hint
    names.save_pretrained(folder)
    assert cut(folder, tmp_path / "new", verify=True).result.verification


def test_counts_that_do_not_fit_can_be_made_again(cut: Cut, corpus: Path, tmp_path: Path) -> None:
    import polydistill
    from polydistill.trimming.counting import save_counts

    folder = tiny.model_folder("bert", "base", tmp_path / "old")
    counts = {"text": (), "counts": (tmp_path / "counts.json",)}
    with pytest.raises(PolydistillError) as caught:
        cut(folder, tmp_path / "new", **counts)
    assert caught.value.hint == "Make it with `polydistill count`."
    wrong = {"ro": str(tiny.model_folder("gpt2", "base", tmp_path / "gpt2")), "sw": str(folder)}
    saved = {"overwrite": True, "option": "save_counts"}
    hints = {
        "ro": "Count again with the model that you trim.",
        "sw": "Count it too: `polydistill count languages=ro ...`.",
    }
    for code, model_name in wrong.items():
        save_counts(
            polydistill.count(model_name, languages=[code], text=[str(corpus)]), tmp_path / "counts.json", **saved
        )
        with pytest.raises(PolydistillError) as caught:
            cut(folder, tmp_path / "new", **counts)
        assert caught.value.hint == hints[code]
    save_counts(polydistill.count(str(folder), languages=["ro"], text=[str(corpus)]), tmp_path / "counts.json", **saved)
    assert cut(folder, tmp_path / "new", **counts).result.output
