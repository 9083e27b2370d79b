"""Tensors of a pickle, read without running it: modules of sentence-transformers come as pickles in older folders.

A pickle is a program. Its instructions are looked through first, without torch, and may call nothing but what puts
tensors together; then torch reads it with `weights_only`. Nothing else of a model is read from a pickle.
"""

from __future__ import annotations

import io
import pickletools
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polydistill.errors import PolydistillError, library_said
from polydistill.files.inside import files_below
from polydistill.files.jsonfiles import short
from polydistill.models.files import pickled

LARGEST = 512 << 20  # bytes; a matrix of 8,192 x 8,192 has half of it in float32
LARGEST_PROGRAM = 1 << 20  # bytes of the instructions of such a file; those of ten tensors are 1,000
ZIP = b"PK\x03\x04"
LEGACY_PROGRAMS = 5  # in a file of torch before 1.6: a number, a version, the system, the tensors, their order
ALLOWED = re.compile(
    r"collections\.OrderedDict|torch\._utils\._rebuild_(tensor_v2|parameter)|"
    r"torch\.(Float|Half|BFloat16|Double|Byte|Char|Short|Int|Long|Bool)Storage"
)
HINT = (
    "If you trust where it came from, load the folder once with sentence-transformers (SentenceTransformer) and write "
    "it with save_pretrained(ANOTHER_FOLDER)."
)


def check_pickle(file: Path) -> None:
    """Refuses a pickle that could do anything but put tensors together; nothing of it is run.

    Raises:
        PolydistillError: It could, is too large, or is none.
    """
    if (size := file.stat().st_size) > LARGEST:
        raise PolydistillError(f"{file} has {size >> 20:,} MiB; the limit for a pickle is {LARGEST >> 20} MiB.", HINT)
    try:
        called = set(_called(file))
    except Exception as error:  # whatever damaged instructions and archives raise
        raise PolydistillError(f"{file} is not a whole file of tensors as torch saves them.", HINT) from error
    if other := [name for name in called if not ALLOWED.fullmatch(name)]:
        raise PolydistillError(
            f"{file} is a pickle that calls {short(max(other))!a}, and not only tensors.",
            "It is not read, as it could run any code. Fetch the model from where it was made, or leave the file out.",
        )


def _called(file: Path) -> Iterator[str]:
    """The functions and classes that the instructions of a file name; what they compute names of is a name, too."""
    with file.open("rb") as stream:
        start = stream.read(LARGEST_PROGRAM)
        if not start.startswith(ZIP):
            if tarfile.is_tarfile(file):  # older versions of torch read them, in another way
                raise ValueError
            programs = io.BytesIO(start)
            for _ in range(LEGACY_PROGRAMS):
                yield from _names(programs)
            return
        with zipfile.ZipFile(stream) as archive:
            parts = archive.infolist()
            packed = [part for part in parts if part.compress_type != zipfile.ZIP_STORED]
            (program,) = (part for part in parts if part.filename.endswith((".pkl", ".pickle")))
            if packed or program.file_size > LARGEST_PROGRAM:
                raise ValueError
            yield from _names(io.BytesIO(archive.read(program)))


def _names(program: io.BytesIO) -> Iterator[str]:
    """What one program names."""
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            yield f"what it computes the name of ({opcode.name})"


def to_safetensors(file: Path, target: Path) -> None:
    """Writes the tensors of a pickle as safetensors.

    Args:
        file: A dictionary of tensors that torch saved.
        target: A file whose folder exists.

    Raises:
        PolydistillError: It holds anything else, or cannot be read.
    """
    import torch
    from safetensors.torch import save_file

    check_pickle(file)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise PolydistillError(f"torch cannot read {file} ({short(library_said(error))!a}).", HINT) from error
    if not isinstance(found, dict) or not all(
        type(name) is str and isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided
        for name, tensor in found.items()
    ):
        raise PolydistillError(f"{file} holds something other than named tensors.", HINT)
    if sum(tensor.numel() * tensor.element_size() for tensor in found.values()) > file.stat().st_size:
        raise PolydistillError(f"{file} describes larger tensors than it holds.", HINT)
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in found.items()}, target)


@contextmanager
def without_pickles(folder: Path) -> Iterator[Path]:
    """A sentence-transformers folder with safetensors where it has pickles: itself, or links and what was converted.

    Args:
        folder: A folder that `door.check_folder` has let in.

    Raises:
        PolydistillError: A pickle holds anything but named tensors.
    """
    converted = pickled(folder)
    if not converted:
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / folder.resolve().name
        for file in files_below(folder):
            target = copy / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if file in converted:
                to_safetensors(file, copy / converted[file])
            else:
                target.symlink_to(file.resolve())
        yield copy
