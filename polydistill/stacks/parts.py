"""The two models of a stack: an encoder that only reads, and an LLM that sees its whole input at once."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polydistill.devices import current
from polydistill.errors import PolydistillError
from polydistill.models.folder import model_folder
from polydistill.models.loading import (
    POSITIONS_AFTER_PADDING,
    load_config,
    loading_failed,
    quiet_bitsandbytes,
    quiet_transformers,
)

INT8 = "int8"  # matrices in 8 bits (Dettmers et al. 2022, arXiv 2208.07339); the rest in float32
FROZEN = {"float32": torch.float32, "bfloat16": torch.bfloat16, INT8: torch.float32}
SEES = 1e-6  # a change of the first position's state above this is no rounding


def open_encoder(folder: Path, dtype: str = "float32", *, half: bool = False) -> Any:
    """A multilingual encoder, frozen: a bidirectional model, or the encoder half of an encoder-decoder.

    Args:
        folder: A local snapshot.
        dtype: Of its weights, a key of `FROZEN`.
        half: Whether the folder holds that half alone.

    Raises:
        PolydistillError: It cannot be loaded, or reads from left to right.
    """
    network, config = _load(folder, dtype, _half_class(folder) if half else None)
    if half:
        pass
    elif config.is_encoder_decoder:
        network = network.get_encoder()
    elif not _sees_ahead(network):
        raise PolydistillError(
            f"{folder} is a decoder: its states do not see what follows.",
            "Give an encoder such as XLM-R, e5, NLLB or mT5 first, and the LLM second.",
        )
    return network.requires_grad_(False).eval()


def open_llm(folder: Path, dtype: str = "float32") -> Any:
    """An LLM, frozen, without head or pooler, in which each position sees all others.

    Its own dropout is turned off: its vectors, which are to be learnt, have none. Decoder-only models are run so by the
    `is_causal` of their configuration, which transformers reads when it makes masks; that it does is looked at here,
    with a change of the last position that the first one has to notice.

    Args:
        folder: A local snapshot.
        dtype: Of its weights, a key of `FROZEN`.

    Raises:
        PolydistillError: It cannot be loaded, is an encoder-decoder, takes no vectors, or does not see ahead.
    """
    network, config = _load(folder, dtype, config=_without_dropout(folder))
    if config.is_encoder_decoder:
        raise PolydistillError(
            f"{folder} is an encoder-decoder, which cannot be the LLM of a stack.",
            "Give a decoder-only model (Llama, Qwen, Gemma, GPT-2) or an encoder of the BERT family.",
        )
    network = getattr(network, "language_model", network)  # beside a part that sees pictures
    if "inputs_embeds" not in inspect.signature(network.forward).parameters:
        raise PolydistillError(
            f"{folder} takes only token ids, not vectors (its model has no `inputs_embeds`).", "Give another LLM."
        )
    network.config.is_causal, network.config.use_cache = False, False
    if not _sees_ahead(network):
        raise PolydistillError(
            f"{folder} still reads only from left to right.",
            "The installed transformers does not run this architecture in both directions; give another LLM.",
        )
    return network.requires_grad_(False).eval()


def input_width(llm: Any) -> int:
    """Width of the vectors that an LLM takes; that of its embeddings, which can be less than its states'."""
    return int(llm.get_input_embeddings().weight.shape[1])


def states_width(network: Any) -> int:
    """Width of the last hidden states."""
    return int(network.config.get_text_config().hidden_size)


def add_lora(llm: Any, rank: int, alpha: int, dropout: float) -> Any:
    """Wraps an LLM so that only low-rank updates of its linear layers are trained (Hu et al. 2021, arXiv 2106.09685).

    Args:
        llm: From `open_llm`.
        rank: Of the updates.
        alpha: They count `alpha / rank` times.
        dropout: On their input.
    """
    quiet_bitsandbytes()
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in llm.modules()),
    )
    with warnings.catch_warnings():  # peft asks transformers for what that calls by another name now
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(llm, config)


