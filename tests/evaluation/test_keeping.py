"""Scores are added to a folder's record, and none of them is lost when several processes do so at once."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from polydistill.errors import PolydistillError
from polydistill.records.record import RunRecord, Score

ADD = """
import sys
from pathlib import Path
from types import SimpleNamespace
from polydistill.evaluation.keeping import add_scores
from polydistill.progress import SILENT
from polydistill.records.record import Score
folder = Path(sys.argv[1])
subject = SimpleNamespace(
    resolved=SimpleNamespace(folder=folder, ref=SimpleNamespace(path=folder)), settings=SimpleNamespace(whole=True)
)
for i in range(40):
    add_scores(subject, [Score("m", f"{sys.argv[2]}-{i}", "ro", "test", "accuracy", 0.5, None, 10)], SILENT)
"""


def test_simultaneous_evaluations_keep_all_their_scores(tmp_path: Path) -> None:
    RunRecord("trim", {}, {}, [], {}).save(tmp_path)
    others = [subprocess.Popen([sys.executable, "-c", ADD, str(tmp_path), name]) for name in "abc"]
    assert [other.wait() for other in others] == [0, 0, 0]
    record = RunRecord.load(tmp_path)
    assert record is not None and all(isinstance(score, Score) for score in record.scores)
    assert sorted(score.task for score in record.scores) == sorted(f"{a}-{i}" for a in "abc" for i in range(40))
    assert [path.name for path in tmp_path.iterdir()] == ["polydistill.json"]


@pytest.mark.parametrize("name", [".polydistill.json.partial", ".polydistill.json.lock", "polydistill.json"])
def test_links_in_a_models_folder_lead_nowhere(name: str, tmp_path: Path) -> None:
    """A hostile folder cannot have another file written, emptied or made."""
    (folder := tmp_path / "model").mkdir()
    record = RunRecord("trim", {}, {}, [], {})
    record.save(folder)
    victim = tmp_path / "victim"
    if name == "polydistill.json":
        (folder / name).rename(victim)
    else:
        victim.write_text("years of work")
    before = victim.read_bytes()
    (folder / name).symlink_to(victim)
    if name == "polydistill.json":
        with pytest.raises(PolydistillError, match="leads out of"):
            RunRecord.load(folder)
    with suppress(OSError):
        record.save(folder)
    subprocess.run([sys.executable, "-c", ADD, str(folder), "a"], check=True)
    assert victim.read_bytes() == before
    victim.unlink()
    subprocess.run([sys.executable, "-c", ADD, str(folder), "a"], check=True)
    assert not victim.exists()
