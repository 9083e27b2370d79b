"""Loading with transformers: quietly, from a local folder, without running code from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polydistill.errors import PolydistillError


def load_tokenizer(folder: Path, hint: str = "Check the folder with that library.") -> Any:
    """The tokenizer that users get.

    Args:
        folder: A local snapshot.
        hint: The way out if it cannot be loaded.

    Raises:
        PolydistillError: transformers cannot load it.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise loading_failed(f"transformers cannot load the tokenizer of {folder}", error, hint) from error


def load_encoder(folder: Path, *, eager: bool = False) -> Any:
    """A model without a head, in float32; a pooler that the folder does not have is left out.

    Args:
        folder: A local snapshot.
        eager: Whether attention is computed the plain way, which alone gives its probabilities.

    Raises:
        PolydistillError: transformers cannot load it.
    """
    import torch
    from transformers import AutoModel

    try:
        with quiet_transformers():
            model, info = AutoModel.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, dtype=torch.float32,
                attn_implementation="eager" if eager else None, output_loading_info=True,
            )  # fmt: skip
    except Exception as error:
        raise loading_failed(f"transformers cannot load {folder}", error, "Choose another model.") from error
    if any(name.startswith("pooler.") for name in info["missing_keys"]):
        model.pooler = None  # it would be noise
    return model


def loading_failed(sentence: str, error: Exception, hint: str) -> PolydistillError:
    """A sentence with what a library said, on one line."""
    said = " ".join(str(error).split())[:300]
    return PolydistillError(f"{sentence} ({type(error).__name__}: {said}).", hint)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without the library's own messages and bars."""
    import transformers

    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
