"""One vocabulary for several models: the same ids in all of them, and refusals where that cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from polydistill.catalog import resolve_languages
from polydistill.distill.matched import (
    check_writable,
    plan_like,
    plan_together,
    same_vocabulary,
    trim_together,
    unknown_shares,
)
from polydistill.distill.student import chosen_layers, reduce_layers
from polydistill.errors import PolydistillError
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.trimming.counting import count
from polydistill.trimming.plan import Wishes, apply
from polydistill.vocab.counts import fertility
from polydistill.vocab.keep import KeepRule

WORD = "embeddings.word_embeddings.weight"
LANGUAGES = resolve_languages(("en", "sw"), ())


def opened(folder: Path) -> Source:
    return Source.open(resolve(ModelRef.parse(str(folder))))


def text(folder: Path, name: str, *languages: str, count: int = 60) -> Path:
    path = folder / f"{name}.txt"
    path.write_text("\n".join(tiny.sentences(*languages, count=count)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, one tuned from it (other weights, a head, the same tokenizer), and one with another tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    tiny.model_folder("bert", "base", folder / "base", tokenizer="xlm-roberta", config={"num_hidden_layers": 4})
    tiny.model_folder(
        "bert", "token-classification", folder / "tuned", tokenizer="xlm-roberta", config={"num_hidden_layers": 4}
    )
    tiny.model_folder("bert", "base", folder / "other", tokenizer="xlm-roberta", seed=1)
    for code in ("en", "sw"):
        text(folder, code, code)
    return folder


def counted(models: Path) -> Any:
    corpora = [f"{code}={models / code}.txt" for code in ("en", "sw")]
    return count(opened(models / "base").vocabulary, LANGUAGES, corpora)


def test_teacher_and_student_get_the_same_tokens_and_their_own_rows(models: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "base", tmp_path / "tuned"]
    for out in outs:
        out.mkdir()
    sources = [opened(models / "base"), opened(models / "tuned")]
    plans = trim_together(sources, counted(models), Wishes(LANGUAGES, KeepRule(min_share=1e-6)), outs)
    ids = plans[0].keeps[0].ids
    assert np.array_equal(ids, plans[1].keeps[0].ids) and len(ids) < sources[0].rows
    assert same_vocabulary(*outs) and not same_vocabulary(outs[0], models / "base")
    for source, out, name in zip(sources, outs, (WORD, f"bert.{WORD}"), strict=True):
        before, after = (load_file(folder / "model.safetensors")[name] for folder in (source.model, out))
        assert np.array_equal(before[ids], after)
    (tmp_path / "student").mkdir()
    reduce_layers(outs[1], chosen_layers(4, reduction=2), tmp_path / "student")
    assert same_vocabulary(outs[1], tmp_path / "student")


def test_a_token_stays_if_either_language_has_it_often_enough(models: Path) -> None:
    counts, source = counted(models), opened(models / "base")
    (chosen,) = plan_together([source], counts, Wishes(LANGUAGES, KeepRule(min_share=0.01)))
    found = [c.spaces["vocabulary"] / c.spaces["vocabulary"].sum() for c in counts.languages.values()]
    frequent = set(np.flatnonzero(np.maximum(*found) >= 0.01).tolist())
    alone = [set(np.flatnonzero(share >= 0.01).tolist()) for share in found]
    assert frequent <= set(chosen.keeps[0].ids.tolist()) and alone[0] - alone[1] and alone[1] - alone[0]


def test_a_token_that_only_the_second_model_needs_stays_for_both(models: Path, tmp_path: Path) -> None:
    second = shutil.copytree(models / "base", tmp_path / "second")
    config = json.loads((second / "config.json").read_text())
    wishes, counts = Wishes(LANGUAGES, KeepRule(min_share=0.05)), counted(models)
    (alone,) = plan_together([opened(models / "base")], counts, wishes)
    gone = next(i for i in range(opened(second).rows) if i not in alone.keeps[0])
    (second / "config.json").write_text(json.dumps({**config, "decoder_start_token_id": gone}))
    both = plan_together([opened(models / "base"), opened(second)], counts, wishes)
    assert all(gone in chosen.keeps[0] for chosen in both)
    (tmp_path / "out").mkdir()
    trim_together([opened(models / "base"), opened(second)][::-1], counts, wishes, [tmp_path / "out", tmp_path / "b"])
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["decoder_start_token_id"] == both[1].keeps[0].new(gone)


def test_a_row_without_a_token_that_only_the_second_model_needs_stays_for_both(models: Path, tmp_path: Path) -> None:
    size = tiny._ids("xlm-roberta", 0, 380)["length"]
    folders = [
        tiny.model_folder("bert", "base", tmp_path / name, tokenizer="xlm-roberta", rows=size + 4) for name in "ab"
    ]
    config = json.loads((folders[1] / "config.json").read_text())
    (folders[1] / "config.json").write_text(json.dumps({**config, "eos_token_id": size + 2}))
    outs = [tmp_path / "out-a", tmp_path / "out-b"]
    for out in outs:
        out.mkdir()
    wishes = Wishes(LANGUAGES, KeepRule(min_share=1e-6))
    plans = trim_together([*map(opened, folders)], counted(models), wishes, outs)
    (kept,) = {tuple(chosen.keeps[0].ids.tolist()) for chosen in plans}
    assert kept[-1] == size + 2
    assert json.loads((outs[1] / "config.json").read_text())["eos_token_id"] == len(kept) - 1
    like = plan_like(opened(folders[1]), opened(outs[1]), LANGUAGES)
    assert like is not None and tuple(like.keeps[0].ids.tolist()) == kept


def test_vocabularies_that_differ_are_refused(models: Path, tmp_path: Path) -> None:
    sources = [opened(models / "base"), opened(models / "other")]
    assert not same_vocabulary(models / "base", models / "other")
    outs = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(PolydistillError, match=r"The vocabularies of .*base and .*other differ") as caught:
        trim_together(sources, counted(models), Wishes(LANGUAGES, KeepRule(min_share=1e-6)), outs)
    assert caught.value.hint and caught.value.exit_code == 1 and not any(out.exists() for out in outs)
    with pytest.raises(PolydistillError, match="another tokenizer"):
        plan_together(sources[1:], counted(models), Wishes(LANGUAGES, KeepRule(min_share=1e-6)))


def test_a_teacher_is_cut_to_the_vocabulary_of_a_student(models: Path, tmp_path: Path) -> None:
    base, tuned, other = (opened(models / name) for name in ("base", "tuned", "other"))
    (tmp_path / "cut").mkdir()
    (tmp_path / "out").mkdir()
    (plan,) = trim_together([base], counted(models), Wishes(LANGUAGES, KeepRule(min_share=1e-6)), [tmp_path / "cut"])
    found = plan_like(tuned, opened(tmp_path / "cut"), LANGUAGES)
    assert found is not None and np.array_equal(found.keeps[0].ids, plan.keeps[0].ids)
    apply(found, tmp_path / "out")
    assert same_vocabulary(tmp_path / "out", tmp_path / "cut")
    before, after = (load_file(f / "model.safetensors")[f"bert.{WORD}"] for f in (tuned.model, tmp_path / "out"))
    assert np.array_equal(before[plan.keeps[0].ids], after)
    assert plan_like(other, opened(tmp_path / "cut"), LANGUAGES) is None  # other scores, or other tokens
    assert plan_like(opened(tmp_path / "cut"), tuned, LANGUAGES) is None  # there is no way back


def test_what_a_save_adds_to_a_tokenizer_is_no_difference(models: Path, tmp_path: Path) -> None:
    saved = shutil.copytree(models / "base", tmp_path / "saved")
    path = saved / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    cut = {"direction": "Right", "max_length": 64, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps({**data, "truncation": cut}), encoding="utf-8")
    assert same_vocabulary(models / "base", saved)
    data["model"]["vocab"][-1][1] -= 1.0  # another score is another tokenizer
    path.write_text(json.dumps(data), encoding="utf-8")
    assert not same_vocabulary(models / "base", saved)


# ---- a language that the tokenizer cannot write ----


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose WordPiece tokenizer knows Latin letters only."""
    folder = tiny.model_folder("bert", "base", tmp_path_factory.mktemp("english") / "m")
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    kept = [token for token in data["model"]["vocab"] if all(ord(c) < 0x250 for c in token)]
    gone = {token: i for token, i in data["model"]["vocab"].items() if token not in kept}
    for token, i in gone.items():  # the same number of rows, but nothing that a text could match
        del data["model"]["vocab"][token]
        data["model"]["vocab"][f"unused{i}"] = i
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return folder


