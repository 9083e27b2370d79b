"""Loading with transformers: quietly, from a local folder, without running code from it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polydistill.errors import PolydistillError, library_errors, loading_failed
from polydistill.models.folder import model_folder

LONGEST = 100_000  # some tokenizers say that they take 10^30 tokens
POSITIONS_AFTER_PADDING = ("roberta", "camembert", "mpnet", "xmod")  # they count positions from the padding id on


def load_tokenizer(folder: Path, hint: str = "Check the folder with that library.") -> Any:
    """The tokenizer that users get.

    Args:
        folder: A local snapshot.
        hint: The way out if it cannot be loaded.

    Raises:
        PolydistillError: It is broken, or transformers cannot load it.
    """
    from transformers import AutoTokenizer

    from polydistill.vocab import check_tokenizer_files

    check_tokenizer_files(folder)
    with library_errors(f"transformers cannot load the tokenizer of {folder}", hint):
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def load_config(folder: Path, **options: Any) -> Any:
    """The configuration of a model, with everything that its file leaves to its class.

    Args:
        folder: The part of a snapshot that has config.json.
        **options: What is set in it.

    Raises:
        PolydistillError: transformers cannot read it, or does not know such models.
    """
    from transformers import AutoConfig

    hint = "Check the folder with that library."
    with library_errors(f"transformers cannot read the config.json of {folder}", hint):
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **options)


def load_encoder(folder: Path, *, eager: bool = False) -> Any:
    """A model without a head, in float32; a pooler that the folder does not have is left out.

    Args:
        folder: A local snapshot.
        eager: Whether attention is computed without fused kernels, which is the only way to get its probabilities.

    Raises:
        PolydistillError: It is broken, or transformers cannot load it.
    """
    import torch
    from transformers import AutoModel

    try:
        with quiet_transformers():
            model, info = AutoModel.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                attn_implementation="eager" if eager else None,
                output_loading_info=True,
            )
    except Exception as error:
        raise loading_failed(f"transformers cannot load {folder}", error, "Choose another model.") from error
    if any(name.startswith("pooler.") for name in info["missing_keys"]):
        model.pooler = None  # it would be noise
    return model


def load_masked_lm(folder: Path, *, seed: int, eager: bool = False) -> tuple[Any, bool]:
    """A model that guesses masked tokens, in float32; what the folder lacks of the head is initialised from the seed.

    Args:
        folder: A local snapshot.
        seed: Of a new head.
        eager: Whether attention is computed without fused kernels, which is the only way to get its probabilities.

    Returns:
        (the model, whether some of its head is new).

    Raises:
        PolydistillError: transformers cannot load it with such a head, or it lacks more than the head.
    """
    import torch
    import transformers

    transformers.set_seed(seed)
    try:
        with quiet_transformers():
            model, info = transformers.AutoModelForMaskedLM.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                attn_implementation="eager" if eager else None,
                output_loading_info=True,
            )
    except Exception as error:
        hint = "Masked tokens need an encoder such as BERT, XLM-R or E5."
        raise loading_failed(f"transformers cannot load {folder} with a head for masked tokens", error, hint) from error
    missing, inside = sorted(info["missing_keys"]), f"{model.base_model_prefix}."
    if lost := [name for name in missing if name.startswith(inside)]:
        raise PolydistillError(
            f"{folder} does not have all weights of its model (it lacks {lost[0]}).",
            "Fetch or save the model again: what it lacks would begin as noise.",
        )
    return model, bool(missing)


def load_sentence_model(folder: Path) -> Any:
    """A `SentenceTransformer` as `open_sentence_model` gives it, which takes texts.

    Raises:
        PolydistillError: Also if it says that it takes nothing but conversations.
    """
    model = open_sentence_model(folder, "Choose an encoder, or a sentence-transformers folder.")
    if takes_only_conversations(model):
        raise PolydistillError(
            f"{folder} puts every text into its chat template, which is not rendered here.",
            "Take `message` out of modality_config in its sentence_bert_config.json to have texts read as they are.",
        )
    return model


def takes_only_conversations(model: Any) -> bool:
    """Whether a `SentenceTransformer` says that it puts every text into its chat template."""
    return "message" in getattr(model[0], "modality_config", ())


def open_sentence_model(folder: Path, hint: str) -> Any:
    """A `SentenceTransformer`, in float32, that reads text as it is: no chat template is rendered.

    sentence-transformers renders the template of a decoder around every text; a template is a program, and a stranger's
    may never end. It sees safetensors in the place of modules that are pickles; see `pickles`.

    Args:
        folder: A local snapshot; a bare encoder gets mean pooling.
        hint: The way out if it cannot be loaded.

    Raises:
        PolydistillError: sentence-transformers cannot load it, or a pickle holds anything but named tensors.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    from polydistill.models.pickles import without_pickles
    from polydistill.vocab import check_tokenizer_files

    check_tokenizer_files(model_folder(folder))
    try:
        with quiet_transformers(), without_pickles(folder) as place:
            model = SentenceTransformer(
                str(place),
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": torch.float32, "use_safetensors": True},
                processor_kwargs={"chat_template": None},
            )
    except PolydistillError:
        raise
    except Exception as error:
        raise loading_failed(f"sentence-transformers cannot load {folder}", error, hint) from error
    if model.tokenizer.pad_token is None:  # as that of many decoders
        model.tokenizer.pad_token = model.tokenizer.eos_token
    return model


def longest_input(tokenizer: Any, config: Any, wanted: int | None = None) -> int:
    """Most tokens of an input that tokenizer and position embeddings take, or `wanted` if that is less."""
    limit = int(min(tokenizer.model_max_length, positions_of(config)))
    return min(limit, wanted) if wanted else limit


def positions_of(config: Any) -> int:
    """Most tokens that position embeddings take; `LONGEST` where there is no limit."""
    positions = getattr(config, "max_position_embeddings", None)
    if not positions or positions < 0 or "deberta" in config.model_type:
        return LONGEST
    after_padding = any(name in config.model_type for name in POSITIONS_AFTER_PADDING)
    return int(min(LONGEST, positions - (1 + config.pad_token_id if after_padding else 0)))


def quiet_bitsandbytes() -> None:
    """Where it is installed, peft loads it, and it speaks of kernels and of every matrix."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


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
