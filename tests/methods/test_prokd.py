"""prokd: stages, what may be read, resuming, several sources, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from configs import finetune, finetune_config, prokd, prokd_config
from kills import Killed, Listener, loss_curves
from safetensors.numpy import load_file, save_file

import polydistill
from polydistill.catalog import language, task
from polydistill.cli import main
from polydistill.errors import PolydistillError
from polydistill.evaluation.heads import new_head
from polydistill.labelled.plain import words_of
from polydistill.methods.prokd import METHOD, tagging
from polydistill.methods.prokd.options import ProkdOptions
from polydistill.progress import SILENT
from polydistill.runs.plan import Plan
from polydistill.runs.result import Result
from polydistill.training.trainer import DevTrainer

NAMES = {"PER": ["Ana", "Ion", "Maria"], "LOC": ["Cluj", "Paris", "Nairobi"], "ORG": ["Acme", "Dacia", "Safaricom"]}
PLAIN = {
    "en": ["sees", "the", "red", "house", "in", "and", "with", "a", "letter"],
    "sw": ["anaona", "nyumba", "na", "barua", "mji", "kwa", "hii", "watu", "wote"],
    "es": ["ve", "la", "casa", "roja", "en", "y", "con", "una", "carta"],
}
SPLITS = (("train", 0, 48), ("dev", 7, 18), ("test", 30, 18))


def sentences(code: str, start: int, count: int) -> Iterator[list[tuple[str, str]]]:
    """A name among plain words; which is which can be learnt, and carries over to the other languages."""
    plain, kinds = PLAIN[code], list(NAMES)
    for i in range(start, start + count):
        words = [(plain[(i * 3 + j) % len(plain)], "O") for j in range(2 + i % 4)]
        yield [*words[:1], (NAMES[kinds[i % 3]][(i // 3) % 3], f"B-{kinds[i % 3]}"), *words[1:]]


def write_conll(path: Path, found: Iterator[list[tuple[str, str]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("".join(f"{w} {t}\n" for w, t in sentence) for sentence in found))


def write_data(root: Path) -> Path:
    for code in PLAIN:
        for split, start, count in SPLITS:
            write_conll(root / f"ner/{code}/{split}.conll", sentences(code, start, count))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(
        "bert",
        "base",
        tmp_path_factory.mktemp("base") / "base",
        tokenizer="xlm-roberta",
        config={"num_hidden_layers": 2},
    )


@pytest.fixture(scope="module")
def tuned(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that knows the names."""
    config = finetune_config(
        model=str(base),
        task="ner",
        languages=("en",),
        data_dir=data,
        epochs=12,
        lr=5e-3,
        batch_size=8,
        max_length=32,
        output=tmp_path_factory.mktemp("tuned") / "tuned",
    )
    return finetune(config).output


def short(tuned: Path, **options: Any) -> dict[str, Any]:
    """Options of a run of a few steps without a score."""
    return {"teacher": (str(tuned),), "limit": 16, "test_split": ("en=none", "sw=none"), **options}


@pytest.fixture(scope="module")
def plain(tuned: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a student, a teacher), all choices as they are by default."""
    root = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYDISTILL_CACHE", str(root / "cache"))
        student = prokd(config(data, root / "student", **short(tuned))).output
        trained = prokd(config(data, root / "teacher", **short(tuned, teacher_epochs=1, limit=32))).output
    return student, trained / "stages/teacher"


PROBABILITIES = "probabilities=1"
OF_STUDENT = (PROBABILITIES, "pseudo-labels=1:features=student")
WHOLE: dict[str, Any] = {"teacher_epochs": 2, "epochs": 2, "objective": ("alignment=1:warmup=0",)}


@pytest.fixture(scope="module")
def whole(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """All stages, from a bare model."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYDISTILL_CACHE", str(root / "cache"))
        return prokd(config(data, root / "whole", model=str(base), **WHOLE))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))


def config(data: Path, output: Path, **options: Any) -> ProkdOptions:
    values = {
        "data_dir": data,
        "output": output,
        "max_length": 32,
        "batch_size": 8,
        "teacher_lr": 5e-3,
        "lr": 1e-3,
        "epochs": 1,
        "student_from": "teacher" if "teacher" in options and "model" not in options else "encoder",
    }
    return prokd_config(**{**values, **options})


def weights(folder: Path) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in load_file(folder / "model.safetensors").items()}


def test_prokd_from_a_bare_model(whole: Result) -> None:
    result, out = whole, whole.output
    assert [stage["name"] for stage in result.stages] == ["teacher", "prototypes", "student"]
    teacher, _, student = result.stages
    assert set(teacher["loss"]["first"]) >= {"labels", "alignment", "target_drift", "target_PER", "target_O"}
    assert set(student["loss"]["first"]) == {"probabilities", "pseudo_labels", "changed", "entities"}
    assert teacher["steps"] == 12 and student["steps"] == 12
    assert result.facts["pseudo_labels"] is not None and 0 <= result.facts["pseudo_labels"]["changed"] <= 1
    assert result.facts["prototypes"][0]["classes"] == ["O", "PER", "ORG", "LOC"]
    assert sum(result.facts["prototypes"][0]["counts"]["source"]) == sum(len(s) for s in sentences("en", 0, 48))
    assert {score["language"] for score in result.scores} == {"en", "sw"}
    assert result.selection is not None and result.selection["languages"] == ["en"]
    from transformers import AutoModelForTokenClassification

    network = AutoModelForTokenClassification.from_pretrained(out)
    assert network.config.id2label[0] == "O" and not list(out.parent.glob(".whole*"))
    card = (out / "README.md").read_text()
    assert "reconstruction of ProKD" in card and "pseudo-labels=1:form=soft" in card
    record = json.loads((out / "polydistill.json").read_text())
    assert record["command"] == "prokd" and record["texts"][-1]["split"] == "words alone, tags not read"


