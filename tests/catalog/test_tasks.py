"""The tasks' files: those that ship, and a user's own, from the file to its examples without any Python."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from polydistill import catalog
from polydistill.catalog.task import CLASSIFICATION, METRICS, MULTIPLE_CHOICE, PARQUET_BRANCH, TAGGING, HubSource, Task
from polydistill.cli import main
from polydistill.errors import PolydistillError, UsageError
from polydistill.labelled.sources import load_split

TASKS = catalog.tasks()


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLYDISTILL_DATA", raising=False)


def sources(entry: Task) -> list[HubSource]:
    return [*([entry.hub] if entry.hub else []), *entry.split_sources.values()]


def test_the_tasks_of_the_plan_ship() -> None:
    assert {entry.name for entry in TASKS} == {
        "americasnli",
        "belebele",
        "bitext",
        "classification",
        "conll2003",
        "masakhaner",
        "mlqa",
        "ner",
        "nli",
        "pos",
        "qa",
        "ronec",
        "sib200",
        "sts",
        "tydiqa-goldp",
        "wikiann",
        "xnli",
        "xquad",
    }
    assert {entry.kind for entry in TASKS} == set(METRICS)


@pytest.mark.parametrize("entry", TASKS, ids=lambda entry: entry.name)
def test_a_task_names_languages_that_exist_by_their_codes(entry: Task) -> None:
    assert entry.languages or entry.own
    for code in entry.languages:
        assert catalog.language(code).code == code


@pytest.mark.parametrize("entry", TASKS, ids=lambda entry: entry.name)
def test_a_tasks_labels_are_sane(entry: Task) -> None:
    if entry.own:
        assert not entry.labels and not sources(entry)  # whatever the user's files have
        return
    if entry.kind == CLASSIFICATION and not entry.pairs:
        assert len(entry.labels) == 7 and entry.labels[0] == "science/technology"
    elif entry.kind == CLASSIFICATION:
        assert entry.labels == ("entailment", "neutral", "contradiction")  # the ids of XNLI on the Hub
    if entry.kind == TAGGING:
        assert {"PER", "ORG", "LOC"} <= set(entry.entity_types)
        pairs = [label for kind in entry.entity_types for label in (f"B-{kind}", f"I-{kind}")]
        assert entry.labels == ("O", *pairs)  # complete, and in the order of the Hub's ids
        assert set(entry.not_scored) <= {"DATE", "MISC"}
    else:
        assert not entry.not_scored
    for source in sources(entry):
        assert set(source.types.values()) <= set(entry.entity_types)


@pytest.mark.parametrize("entry", TASKS, ids=lambda entry: entry.name)
def test_a_tasks_data_can_be_found(entry: Task) -> None:
    if entry.local is not None:
        assert set(re.findall(r"{\w*}", entry.local)) <= {"{lang}", "{split}"} and "{lang}" in entry.local
        assert "{split}" in entry.local or set(entry.local_splits) == {"test"}
        assert entry.local_languages or entry.any_language
    for source in sources(entry):
        assert re.fullmatch(r"[\w-]+/[\w-]+", source.dataset) and source.languages and source.splits
        assert source.revision is None or re.fullmatch(f"[0-9a-f]{{40}}|{PARQUET_BRANCH}", source.revision)
        assert set(source.columns) <= set(entry.fields)
    if entry.hub is not None:
        assert set(entry.hub.splits) <= {"train", "dev", "test"} and "test" in entry.hub.splits
    assert all(split in source.splits for split, source in entry.split_sources.items())


@pytest.mark.parametrize("entry", TASKS, ids=lambda entry: entry.name)
def test_a_task_says_where_it_comes_from(entry: Task) -> None:
    assert entry.licence and entry.description.endswith((".", "?"))
    if not entry.own:
        assert entry.citation and "\n" not in entry.citation
        assert entry.url and entry.url.startswith("https://")


def test_a_split_may_come_from_another_data_set() -> None:
    qa = catalog.task("qa")
    assert [qa.source(split).dataset for split in ("train", "dev", "test")] == [  # type: ignore[union-attr]
        "rajpurkar/squad",
        "rajpurkar/squad",
        "google/xquad",
    ]


def test_multiple_choice_is_listed_but_says_that_it_cannot_be_evaluated() -> None:
    belebele = catalog.task("belebele")
    assert belebele.kind == MULTIPLE_CHOICE and "not evaluated yet" in belebele.description
    with pytest.raises(PolydistillError, match="multiple choice, which cannot be evaluated yet"):
        load_split(belebele, catalog.language("ro"), "test")


def test_ls_tasks_lists_them_with_their_languages(capsys: pytest.CaptureFixture[str]) -> None:
    main(["ls", "tasks", "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["tasks"]}
    assert rows["americasnli"]["languages"] == ["ay", "gn", "qu"]
    assert {"gn", "ko", "qu", "sw", "ur"} <= set(rows["nli"]["languages"])
    assert rows["masakhaner"]["dataset"] is None and rows["qa"]["metric"] == "f1"


OWN = """
name = "weather"
description = "Is it about rain, sun or wind?"
kind = "classification"
metric = "accuracy"
labels = ["rain", "sun", "wind"]
local = "weather-{lang}-{split}.jsonl"
local_languages = { ro = "ron" }
"""


def test_adding_a_task_needs_no_python(tmp_path: Path) -> None:
    (tmp_path / "mine" / "tasks").mkdir(parents=True)
    (tmp_path / "mine" / "tasks" / "weather.toml").write_text(OWN)
    (tmp_path / "weather-ron-test.jsonl").write_text(
        '{"premise": "Plouă.", "hypothesis": "", "label": "Rain"}\n'
        '{"premise": "E soare.", "hypothesis": "", "label": "sun"}\n'
    )
    task = catalog.task("Weather", [tmp_path / "mine"])
    split = load_split(task, catalog.language("ron"), "test", data_dir=tmp_path)
    assert [(example.premise, example.label) for example in split.examples] == [("Plouă.", "rain"), ("E soare.", "sun")]
    assert split.where == str(tmp_path / "weather-ron-test.jsonl") and split.task == "weather"
    assert task.name not in {entry.name for entry in catalog.tasks()}
    with pytest.raises(UsageError, match="has no English"):
        load_split(task, catalog.language("en"), "test", data_dir=tmp_path)


def test_a_users_task_overrides_one_that_ships(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(OWN.replace('"weather"', '"xnli"'))
    assert catalog.task("xnli", [tmp_path]).labels == ("rain", "sun", "wind")
    assert len(catalog.tasks([tmp_path])) == len(TASKS)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"classification"', '"clasification"', "key 'kind' is 'clasification'"),
        ('"accuracy"', '"f1"', "key 'metric' is 'f1'"),
        ('labels = ["rain", "sun", "wind"]', "", "'labels' does not fit: .* needs labels"),
        ('"wind"]', '"Rain"]', "names a label twice"),
        ("{lang}", "xx", "key 'local' has no {lang}"),
        ("{split}", "{foo}", "key 'local' has braces other than {lang} and {split}. Write for instance ner/{lang}/"),
        ("{split}", "{0}", "has braces other than"),
        ("{split}", "{", "has braces other than"),
        ("{split}", "}", "has braces other than"),
        ("{split}", "{{split}}", "has braces other than"),
        ("{split}", "{split!r}", "has braces other than"),
        ("{split}", "{lang.__class__}", "has braces other than"),
        ("weather-{lang}", "/etc/{lang}", "key 'local' does not name a file in the data folder"),
        ("weather-{lang}", "../{lang}", "key 'local' does not name a file in the data folder"),
        ("weather-{lang}", "a**/{lang}", "key 'local' does not name a file in the data folder"),
        ('"ron" }', '"ron" }\n' + f"n = {'9' * 5000}", "is not valid TOML"),
        ('"ron" }', '"ron" }\n' + f"n = {'[' * 5000}", "is not valid TOML"),
        ('local = "weather-{lang}-{split}.jsonl"', "", "key 'local' is missing"),
        ("local_languages", "local_langages", "key 'local_langages' is unknown"),
        ("{ ro", "{ ro = 1, en", "key 'local_languages.ro' must be a string"),
        ('"classification"', '"span-extraction"', "key 'metric' is 'accuracy'"),
        ('"classification"\nmetric = "accuracy"', '"tagging"\nmetric = "f1"', "'labels' is not a set of IOB2 tags"),
        ('"classification"\nmetric = "accuracy"', '"span-extraction"\nmetric = "f1"', "has no labels"),
        ("labels = [", "own_labels = true\nlabels = [", "'own_labels' is only for labelled data in files"),
        ('"classification"\nmetric = "accuracy"', '"tagging"\nmetric = "f1"\npairs = false', "does not classify texts"),
        (
            '"ron" }',
            '"ron" }\n[hub]\ndataset = "a/b"\nconfig = "c"',
            "key 'hub.config' and language_column go together",
        ),
        ('"ron" }', '"ron" }\n[hub]\nrevision = "c"', "key 'hub.dataset' is missing"),
        (
            '"ron" }',
            '"ron" }\n[split_sources.dev]\ndataset = "a/b"\nsplit = "c"',
            "'split_sources.dev.split' is unknown",
        ),
    ],
)
def test_a_wrong_task_is_refused_by_its_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in OWN
    file = tmp_path / "weather.toml"
    file.write_text(OWN.replace(old, new))
    with pytest.raises(PolydistillError) as caught:
        Task.from_toml(file)
    assert (
        re.search(said.replace("{", "[{]"), str(caught.value))
        and "weather.toml" in caught.value.message
        and caught.value.hint
    )


def test_an_unknown_task_says_what_is_close() -> None:
    with pytest.raises(UsageError, match="Did you mean xnli"):
        catalog.task("xnly")
