"""Functions made from options: signatures, docstrings, and what is said of a wrong option."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import polydistill
from polydistill.errors import UsageError
from polydistill.options.functions import Extra, function
from polydistill.options.settings import Options, declared, group, setting
from polydistill.progress import SILENT, Progress


@dataclass(frozen=True)
class Speed(Options):
    lr: float = setting(1e-3, "A rate.", "Toy", above=0)


@dataclass(frozen=True)
class Grouped(Options):
    model: str
    text: tuple[str, ...] = setting((), "Texts.", "Toy", metavar="PATH")
    task: Speed = group(Speed, prefix="task")


SHOWN = ("bistil", "embed", "evaluate", "export", "finetune", "prokd", "publish", "sparse_train", "stack", "trim")


@pytest.mark.parametrize("name", SHOWN)
def test_a_function_shows_every_option_with_its_type_and_help(name: str) -> None:
    shown = getattr(polydistill, name)
    found = inspect.signature(shown).parameters
    assert shown.__name__ == name and "options" not in found and list(found)[-1] == "progress"
    for parameter in found.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert f"    {parameter.name}: " in shown.__doc__
    assert name == "publish" or found["output"].annotation == str | Path | None


@pytest.mark.parametrize(
    ("name", "arguments", "given", "said"),
    [
        ("trim", (), {"languags": ["ro"]}, "Did you mean `languages`?"),
        ("evaluate", ("m",), {"taks": "ner"}, "Did you mean `task`?"),
        ("embed", ("m", ["a"]), {"batchsize": 3}, "Did you mean `batch_size`?"),
        ("publish", ("f", "o/n"), {"dryrun": True}, "Did you mean `dry_run`?"),
        ("finetune", (), {"epoch": 3}, "Did you mean `epochs`?"),
        ("embed", ("m",), {}, "`texts` is missing"),
        ("embed", ("m", ["a"]), {"texts": ["a"]}, "`texts` is given twice"),
        ("publish", ("f",), {}, "`repository` is missing"),
        ("evaluate", ("m", "n"), {}, "Name the options"),
    ],
)
def test_what_is_wrong_with_a_call_is_said(name: str, arguments: Any, given: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        getattr(polydistill, name)(*arguments, **given)
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_arguments_that_are_no_options_reach_the_body() -> None:
    def body(options: Grouped, lines: list[str], progress: Progress) -> Any:
        return options, lines, progress

    made = function("toy", Grouped, body, summary="Do it.", returns=int, what="A number.", extra=LINES)
    options, lines, progress = made("m", ["a"], text="t.txt", task_lr=0.5)
    assert (options.model, options.text, options.task.lr, lines) == ("m", ("t.txt",), 0.5, ["a"]) and progress is SILENT
    assert made(lines=["b"], model="m")[1] == ["b"]
    assert list(inspect.signature(made).parameters) == ["model", "lines", *list(declared(Grouped))[1:], "progress"]


LINES = Extra("lines", list[str], "Some lines.")
