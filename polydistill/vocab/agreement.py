"""Whether all files of a tokenizer number its tokens in the same way, since programs choose among them.

transformers reads tokenizer.json if there is one; llama.cpp, vLLM and older code read `tokenizer.model`,
`tekken.json`, `vocab.json` with `merges.txt`, or `vocab.txt`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polydistill.errors import PolydistillError, library_errors
from polydistill.files.jsonfiles import HINT, LARGEST_VOCABULARY, read_json, read_text
from polydistill.vocab import sentencepiece_model
from polydistill.vocab.bpe import BPE, byte_alphabet
from polydistill.vocab.checks import quoted
from polydistill.vocab.keep import KeepSet
from polydistill.vocab.tokenizer_json import TokenizerJson

TEKKEN = "tekken.json"


def disagreements(vocabulary: TokenizerJson) -> list[str]:
    """Where the files beside a tokenizer.json disagree with it, each with the file's name."""
    folder, ids, model = vocabulary.folder, vocabulary.ids, vocabulary.model
    found = []
    if (path := folder / "vocab.txt").is_file():
        lines = read_text(path, LARGEST_VOCABULARY).removesuffix("\n").split("\n")
        found += _differences(path, {token: i for i, token in enumerate(lines)}, model.ids)
    if (path := folder / "vocab.json").is_file():
        found += _differences(path, sentencepiece_model.read_table(path), model.ids)
    if (path := folder / "merges.txt").is_file():
        merges = [tuple(line.split(" ")) for line in read_text(path, LARGEST_VOCABULARY).splitlines()[1:]]
        if not isinstance(model, BPE) or merges != model.pairs:
            found.append(f"{path.name} has other merges than tokenizer.json")
    for token, i in vocabulary.config.added_tokens().items():
        if ids.get(token) != i:
            found.append(
                f"the files beside tokenizer.json give {quoted(token)} the id {i:,}, it gives {ids.get(token)}"
            )
    for path in sentencepiece_model.files(folder):
        why = sentencepiece_model.disagreement(sentencepiece_model.read_model(path), ids)
        found += [f"{path.name}: {why}"] if why else []
    if (path := folder / TEKKEN).is_file():
        found += _differences(path, dict(_tekken(read_json(path, largest=LARGEST_VOCABULARY))), ids)
    return found


def _differences(path: Path, table: Mapping[str, int], ids: Mapping[str, int]) -> list[str]:
    """One token that a table numbers differently, if there is one."""
    for token in (*table, *ids):
        if table.get(token) != ids.get(token):
            return [f"{path.name} gives {quoted(token)} the id {table.get(token)}, tokenizer.json {ids.get(token)}"]
    return []


def _tekken(data: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Token -> id of Mistral's format: special tokens come first, then byte strings by their rank."""
    table = byte_alphabet()
    specials = data.get("special_tokens") or []
    first = int((data.get("config") or {}).get("default_num_special_tokens", len(specials)))
    yield from ((special["token_str"], special["rank"]) for special in specials)
    for entry in data["vocab"]:
        yield "".join(table[b] for b in base64.b64decode(entry["token_bytes"])), first + entry["rank"]


def compare_sentencepiece(before: TokenizerJson, after: TokenizerJson, keep: KeepSet, lines: Sequence[str]) -> None:
    """Cuts text with each SentencePiece model before and after a trim.

    Raises:
        PolydistillError: A line all of whose pieces were kept gets other ids.
    """
    for path in sentencepiece_model.files(after.folder):
        old, new = (_encode(v.folder / path.name, v.ids, lines) for v in (before, after))
        for line, first, second in zip(lines, old, new, strict=True):
            mapped = keep.table[first].tolist()
            if min(mapped, default=0) >= 0 and mapped != second:
                raise PolydistillError(
                    f"Verification failed: all pieces of {line[:80]!r} were kept, but {path.name} cuts it differently.",
                    f"Take {path.name} out of a copy of the model's folder and trim that; tokenizer.json is enough.",
                )


def _encode(path: Path, ids: Mapping[str, int], lines: Sequence[str]) -> list[list[int]]:
    from sentencepiece import SentencePieceProcessor

    numbers = sentencepiece_model.piece_ids(sentencepiece_model.read_model(path), ids)
    with library_errors(f"{path} cannot cut a text", HINT):
        processor = SentencePieceProcessor(model_file=str(path))
        return [[numbers[i] for i in row] for row in processor.encode(list(lines))]
