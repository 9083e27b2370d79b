"""A stack as a model of sentence-transformers."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule

from polydistill.stacks.network import Stack
from polydistill.stacks.reading import Reader

NOT_SAVED = "A stack is saved by polydistill, and loaded by `polydistill.load_stack`: copy its folder."


class StackModule(InputModule):
    """The whole of a stack as the one module of a `SentenceTransformer`.

    Args:
        network: The stack.
        reader: Makes token ids of text.
    """

    def __init__(self, network: Stack, reader: Reader) -> None:
        super().__init__()
        self.network, self.reader, self._most = network, reader, reader.max_length
        self.tokenizer: Any = reader

    @property
    def max_seq_length(self) -> int:
        """Most tokens of an input."""
        return self.reader.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.reader.max_length = min(self._most, value)

    def get_embedding_dimension(self) -> int:
        """Width of the vectors."""
        from polydistill.stacks.parts import states_width

        network = self.network
        if network.llm is not None:
            return states_width(network.llm)
        assert network.projection is not None
        return int(network.projection.out_features)

    def preprocess(self, inputs: Any, prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """Texts as a batch of token ids."""
        rows = self.reader([(prompt or "") + text for text in inputs])
        features = [{key: rows[key][i] for key in rows} for i in range(len(inputs))]
        return dict(self.reader.pad(features, return_tensors="pt", verbose=False))

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """The batch with its `sentence_embedding` (B, H)."""
        keys = ("input_ids", "attention_mask", "token_type_ids")
        with torch.no_grad():
            features["sentence_embedding"] = self.network(**{k: features[k] for k in keys if k in features}).vectors
        return features

    def save(self, output_path: str, *args: Any, **options: Any) -> None:
        """Refuses, as `StackTransformer.save` does."""
        raise NotImplementedError(NOT_SAVED)


class StackTransformer(SentenceTransformer):
    """A `SentenceTransformer` that is not saved: a stack has a folder of its own.

    Args:
        module: The stack.
    """

    def __init__(self, module: StackModule) -> None:
        super().__init__(modules=[module])

    def save(self, path: str, *args: Any, **options: Any) -> None:
        """Refuses before anything is written.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(NOT_SAVED)
