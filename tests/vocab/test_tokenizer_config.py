"""The files beside a tokenizer.json, added tokens that are dropped, and what must not be dropped."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny

from polydistill.catalog import language
from polydistill.errors import PolydistillError, UsageError
from polydistill.files.jsonfiles import read_json
from polydistill.trimming.plan import Wishes, _dropped
from polydistill.vocab import open_vocabulary
from polydistill.vocab.keep import KeepRule, KeepSet, select
from polydistill.vocab.tokenizer_config import TokenizerConfig, content, is_code_of, language_code, matching, write_json

RO, EN, SW = language("ro"), language("en"), language("sw")
CODES = ["eng_Latn", "ron_Latn", "swh_Latn", "deu_Latn"]
ADDED = ["<s>", "</s>", "<mask>", "[extra]", *CODES, "en_XX", "ro_RO", "__sw__", "__de__", ">>ron<<", "<unused1>"]


# ---- patterns ----


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("eng_Latn", "eng"),
        ("ron_Latn", "ron"),
        ("en_XX", "en"),
        ("ro_RO", "ro"),
        ("__sw__", "sw"),
        ("__ceb__", "ceb"),
        (">>ron<<", "ron"),
        (">>zho_Hans<<", "zho"),
        ("<mask>", None),
        ("a_b", None),
        ("__init__", None),
        ("ENG_Latn", None),
        ("xeng_Latn", None),
        ("eng_Latn ", None),
        ("", None),
    ],
)
def test_language_codes(token: str, code: str | None) -> None:
    assert (language_code(token) or "").split("_")[0] == (code or "")


@pytest.mark.parametrize(
    ("token", "known"),
    [
        ("eng_Latn", ["en"]),
        ("en_XX", ["en"]),
        ("__en__", ["en"]),
        ("ro_RO", ["ro"]),
        ("ron_Latn", ["ro"]),
        ("swh_Latn", ["sw"]),
        ("sw_KE", ["sw"]),
        (">>ron<<", ["ro"]),
        ("deu_Latn", []),
        ("en", []),
        ("<mask>", []),
    ],
)
def test_codes_of_kept_languages(token: str, known: list[str]) -> None:
    assert [lang.code for lang in (EN, RO, SW) if is_code_of(token, [lang])] == known


@pytest.mark.parametrize(
    ("patterns", "languages", "hits"),
    [
        ([], [RO], []),
        (["lang:*"], [], [*CODES, "en_XX", "ro_RO", "__sw__", "__de__", ">>ron<<"]),
        (["lang:*"], [RO], ["eng_Latn", "swh_Latn", "deu_Latn", "en_XX", "__sw__", "__de__"]),
        (["lang:*"], [RO, EN, SW], ["deu_Latn", "__de__"]),
        (["lang:d*"], [RO], ["deu_Latn", "__de__"]),
        (["lang:ron*"], [RO], []),
        (["<unused*>"], [RO], ["<unused1>"]),
        (["*_Latn"], [RO], CODES),  # a plain pattern is taken at its word
        (["ron_Latn", "<unused1>"], [RO], ["ron_Latn", "<unused1>"]),
        (["[extra]"], [RO], ["[extra]"]),
        (["[e*]", "<?>"], [RO], ["[extra]", "<s>"]),  # brackets are no class
    ],
    ids=str,
)
def test_patterns(patterns: list[str], languages: list[Any], hits: list[str]) -> None:
    assert sorted(matching(patterns, ADDED, languages)) == sorted(hits)


@pytest.mark.parametrize("pattern", ["lang:xx*", "<unused9>", "", "lang:", "<MASK>", "<unused[0-9]>"])
def test_a_pattern_without_a_match_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="matches none of the 14 added tokens") as caught:
        matching(["<unused1>", pattern], ADDED, [RO])
    assert repr(pattern) in str(caught.value)
    named = re.findall(r"'([^']+)'", caught.value.hint)
    assert named and all(matching([other], ADDED, []) for other in named)  # what the hint names can be given


def test_the_hint_names_tokens_that_are_close() -> None:
    with pytest.raises(UsageError) as caught:
        matching(["<unusd1>"], ADDED, [RO])
    assert "'<unused1>'" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        matching(["lang:rom_Latn"], ADDED, [RO])
    assert "'lang:ron_Latn'" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        matching(["<unused1>"], [], [RO])
    assert caught.value.hint == "Leave the pattern out: this tokenizer has no added tokens."


def test_each_token_is_reported_with_its_pattern() -> None:
    assert matching(["lang:e*", "<unused*"], ADDED, [RO]) == {
        "eng_Latn": "lang:e*",
        "en_XX": "lang:e*",
        "<unused1>": "<unused*",
    }


# ---- needed tokens ----


def dropped(folder: Path, *patterns: str, languages: tuple = (RO,)) -> frozenset[str]:
    return _dropped(open_vocabulary(folder), Wishes(languages, KeepRule(min_count=1), drop_added=patterns))


@pytest.mark.parametrize(
    ("recipe", "pattern", "reason"),
    [
        ("bert", "[CLS]", "cls_token|post-processor"),
        ("bert", "*", "tokenizer's|unknown text|post-processor"),
        ("xlm-roberta", "<mask>", "mask_token"),
        ("xlm-roberta", "<unk>", "unk_token|unknown text"),
        ("xlm-roberta", "</s>", "sep_token|eos_token|post-processor"),
        ("t5", "</s>", "eos_token|post-processor"),
        ("gpt2", "<|endoftext|>", "_token"),
        ("qwen2", "<|im_*|>", "chat template"),
        ("gemma", "<start_of_turn>", "chat template"),
    ],
)
def test_needed_tokens_are_not_dropped(recipe: str, pattern: str, reason: str, tmp_path: Path) -> None:
    folder = tiny.tokenizer_files(recipe, tmp_path / "model")
    with pytest.raises(UsageError, match=reason) as caught:
        dropped(folder, pattern)
    assert repr(pattern) in str(caught.value) and "must stay" in str(caught.value)


def test_what_nothing_needs_may_go(tmp_path: Path) -> None:
    folder = tiny.tokenizer_files("xglm", tmp_path / "xglm")
    assert dropped(folder, "<madeupword*>") == {f"<madeupword{i}>" for i in range(7)}
    folder = tiny.tokenizer_files("nllb", tmp_path / "nllb")
    gone = dropped(folder, "lang:*")
    assert "ron_Latn" not in gone and {"eng_Latn", "swh_Latn", "deu_Latn"} <= gone and len(gone) == 201


# ---- writing ----


def trimmed(folder: Path, out: Path, gone: frozenset[str], languages: tuple = (RO,)) -> tuple[Any, KeepSet]:
    """Writes the tokenizer with every second piece of text."""
    vocabulary = open_vocabulary(folder)
    unwanted = frozenset(vocabulary.ids[t] for t in gone)
    required = {**{i: "corpus" for i in vocabulary.ids.values() if i % 2}, **vocabulary.required()}
    keep = select(vocabulary, required, [], KeepRule(min_count=1), unwanted)
    out.mkdir()
    vocabulary.write(out, [keep], gone, languages)
    return vocabulary, keep


def check_reloaded(folder: Path, out: Path, vocabulary: Any, keep: KeepSet, gone: frozenset[str]) -> Any:
    """The reloaded tokenizer has the kept tokens under their new ids and no others. Returns it."""
    from transformers import AutoTokenizer

    old, new = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(out)
    assert type(old) is type(new)
    assert new.get_vocab() == {t: keep.new(i) for t, i in vocabulary.ids.items() if i in keep}
    assert len(new) == len(keep)
    assert not gone & set(new.get_vocab())
    for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        assert getattr(new, f"{role}_token") == getattr(old, f"{role}_token")
        if (i := getattr(old, f"{role}_token_id")) is not None:
            assert getattr(new, f"{role}_token_id") == keep.new(i)
    return new


@pytest.mark.parametrize("legacy", [False, True], ids=["5", "4"])
@pytest.mark.parametrize(
    "recipe", ["bert", "xlm-roberta", "deberta-v2", "albert", "gemma", "llama", "gpt2", "modernbert"]
)
def test_added_tokens_keep_their_roles(recipe: str, legacy: bool, tmp_path: Path) -> None:
    folder = tiny.tokenizer_files(recipe, tmp_path / "model", legacy=legacy)
    vocabulary, keep = trimmed(folder, tmp_path / "out", frozenset())
    check_reloaded(folder, tmp_path / "out", vocabulary, keep, frozenset())
    before, after = (json.loads((p / "tokenizer_config.json").read_text("utf-8")) for p in (folder, tmp_path / "out"))
    if legacy:
        assert after.pop("added_tokens_decoder") == {
            str(keep.new(int(i))): token for i, token in before.pop("added_tokens_decoder").items()
        }
        assert read_json(tmp_path / "out" / "special_tokens_map.json") == read_json(folder / "special_tokens_map.json")
    assert after == {**before, **({"unk_id": keep.new(before["unk_id"])} if "unk_id" in before else {})}


def test_the_id_of_unknown_text_in_the_configuration_is_mapped(tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "DebertaV2Tokenizer", "unk_id": 7})
    out = tmp_path / "out"
    out.mkdir()
    TokenizerConfig(tmp_path).write(out, KeepSet.of({3: "corpus", 7: "special"}, 9), frozenset(), [])
    assert read_json(out / "tokenizer_config.json")["unk_id"] == 1


@pytest.mark.parametrize("legacy", [False, True], ids=["5", "4"])
@pytest.mark.parametrize(
    ("patterns", "left"),
    [(["<extra_id_*>"], 0), ([f"<extra_id_{i}>" for i in range(3, 10)], 3), (["<extra_id_0>"], 9)],
    ids=["all", "some", "one"],
)
def test_sentinels_of_t5(patterns: list[str], left: int, legacy: bool, tmp_path: Path) -> None:
    folder = tiny.tokenizer_files("t5", tmp_path / "model", legacy=legacy)
    gone = dropped(folder, *patterns)
    assert len(gone) == 10 - left
    vocabulary, keep = trimmed(folder, tmp_path / "out", gone)
    new = check_reloaded(folder, tmp_path / "out", vocabulary, keep, gone)
    assert read_json(tmp_path / "out" / "tokenizer_config.json")["extra_ids"] == left
    assert sum(t.startswith("<extra_id_") for t in new.get_vocab()) == left


@pytest.mark.parametrize("legacy", [False, True], ids=["5", "4"])
@pytest.mark.parametrize(
    ("recipe", "languages", "source"),
    [
        ("nllb", (RO,), "ron_Latn"),
        ("nllb", (RO, EN), "eng_Latn"),
        ("mbart", (RO,), "ro_RO"),
        ("mbart", (RO, EN), "en_XX"),
        ("mbart50", (RO,), "ro_RO"),
        ("mbart50", (SW, EN), "en_XX"),
        ("mbart50", (SW,), "sw_KE"),
    ],
)
def test_language_codes_that_go(recipe: str, languages: tuple, source: str, legacy: bool, tmp_path: Path) -> None:
    folder = tiny.tokenizer_files(recipe, tmp_path / "model", legacy=legacy)
    gone = dropped(folder, "lang:*", languages=languages)
    vocabulary, keep = trimmed(folder, tmp_path / "out", gone, languages)
    new = check_reloaded(folder, tmp_path / "out", vocabulary, keep, gone)
    assert new.src_lang == source
    left = {t for t in vocabulary.added if language_code(t)} - gone
    assert source in left and all(is_code_of(t, languages) for t in left)
    ids = new("casa").input_ids
    assert new.convert_tokens_to_ids(source) in ids and new.eos_token_id in ids
    data = read_json(tmp_path / "out" / "tokenizer.json")
    inserted = {n: s["ids"] for n, s in data["post_processor"]["special_tokens"].items()}
    assert inserted == {n: [new.convert_tokens_to_ids(n)] for n in inserted} and source in inserted
    config = (tmp_path / "out" / "tokenizer_config.json").read_text(encoding="utf-8")
    assert not [t for t in gone if f'"{t}"' in config]


def test_no_code_of_m2m_100_can_go(tmp_path: Path) -> None:
    folder = tiny.tokenizer_files("m2m_100", tmp_path / "m2m")
    table = read_json(folder / "vocab.json")
    write_json(folder / "added_tokens.json", {f"__{c}__": len(table) + i for i, c in enumerate(("en", "ro", "sw"))})
    vocabulary = open_vocabulary(folder)
    gone = dropped(folder, "lang:*")
    assert {"__en__", "__sw__"} <= gone and "__ro__" not in gone
    keep = KeepSet.of(
        {i: "special" for t, i in vocabulary.spaces[0].ids.items() if t not in gone}, vocabulary.spaces[0].size
    )
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="M2M-100's tokenizer computes the ids of its language codes"):
        vocabulary.write(tmp_path / "out", [keep], gone, [RO])


def test_tokens_without_a_list_are_listed_once_some_are_dropped(tmp_path: Path) -> None:
    """Otherwise the class would add its own list again, dropped tokens included. What is not special is not listed."""
    tokens = ["<s>", "en_XX", "ro_RO", "<x>"]
    decoder = {str(i): {"content": t, "special": t != "<x>"} for i, t in enumerate(tokens)}
    config = {"tokenizer_class": "MBartTokenizer", "bos_token": "<s>", "added_tokens_decoder": decoder}
    write_json(tmp_path / "tokenizer_config.json", {**config, "tgt_lang": "en_XX"})
    out = tmp_path / "out"
    out.mkdir()
    keep = KeepSet.of(dict.fromkeys((0, 2, 3), "special"), 4)
    TokenizerConfig(tmp_path).write(out, keep, frozenset({"en_XX"}), [RO])
    assert read_json(out / "tokenizer_config.json") == {
        **config,
        "added_tokens_decoder": {"0": decoder["0"], "1": decoder["2"], "2": decoder["3"]},
        "extra_special_tokens": ["ro_RO"],
        "src_lang": "ro_RO",
        "tgt_lang": None,
    }
    assert [p.name for p in out.iterdir()] == ["tokenizer_config.json"], "a file that was not there was written"


def test_lists_and_tables_of_special_tokens_lose_the_dropped(tmp_path: Path) -> None:
    extra = {"image": "<image>", "gone": "<gone>"}
    write_json(tmp_path / "tokenizer_config.json", {"extra_special_tokens": extra})
    objects = [{"content": "<gone>", "lstrip": True}, {"content": "<stays>", "lstrip": True}, "<gone>", "<image>"]
    write_json(tmp_path / "special_tokens_map.json", {"additional_special_tokens": objects, "eos_token": "</s>"})
    write_json(tmp_path / "added_tokens.json", {"<gone>": 1, "<stays>": 2, "<image>": 4})
    config, out = TokenizerConfig(tmp_path), tmp_path / "out"
    assert config.listed() == ["<image>", "<gone>", "<stays>"] and config.named() == {"</s>": "eos_token"}
    out.mkdir()
    config.write(out, KeepSet.of(dict.fromkeys((0, 2, 4), "special"), 5), frozenset({"<gone>"}), [])
    assert read_json(out / "tokenizer_config.json") == {"extra_special_tokens": {"image": "<image>"}}
    assert read_json(out / "special_tokens_map.json") == {
        "additional_special_tokens": [objects[1], "<image>"],
        "eos_token": "</s>",
    }
    assert read_json(out / "added_tokens.json") == {"<stays>": 1, "<image>": 2}


# ---- reading ----


def test_special_tokens_are_texts_or_objects() -> None:
    assert content("<s>") == content({"content": "<s>", "lstrip": False}) == "<s>" and content(None) is None


def test_roles_and_templates_from_every_place(tmp_path: Path) -> None:
    templates = [{"name": "default", "template": "{{ a }}"}, {"name": "tools", "template": "<tool>"}]
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "BertTokenizerFast", "chat_template": templates})
    write_json(tmp_path / "special_tokens_map.json", {"pad_token": {"content": "<pad>"}, "mask_token": None})
    (tmp_path / "chat_template.jinja").write_text("<|im_start|>", encoding="utf-8")
    config = TokenizerConfig(tmp_path)
    assert config.class_name == "BertTokenizer"
    assert config.named() == {"<pad>": "pad_token"}
    assert config.chat_templates == ["{{ a }}", "<tool>", "<|im_start|>"]


@pytest.mark.parametrize(
    ("model", "message"),
    [({"type": "WordLevel", "vocab": {"a": 0}}, "of the kind WordLevel"), ({}, "of the kind unknown")],
)
def test_tokenizers_of_other_kinds_are_refused(model: dict, message: str, tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer.json", {"model": model, "added_tokens": []})
    with pytest.raises(PolydistillError, match=message):
        open_vocabulary(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match="has no tokenizer") as caught:
        open_vocabulary(tmp_path)
    assert "save_pretrained" in caught.value.hint


def test_a_bracket_may_be_written_as_a_shell_needs_it() -> None:
    tokens = ["[control_8]", "[control_9]", "control_8"]
    for pattern in ("[control_*]", "[[]control_*]"):
        assert sorted(matching([pattern], tokens, [])) == tokens[:2]
