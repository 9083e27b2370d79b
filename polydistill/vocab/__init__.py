"""Vocabularies as data: which tokens exist, which stay, and files rewritten without the others. No torch here."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polydistill.errors import PolydistillError, library_errors
from polydistill.files.jsonfiles import LARGEST_VOCABULARY, read_bytes
from polydistill.vocab import sentencepiece_model
from polydistill.vocab.sentencepiece_model import SentencePieceVocabulary
from polydistill.vocab.tokenizer_config import TokenizerConfig
from polydistill.vocab.tokenizer_json import NAME, TokenizerJson, checked

Vocabulary = TokenizerJson | SentencePieceVocabulary
# Classes of transformers that use the SentencePiece library and number its pieces by a vocab.json.
WITH_VOCAB_JSON = ("MarianTokenizer", "M2M100Tokenizer")
# All files that hold a folder's vocabulary; code that copies a folder leaves them to `Vocabulary.write`.
OWNED_NAMES = (
    NAME,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "target_vocab.json",
    "merges.txt",
    "tiktoken.model",
    "tekken.json",
)


def open_vocabulary(folder: Path) -> Vocabulary:
    """Opens the tokenizer of a model folder.

    A folder without tokenizer.json (only vocab.txt, merges.txt or a SentencePiece model) is converted by
    transformers in memory, and its trimmed copy gets a tokenizer.json.

    Raises:
        PolydistillError: There is no tokenizer, or one that cannot be trimmed.
    """
    if TokenizerConfig(folder).class_name in WITH_VOCAB_JSON and (folder / "vocab.json").is_file():
        return SentencePieceVocabulary(folder)
    if (folder / NAME).is_file():
        return TokenizerJson(folder)
    if any((folder / n).is_file() for n in OWNED_NAMES) or sentencepiece_model.files(folder):
        return TokenizerJson(folder, _convert(folder))
    raise PolydistillError(
        f"{folder} has no tokenizer (no tokenizer.json, vocab.txt, vocab.json or SentencePiece model).",
        "Save the tokenizer beside the model: AutoTokenizer.from_pretrained(...).save_pretrained(...).",
    )


def check_tokenizer_files(folder: Path) -> None:
    """Refuses a broken tokenizer before transformers reads it.

    Raises:
        PolydistillError: A file is broken or too large; the message says what is wrong, and where.
    """
    config = TokenizerConfig(folder)
    if (folder / NAME).is_file():
        checked(read_bytes(folder / NAME, LARGEST_VOCABULARY), folder, config)
        return
    for name in OWNED_NAMES:
        if name.startswith(("vocab", "target_vocab")) and name.endswith(".json") and (folder / name).is_file():
            sentencepiece_model.read_table(folder / name)
        elif (folder / name).is_file():
            read_bytes(folder / name, LARGEST_VOCABULARY)
    for path in sentencepiece_model.files(folder):
        if not read_bytes(path, LARGEST_VOCABULARY).isascii():  # a .model of tiktoken is text
            sentencepiece_model.read_model(path)


def _convert(folder: Path) -> bytes:
    from transformers import AutoTokenizer

    check_tokenizer_files(folder)
    with library_errors(
        f"The tokenizer of {folder} could not be read",
        "Save it with a recent transformers, so that it has a tokenizer.json.",
    ):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return tokenizer.backend_tokenizer.to_str().encode()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses the cyclic garbage collector.

    A parsed tokenizer is a quarter of a million small lists, none of them garbage; scanning them again and again would
    take a tenth of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
