"""Whether a cut model is still the original: `check.py BEFORE AFTER TEXTS RESULT`, with nothing but transformers.

It runs in the environment that made the model, in a fresh process. TEXTS is JSON, a list of sentences.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

TOLERANCE = 1e-4
SENTENCES, TOKENS = 32, 128  # for the comparison of hidden states


def main(before: Path, after: Path, texts: Path, result: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    found: dict = {"wrong": []}
    try:
        check(before, after, json.loads(texts.read_text(encoding="utf-8")), found)
    except Exception as error:
        found["wrong"].append(f"does not load or run: {type(error).__name__}: {' '.join(str(error).split())[:160]}")
    result.write_text(json.dumps(found))


def check(before: Path, after: Path, texts: list[str], found: dict) -> None:
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    old_tokenizer, new_tokenizer = AutoTokenizer.from_pretrained(before), AutoTokenizer.from_pretrained(after)
    old_model, new_model = (AutoModel.from_pretrained(f, dtype=torch.float32).eval() for f in (before, after))
    old_rows, new_rows = (m.get_input_embeddings().weight.detach() for m in (old_model, new_model))
    rows = len(new_rows)
    old_ids = old_tokenizer.get_vocab()
    kept = {t: i for t, i in new_tokenizer.get_vocab().items() if i < rows and t in old_ids}
    new_of = {old_ids[token]: new for token, new in kept.items()}
    found.update(vocabulary=len(new_tokenizer), rows=rows, kept=len(kept))
    old_config, new_config = (AutoConfig.from_pretrained(f) for f in (before, after))
    if new_config.vocab_size != rows:
        found["wrong"].append("vocab_size is not the number of rows")
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        old_id = getattr(old_config, key, None)
        if old_id is not None and getattr(new_config, key, None) != new_of.get(old_id):
            found["wrong"].append(f"{key} of config.json is another token")
    pieces = sentencepiece_pieces(after)
    if pieces is not None and pieces > rows:
        found["wrong"].append(f"a stale SentencePiece model of {pieces:,} pieces lies beside it")
    if len(new_tokenizer) > rows:
        found["wrong"].append(f"{len(new_tokenizer):,} tokens for {rows:,} rows")
    old_index, new_index = (torch.tensor(list(ids)) for ids in (new_of.keys(), new_of.values()))
    wrong_rows = int((old_rows[old_index] != new_rows[new_index]).any(1).sum())
    if wrong_rows:
        found["wrong"].append(f"{wrong_rows:,} of {len(kept):,} tokens have another token's row")

    old_texts, new_texts = (t(texts)["input_ids"] for t in (old_tokenizer, new_tokenizer))
    whole = [i for i, ids in enumerate(old_texts) if all(j in new_of for j in ids)]
    same = [i for i in whole if [new_of[j] for j in old_texts[i]] == new_texts[i]]
    outside = sum(any(j >= rows for j in ids) for ids in new_texts)
    found.update(sentences=len(texts), kept_only=len(whole), same=len(same))
    if not whole:
        found["wrong"].append("no sentence has only kept tokens")
    if len(same) < len(whole):
        changed = len(whole) - len(same)
        found["wrong"].append(f"{changed:,} of {len(whole):,} sentences with only kept tokens tokenize differently")
    if outside:
        found["wrong"].append(f"{outside:,} of {len(texts):,} sentences give ids without a row")

    usable = [i for i in whole if max(new_texts[i]) < rows][:SENTENCES]
    states = []
    for model, ids in ((old_model, old_texts), (new_model, new_texts)):
        with torch.no_grad():
            states.append([model(torch.tensor([ids[i][:TOKENS]])).last_hidden_state[0] for i in usable])
    pairs = list(zip(*states, strict=True))
    if any(old.shape != new.shape or not torch.allclose(old, new, atol=TOLERANCE) for old, new in pairs):
        found["wrong"].append("hidden states differ")
    differences = [float((old - new).abs().max()) for old, new in pairs if old.shape == new.shape]
    found["difference"] = max(differences, default=None)


def sentencepiece_pieces(folder: Path) -> int | None:
    """Number of pieces of the SentencePiece model in a folder, if there is one."""
    for file in folder.glob("*.model"):
        from sentencepiece import SentencePieceProcessor

        return SentencePieceProcessor(model_file=str(file)).get_piece_size()
    return None


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
