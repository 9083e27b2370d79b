"""`polydistill compare A-0,A-1 B-0,B-1`: methods, seed by seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runs import STUDENT, TEACHER, Model, right, run, score

from polydistill.cli import main


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of predictions."""
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(root: Path, cache: Path | None, name: str, patterns: list[str], **other: Any) -> str:
    """The runs of a method, one a seed, as an argument of the command."""
    files = []
    for i, pattern in enumerate(patterns):
        model = Model(f"{name}-{i}", f"{len(files)}{name}".ljust(64, "0"))
        files.append(
            run(root / f"{name}-{i}.json", [model], [score(model, "sw", right(pattern), cache=cache, **other)])
        )
    return ",".join(map(str, files))


def compared(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    main(["compare", *args, "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_means_over_seeds_by_hand(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plain: .5, .6, .4 of ten; text: .7, .7, .7. Differences .2, .1 and .3."""
    plain = write(tmp_path, cache, "plain", ["1111100000", "1111110000", "1111000000"])
    text = write(tmp_path, cache, "text", ["1111111000"] * 3)
    found = compared(capsys, plain, text)
    assert found["reference"] == "plain-*.json" and found["seeds"] == 3
    base, other = found["scores"]
    assert base["value"] == pytest.approx(0.5) and base["difference"] is None
    assert (other["value"], other["difference"]) == (pytest.approx(0.7), pytest.approx(0.2))
    assert other["retention"] == pytest.approx((0.7 / 0.5 + 0.7 / 0.6 + 0.7 / 0.4) / 3)
    low, high = other["difference_interval"]
    assert low < 0.2 < high and (low + high) / 2 == pytest.approx(0.2)
    main(["compare", plain, text])
    shown = capsys.readouterr().out
    assert "means over 3 seeds" in shown and "text-*.json" in shown


def test_without_predictions_there_are_no_intervals(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, text = write(tmp_path, cache, "plain", ["10", "11"]), write(tmp_path, None, "text", ["11", "11"])
    found = compared(capsys, plain, text)
    assert found["scores"][1]["difference"] == pytest.approx(0.25)
    assert found["scores"][1]["difference_interval"] is None
    assert "predictions of text-*.json are not in the cache here" in found["notes"][0]


def test_a_comma_in_a_name_is_one(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        run(tmp_path / name, [model], [score(model, "sw", right("1010"), cache=cache)])
        for name, model in (("a,b.json", TEACHER), ("c.json", STUDENT))
    ]
    assert compared(capsys, *map(str, files))["seeds"] == 1


def refused(capsys: pytest.CaptureFixture[str], code: int, *args: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["compare", *args])
    said = capsys.readouterr()
    assert stop.value.code == code and not said.out and "Traceback" not in said.err
    return said.err


def test_what_cannot_be_compared_seed_by_seed(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, text = write(tmp_path, cache, "plain", ["10", "11"]), write(tmp_path, cache, "text", ["11"] * 3)
    assert "they have 2 and 3 runs" in refused(capsys, 2, plain, text)
    assert "they have 2 runs" in refused(capsys, 2, plain)
    assert "There is no run" in refused(capsys, 1, plain, f"{plain.split(',')[0]},nowhere.json")
    both = [score(model, "sw", right("10"), cache=cache) for model in (TEACHER, STUDENT)]
    several = str(run(tmp_path / "several.json", [TEACHER, STUDENT], both))
    assert "has several models" in refused(capsys, 2, plain, f"{several},{several}")
    other = write(tmp_path, cache, "other", ["10", "11"], data="of another kind")
    elsewhere = write(tmp_path, cache, "elsewhere", ["10", "11"], split="dev")
    assert "no task, language and split in common" in refused(capsys, 1, plain, elsewhere)
    assert "measured on other data" in refused(capsys, 1, plain, other)