def test_a_picture_of_both_languages_before_and_after(
    whole: Result, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = whole
    shutil.copytree(whole.output, tmp_path / "out")
    assert result.facts["picture"] is not None and set(result.facts["picture"]) == {"before", "after"}
    for plane in result.facts["picture"].values():
        assert 0 < plane["explained"] <= 1 and plane["classes"] == ["O", "PER", "ORG", "LOC"]
        tokens = {role: len(plane[role]["tokens"]) for role in ("source", "target")}
        assert tokens["source"] == 40 + 48 and tokens["target"] > 40  # 40 of O, 16 of each type
        assert len(plane["source"]["prototypes"]) == 4
    first, then = (result.facts["picture"][when]["target"]["tokens"] for when in ("before", "after"))
    assert [token[2] for token in first] == [token[2] for token in then] and first != then
    teacher = (str(tmp_path / "out/stages/teacher"),)
    other = prokd(config(data, tmp_path / "transfer", teacher=teacher, method="transfer")).output
    main(["compare", str(other), str(tmp_path / "out"), "--html", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text()
    assert "Prototypes of whole<" in page and "gold in en" in page
    assert page.count('id="prototypes-1-before-title"') == page.count('id="prototypes-1-after-title"') == 1
    assert page.count("PER, sw: prototype at") == 2
    record = json.loads((tmp_path / "out/polydistill.json").read_text())
    record["result"]["picture"]["after"]["target"]["tokens"][0][2] = 9  # a class that there is not
    (tmp_path / "out/polydistill.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit):
        main(["compare", str(other), str(tmp_path / "out"), "--html", str(tmp_path / "other.html")])
    assert "is damaged" in capsys.readouterr().err and not (tmp_path / "other.html").exists()


@pytest.mark.parametrize(
    ("method", "stages", "terms"),
    [
        ("transfer", [], None),
        ("tsl", ["prototypes", "student"], {"probabilities"}),
        ("selftrain", ["prototypes", "student"], {"probabilities", "pseudo_labels", "changed", "entities"}),
        ("prokd", ["prototypes", "student"], {"probabilities", "pseudo_labels", "changed", "entities"}),
    ],
)
def test_methods_on_a_given_teacher(
    method: str, stages: list[str], terms: set[str] | None, tuned: Path, data: Path, tmp_path: Path
) -> None:
    result = prokd(config(data, tmp_path / "out", teacher=(str(tuned),), method=method))
    assert [stage["name"] for stage in result.stages] == stages
    if terms is None:
        assert weights(tmp_path / "out") == weights(tuned) and len({s["model"] for s in result.scores}) == 1
        return
    assert set(result.stages[-1]["loss"]["first"]) == terms and weights(tmp_path / "out") != weights(tuned)
    assert {s["model"] for s in result.scores} == {str(tmp_path / "out"), str(tuned)}
    if method == "selftrain":
        assert result.stages[-1]["loss"]["first"]["changed"] == 0
        assert result.facts["pseudo_labels"] is not None and result.facts["pseudo_labels"]["changed"] is None


def test_a_given_teacher_is_trained_further_if_asked(tuned: Path, data: Path, tmp_path: Path) -> None:
    result = prokd(config(data, tmp_path / "out", **short(tuned, teacher_epochs=1)))
    assert [stage["name"] for stage in result.stages] == ["teacher", "prototypes", "student"]
    assert "alignment" in result.stages[0]["loss"]["first"]
    plain = prokd(config(data, tmp_path / "plain", **short(tuned, teacher_epochs=1, method="tsl")))
    assert set(plain.stages[0]["loss"]["first"]) == {"labels"}
    assert plain.stages[0]["steps"] == result.stages[0]["steps"]  # the same budget


@pytest.mark.parametrize(
    "options",
    [
        {"classes": "tag"},
        {"tokens": "all"},
        {"objective": ("logits=1:form=kl:temperature=2", "pseudo-labels=1")},
        {"objective": ("taid=1", "pseudo-labels=1")},
        {"objective": (PROBABILITIES, "pseudo-labels=1:form=hard")},
        {"objective": (PROBABILITIES, "pseudo-labels=1:features=student")},
        {"objective": (PROBABILITIES, "pseudo-labels=1:keep=0.5")},
        {"objective": (PROBABILITIES, "pseudo-labels=1:distance=euclidean")},
        {"objective": (PROBABILITIES, "pseudo-labels=1:rectify=no")},
        {"objective": (PROBABILITIES, "pseudo-labels=1:temperature=0.01")},
        {"objective": (PROBABILITIES, "pseudo-labels=0.1")},
        {"objective": (PROBABILITIES, "pseudo-labels=1:ramp=1")},
        {"layer": 1},
        {"freeze_layers": 1},
        {"freeze_embeddings": True},
    ],
    ids=lambda o: o.get("objective", tuple(o))[-1],
)
def test_every_choice_changes_the_student(
    options: dict[str, Any], plain: tuple[Path, Path], tuned: Path, data: Path, tmp_path: Path
) -> None:
    changed, usual = weights(prokd(config(data, tmp_path / "out", **short(tuned, **options))).output), weights(plain[0])
    assert changed != usual and changed.keys() == usual.keys()
    if "freeze_embeddings" in options or "freeze_layers" in options:
        before, name = weights(tuned), "bert.embeddings.word_embeddings.weight"
        assert changed[name] == before[name] != usual[name]
        lowest = "bert.encoder.layer.0.attention.self.query.weight"
        assert (changed[lowest] == before[lowest]) == ("freeze_layers" in options)


@pytest.mark.parametrize(
    "alignment", ["0.1", "1:temperature=1", "1:symmetric=yes", "1:confidence=0.9", "1:warmup=1", "1:momentum=0.5"]
)
def test_every_choice_changes_the_teacher(
    alignment: str, plain: tuple[Path, Path], tuned: Path, data: Path, tmp_path: Path
) -> None:
    options = short(tuned, teacher_epochs=1, limit=32, objective=(f"alignment={alignment}",))
    result = prokd(config(data, tmp_path / "out", **options))
    assert weights(result.output / "stages/teacher") != weights(plain[1])


def _numbers(result: Any) -> dict[str, Any]:
    """All that was measured on the way."""
    values = result.to_json()
    stages = [{k: v for k, v in stage.items() if k not in ("seconds", "folder")} for stage in values["stages"]]
    kept = ("prototypes", "pseudo_labels", "picture", "selection", "teacher_weights", "scores")
    scores = [{k: v for k, v in s.items() if k != "model"} for s in values["scores"]]
    return {**{k: values[k] for k in kept}, "stages": stages, "scores": scores}


def _with_cache(cache: Path, root: Path, output: Path, base: Path) -> Any:
    """A run that cannot read what another one has kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYDISTILL_CACHE", str(cache))
        return prokd(config(root, output, model=str(base), teacher_epochs=1, limit=24))


def test_gold_of_the_target_changes_nothing(base: Path, tmp_path: Path) -> None:
    """Tags of its training and dev data are shuffled, wrong and not even IOB2."""
    first, second = write_data(tmp_path / "a"), write_data(tmp_path / "b")
    for split in ("train", "dev"):
        path = second / f"ner/sw/{split}.conll"
        lines = path.read_text().splitlines()
        path.write_text("".join(f"{line.split()[0]} I-NONSENSE\n" if line else "\n" for line in lines))
    assert (first / "ner/sw/train.conll").read_text() != (second / "ner/sw/train.conll").read_text()
    results = [
        _with_cache(tmp_path / f"cache-{root.name}", root, tmp_path / f"out-{root.name}", base)
        for root in (first, second)
    ]
    assert _numbers(results[0]) == _numbers(results[1])
    assert weights(results[0].output) == weights(results[1].output)
    texts = [json.loads((r.output / "polydistill.json").read_text())["texts"][-1]["sha256"] for r in results]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_a_run_that_was_killed_goes_on_with_the_same_weights(
    stage: str, whole: Result, base: Path, data: Path, tmp_path: Path
) -> None:
    options = {"model": str(base), **WHOLE}
    with pytest.raises(Killed):
        prokd(config(data, tmp_path / "out", **options), Listener({"teacher": 2, "student": 6}[stage]))
    with pytest.raises(PolydistillError, match="`resume`"):
        prokd(config(data, tmp_path / "out", **options))
    resumed = prokd(config(data, tmp_path / "out", **options, resume=True))
    assert weights(tmp_path / "out") == weights(whole.output) and _numbers(resumed) == _numbers(whole)
    assert loss_curves(tmp_path / "out") == loss_curves(whole.output)
    teacher, student = (s["facts"]["head"] for s in resumed.stages if s["name"] in ("teacher", "student"))
    assert not teacher["kept"] and student == teacher  # both begin with the encoder and a new head


@pytest.mark.parametrize(
    ("tolerance", "kept", "kills"), [(0.0, 1, ()), (0.01, 2, (2, 1, 1)), (0.05, 4, (2, 1, 1)), (1.0, 5, ())]
)
def test_the_last_student_that_is_hardly_worse_is_kept(
    tolerance: float,
    kept: int,
    kills: tuple[int, ...],
    tuned: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also by a run that was stopped before, between and after the checkpoints that count."""
    scores = (0.85, 0.9, 0.895, 0.85, 0.87, 0.2)

    def scored(trainer: DevTrainer) -> Any:
        return lambda network: scores[trainer.state.global_step - 1]  # a step a check

    monkeypatch.setattr(DevTrainer, "_dev_score", property(scored, lambda trainer, value: None), raising=False)
    given = short(tuned, epochs=3, dev_tolerance=tolerance)
    for checks in (*kills, 1000):
        listener = Listener(checks)
        with pytest.raises(Killed) if checks < 1000 else nullcontext():
            result = prokd(config(data, tmp_path / "out", **given, resume=True), listener)
    stage = next(stage for stage in result.stages if stage["name"] == "student")
    assert [score for _, score in stage["facts"]["dev"]] == list(scores)
    assert (stage["facts"]["best_step"], stage["facts"]["best"]) == (kept + 1, scores[kept])
    assert (result.selection["step"], result.selection["value"]) == (kept + 1, scores[kept])


@pytest.mark.parametrize(
    ("model_type", "frozen"), [("distilbert", 1), ("albert", 0), ("deberta-v2", 1), ("t5", 1), ("gpt2", 1)]
)
def test_other_architectures(model_type: str, frozen: int, data: Path, tmp_path: Path) -> None:
    model = str(tiny.model_folder(model_type, "base", tmp_path / "model"))
    options = {
        "limit": 16,
        "teacher_epochs": 1,
        "objective": ("alignment=1:warmup=0",),
        "freeze_layers": frozen,
        "max_length": 64,
        "test_split": ("en=none", "sw=none"),
    }
    result = prokd(config(data, tmp_path / "out", model=model, **options))
    assert result.stages[0]["loss"]["last"]["alignment"] > 0
    if not frozen:
        with pytest.raises(PolydistillError, match="The layers of ALBERT models share one set"):
            prokd(config(data, tmp_path / "more", model=model, **{**options, "freeze_layers": 1}))


def test_several_sources(base: Path, data: Path, tmp_path: Path) -> None:
    given = {"model": str(base), "sources": ("es",), "teacher_epochs": 1, "limit": 24}
    equal = prokd(config(data, tmp_path / "equal", **given))
    assert [s["name"] for s in equal.stages] == ["teacher", "teacher-es", "prototypes", "student"]
    assert equal.facts["teacher_weights"] == [0.5, 0.5] and equal.selection is not None
    assert equal.selection["languages"] == ["en", "es"] and len(equal.facts["prototypes"]) == 2
    teachers = tuple(str(tmp_path / f"equal/stages/{name}") for name in ("teacher", "teacher-es"))
    options = {"sources": ("es",), "teacher": teachers, "weigh": "similarity", "limit": 24}
    similar = prokd(config(data, tmp_path / "similar", **options))
    a, b = (found["similarity"] for found in similar.facts["prototypes"])
    assert sum(similar.facts["teacher_weights"]) == pytest.approx(1) and a != b
    assert (similar.facts["teacher_weights"][0] > 0.5) == (a > b)


def test_the_student_begins_with_the_encoder_or_as_its_teacher(
    base: Path, tuned: Path, data: Path, tmp_path: Path
) -> None:
    """From the encoder its head is new and it is far from the teacher; as a copy of the teacher it is almost there."""
    runs = {
        begins: prokd(config(data, tmp_path / begins, **short(tuned, method="tsl", **options)))
        for begins, options in {"encoder": {"model": str(base)}, "teacher": {"student_from": "teacher"}}.items()
    }
    heads = {begins: run.stages[-1]["facts"]["head"] for begins, run in runs.items()}
    assert not heads["encoder"]["kept"] and not heads["teacher"]["new"]
    first = {begins: run.stages[-1]["loss"]["first"]["probabilities"] for begins, run in runs.items()}
    assert first["encoder"] > 4 * first["teacher"]
    told = "began as a copy of the teacher"
    assert [told in (run.output / "README.md").read_text() for run in runs.values()] == [False, True]
    with pytest.raises(PolydistillError, match="nothing says what the student begins with") as caught:
        prokd(config(data, tmp_path / "out", **short(tuned, student_from="encoder")))
    assert "`student_from=teacher`" in caught.value.hint


@pytest.mark.parametrize("combine", ["probabilities", "balance", "partition"])
def test_several_teachers_of_one_source(combine: str, tuned: Path, data: Path, tmp_path: Path) -> None:
    """Two teachers that are alike teach as one does, unless rows go to the student as it began."""
    twice = (str(tuned), str(tuned))
    options = {"method": "tsl", "student_from": "teacher", "combine": combine}
    result = prokd(config(data, tmp_path / "out", **{**short(tuned), **options, "teacher": twice}))
    assert result.facts["teacher_weights"] == [0.5, 0.5] and len(result.facts["prototypes"]) == 2
    alone = prokd(config(data, tmp_path / "alone", **short(tuned, method="tsl")))
    found, expected = (run.stages[-1]["loss"]["last"]["probabilities"] for run in (result, alone))
    assert combine == "partition" or found == pytest.approx(expected, rel=1e-3)
    trained = prokd(config(data, tmp_path / "more", **{**short(tuned, teacher_epochs=1), **options, "teacher": twice}))
    assert [stage["name"] for stage in trained.stages] == ["teacher", "teacher-2", "prototypes", "student"]


def test_a_second_round_learns_from_the_first_student(base: Path, tuned: Path, data: Path, tmp_path: Path) -> None:
    options = {**short(tuned), "model": str(base), "rounds": 2}
    result = prokd(config(data, tmp_path / "out", **options))
    names = ["prototypes", "student", "prototypes-2", "student-2"]
    assert [stage["name"] for stage in result.stages] == names
    assert weights(tmp_path / "out") != weights(tmp_path / "out/stages/student")
    with pytest.raises(Killed):
        prokd(config(data, tmp_path / "cut", **options), Listener(3))
    prokd(config(data, tmp_path / "cut", **options, resume=True))
    assert weights(tmp_path / "cut") == weights(tmp_path / "out")


def test_text_beside_a_split(tuned: Path, data: Path, tmp_path: Path) -> None:
    text = tmp_path / "sw.txt"
    text.write_text("\n".join(" ".join(w for w, _ in s) for s in sentences("sw", 0, 20)))
    options = {"text": (str(text),), "method": "tsl", "test_split": ("en=none", "sw=none")}
    found = [
        prokd(config(data, tmp_path / name, teacher=(str(tuned),), **options, **more)).facts["sentences"]["sw"]
        for name, more in {"text": {}, "both": {"unlabelled_split": "dev"}}.items()
    ]
    assert found[0] == 20 and found[1] > 20


def test_a_smaller_student_with_a_cut_vocabulary(base: Path, tuned: Path, data: Path, tmp_path: Path) -> None:
    """What `bistil` makes learns from a teacher with all layers and the whole vocabulary."""
    for code in ("en", "sw"):
        (tmp_path / f"{code}.txt").write_text("\n".join(" ".join(w for w, _ in s) for s in sentences(code, 0, 90)))
    text = [f"{code}={tmp_path / code}.txt" for code in ("en", "sw")]
    small = polydistill.bistil(
        "en",
        "sw",
        model=base,
        text=text,
        preset="smoke",
        steps=2,
        max_length=8,
        layers=1,
        precision="float32",
        output=tmp_path / "small",
    ).output
    given = short(tuned, model=str(small))
    result = prokd(config(data, tmp_path / "out", **given))
    assert [stage["name"] for stage in result.stages] == ["vocabulary", "prototypes", "student"]
    assert result.parameters["student"] < result.parameters["teacher"]
    record = json.loads((tmp_path / "out/polydistill.json").read_text())
    assert record["parent"]["command"] == "bistil" and record["result"]["teachers"] == [str(tuned)]
    own = prokd(config(data, tmp_path / "own", objective=OF_STUDENT, **given))
    assert weights(own.output) != weights(result.output)
    assert json.loads((tmp_path / "out/config.json").read_text())["num_hidden_layers"] == 1


def test_raw_text_in_words(tuned: Path, data: Path, tmp_path: Path) -> None:
    swahili = language("sw")
    line = 'Ng\'ombe wa "Ana" (Cluj) wana 3.5 kg... sivyo?'
    assert list(words_of(line, swahili)) == [
        "Ng'ombe",
        "wa",
        '"',
        "Ana",
        '"',
        "(",
        "Cluj",
        ")",
        "wana",
        "3.5",
        "kg",
        "...",
        "sivyo",
        "?",
    ]
    assert list(words_of("?! --", swahili)) == ["?", "!", "--"]
    text = tmp_path / "sw.txt"
    text.write_text("\n".join(" ".join(w for w, _ in s) + "." for s in sentences("sw", 0, 20)))
    result = prokd(config(data, tmp_path / "out", teacher=(str(tuned),), text=(str(text),)))
    assert result.facts["sentences"] == {"en": 48, "sw": 20}


def test_a_class_that_the_teacher_never_finds_is_said(base: Path, data: Path, tmp_path: Path) -> None:
    listener = Listener()
    prokd(config(data, tmp_path / "out", model=str(base), teacher_epochs=1, teacher_lr=1e-9, limit=16), listener)
    assert "stands in" in listener.said


@pytest.fixture(scope="module")
def without_org(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result, Listener]:
    """Data without an organisation, a run on it, and what it said."""
    root, listener = tmp_path_factory.mktemp("without"), Listener()
    write_data(root / "data")
    for code in ("en", "sw"):
        path = root / f"data/ner/{code}/train.conll"
        path.write_text(path.read_text().replace("B-ORG", "O"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYDISTILL_CACHE", str(root / "cache"))
        made = prokd(config(root / "data", root / "out", model=str(base), teacher_epochs=1), listener)
    return root / "data", made, listener


@pytest.mark.parametrize("objective", [(), OF_STUDENT], ids=["teacher", "student"])
def test_a_class_that_never_occurs(
    objective: tuple[str, ...], without_org: tuple[Path, Result, Listener], tmp_path: Path
) -> None:
    root, result, listener = without_org
    assert "English labels have no ORG" in listener.said
    given = {"teacher": (str(result.output / "stages/teacher"),), "objective": objective, "epochs": 2}
    whole = prokd(config(root, tmp_path / "whole", **given))
    with pytest.raises(Killed):
        prokd(config(root, tmp_path / "again", **given), Listener(2))
    prokd(config(root, tmp_path / "again", **given, resume=True))
    assert weights(tmp_path / "again") == weights(whole.output)
    for made in (result, whole):
        assert made.facts["prototypes"][0]["counts"]["source"][2] == 0
        assert all(value == value for stage in made.stages for value in stage["loss"]["last"].values())


def test_transfer_copies_the_model_and_nothing_else(base: Path, data: Path, tmp_path: Path) -> None:
    first = prokd(config(data, tmp_path / "first", model=str(base), teacher_epochs=1, limit=16)).output
    (first / "notes.txt").write_text("mine")
    result = prokd(config(data, tmp_path / "out", teacher=(str(first),), method="transfer"))
    there = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert weights(tmp_path / "out") == weights(first) and result.stages == ()
    assert {"config.json", "model.safetensors", "polydistill.json", "README.md", "tokenizer.json"} <= there
    assert not any(name.startswith("stages/") for name in there)


def test_labels_in_another_order_and_more_of_them(tuned: Path, data: Path, tmp_path: Path) -> None:
    """A teacher that also knows dates, its outputs in another order, teaches the same."""
    import numpy as np
    from safetensors.numpy import save_file

    other = shutil.copytree(tuned, tmp_path / "other")
    settings = json.loads((other / "config.json").read_text())
    names = [settings["id2label"][str(i)] for i in range(7)]
    order = [3, 0, 6, 1, 2, 5, 4]
    shuffled = ["B-DATE", "I-DATE", *(names[i] for i in order)]
    settings |= {"id2label": dict(enumerate(shuffled)), "label2id": {name: i for i, name in enumerate(shuffled)}}
    (other / "config.json").write_text(json.dumps(settings))
    tensors = load_file(other / "model.safetensors")
    for name, low in (("classifier.weight", 0), ("classifier.bias", -30)):  # it never says a date
        more = np.full((2, *tensors[name].shape[1:]), low, np.float32)
        tensors[name] = np.concatenate([more, tensors[name][order]])
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    results = [
        prokd(config(data, tmp_path / name, teacher=(str(teacher),), limit=16, dev_tolerance=0.0))
        for name, teacher in (("one", tuned), ("two", other))
    ]
    one, two = results
    assert (
        one.facts["prototypes"][0]["counts"] == two.facts["prototypes"][0]["counts"]
        and one.facts["pseudo_labels"] == two.facts["pseudo_labels"]
    )
    assert [s["value"] for s in one.scores] == [s["value"] for s in two.scores]
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(np.allclose(a[name], b[name], atol=1e-4) for name in a)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "magic"}, "`method=magic` is unknown"),
        ({"method": "transfer", "sources": ("es",)}, "has one teacher"),
        ({"teacher_epochs": 0}, "needs `teacher_epochs` above 0"),
        ({"seed": 2**32}, "`seed` must be at least 0 and at most 4,294,967,295, not 4,294,967,296"),
        ({"freeze_layers": 3}, "`freeze_layers=3` is too many"),
        ({"test_split": ("sw=more",)}, "There is no file"),
        ({"sources": ("en",)}, "English is named twice"),
        ({"sources": ("sw",)}, "Swahili is named twice"),
        ({"task": "nli"}, "has none"),
        ({"objective": ("alignment=1:temperature=0",)}, "`alignment`: 'temperature' must be at least 1e-06, not 0.0"),
        ({"objective": ("alignment=1:momentum=1",)}, "'momentum' must be at least 0 and at most 0.9999999, not 1.0"),
        ({"objective": ("hidden=1",)}, "`hidden` cannot be used in `polydistill prokd`"),
        ({"objective": ("probabilities=0",)}, "No objective of the student has a weight above 0"),
        ({"objective": ("pseudo-labels=1",), "method": "tsl"}, "`method=tsl` has no objective `pseudo-labels`"),
        ({"objective": ("alignment=1",), "method": "selftrain"}, "`method=selftrain` has no objective `alignment`"),
        ({"objective": ("probabilities=1",), "method": "transfer"}, "Direct transfer trains no student"),
        ({"layer": 3}, "`layer=3` is too high"),
        ({"teacher": ("a", "b", "c"), "sources": ("ro",)}, "2 source languages and 3 teachers"),
        ({"teacher": ("a",), "student_from": "teacher"}, "both say what the student begins with"),
        ({"student_from": "nothing"}, "`student_from=nothing` is unknown"),
        ({"combine": "mean"}, "`combine=mean` is unknown"),
        ({"rounds": 0}, "`rounds` must be at least 1"),
        ({"text": ("nowhere.txt",)}, "nowhere.txt"),
        ({"unlabelled_split": "more"}, "There is no file"),
        ({"test_split": ("ro=test",)}, "is for neither en nor sw"),
        ({"train_split": ("sw=train",)}, "`train_split=sw=train` is for none of the sources"),
        ({"dev_split": ("dev", "test")}, "one dev split of each source"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_makes_no_sense_is_refused(
    options: dict[str, Any], sentence: str, base: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(PolydistillError, match=sentence) as caught:
        prokd(config(data, tmp_path / "out", **{"model": str(base), **options}))
    assert caught.value.hint and not list(tmp_path.glob("*out*"))


def test_empty_text_and_text_without_spaces_are_refused(base: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(PolydistillError, match=r"empty\.txt holds no text"):
        prokd(config(data, tmp_path / "out", model=str(base), text=(str(tmp_path / "empty.txt"),)))
    (tmp_path / "th.txt").write_text("สวัสดี\n")
    thai = prokd_config(
        target="th", model=str(base), data_dir=data, text=(str(tmp_path / "th.txt"),), test_split=("th=none",)
    )
    with pytest.raises(PolydistillError, match=r"Thai is written without spaces.*`data_dir`"):
        prokd(thai)


def test_a_source_that_is_not_iob2_is_refused(base: Path, tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    path = root / "ner/en/train.conll"
    path.write_text(path.read_text().replace("B-", "I-", 1))
    with pytest.raises(PolydistillError, match=r"line 2.*IOB2"):
        prokd(config(root, tmp_path / "out", model=str(base)))


def test_other_tags_and_another_vocabulary_are_refused(tuned: Path, data: Path, tmp_path: Path) -> None:
    other = tiny.model_folder("bert", "base", tmp_path / "other", tokenizer="bert", config={"num_hidden_layers": 2})
    with pytest.raises(PolydistillError, match=r"vocabularies of .* differ"):
        prokd(config(data, tmp_path / "out", teacher=(str(tuned),), model=str(other)))
    settings = json.loads((tuned / "config.json").read_text())
    foreign = shutil.copytree(tuned, tmp_path / "foreign")
    names = [label.replace("PER", "DRUG") for label in settings["id2label"].values()]
    settings |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    (foreign / "config.json").write_text(json.dumps(settings))
    with pytest.raises(PolydistillError, match="DRUG"):
        prokd(config(data, tmp_path / "out", teacher=(str(foreign),)))


def test_what_is_no_teacher_is_refused(base: Path, tuned: Path, data: Path, tmp_path: Path) -> None:
    for epochs in (None, 0):
        with pytest.raises(PolydistillError, match="has no head for tags"):
            prokd(config(data, tmp_path / "out", teacher=(str(base),), teacher_epochs=epochs))
    with pytest.raises(PolydistillError, match="Leave `model` out"):
        prokd(config(data, tmp_path / "out", teacher=(str(tuned),), model=str(base), method="transfer"))
    lower = tiny.model_folder("bert", "base", tmp_path / "l", tokenizer="xlm-roberta", config={"num_hidden_layers": 1})
    new_head(lower, "tagging", task("ner").labels, seed=0).network.save_pretrained(lower)
    with pytest.raises(PolydistillError, match="not built alike"):
        prokd(config(data, tmp_path / "out", teacher=(str(tuned), str(lower)), sources=("es",)))
    assert not list(tmp_path.glob("*out*"))


def test_what_has_read_labels_of_the_target_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    both = finetune(
        finetune_config(
            model=str(base),
            task="ner",
            languages=("en", "sw"),
            data_dir=data,
            epochs=1,
            limit=8,
            max_length=32,
            output=tmp_path / "both",
        )
    ).output
    for given in ({"teacher": (str(both),)}, {"model": str(both), "teacher_epochs": 1}):
        with pytest.raises(PolydistillError, match="labels of Swahili, which is to have none"):
            prokd(config(data, tmp_path / "out", **given))


def test_each_source_may_have_splits_of_its_own(base: Path, data: Path, tmp_path: Path) -> None:
    root = shutil.copytree(data, tmp_path / "data")
    for split in ("train", "dev"):
        (root / f"ner/es/{split}.conll").rename(root / f"ner/es/{split}_es.conll")
    given = {"model": str(base), "sources": ("es",), "teacher_epochs": 1, "limit": 8}
    splits = {
        "train_split": ("train", "es=train_es"),
        "dev_split": ("es=dev_es",),
        "test_split": ("en=none", "sw=none"),
    }
    result = prokd(config(root, tmp_path / "out", **given, **splits))
    assert result.selection is not None and result.selection["split"] == "dev, dev_es"


def test_a_teacher_that_finds_nothing_is_said_to(tuned: Path, data: Path, tmp_path: Path) -> None:
    blind, listener = shutil.copytree(tuned, tmp_path / "blind"), Listener()
    state = load_file(blind / "model.safetensors")
    state["classifier.bias"] = np.array([1e3, *[0.0] * (len(state["classifier.bias"]) - 1)], np.float32)
    save_file(state, blind / "model.safetensors", metadata={"format": "pt"})
    result = prokd(config(data, tmp_path / "out", **{**short(tuned), "teacher": (str(blind),)}), listener)
    assert "finds no entity at all in the Swahili text" in listener.said
    assert result.facts["pseudo_labels"] is not None and result.facts["pseudo_labels"]["share_entity"] == 0
    assert result.facts["prototypes"][0]["similarity"] < 0.5  # only O has a prototype


def test_prototypes_of_much_text_are_means_over_a_part_of_it(
    tuned: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prokd(config(data, tmp_path / "whole", **short(tuned))).facts["prototypes"][0]["counts"]
    monkeypatch.setattr(tagging, "OBSERVED", 5)  # every fourth of 16
    part = prokd(config(data, tmp_path / "part", **short(tuned))).facts["prototypes"][0]["counts"]
    assert all(0 < sum(part[role]) < 0.4 * sum(whole[role]) for role in ("source", "target"))


def test_words_without_spaces_come_from_the_data(tuned: Path, data: Path, tmp_path: Path) -> None:
    root = shutil.copytree(data, tmp_path / "data")
    write_conll(root / "ner/zh/train.conll", ([("安娜", "B-PER"), ("看", "O"), ("房子", "O")] for _ in range(4)))
    options = {**short(tuned), "test_split": ("en=none", "zh=none"), "epochs": 1, "data_dir": root, "max_length": 32}
    options["student_from"] = "teacher"
    result = prokd(prokd_config(target="zh", output=tmp_path / "out", **options))
    assert result.facts["sentences"]["zh"] == 4
    (root / "ner/zh/train.conll").write_text("\n\n")
    with pytest.raises(PolydistillError, match="no sentence"):
        prokd(prokd_config(target="zh", output=tmp_path / "more", **options))


def test_options_that_change_nothing_are_said(tuned: Path, data: Path, tmp_path: Path) -> None:
    listener = Listener()
    options = {"objective": ("alignment=2",), "weigh": "similarity", "limit": 16}
    prokd(config(data, tmp_path / "out", teacher=(str(tuned),), **options), listener)
    assert "`weigh` changes nothing: there is one teacher" in listener.said
    assert "`teacher_lr` changes nothing: no teacher is trained" in listener.said
    assert "prototypes are not aligned" in listener.said
    assert "were not aligned" in (tmp_path / "out/README.md").read_text()
    listener = Listener()
    options = {"text": ("nowhere.txt",), "classes": "tag", "freeze_embeddings": True, "limit": 16}
    options |= {"precision": "bfloat16", "max_minutes": 5.0}
    result = prokd(config(data, tmp_path / "same", teacher=(str(tuned),), method="transfer", **options), listener)
    assert "`text` changes nothing: no sentence of the target is read" in listener.said
    assert "`classes` changes nothing: there are no prototypes" in listener.said
    idle = "`freeze_embeddings` and `batch_size` and `precision` and `max_minutes`"
    assert f"{idle} change nothing: nothing is trained" in listener.said
    assert not {"objective", "classes", "lr"} & result.settings.keys()


def test_the_plan_says_which_stages_there_are_and_how_long_each_may_take(
    base: Path, tuned: Path, data: Path, tmp_path: Path
) -> None:
    """Teachers and student share the minutes by their epochs; a given teacher that is transferred needs no stage."""

    def plan(**options: Any) -> Plan:
        return METHOD.prepare(config(data, tmp_path / "out", **options), SILENT)

    made = plan(model=str(base), teacher_epochs=2, sources=("es",))
    names = ["teacher", "teacher-es", "prototypes", "student"]
    assert [(stage.name, stage.share) for stage in made.stages] == list(zip(names, (2, 2, 0, 1), strict=True))
    assert [stage.needs for stage in made.stages] == [tuple(names[:i]) for i in range(4)]
    assert made.languages == ("en", "es", "sw") and made.settings["max_length"] == 32 and made.settings["aligned"]
    assert not made.others and made.scoring is not None and made.scoring.loyalty
    given = plan(teacher=(str(tuned),))
    assert [stage.name for stage in given.stages] == ["prototypes", "student"] and len(given.warnings) == 1
    transferred = plan(teacher=(str(tuned),), method="transfer")
    assert transferred.stages == () and transferred.warnings == ()
    assert {"precision", "max_minutes", "batch_size"} <= transferred.idle.keys()
    assert "precision" not in transferred.settings and made.settings["precision"] == "float32"
    assert [stage.name for stage in plan(model=str(base), method="transfer").stages] == ["teacher"]
    assert not (tmp_path / "out").exists()


def test_every_option_that_may_change_nothing_is_one(tuned: Path, data: Path, tmp_path: Path) -> None:
    options = config(data, tmp_path / "out", teacher=(str(tuned),), method="transfer")
    assert METHOD.prepare(options, SILENT).idle.keys() <= options.values().keys()


def test_an_alignment_can_be_switched_off(tuned: Path, data: Path, tmp_path: Path) -> None:
    options = {**short(tuned), "teacher_epochs": 1, "objective": ("alignment=0",)}
    plan = METHOD.prepare(config(data, tmp_path / "out", **options), SILENT)
    assert not plan.settings["aligned"]
    assert [text.partition(":")[0] for text in plan.settings["objective"]] == ["probabilities=1", "pseudo-labels=1"]


def test_transfer_needs_no_text(tuned: Path, data: Path, tmp_path: Path) -> None:
    root = shutil.copytree(data, tmp_path / "data")
    (root / "ner/sw/train.conll").unlink()
    result = prokd(config(root, tmp_path / "out", teacher=(str(tuned),), method="transfer"))
    assert result.scores and result.facts["sentences"]["sw"] == 0
    (root / "ner/sw/test.conll").unlink()
    with pytest.raises(PolydistillError, match=r"`test_split=sw=none`"):
        prokd(config(root, tmp_path / "more", teacher=(str(tuned),), method="transfer"))


def test_the_command(tuned: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        "prokd",
        "en",
        "sw",
        "--teacher",
        str(tuned),
        "--student-from",
        "teacher",
        "--data-dir",
        str(data),
        "--preset",
        "smoke",
        "--max-length",
        "32",
        "-o",
        str(tmp_path / "out"),
    ]
    main([*given, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["command"] == "prokd" and set(result["pseudo_labels"]) >= {"changed", "share_entity"}
    main([*given, "--overwrite"])
    shown = capsys.readouterr().out
    assert "pseudo_labels" in shown and "prototypes changed" in shown
    with pytest.raises(SystemExit) as caught:
        main([*given])
    assert caught.value.code == 1 and "--overwrite" in capsys.readouterr().err
