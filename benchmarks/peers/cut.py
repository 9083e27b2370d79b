"""Cuts a model's vocabulary with one peer, in that peer's own environment: `cut.py PEER MODEL TEXT OUT`.

Every peer keeps every token that the text has, the way its documentation says, without anything that it would do only
for itself (checks, layers, embeddings of a test sentence).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def read(text: Path) -> list[str]:
    return [line for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]


def vocabtrimmer(model: Path, text: Path, out: Path) -> None:
    from vocabtrimmer import VocabTrimmer

    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # importing it turns this off
    trimmer = VocabTrimmer(str(model))
    trimmer.trim_vocab(
        language="ro",
        path_to_save=str(out),
        dataset=str(text.parent),
        dataset_column="text",
        dataset_split="train",
        min_frequency=1,
        cache_file_vocab=f"{out}.vocab.json",
        cache_file_frequency=f"{out}.counts.json",
    )


def textpruner(model: Path, text: Path, out: Path) -> None:
    from textpruner import VocabularyPruner
    from textpruner.configurations import GeneralConfig
    from textpruner.tokenizer_utils import XLMRSentencepieceTokenizer
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, use_fast=False)  # it asks for the SentencePiece model
    pruner = VocabularyPruner(
        AutoModel.from_pretrained(model), tokenizer, general_config=GeneralConfig(output_dir=str(out.parent))
    )
    pruner.tokenizer_helper = XLMRSentencepieceTokenizer  # it goes by the model type, bert, and would write a vocab.txt
    pruner.prune(dataiter=read(text), save_model=False)
    pruner.save_model(dir_name=out.name)


def hf_trim(model: Path, text: Path, out: Path) -> None:
    from hftrim.ModelTrimmers import MBartTrimmer
    from hftrim.TokenizerTrimmer import TokenizerTrimmer
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, use_fast=False)
    vocabulary = TokenizerTrimmer(tokenizer)
    vocabulary.make_vocab(read(text))
    vocabulary.make_tokenizer()
    weights = MBartTrimmer(AutoModel.from_pretrained(model), AutoConfig.from_pretrained(model), tokenizer)
    weights.make_weights(vocabulary.trimmed_vocab_ids)
    weights.make_model()
    weights.trimmed_model.save_pretrained(out)
    vocabulary.trimmed_tokenizer.save_pretrained(out)


def easysmallembeddingmodel(model: Path, text: Path, out: Path) -> None:
    from smallmodel.arch import collect_corpus_tokens, prune_tokenizer_and_embeddings
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    keep = collect_corpus_tokens(tokenizer, read(text))
    prune_tokenizer_and_embeddings(AutoModel.from_pretrained(model), tokenizer, keep, str(out)).save_pretrained(out)


def skeletoken(model: Path, text: Path, out: Path) -> None:
    from skeletoken import TokenizerModel
    from skeletoken.external.transformers import reshape_embeddings
    from transformers import AutoModel

    # It cuts what it is told to; which tokens those are is counted here, the fastest way that `tokenizers` has.
    tokenizer = TokenizerModel.from_transformers(model)
    seen = {i for encoding in tokenizer.to_tokenizer().encode_batch_fast(read(text)) for i in encoding.ids}
    special = {token.content for token in tokenizer.added_tokens.root}
    gone = [token for token, i in tokenizer.vocabulary.items() if i not in seen and token not in special]
    trimmed = tokenizer.remove_tokens_from_vocabulary(gone)
    reshape_embeddings(AutoModel.from_pretrained(model), trimmed).save_pretrained(out)
    trimmed.to_transformers().save_pretrained(out)


def transformer_smaller_training_vocab(model: Path, text: Path, out: Path) -> None:
    from transformer_smaller_training_vocab import reduce_train_vocab
    from transformers import AutoModel, AutoTokenizer

    weights, tokenizer = AutoModel.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    with reduce_train_vocab(model=weights, tokenizer=tokenizer, texts=read(text)):
        weights.save_pretrained(out)
        tokenizer.save_pretrained(out)


if __name__ == "__main__":
    globals()[sys.argv[1].replace("-", "_")](*map(Path, sys.argv[2:5]))