def test_a_language_that_the_tokenizer_cannot_write_is_refused(english: Path, tmp_path: Path) -> None:
    source, languages = opened(english), resolve_languages(("en", "ru"), ())
    texts = {code: text(tmp_path, code, code) for code in ("en", "ru")}
    counts = count(source.vocabulary, languages, [f"{code}={path}" for code, path in texts.items()])
    shares = unknown_shares(source.vocabulary, counts)
    assert shares["en"] < 0.01 and shares["ru"] > 0.5
    with pytest.raises(PolydistillError, match=r"cannot write Russian: \d+% of the tokens") as caught:
        check_writable(source, counts, languages)
    assert "`allow_unknown`" in (caught.value.hint or "")
    check_writable(source, counts, languages, allow_unknown=True)
    check_writable(source, counts, languages[:1])


@pytest.mark.parametrize(("russian", "refused"), [(2, False), (30, True)])
def test_a_few_unknown_tokens_are_no_reason(russian: int, refused: bool, english: Path, tmp_path: Path) -> None:
    source, languages = opened(english), resolve_languages(("en",), ())
    lines = tiny.sentences("en", count=90) + tiny.sentences("ru", count=russian)
    path = tmp_path / "mixed.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    counts = count(source.vocabulary, languages, [str(path)])
    if refused:
        with pytest.raises(PolydistillError, match="cannot write English"):
            check_writable(source, counts, languages)
    else:
        assert unknown_shares(source.vocabulary, counts)["en"] > 0
        check_writable(source, counts, languages)


def test_the_share_is_what_reports_call_the_unknown_rate(english: Path, tmp_path: Path) -> None:
    source, lines = opened(english), tiny.sentences("en", "ru", "sw", count=40)  # too few for any to be held out
    path = tmp_path / "text.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    counts = count(source.vocabulary, resolve_languages(("en",), ()), [str(path)])
    space = source.vocabulary.spaces[0]
    unknown = frozenset(space.ids[t] for t in source.vocabulary.unknown() if t in space.ids)
    expected = fertility(space.encoders[0], lines, unknown).unknown_rate
    assert unknown_shares(source.vocabulary, counts)["en"] == pytest.approx(expected) and expected > 0
