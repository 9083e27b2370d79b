"""Messages name settings as Python does, and the command line turns each into its flag; nothing else is touched."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import polydistill
from polydistill.cli import cli, main
from polydistill.cli.messages import with_flags
from polydistill.cli.output import Console
from polydistill.errors import PolydistillError, UsageError, library_errors, library_said, loading_failed
from polydistill.redaction import redacted

PACKAGE = Path(polydistill.__file__).parent


def context_of(*names: str) -> click.Context:
    """The context in which a command runs."""
    context = click.Context(cli, info_name="polydistill")
    for name in names:
        assert isinstance(context.command, click.Group)
        command = context.command.get_command(context, name)
        assert command is not None
        context = click.Context(command, parent=context, info_name=name)
    return context


@pytest.mark.parametrize(
    ("command", "text", "expected"),
    [
        ("trim", "Add `languages=sw`.", "Add --lang sw."),
        ("trim", "Add `languages=sw`.", "Add --lang sw."),
        ("finetune", "Add `languages=sw`.", "Add --lang sw."),
        ("trim", "`vocab_size` is too small.", "--vocab-size is too small."),
        ("trim", "Choose another `output`.", "Choose another -o."),
        ("trim", "Write `weight=ro=2`.", "Write --weight ro=2."),
        ("trim", "Leave `drop_added='lang:*'` out.", "Leave --drop-added 'lang:*' out."),
        ("trim", "Add `overwrite`.", "Add --overwrite."),
        ("trim", "Add `overwrite=True`.", "Add --overwrite."),
        ("trim", "Trim with `verify=False`.", "Trim with --no-verify."),
        ("trim", "Trim with `verify=True`.", "Trim with --verify."),
        ("evaluate", "`g_xlt` needs `languages`.", "--g-xlt needs --lang."),
        ("bistil", "`test_split=ro=none`", "--test-split ro=none"),
        ("bistil", "The `source` is the `target`.", "The SOURCE is the TARGET."),
        ("embed", "The `model` is no stack.", "The DIR is no stack."),
        ("plan", "Give a `model`.", "Give a --model."),
        ("prokd", "`freeze_embeddings=True` and `sources=es`", "--freeze-embeddings and --sources es"),
    ],
)
def test_a_setting_becomes_the_flag_that_the_command_declares(command: str, text: str, expected: str) -> None:
    assert with_flags(text, context_of(command)) == expected


def test_each_setting_of_each_command_becomes_a_flag_that_it_takes() -> None:
    def commands(context: click.Context) -> Iterator[click.Context]:
        if not isinstance(context.command, click.Group):
            yield context
            return
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            yield from commands(click.Context(command, parent=context))

    for context in commands(click.Context(cli)):
        for param in context.command.params:
            said = with_flags(f"`{param.name}`", context)
            argument = isinstance(param, click.Argument)
            assert said in ([param.human_readable_name] if argument else param.opts), param.name


def test_a_setting_of_another_command_becomes_its_flag() -> None:
    assert with_flags("Give text with `verify_text`.", context_of("embed")) == "Give text with --verify-text."
    assert with_flags("The `target` is unknown.", context_of("trim")) == "The `target` is unknown."  # an argument there


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Run `polydistill finetune task=ner`.", "Run `polydistill finetune --task ner`."),
        (
            "`polydistill stack ENCODER LLM stack=... task=nli`",
            "`polydistill stack ENCODER LLM --stack ... --task nli`",
        ),
        ("`polydistill trim drop_added='lang:*'`", "`polydistill trim --drop-added 'lang:*'`"),
        ("`polydistill trim languages=ro`", "`polydistill trim --lang ro`"),
        ("`polydistill trim verify=False languages=ro`", "`polydistill trim --no-verify --lang ro`"),
        ("`polydistill stack E L whole=True`", "`polydistill stack E L --whole`"),
        ("`polydistill sparse train language=sw`", "`polydistill sparse train --lang sw`"),
        ("`polydistill trim weight=ro=2`", "`polydistill trim --weight ro=2`"),
        ("`polydistill ls languages`", "`polydistill ls languages`"),
        ("`polydistill count`", "`polydistill count`"),
        ("`polydistill nothing languages=sw`", "`polydistill nothing languages=sw`"),
        ("`polydistill trim colour=red`", "`polydistill trim colour=red`"),
    ],
)
def test_a_whole_command_gets_its_own_flags(text: str, expected: str) -> None:
    assert with_flags(text, context_of("card")) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The objective `hidden_states` and `relations`.",
        "Log in with `hf auth login`, role `write`.",
        "Write `license: mit` or `scores = true`.",
        "languages=sw and max_length without backticks",
        "/data/`ls -l`/x `y z` ``` ` `` .txt",
        "`languages=`",
        "`overwrite=maybe`",
        "`overwrite=False`",  # no flag says it
        "`LANG`, `languages=a\nb`, `languages x`, `--lang`",
    ],
)
def test_anything_else_stays_as_it_is(text: str) -> None:
    assert with_flags(text, context_of("trim")) == text


def test_a_users_backtick_does_not_hide_a_setting() -> None:
    said = with_flags("a`b.txt cannot be read, give `text`; c`d", context_of("trim"))
    assert said == "a`b.txt cannot be read, give --text; c`d"


def test_what_a_library_said_names_no_settings() -> None:
    said = "set `max_length`,\n or `task`"
    assert library_said(ValueError(said)) == redacted(said) == "set 'max_length', or 'task'"
    assert library_said("x" * 400) == "x" * 300 and library_said("abc", limit=2) == "ab"
    failed = loading_failed("It cannot be loaded", ValueError(said), "Choose another `task`.")
    expected = "It cannot be loaded (ValueError: set 'max_length', or 'task'). Choose another --task."
    assert with_flags(str(failed), context_of("finetune")) == expected
    quotes = pytest.raises(PolydistillError, match=r"\(ValueError: set 'max_length', or 'task'\)")
    with quotes, library_errors("It cannot be loaded", ""):
        raise ValueError(said)


def test_every_message_that_quotes_an_exception_does_so_safely() -> None:
    loose = re.compile(r"\{(error|str\(error\))(!\w)?\}")
    ours = re.compile(r"out of reach \(\{error\}\)")  # OutOfReach: our own words
    found = [
        f"{file.relative_to(PACKAGE)}: {line.strip()}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.parent.name != "cli"
        for line in file.read_text(encoding="utf-8").splitlines()
        if loose.search(line) and not ours.search(line)
    ]
    assert found == []


def test_without_a_command_line_messages_stay_as_they_are() -> None:
    assert with_flags("Add `languages=sw`.") == "Add `languages=sw`."
    assert str(UsageError("No `task` was given.", "Add `task=ner`.")) == "No `task` was given. Add `task=ner`."


def run(*args: str | Path) -> int:
    """Exit code of a command in this process."""
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
        sys.exit(0)
    return int(stop.value.code or 0)


def test_errors_are_told_with_flags(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*args: object) -> None:
        raise PolydistillError("`vocab_size` is too small.", "See `polydistill trim min_count=2`.")

    monkeypatch.setattr("polydistill.cli.trim.trim", refuse)
    assert run("trim", "--lang", "ro") == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "Error: --vocab-size is too small.\nSee `polydistill trim --min-count 2`.\n")


def test_numbers_out_of_range_are_refused_with_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("trim", "--lang", "ro", "--pad-to-multiple", "0") == 2
    assert capsys.readouterr().err.startswith("Error: --pad-to-multiple must be at least 1 and ")


def test_notes_and_warnings_are_told_with_flags_and_json_keeps_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with context_of("trim"):
        console = Console(as_json=True)
        console.note("Add `languages=sw`.")
        console.warn("`verify=False` was given.")
        console.result({"notes": ["Add `languages=sw`."]}, lambda: "")
    out, err = capsys.readouterr()
    assert err == "Add --lang sw.\nWarning: --no-verify was given.\n"
    assert json.loads(out) == {"notes": ["Add `languages=sw`."]} and out.count("\n") == 1


def test_help_names_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("publish", "--help") == 0
    out = capsys.readouterr().out
    assert "With --onnx:" in out and "`onnx`" not in out


def test_the_mechanism_is_light() -> None:
    code = "import sys; import polydistill.cli.messages; print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