def without_embeddings(llm: Any) -> Any:
    """The LLM with hardly a row of its embedding matrix, which vectors as input make useless.

    Returns:
        The same module, changed.
    """
    config = llm.config.get_text_config()
    counts = any(name in config.model_type for name in POSITIONS_AFTER_PADDING)  # positions, from the padding id on
    padding = config.pad_token_id if counts else None
    rows = 1 if padding is None else padding + 1
    with quiet_transformers(), torch.random.fork_rng(devices=[]):  # what is random after it stays as it was
        llm.resize_token_embeddings(rows, mean_resizing=False)
    for part in (llm.config, config):
        part.vocab_size, part.pad_token_id = rows, padding
        part.bos_token_id = part.eos_token_id = None
    return llm


def on_device(network: nn.Module) -> nn.Module:
    """The network where torch computes."""
    return network.to(current())


def _half_class(folder: Path) -> Any:
    """The class of an encoder-decoder's encoder, which no Auto class knows."""
    import transformers

    config = load_config(folder)
    config.is_encoder_decoder = True
    with torch.device("meta"), quiet_transformers():
        return type(transformers.AutoModel.from_config(config, trust_remote_code=False).get_encoder())


def _eight_bits() -> dict[str, Any]:
    """What makes transformers load matrices in 8 bits.

    Raises:
        PolydistillError: bitsandbytes, which does it, is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PolydistillError(
            "Weights in 8 bits need the package bitsandbytes.",
            "Install it (pip install 'polydistill[int8]'), or use `frozen=bfloat16`.",
        )
    quiet_bitsandbytes()
    from transformers import BitsAndBytesConfig

    return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True), "device_map": {"": current()}}


def _without_dropout(folder: Path) -> Any:
    """The configuration of a folder with every dropout at 0."""
    config = load_config(model_folder(folder))
    for name, value in vars(config).items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def _load(folder: Path, dtype: str, loader: Any = None, **options: Any) -> tuple[Any, Any]:
    """(the bare model without a pooler, its configuration)."""
    from transformers import AutoModel

    if dtype == INT8:
        options |= _eight_bits()

    def load(seed: int) -> tuple[Any, list[str]]:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # that of a GPU is not put back
            network, info = (loader or AutoModel).from_pretrained(
                str(model_folder(folder)),
                local_files_only=True,
                trust_remote_code=False,
                dtype=FROZEN[dtype],
                output_loading_info=True,
                **options,
            )
        return network, sorted(name for name in info["missing_keys"] if "pooler" not in name)

    try:
        network, lost = load(0)
        if lost:  # what is computed, such as Marian's sinusoids, is the same in every load; the rest is noise
            lost = _not_computed(lost, network, load(1)[0])
    except PolydistillError:
        raise
    except Exception as error:
        raise loading_failed(f"transformers cannot load {folder}", error, "Choose another model.") from error
    if lost:
        raise PolydistillError(
            f"{folder} does not have all weights of its model (it lacks {lost[0]}).",
            "Fetch or save the model again: what it lacks would be noise.",
        )
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # nothing here reads it
    return network, network.config


def _not_computed(names: Sequence[str], network: Any, again: Any) -> list[str]:
    """Those parameters that no computation gives: they differ between two loads, or are one number throughout."""
    values, others = dict(network.named_parameters()), dict(again.named_parameters())

    def is_computed(name: str) -> bool:
        value = values.get(name)
        return value is not None and torch.equal(value, others[name]) and bool(value.min() < value.max())

    return [name for name in names if not is_computed(name)]


@torch.no_grad()
def _sees_ahead(network: Any) -> bool:
    """Whether the first position's state depends on the last one's input."""
    network.eval()
    width, first = input_width(network), next(network.parameters())
    noise = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0)).to(first)
    one, other = noise[:1], torch.cat([noise[:1, :2], noise[1:, 2:]], 1)
    mask = torch.ones(1, 3, dtype=torch.int64, device=first.device)
    states: list[Tensor] = [network(inputs_embeds=x, attention_mask=mask).last_hidden_state for x in (one, other)]
    return bool((states[0][0, 0] - states[1][0, 0]).abs().max() > SEES)
