"""What can be named in a spec, where it can be used, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

import pytest

from polydistill.cli import main
from polydistill.distill.listing import (
    ALIGNED,
    BISTIL,
    OBJECTIVES,
    PROJECTED,
    SAMPLERS,
    STACKED,
    TASK,
    TEACHERS,
    TEXT,
    TUNING,
    UNLABELLED,
    objectives,
    teachers,
)
from polydistill.errors import UsageError


def weights(given: list[str], phase: int) -> dict[str, float]:
    return {name: spec.weight for name, spec in objectives(given, BISTIL[str(phase)], BISTIL).items()}


@pytest.mark.parametrize(
    ("given", "first", "second"),
    [
        (["hidden=1", "logits=0.5"], {"hidden": 1.0}, {"hidden": 1.0, "logits": 0.5}),
        (["1:hidden=2", "hidden=1"], {"hidden": 2.0}, {"hidden": 1.0}),
        (["2:hidden=2"], {}, {"hidden": 2.0}),
        (["mlm=1", "labels=3e-1"], {"mlm": 1.0}, {"labels": 0.3}),
        ([" hidden = 1", "hidden=0"], {"hidden": 0.0}, {"hidden": 0.0}),
        (["hidden", "2:ps_kd:alpha=0.5"], {"hidden": 1.0}, {"hidden": 1.0, "ps-kd": 1.0}),
        ([], {}, {}),
    ],
)
def test_objectives_go_to_the_phases_that_can_use_them(
    given: list[str], first: Mapping[str, float], second: Mapping[str, float]
) -> None:
    assert weights(given, 1) == first and weights(given, 2) == second


def test_the_same_objective_may_have_other_options_in_each_phase() -> None:
    given = ["relations:heads=4", "2:relations=2:heads=8"]
    first, second = (objectives(given, BISTIL[phase], BISTIL)["relations"] for phase in "12")
    assert (first.weight, first.known["heads"]) == (1, 4) and (second.weight, second.known["heads"]) == (2, 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hiddn=1", "Unknown objective 'hiddn'. Did you mean hidden?"),
        ("nothing=1", "Known are hidden, attention"),
        ("3:hidden=1", "Unknown objective '3'"),
        (":hidden=1", "Unknown objective ''"),
        ("1:logits=1", "`logits` cannot be used in phase 1. It can be used in phase 2."),
        ("2:mlm=1", "`mlm` cannot be used in phase 2. It can be used in phase 1."),
        ("vectors", "`vectors` cannot be used in `polydistill bistil`. It is for stack."),
        ("1:vectors", "`vectors` cannot be used in phase 1. It is for stack."),
        ("alignment=1", "`alignment` cannot be used in `polydistill bistil`. It is for prokd-teacher."),
    ],
)
@pytest.mark.parametrize("phase", [1, 2])
def test_objectives_that_cannot_be_used_are_refused(given: str, message: str, phase: int) -> None:
    with pytest.raises(UsageError) as error:
        weights([given], phase)
    assert message in str(error.value) and error.value.hint


def test_teachers_are_folders_or_the_student_s_own_past() -> None:
    folders, own = teachers(["org/name", "tuned=2", "a=b/c", "past=0.5", "average:decay=0.9"], TASK)
    assert folders == [("org/name", 1.0), ("tuned", 2.0), ("a=b/c", 1.0)]
    assert list(map(str, own)) == ["past=0.5", "average=1:decay=0.9"]
    for given in ("tuned=0", "tuned=-1", "tuned=nan", "tuned=inf", "past=no", "average:speed=3"):
        with pytest.raises(UsageError) as error:
            teachers([given], TASK)
        assert error.value.hint
    with pytest.raises(UsageError, match="`past` cannot be used here"):
        teachers(["past"], UNLABELLED)


# --- `polydistill ls`


def rows_of(what: str, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    main(["ls", what, "--json"])
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)[what]}


def test_the_command_lists_all_with_options_defaults_and_papers(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows_of("objectives", capsys)
    assert set(found) == {one.name for one in OBJECTIVES}
    assert all(row["summary"] and row["source"] and row["uses"] for row in found.values())
    assert {use for row in found.values() for use in row["uses"]} == {  # type: ignore[attr-defined]
        *(TEXT, TASK, TUNING, ALIGNED, UNLABELLED, STACKED, PROJECTED)
    }
    temperature = found["logits"]["options"]["temperature"]  # type: ignore[index]
    assert temperature["default"] == 2.0 and "temperature" in temperature["help"].lower()
    assert found["logits"]["uses"] == ["bistil-2", "finetune", "prokd-student"]
    assert set(rows_of("samplers", capsys)) == {one.name for one in SAMPLERS} >= {"even", "size", "ddk", "rs2"}
    assert set(rows_of("teachers", capsys)) == {one.name for one in TEACHERS} == {"FOLDER", "past", "average"}
    main(["ls", "objectives"])
    table = capsys.readouterr().out
    assert "MiniLMv2 (2021)" in table and "temperature=2 squared=true form=cross-entropy" in table


@pytest.mark.parametrize("what", ["objectives", "samplers", "teachers"])
def test_every_option_is_explained(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    for row in rows_of(what, capsys).values():
        for about in row["options"].values():  # type: ignore[attr-defined]
            assert about["help"].endswith((".", "]"))


def test_listing_them_loads_no_torch() -> None:
    code = (
        "import sys; from polydistill.cli import main\n"
        "for what in ('objectives', 'samplers', 'teachers'): main(['ls', what, '-q'])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
