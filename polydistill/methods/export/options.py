"""The options of `polydistill export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polydistill.options.groups import Place, Placed
from polydistill.options.settings import data_dir_setting, group, include_setting, seed_setting, setting


@dataclass(frozen=True)
class ExportOptions(Placed):
    """The options of an export."""

    model: str
    int8: bool = setting(False, "Write a second file with weights of 8 bits.", "Files")
    text: tuple[str, ...] = setting(
        (),
        "Text to compare the files with torch on. Repeat for several. [default: the task's data, else sentences of "
        "the package]",
        "Checks",
        metavar="PATH",
    )
    task: str = setting("", "Score torch and the files on a task.", "Scores", metavar="TASK")
    languages: tuple[str, ...] = setting(
        (), "Language of the task's data. Repeat for several.", "Scores", metavar="LANG"
    )
    split: str = setting("test", "Which part of the data.", "Scores", metavar="NAME")
    data_dir: Path | None = data_dir_setting("Scores")
    data: Path | None = setting(None, "A file of your own, as `evaluate` reads it.", "Scores", metavar="FILE")
    limit: int | None = setting(
        None,
        "Score only the first examples of each language; such scores are not among the record's.",
        "Scores",
        metavar="N",
        least=1,
    )
    max_length: int | None = setting(
        None, "Most tokens of an input that is scored. [default: as `evaluate` has it]", "Scores", metavar="N", least=16
    )
    prompt: str | None = setting(
        None,
        "Text put before every sentence (retrieval and similarity). [default: the model's own]",
        "Scores",
        metavar="TEXT",
    )
    seed: int = seed_setting("Seed for the bootstrap intervals.", "Checks")
    include_path: tuple[Path, ...] = include_setting("Files")
    place: Place = group(Place)
