"""What trimming must keep beside outputs: language codes, padding, training, folders of other libraries, records."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import TEXT, Cut, Trimmed, read, write

from polydistill.catalog import languages
from polydistill.errors import PolydistillError, UsageError


def load(folder: Path, head: str = "base", **options: Any) -> Any:
    import transformers

    return getattr(transformers, tiny.AUTO_CLASS[head]).from_pretrained(folder, **options).eval()


def tokenizer(folder: Path, **options: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, **options)


def mapped(ids: list[int], kept: list[int]) -> list[int] | None:
    table = {old: new for new, old in enumerate(kept)}
    return [table[i] for i in ids] if all(i in table for i in ids) else None


def covered(old: Any, kept: list[int], texts: list[str] = TEXT, **options: Any) -> list[str]:
    """The texts all of whose tokens were kept; there must be some."""
    found = [t for t in texts if mapped(old(t, add_special_tokens=False, **options)["input_ids"], kept) is not None]
    assert len(found) >= 5
    return found


def same_generation(old_folder: Path, new: Trimmed, texts: list[str], head: str, **options: Any) -> None:
    """Greedy generation of the original, held to the kept tokens, maps to that of the trimmed model."""
    outputs = []
    for folder, dropped in ((old_folder, True), (new.folder, False)):
        names, model = tokenizer(folder, **options), load(folder, head)
        names.pad_token = names.pad_token or names.eos_token
        names.padding_side = "left" if head == "causal-lm" else "right"
        batch = names(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        rows = model.get_output_embeddings().weight.shape[0]
        suppressed = sorted(set(range(rows)) - set(new.kept[-1])) if dropped else None
        with torch.no_grad():
            ids = model.generate(**batch, max_new_tokens=6, do_sample=False, num_beams=1, suppress_tokens=suppressed)
        outputs.append(ids[:, batch["input_ids"].shape[1] :] if head == "causal-lm" else ids)
    expected = [mapped(row, new.kept[-1]) for row in outputs[0].tolist()]
    assert outputs[1].tolist() == expected
    assert len({tuple(row) for row in expected}) > 1 or len(expected[0]) > 2


def test_the_mark_at_the_start_of_a_keep_file_is_no_token(tmp_path: Path) -> None:
    from polydistill.catalog import language
    from polydistill.methods.trim.method import _wishes
    from polydistill.methods.trim.options import TrimOptions

    (tmp_path / "keep.txt").write_bytes(b"\xef\xbb\xbfbine\r\nrau\r\n")
    config = TrimOptions(model="m", languages=("ro",), keep_file=tmp_path / "keep.txt")
    assert _wishes(config, (language("ro"),)).keep_tokens == ("bine", "rau")


# ---- verification ----


@pytest.mark.parametrize(
    ("model_type", "head", "options"),
    [
        ("bert", "sequence-classification", {}),
        ("xlm-roberta", "question-answering", {}),
        ("gpt2", "causal-lm", {}),
        ("gpt2", "sequence-classification", {}),
        ("llama", "base", {"dtype": "float16"}),
        ("t5", "seq2seq-lm", {}),
        ("t5", "sequence-classification", {}),
        ("mbart", "sequence-classification", {}),
        ("mbart", "seq2seq-lm", {"tokenizer": "mbart50"}),
        ("m2m_100", "seq2seq-lm", {}),
        ("m2m_100", "seq2seq-lm", {"tokenizer": "nllb"}),
        ("marian", "seq2seq-lm", tiny._TWO_VOCABULARIES),
    ],
)
def test_the_verification_builds_every_kind_of_model(
    model_type: str, head: str, options: dict[str, Any], cut: Cut, tmp_path: Path
) -> None:
    folder = tiny.model_folder(model_type, head, tmp_path / "old", **options)
    text = tmp_path / "text.txt"  # also lines longer than the model's positions
    text.write_text("\n".join([*TEXT[:20], " ".join(TEXT[:12]), *tiny.sentences("zh", count=3)]), encoding="utf-8")
    new = cut(folder, tmp_path / "new", min_count=1, verify=True, verify_text=str(text))
    found = new.result.verification
    assert found["sentences"] == 24
    assert 15 <= found["covered"] <= found["identical"] < 24
    assert found["max_abs_difference"] < 1e-5
    assert found["unknown_rate"]["after"] > found["unknown_rate"]["before"]  # the Chinese lines
    assert found["fertility"]["after"] > 1
    lost = found["letters"]["lost"]
    assert found["letters"]["languages"] == len(languages()) and lost and "ro" not in lost
    assert all(0 <= shares["before"] < shares["after"] <= 1 for shares in lost.values())


@pytest.mark.parametrize(
    ("model_type", "head", "options"),
    [
        ("bert", "masked-lm", {"tokenizer": "xlm-roberta"}),
        ("marian", "seq2seq-lm", tiny._TWO_VOCABULARIES),
        ("bert", "base", {}),
    ],
)
def test_the_verification_makes_logits_in_slices_and_says_the_same(
    model_type: str, head: str, options: dict[str, Any], cut: Cut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from polydistill.trimming import verification

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.dim() == 3:
                largest = max(largest, made.numel())
            return made

    folder = tiny.model_folder(model_type, head, tmp_path / "old", **options)
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXT[:12]), encoding="utf-8")
    found, made = [], []
    for limit in (64 << 20, 1):
        monkeypatch.setattr(verification, "LOGITS_BYTES", limit)
        largest = 0
        with Watch():
            new = cut(folder, tmp_path / f"new{limit}", min_count=1, verify=True, verify_text=str(text))
        made.append(largest)
        difference = new.result.verification["max_abs_difference"]
        found.append({**new.result.verification, "max_abs_difference": difference < 1e-6})
    assert found[0] == found[1]
    assert made[0] == made[1] if head == "base" else made[0] > 4 * made[1]
    assert not list(tmp_path.glob("new*/tmp*"))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1, 2], [1, 2.5], 0.5),
        ([1, -np.inf], [1, -np.inf], 0),
        ([1, np.nan, 3], [1, 2, 3], np.nan),
        ([np.nan, 1], [np.nan, 1], np.nan),
        ([1, -np.inf], [1, 2], np.inf),
    ],
)
def test_outputs_that_are_no_numbers_are_equal_to_nothing(
    before: list[float], after: list[float], expected: float
) -> None:
    from polydistill.trimming.verification import _difference

    assert _difference(np.array(before), np.array(after)) == pytest.approx(expected, nan_ok=True)


def test_the_verification_notices_outputs_that_are_no_numbers(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("gpt2", "causal-lm", tmp_path / "old")
    from polydistill.trimming import verification

    real = verification.load_model
    with pytest.MonkeyPatch.context() as patch:

        def broken(folder: Path, config: dict[str, Any]) -> Any:
            model = real(folder, config)
            if "partial" in str(folder):
                model.transformer.ln_f.register_forward_hook(lambda *a: a[2] * float("nan"))
            return model

        patch.setattr(verification, "load_model", broken)
        with pytest.raises(PolydistillError, match="outputs differ by up to nan"):
            cut(folder, tmp_path / "new", verify=True)


def with_weight(folder: Path, name: str, place: Any, value: float) -> None:
    """Sets some values of a tensor."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors[name][place] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_computes_no_numbers_is_not_verified(value: float, cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("bert", "base", tmp_path / "old")
    with_weight(folder, "encoder.layer.1.output.LayerNorm.weight", 3, value)
    with pytest.raises(
        PolydistillError, match=r"original computes NaN or infinite values \(last_hidden_state\)"
    ) as stop:
        cut(folder, tmp_path / "new", verify=True)
    assert "`verify=False`" in stop.value.hint and not (tmp_path / "new").exists()
    assert cut(folder, tmp_path / "new").result.verification is None


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_row_that_is_no_number_is_noticed_without_its_token(value: float, cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("bert", "base", tmp_path / "old")
    mask = tokenizer(folder).mask_token_id
    with_weight(folder, "embeddings.word_embeddings.weight", mask, value)
    with pytest.raises(PolydistillError, match=r"word_embeddings\.weight hold NaN or infinite values") as stop:
        cut(folder, tmp_path / "new", verify=True)
    assert "`verify=False`" in stop.value.hint


def test_weights_that_the_class_does_not_load_are_numbers_too(cut: Cut, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tiny.model_folder("bert", "masked-lm", tmp_path / "old")
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.pooler.dense.weight"] = np.full((32, 32), np.nan, np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(PolydistillError, match=r"pooler\.dense\.weight hold NaN"):
        cut(folder, tmp_path / "new", verify=True)


def test_the_verification_notices_wrong_rows_and_wrong_tokens(
    cut: Cut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polydistill.models import checkpoint
    from polydistill.vocab.bpe import BPE

    folder = tiny.model_folder("gpt2", "causal-lm", tmp_path / "old")
    with monkeypatch.context() as patch:
        real = checkpoint.RowReader.rows
        patch.setattr(checkpoint.RowReader, "rows", lambda *a: (chunk[::-1].copy() for chunk in real(*a)))
        with pytest.raises(PolydistillError, match="outputs differ by up to"):
            cut(folder, tmp_path / "new", verify=True)
    with monkeypatch.context() as patch:
        whole = BPE.trimmed
        patch.setattr(BPE, "trimmed", lambda *a: (m := whole(*a)) | {"merges": m["merges"][3:]})
        with pytest.raises(PolydistillError, match="tokenizes differently"):
            cut(folder, tmp_path / "new", verify=True)
    assert not (tmp_path / "new").exists()
    assert cut(folder, tmp_path / "new", verify=True).result.verification["max_abs_difference"] < 1e-5


# ---- language codes ----

CODES = {
    "nllb": ("m2m_100", "ron_Latn", "eng_Latn", "fra_Latn"),
    "mbart": ("mbart", "ro_RO", "en_XX", "fr_XX"),
    "mbart50": ("mbart", "ro_RO", "en_XX", "fr_XX"),
}


def translator(recipe: str, folder: Path, **options: Any) -> Path:
    return tiny.model_folder(CODES[recipe][0], "seq2seq-lm", folder, tokenizer=recipe, tied=True, **options)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("languages", [("ro",), ("ro", "en")])
@pytest.mark.parametrize("recipe", CODES)
def test_language_codes_that_are_dropped_stay_away(
    recipe: str, languages: tuple[str, ...], legacy: bool, cut: Cut, corpus: Path, tmp_path: Path
) -> None:
    _, ro, en, fr = CODES[recipe]
    folder = translator(recipe, tmp_path / "old", beside=True, legacy=legacy)
    texts = [f"{code}={corpus}" for code in languages]
    new = cut(folder, tmp_path / "new", languages=languages, text=tuple(texts), drop_added=("lang:*",))
    before, after = tokenizer(folder), tokenizer(new.folder)
    codes = {ro} if languages == ("ro",) else {ro, en}
    every = set(tiny._codes({"nllb": "nllb.tokenization_nllb"}.get(recipe, f"{recipe}.tokenization_{recipe}")))
    assert every & set(after.get_vocab()) == codes
    assert len(after) == len(new.kept[0]) == new.result.rows["after"]
    assert after.src_lang in codes
    assert fr in before.get_vocab() and after.convert_tokens_to_ids(fr) == after.unk_token_id
    if recipe == "mbart50":  # its class has the codes in its source
        assert any("mBART-50" in note for note in new.result.notes)
    else:
        assert {t for t in after.all_special_tokens if t in every} == codes
        after.save_pretrained(tmp_path / "again")  # written by transformers and read again: still nothing more
        assert tokenizer(tmp_path / "again").get_vocab() == after.get_vocab()
    for code in codes:
        for side in (tokenizer(new.folder, src_lang=code), after):
            before.src_lang = side.src_lang = code
            for text in covered(before, new.kept[0])[:5]:
                assert side(text)["input_ids"] == mapped(before(text)["input_ids"], new.kept[0])
                before.tgt_lang = side.tgt_lang = ro
                target = mapped(before(text_target=text)["input_ids"], new.kept[0])
                assert side(text_target=text)["input_ids"] == target
    config = read(new.folder / "generation_config.json")
    assert config["forced_bos_token_id"] == after.convert_tokens_to_ids(ro)
    before.src_lang = ro
    same_generation(folder, new, covered(before, new.kept[0])[:4], "seq2seq-lm", src_lang=ro)


def test_a_code_that_the_model_starts_with_cannot_go(cut: Cut, tmp_path: Path) -> None:
    folder = translator("mbart", tmp_path / "old")
    with pytest.raises(PolydistillError, match="forced_bos_token_id") as caught:
        cut(folder, tmp_path / "new", languages=("en",), drop_added=("lang:*",))
    assert "`drop_added`" in caught.value.hint
    assert not (tmp_path / "new").exists()


def test_a_pattern_that_matches_no_code(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("t5", "base", tmp_path / "old")
    with pytest.raises(UsageError, match="matches none"):
        cut(folder, tmp_path / "new", drop_added=("lang:*",))


def test_some_codes_may_go(cut: Cut, tmp_path: Path) -> None:
    new = cut(translator("mbart", tmp_path / "old"), tmp_path / "new", drop_added=("lang:f*", "zh_CN"))
    left = set(tokenizer(new.folder).get_vocab())
    assert left.isdisjoint({"fr_XX", "fi_FI", "zh_CN"})
    assert {"ro_RO", "en_XX", "de_DE"} <= left


def test_the_codes_of_m2m_100_stay_in_their_place(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("m2m_100", "seq2seq-lm", tmp_path / "old", tied=True)
    new = cut(folder, tmp_path / "new")
    before, after = tokenizer(folder), tokenizer(new.folder)
    weights = [load(f).get_input_embeddings().weight for f in (folder, new.folder)]
    for code in ("ro", "en", "zu", "af"):
        old_id, new_id = before.get_lang_id(code), after.get_lang_id(code)
        assert new.kept[0][new_id] == old_id
        assert torch.equal(weights[0][old_id], weights[1][new_id])
        before.src_lang = after.src_lang = code
        for text in covered(before, new.kept[0])[:3]:
            assert after(text)["input_ids"] == mapped(before(text)["input_ids"], new.kept[0])
            assert after(text)["input_ids"][0] == new_id
    assert len(after) <= new.result.rows["after"] == len(new.kept[0])
    same_generation(folder, new, covered(before, new.kept[0])[:4], "seq2seq-lm", src_lang="en")
    with pytest.raises(UsageError, match="none of them can be dropped"):
        cut(folder, tmp_path / "less", drop_added=("lang:*",))
    assert not (tmp_path / "less").exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("patterns", "left"),
    [(("<extra_id_*>",), 0), (tuple(f"<extra_id_{i}>" for i in range(5, 10)), 5)],
    ids=["all", "some"],
)
def test_sentinels_may_go(patterns: tuple[str, ...], left: int, legacy: bool, cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("t5", "seq2seq-lm", tmp_path / "old", tied=True, beside=True, legacy=legacy)
    new = cut(folder, tmp_path / "new", drop_added=patterns)
    before, after = tokenizer(folder), tokenizer(new.folder)
    assert sorted(t for t in after.get_vocab() if "extra_id" in t) == [f"<extra_id_{i}>" for i in range(left)]
    assert len(after) == len(new.kept[0]) == new.result.rows["after"]
    assert sum("extra_id" in t for t in after.all_special_tokens) == left
    for text in covered(before, new.kept[0]):
        assert after(text)["input_ids"] == mapped(before(text)["input_ids"], new.kept[0])
    after.save_pretrained(tmp_path / "again")
    assert tokenizer(tmp_path / "again").get_vocab() == after.get_vocab()


def with_added(folder: Path, tokens: list[str]) -> Path:
    """Makes tokens of the vocabulary added tokens, as Gemma lists its unused ones."""
    data = read(folder / "tokenizer.json")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    data["added_tokens"] += [{"id": data["model"]["vocab"][t], "content": t, **flags} for t in tokens]
    data["added_tokens"].sort(key=lambda t: t["id"])
    write(folder / "tokenizer.json", data)
    return folder


def test_unused_tokens_may_go_and_needed_ones_may_not(cut: Cut, tmp_path: Path) -> None:
    folder = with_added(tiny.model_folder("gemma2", "causal-lm", tmp_path / "old"), ["<unused0>", "<unused1>"])
    before = tokenizer(folder)
    kept = cut(folder, tmp_path / "all")
    assert "<unused1>" in tokenizer(kept.folder).get_vocab()
    new = cut(folder, tmp_path / "new", drop_added=("<unused*>",))
    after = tokenizer(new.folder)
    assert not [t for t in after.get_vocab() if "unused" in t]
    assert len(after) == len(new.kept[0]) == len(kept.kept[0]) - 2
    for text in covered(before, new.kept[0]):
        assert after(text)["input_ids"] == mapped(before(text)["input_ids"], new.kept[0])
    needed = {"<start_of_turn>": "chat template", "<bos>": "bos_token|post-processor", "<*>": "must stay"}
    for pattern, why in needed.items():
        with pytest.raises(UsageError, match=why):
            cut(folder, tmp_path / "less", drop_added=(pattern,))


# ---- Marian ----


@pytest.mark.parametrize("separate", [False, True])
def test_marian_with_one_and_two_vocabularies(separate: bool, cut: Cut, tmp_path: Path) -> None:
    options = tiny._TWO_VOCABULARIES if separate else {}
    folder = tiny.model_folder("marian", "seq2seq-lm", tmp_path / "old", **options)
    new = cut(folder, tmp_path / "new")
    assert len(new.kept) == 1 + separate
    tables = ["vocab.json", "target_vocab.json"][: 1 + separate]
    pads = set()
    for table, kept in zip(tables, new.kept, strict=True):
        before, after = read(folder / table), read(new.folder / table)
        assert sorted(after.values()) == list(range(len(kept)))
        assert all(before[token] == kept[i] for token, i in after.items())
        assert len(after) < len(before)
        pads.add(after["<pad>"])
    assert pads == {len(new.kept[0]) - 1} if separate else len(pads) == 1
    for name in ("source.spm", "target.spm"):
        assert (new.folder / name).stat().st_size < (folder / name).stat().st_size
    config, generation = read(new.folder / "config.json"), read(new.folder / "generation_config.json")
    assert config["pad_token_id"] == config["decoder_start_token_id"] == generation["pad_token_id"] == pads.pop()
    assert generation["bad_words_ids"] == [[config["pad_token_id"]]]
    assert generation["forced_eos_token_id"] == config["eos_token_id"] == 0
    assert config["vocab_size"] == config["decoder_vocab_size"] == len(new.kept[0])
    names = tokenizer(new.folder)
    assert names.pad_token_id == config["pad_token_id"]
    same_generation(folder, new, covered(tokenizer(folder), new.kept[0])[:4], "seq2seq-lm")
    if not separate:
        assert ">>ron<<" in names.get_vocab()
        old = tokenizer(folder)
        text = ">>ron<< " + covered(old, new.kept[0])[0]
        assert names(text)["input_ids"] == mapped(old(text)["input_ids"], new.kept[0])


# ---- rows that pad the matrix ----

PADDED = [
    ("gpt2", "causal-lm", True),
    ("llama", "causal-lm", False),
    ("qwen2", "causal-lm", False),
    ("bloom", "causal-lm", True),
    ("t5", "seq2seq-lm", False),
    ("mbart", "seq2seq-lm", True),
    ("marian", "seq2seq-lm", True),
    ("m2m_100", "seq2seq-lm", True),
]


def make_adverse(folder: Path, head: str, tied: bool) -> None:
    """Every logit of a real token becomes negative: the last hidden state is all ones, the head's rows are below 0."""
    model = load(folder, head)
    generator = torch.Generator().manual_seed(0)
    output = model.get_output_embeddings().weight
    assert (output.data_ptr() == model.get_input_embeddings().weight.data_ptr()) is tied
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.fill_(1.0 if "norm" in name or "ln_" in name else 0.0)
        model.get_input_embeddings().weight.fill_(1.0)
        output.copy_(-0.01 - torch.rand(output.shape, generator=generator))
    for name, buffer in model.named_buffers():
        if name == "final_logits_bias":
            buffer.zero_()
    for path in folder.glob("model*"):
        path.unlink()
    model.save_pretrained(folder)


@pytest.mark.parametrize(("model_type", "head", "tied"), PADDED)
def test_padding_rows_are_never_generated(model_type: str, head: str, tied: bool, cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder(model_type, head, tmp_path / "old", tied=tied)
    make_adverse(folder, head, tied)
    new = cut(folder, tmp_path / "new", pad_to_multiple=64)
    tokens, rows = len(new.kept[-1]), new.result.rows["after"]
    assert rows % 64 == 0 and rows > tokens and rows - tokens < 64
    model, names = load(new.folder, head), tokenizer(new.folder)
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == rows
    assert len(names) <= rows
    batch = names(TEXT[:2], padding=False, return_token_type_ids=False)["input_ids"]
    ids = {"input_ids": torch.tensor([batch[0]])}
    with torch.no_grad():
        extra = {"decoder_input_ids": torch.tensor([[1]])} if model.config.is_encoder_decoder else {}
        logits = model(**ids, **extra).logits[0, -1]
    assert (logits[:tokens] < 0).all()
    if model_type not in ("mbart", "marian", "m2m_100"):  # they have a bias, which forbids the rows by itself
        assert logits.argmax() >= tokens
    torch.manual_seed(0)
    for options in (
        {"do_sample": False},
        {"do_sample": True, "temperature": 3.0, "top_k": 0, "num_return_sequences": 20},
        {"num_beams": 3, "do_sample": False},
    ):
        with torch.no_grad():
            made = model.generate(**ids, max_new_tokens=5, **options)
        assert made.max() < tokens
        assert made.shape[1] > 1


@pytest.mark.parametrize(("model_type", "tied"), [("bert", True), ("xlm-roberta", False), ("albert", True)])
def test_padding_rows_of_a_masked_model_are_never_chosen(model_type: str, tied: bool, cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder(model_type, "masked-lm", tmp_path / "old", tied=tied)
    new = cut(folder, tmp_path / "new", pad_to_multiple=96)
    names = tokenizer(new.folder)
    with torch.no_grad():
        logits = load(new.folder, "masked-lm")(**names(TEXT[0], return_tensors="pt")).logits
    tokens = len(new.kept[0])
    assert logits.shape[-1] % 96 == 0 and logits.shape[-1] > tokens
    assert (logits[..., tokens:] < -9000).all()
    assert logits.softmax(-1)[..., tokens:].sum() == 0
    assert torch.isfinite(logits).all()


def test_padded_rows_go_when_it_is_trimmed_again(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("gpt2", "causal-lm", tmp_path / "old")
    padded = cut(folder, tmp_path / "padded", pad_to_multiple=64, min_count=1)
    plain = cut(folder, tmp_path / "plain", min_count=1)
    again = cut(padded.folder, tmp_path / "again", min_count=1)
    assert again.result.rows == {"before": padded.result.rows["after"], "after": len(plain.kept[0])}
    assert (again.folder / "model.safetensors").read_bytes() == (plain.folder / "model.safetensors").read_bytes()
    assert read(padded.folder / "generation_config.json")["suppress_tokens"]
    assert not read(again.folder / "generation_config.json").get("suppress_tokens")


# ---- training ----


@pytest.mark.parametrize(
    ("model_type", "head"),
    [
        ("bert", "masked-lm"),
        ("xlm-roberta", "masked-lm"),
        ("deberta-v2", "masked-lm"),
        ("gpt2", "causal-lm"),
        ("gemma2", "causal-lm"),
        ("t5", "seq2seq-lm"),
        ("mbart", "seq2seq-lm"),
        ("m2m_100", "seq2seq-lm"),
        ("marian", "seq2seq-lm"),
    ],
)
@pytest.mark.parametrize("multiple", [1, 32])
def test_a_trimmed_model_trains(model_type: str, head: str, multiple: int, cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder(model_type, head, tmp_path / "old", tied=True)
    new = cut(folder, tmp_path / "new", pad_to_multiple=multiple)
    model, names = load(new.folder, head).train(), tokenizer(new.folder)
    names.pad_token = names.pad_token or names.eos_token
    texts = [*TEXT[:4], *tiny.sentences("zh", "ar", "emoji", count=4)]  # also what needs tokens that are gone
    batch = names(texts, padding=True, truncation=True, max_length=40, return_tensors="pt", return_token_type_ids=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    assert batch["input_ids"].max() < len(new.kept[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(2):
        loss = model(**batch, labels=labels).loss
        assert torch.isfinite(loss)
        losses.append(float(loss))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] != losses[1]


# ---- sentence-transformers ----


def sentence_model(folder: Path, *, inner: bool) -> Path:
    from sentence_transformers import SentenceTransformer, models

    base = tiny.model_folder("bert", "base", folder.with_name("base"), tokenizer="xlm-roberta", rows=421)
    transformer = models.Transformer(str(base), max_seq_length=48)
    parts = [transformer, models.Pooling(32, "mean"), models.Dense(32, 12), models.Normalize()]
    torch.manual_seed(0)
    model = SentenceTransformer(modules=parts, prompts={"query": "O casa: ", "passage": "A letter: "}, device="cpu")
    model.save(str(folder))
    if inner:  # older folders have the transformer in a folder of its own
        modules = read(folder / "modules.json")
        listed = {m["path"].split("/")[0] for m in modules}
        (folder / "0_Transformer").mkdir()
        for path in list(folder.iterdir()):
            own = path.name in {"modules.json", "config_sentence_transformers.json", "README.md"}
            if path.is_file() and not own and path.name not in listed:
                path.rename(folder / "0_Transformer" / path.name)
        modules[0]["path"] = "0_Transformer"
        write(folder / "modules.json", modules)
    return folder


@pytest.mark.parametrize("inner", [False, True])
def test_a_sentence_transformers_folder_embeds_the_same(inner: bool, cut: Cut, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = sentence_model(tmp_path / "old", inner=inner)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    new = cut(folder, tmp_path / "new", verify=True)
    assert new.result.verification["max_abs_difference"] < 1e-5
    part = "0_Transformer" if inner else "."
    sizes = [(f / part / "model.safetensors").stat().st_size for f in (folder, new.folder)]
    assert sizes[1] < sizes[0]
    before, after = (SentenceTransformer(str(f), device="cpu") for f in (folder, new.folder))
    assert [type(m) for m in after] == [type(m) for m in before]
    assert after.prompts == before.prompts
    assert after.max_seq_length == before.max_seq_length == 48
    assert after[0].auto_model.get_input_embeddings().weight.shape[0] == len(new.kept[0])
    assert read(new.folder / "modules.json") == read(folder / "modules.json")
    texts = covered(tokenizer(folder / part), new.kept[0])
    for options in ({}, {"prompt_name": "query"}):
        expected, found = (m.encode(texts, **options) for m in (before, after))
        assert expected.shape == (len(texts), 12)
        assert np.array_equal(expected, found)
    assert (new.folder / "README.md").is_file() and (new.folder / "polydistill.json").is_file()


# ---- chat templates ----

CHAT = [
    {"role": "user", "content": "Fratele meu vede casa roșie."},
    {"role": "assistant", "content": "My sister wants bread."},
    {"role": "user", "content": "Nimeni!"},
]


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json", "named"])
@pytest.mark.parametrize("model_type", ["gemma2", "qwen2"])
def test_chat_templates_render_to_the_same_tokens(model_type: str, place: str, cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder(model_type, "causal-lm", tmp_path / "old")
    template = folder / "chat_template.jinja"
    if place != "chat_template.jinja":
        config, text = read(folder / "tokenizer_config.json"), template.read_text(encoding="utf-8")
        config["chat_template"] = text if place != "named" else [{"name": "default", "template": text}]
        write(folder / "tokenizer_config.json", config)
        template.unlink()
    new = cut(folder, tmp_path / "new", min_count=1)
    before, after = tokenizer(folder), tokenizer(new.folder)
    for options in ({}, {"add_generation_prompt": True}):
        text = before.apply_chat_template(CHAT, tokenize=False, **options)
        assert after.apply_chat_template(CHAT, tokenize=False, **options) == text
        ids = before.apply_chat_template(CHAT, return_dict=False, **options)
        expected = mapped(ids, new.kept[0])
        assert expected is not None
        assert after.apply_chat_template(CHAT, return_dict=False, **options) == expected
    for role in ("system", "user", "assistant"):  # whatever the text: what the template writes is kept
        alone = before.apply_chat_template([{"role": role, "content": ""}], return_dict=False)
        assert mapped(alone, new.kept[0]) is not None


# ---- files beside tokenizer.json ----

BESIDE = ["xlm-roberta", "t5", "mt5", "albert", "deberta-v2", "mbart", "mbart50", "xglm", "nllb", "gemma", "llama"]
MODELS = {"mbart50": "mbart", "nllb": "m2m_100", "gemma": "gemma2"}


@pytest.mark.parametrize("recipe", BESIDE)
def test_a_sentencepiece_model_agrees_with_tokenizer_json(recipe: str, cut: Cut, tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    folder = tiny.model_folder(MODELS.get(recipe, recipe), "base", tmp_path / "old", tokenizer=recipe, beside=True)
    new = cut(folder, tmp_path / "new", min_count=2)
    name = tiny._MODEL_FILES[recipe][0]
    assert not any(name in note for note in new.result.notes)
    pieces = [SentencePieceProcessor(model_file=str(f / name)) for f in (folder, new.folder)]
    names = [tokenizer(f) for f in (folder, new.folder)]
    assert len(pieces[1]) < len(pieces[0])
    compared, offsets = 0, set()
    for text in covered(names[0], new.kept[0]):
        tokens = names[1].convert_ids_to_tokens(names[1](text, add_special_tokens=False)["input_ids"])
        if pieces[0].encode(text, out_type=str) == names[0].tokenize(text):
            assert pieces[1].encode(text, out_type=str) == tokens
            compared += 1
        offsets |= {names[1].convert_tokens_to_ids(t) - pieces[1].piece_to_id(t) for t in tokens}
    assert compared >= 5
    assert len(offsets) == 1
    lowest = [min(p.get_score(i) for i in range(len(p)) if not p.is_control(i)) for p in pieces]
    assert recipe in ("nllb", "gemma", "llama") or lowest[0] == lowest[1]


@pytest.mark.parametrize(("model_type", "name"), [("qwen2", "tokenizer.model"), ("llama", "tokenizer.model")])
def test_a_binary_vocabulary_of_another_kind_is_left_out(model_type: str, name: str, cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder(model_type, "base", tmp_path / "old")
    lines = [base64.b64encode(bytes([i])) + b" %d" % i for i in range(256)]
    (folder / name).write_bytes(b"\n".join(lines))
    new = cut(folder, tmp_path / "new")
    assert not (new.folder / name).exists()
    assert any(name in note for note in new.result.notes)


def test_a_sentencepiece_model_that_cannot_agree_is_left_out(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("xlm-roberta", "base", tmp_path / "old", beside=True)
    tiny.train_pieces("unigram", 300, 7).write(folder / "sentencepiece.bpe.model", ["<unk>", "<s>", "</s>"])
    new = cut(folder, tmp_path / "new")
    assert not (new.folder / "sentencepiece.bpe.model").exists()
    assert any("sentencepiece.bpe.model" in note for note in new.result.notes)
    assert tokenizer(new.folder)(TEXT[0])["input_ids"]


def test_older_vocabulary_files_agree(cut: Cut, tmp_path: Path) -> None:
    for model_type, files in (("bert", ["vocab.txt"]), ("gpt2", ["vocab.json", "merges.txt"])):
        folder = tiny.model_folder(model_type, "base", tmp_path / model_type, beside=True)
        new = cut(folder, tmp_path / f"{model_type}-new")
        model = read(new.folder / "tokenizer.json")["model"]
        if model_type == "bert":
            lines = (new.folder / files[0]).read_text(encoding="utf-8").splitlines()
            assert {token: i for i, token in enumerate(lines)} == model["vocab"]
        else:
            assert read(new.folder / files[0]) == model["vocab"]
            merges = (new.folder / files[1]).read_text(encoding="utf-8").splitlines()[1:]
            assert merges == [" ".join(m) for m in model["merges"]]


def test_weights_in_other_formats_and_hidden_files_stay_behind(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("bert", "base", tmp_path / "old")
    (folder / "onnx").mkdir()
    (folder / ".cache").mkdir()
    foreign = ("pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", ".cache/x", "modeling.py")
    for name in (*foreign, "LICENSE", "notes.txt"):
        (folder / name).write_text(name)
    (folder / "license").mkdir()
    (folder / "license" / "third-party.txt").write_text("x")
    shutil.copytree(folder, folder / "runs" / "checkpoint-500")  # as a training run leaves it
    new = cut(folder, tmp_path / "new")
    made = {str(p.relative_to(new.folder)) for p in new.folder.rglob("*") if p.is_file()}
    assert made == {
        "LICENSE",
        "notes.txt",
        "README.md",
        "config.json",
        "model.safetensors",
        "polydistill.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "license/third-party.txt",
    }


# ---- the Python interface ----


@pytest.mark.parametrize(
    ("model_type", "head", "options"),
    [("bert", "masked-lm", {}), ("gemma2", "causal-lm", {"dtype": "bfloat16"}), ("mbart", "seq2seq-lm", {})],
)
def test_the_twin_for_objects_gives_the_same_model(
    model_type: str, head: str, options: dict[str, Any], corpus: Path, tmp_path: Path
) -> None:
    import polydistill

    folder = tiny.model_folder(model_type, head, tmp_path / "old", **options)
    model, names = load(folder, head, dtype="auto"), tokenizer(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shared = {"text": [str(corpus)], "min_count": 2, "verify": False}
    result = polydistill.trim(str(folder), languages=["ro"], output=tmp_path / "new", **shared)
    new_model, new_names, twin = polydistill.trim_objects(model, names, languages=["ro"], **shared)
    assert type(new_model) is type(model) and type(new_names) is type(names)
    expected = load(tmp_path / "new", head, dtype="auto")
    assert list(new_model.state_dict()) == list(expected.state_dict())
    found = new_model.state_dict()
    for name, value in expected.state_dict().items():
        assert torch.equal(value, found[name]) and value.dtype == found[name].dtype
    assert new_names.get_vocab() == tokenizer(tmp_path / "new").get_vocab()
    assert all(new_names(t)["input_ids"] == tokenizer(tmp_path / "new")(t)["input_ids"] for t in TEXT[:5])
    assert twin.vocabulary == result.vocabulary and twin.rows == result.rows and twin.kept == result.kept
    assert twin.output is None and not new_model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # as it was given
    assert len(names) == result.vocabulary["before"]


def test_a_share_is_of_each_language_by_its_own_text(cut: Cut, tmp_path: Path) -> None:
    import polydistill

    folder, texts = tiny.model_folder("xlm-roberta", "base", tmp_path / "old"), []
    for code, times in (("ro", 20), ("sw", 1)):  # the longer text does not push out the shorter one's tokens
        path = tmp_path / f"{code}.txt"
        path.write_text("\n".join(tiny.sentences(code, count=60) * times), encoding="utf-8")
        texts.append(f"{code}={path}")
    new = cut(folder, tmp_path / "new", languages=("ro", "sw"), text=tuple(texts), min_share=0.015, verify=True)
    counted = polydistill.count(str(folder), languages=["ro", "sw"], text=texts)
    shares = [c.spaces["vocabulary"] / c.spaces["vocabulary"].sum() for c in counted.languages.values()]
    frequent = set(np.flatnonzero(np.max(shares, axis=0) >= 0.015).tolist())
    seen = set(np.flatnonzero(np.max(shares, axis=0)).tolist())
    assert frequent <= set(new.kept[0]) and seen - set(new.kept[0])
    assert 0 < new.result.kept["corpus"] <= len(frequent) < len(seen)
    assert read(new.folder / "polydistill.json")["config"]["min_share"] == 0.015


def test_the_record_says_what_was_done(cut: Cut, corpus: Path, tmp_path: Path) -> None:
    import hashlib

    folder = tiny.model_folder("xlm-roberta", "base", tmp_path / "old")
    new = cut(folder, tmp_path / "new", verify=True)
    record = read(new.folder / "polydistill.json")
    assert record["polydistill"] == 1 and record["command"] == "trim"
    assert record["config"]["languages"] == ["ro"] and record["config"]["min_count"] == 2
    assert record["source"]["weights_hash"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (text,) = record["texts"]
    assert text["language"] == "ro" and text["lines"] == len(TEXT) and text["bytes"] == corpus.stat().st_size
    assert text["sha256"]
    assert {"python", "polydistill", "numpy", "tokenizers"} <= record["versions"].keys()
    result = record["result"]
    assert result["vocabulary"] == new.result.vocabulary and result["rows"]["after"] == len(new.kept[0])
    assert sum(result["kept"].values()) == len(new.kept[0])
    assert result["verification"]["identical"] <= result["verification"]["sentences"]
    assert result["coverage"]["ro"] > 0.5
    assert result["bytes"]["after"] < result["bytes"]["before"]
    assert record["parent"] is None
    card = (new.folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and "polydistill" in card and "ro" in card
    assert f"{result['vocabulary']['after']:,}" in card


def test_a_model_trimmed_twice_knows_its_ancestors(cut: Cut, tmp_path: Path) -> None:
    from polydistill.records.record import RunRecord

    folder = tiny.model_folder("bert", "base", tmp_path / "old")
    once = cut(folder, tmp_path / "once", min_count=1)
    twice = cut(once.folder, tmp_path / "twice", min_count=4)
    assert len(twice.kept[0]) < len(once.kept[0])
    record = RunRecord.load(twice.folder)
    assert record is not None
    chain = record.lineage()
    assert [r["config"]["min_count"] for r in chain] == [4, 1]
    assert [r["source"]["source"] for r in chain] == [str(once.folder), str(folder)]


def test_the_same_input_gives_the_same_bytes(cut: Cut, tmp_path: Path) -> None:
    for model_type, options in (("xlm-roberta", {"beside": True}), ("gpt2", {"beside": True}), ("marian", {})):
        folder = tiny.model_folder(model_type, "base", tmp_path / model_type, **options)
        made = [cut(folder, tmp_path / f"{model_type}-{i}", coverage=0.9) for i in range(2)]
        one, two = ({p.name: p.read_bytes() for p in m.folder.iterdir() if p.suffix != ".md"} for m in made)
        differing = {name for name in one | two if one.get(name) != two.get(name)}
        assert differing == {"polydistill.json"}  # which holds the time it took


# ---- failures ----


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("failure", ["ENOSPC", "EROFS", "interrupt"])
@pytest.mark.parametrize("when", ["tokenizer", "weights", "card"])
def test_a_failure_half_way_leaves_no_folder(
    when: str, failure: str, overwrite: bool, cut: Cut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from polydistill.methods.trim import method as module
    from polydistill.models import checkpoint
    from polydistill.trimming import surgery

    folder, out = tiny.model_folder("bert", "base", tmp_path / "old"), tmp_path / "new"
    if overwrite:
        out.mkdir()
        (out / "mine").write_text("mine")
        (out / "polydistill.json").write_text("{}")

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt if failure == "interrupt" else OSError(getattr(errno, failure), "injected")

    if when == "tokenizer":
        real = Path.write_bytes
        monkeypatch.setattr(Path, "write_bytes", lambda p, d: fail() if p.name == "config.json" else real(p, d))
    elif when == "weights":
        real_write = checkpoint.write_all
        monkeypatch.setattr(surgery, "write_all", lambda out, data: real_write(out, bytes(data)[:9]) or fail())
    else:
        monkeypatch.setattr(module, "write_card", fail)
    with pytest.raises(KeyboardInterrupt if failure == "interrupt" else PolydistillError) as caught:
        cut(folder, out, overwrite=overwrite)
    assert failure == "interrupt" or "could not be written" in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == (["new", "old"] if overwrite else ["old"])
    assert not overwrite or sorted(p.name for p in out.iterdir()) == ["mine", "polydistill.json"]
    monkeypatch.undo()
    assert cut(folder, out, overwrite=overwrite).folder.is_dir()
    assert not (out / "mine").exists()


def test_a_folder_without_its_parts_is_refused(cut: Cut, tmp_path: Path) -> None:
    whole = tiny.model_folder("bert", "base", tmp_path / "whole")
    parts = {"tokenizer.json": "tokenizer", "model.safetensors": "weights", "config.json": "config.json"}
    for name, said in parts.items():
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        (folder / name).unlink()
        if name == "tokenizer.json":
            (folder / "tokenizer_config.json").unlink()
        with pytest.raises(PolydistillError, match=said):
            cut(folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()
