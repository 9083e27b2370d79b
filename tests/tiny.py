"""Small tokenizers and random models of every family and architecture, built in well under a second each.

`tokenizer_files` writes a trained tokenizer as the real model's folder has it, `model_folder` a whole model
folder, and `CASES` lists the models that trimming must get right. All is seeded and trained once a process.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

# Language -> (subjects, verbs, objects): their combinations are short plain sentences in several scripts.
_WORDS = {
    "en": (
        "The old teacher|My sister|A small bird|Nobody|The 3 children|Dr. Smith",
        "sees|wants|doesn't remember|brought|has lost",
        "the red house.|42 apples!|a letter from London|bread, milk and salt;|the answer?",
    ),
    "ro": (
        "Învățătoarea bătrână|Fratele meu|O pasăre mică|Nimeni|Țăranii și oștenii|Domnul Ștefan",
        "vede|își dorește|n-a uitat|a adus|știa",
        "casa roșie.|12 mere și pâine!|o scrisoare din București|însă nu acum;|răspunsul?",
    ),
    "sw": (
        "Mwalimu mzee|Dada yangu|Ndege mdogo|Watoto watatu|Mkulima|Ng'ombe",
        "anaona|anataka|hakumbuki|ameleta|anapenda",
        "nyumba nyekundu.|maembe 20!|barua kutoka Nairobi|mkate na maziwa;|jibu?",
    ),
    "tr": (
        "Yaşlı öğretmen|Küçük kuş|Işık|Çocuklar",
        "görüyor|istedi|unuttu",
        "kırmızı evi.|İstanbul'dan mektup|ekmeği!",
    ),
    "ru": (
        "Старый учитель|Моя сестра|Маленькая птица|Никто|Дети",
        "видит|хочет|забыл|принёс|любит",
        "красный дом.|сорок яблок!|письмо из Москвы|хлеб и соль;|ответ?",
    ),
    "el": ("Ο γέρος δάσκαλος|Η αδελφή μου|Κανείς", "βλέπει|θέλει|έφερε", "το κόκκινο σπίτι.|ένα γράμμα|ψωμί;"),
    "ar": ("المعلم القديم|أختي|طائر صغير", "يرى|يريد|أحضر", "البيت الأحمر.|رسالة من القاهرة|الخبز؟"),
    "zh": ("老师|我的妹妹|小鸟|孩子们", "看见|想要|忘记了", "红色的房子。|一封信|面包和牛奶！"),
    "emoji": ("🙂|👩‍🏫|🐦", "❤️|👀", "🏠|🍎🍎|✉️!"),
}
LANGUAGES = tuple(_WORDS)


def sentences(*languages: str, count: int = 400, seed: int = 0) -> list[str]:
    """At most `count` different sentences of the given languages (all of `LANGUAGES` when none is given)."""
    every = [
        ("" if language == "zh" else " ").join(words)
        for language in languages or LANGUAGES
        for words in itertools.product(*(part.split("|") for part in _WORDS[language]))
    ]
    random.Random(seed).shuffle(every)
    return every[:count]


# ---- pieces: one training per algorithm, whose result the recipes below lay out as the real models do ----


class Pieces(NamedTuple):
    """A trained SentencePiece model without its special pieces."""

    scored: tuple[tuple[str, float], ...]
    charsmap: bytes
    proto: bytes

    def merges(self) -> list[tuple[str, str]]:
        """For BPE: every way to put a piece together from two others, in the order of the piece's rank."""
        known = {piece for piece, _ in self.scored}
        return [
            (piece[:cut], piece[cut:])
            for piece, _ in sorted(self.scored, key=lambda entry: -entry[1])
            for cut in reversed(range(1, len(piece)))
            if piece[:cut] in known and piece[cut:] in known
        ]

    def write(self, path: Path, front: Iterable[str], back: Iterable[str] = (), unknown: str = "<unk>") -> None:
        """Write the `.model` file with special pieces in front of and behind the learnt ones."""
        from sentencepiece import sentencepiece_model_pb2 as pb2

        model = pb2.ModelProto.FromString(self.proto)
        kind = pb2.ModelProto.SentencePiece
        del model.pieces[:]

        def special(piece: str) -> None:
            byte = len(piece) == 6 and piece.startswith("<0x")
            role = kind.UNKNOWN if piece == unknown else kind.BYTE if byte else kind.CONTROL
            model.pieces.add(piece=piece, score=0.0, type=role)

        for piece in front:
            special(piece)
        for piece, score in self.scored:
            model.pieces.add(piece=piece, score=score, type=kind.NORMAL)
        for piece in back:
            special(piece)
        names = [piece.piece for piece in model.pieces]
        spec = model.trainer_spec
        spec.vocab_size, spec.unk_piece, spec.unk_id = len(names), unknown, names.index(unknown)
        spec.byte_fallback = "<0x00>" in names
        model.normalizer_spec.remove_extra_whitespaces = "<0x00>" not in names
        model.normalizer_spec.add_dummy_prefix = "<start_of_turn>" not in names  # Gemma's text gets no leading space
        for role, candidates in {"bos": ("<s>", "<bos>"), "eos": ("</s>", "<eos>"), "pad": ("<pad>",)}.items():
            found = next((name for name in candidates if name in names), None)
            setattr(spec, f"{role}_id", names.index(found) if found else -1)
            if found:
                setattr(spec, f"{role}_piece", found)
        path.write_bytes(model.SerializeToString())


@functools.cache
def train_pieces(kind: str, size: int, seed: int = 0, languages: tuple[str, ...] = ()) -> Pieces:
    """Train SentencePiece (`kind` is `unigram` or `bpe`) to at most `size` pieces."""
    import io

    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as pb2

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(*languages, seed=seed)),
        model_writer=out,
        model_type=kind,
        vocab_size=size + 3,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc" if kind == "unigram" else "identity",
        num_threads=1,
        minloglevel=3,
    )
    proto = pb2.ModelProto.FromString(out.getvalue())
    scored = tuple((piece.piece, piece.score) for piece in proto.pieces[3:])
    return Pieces(scored, proto.normalizer_spec.precompiled_charsmap, out.getvalue())


@functools.cache
def train_byte_bpe(size: int, seed: int = 0) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Train byte-level BPE: the tokens (256 bytes first) and the merges."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=256 + size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sentences(seed=seed), trainer)
    state = json.loads(tokenizer.to_str())["model"]
    return tuple(sorted(state["vocab"], key=state["vocab"].__getitem__)), tuple(map(tuple, state["merges"]))


@functools.cache
def train_wordpiece(size: int, seed: int = 0) -> tuple[str, ...]:
    """Train WordPiece: the tokens without special ones."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(sentences(seed=seed), trainers.WordPieceTrainer(vocab_size=size, show_progress=False))
    return tuple(sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__))


# ---- recipes: a tokenizer class with its vocabulary laid out as its real models have it ----

_S = ["<s>", "<pad>", "</s>", "<unk>"]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_CHAT = "{% for m in messages %}START{{ m.role }}\n{{ m.content }}END\n{% endfor %}"


def _zero(tokens: Iterable[str]) -> list[tuple[str, float]]:
    return [(token, 0.0) for token in tokens]


def _codes(module: str) -> list[str]:
    import importlib

    return list(importlib.import_module(f"transformers.models.{module}").FAIRSEQ_LANGUAGE_CODES)


def _wordpiece(name: str, front: list[str], back: list[str], size: int, seed: int) -> Any:
    import transformers

    tokens = front + [t for t in train_wordpiece(size, seed) if t not in front + back] + back
    return getattr(transformers, name)(vocab={t: i for i, t in enumerate(tokens)}, do_lower_case=False)


def _unigram(name: str, front: list[str], back: list[str], size: int, seed: int, **options: Any) -> Any:
    import transformers

    pieces = train_pieces("unigram", size, seed)
    if name not in ("DebertaV2Tokenizer", "MBartTokenizer"):  # their classes take no character map
        options["_spm_precompiled_charsmap"] = pieces.charsmap
    return getattr(transformers, name)(vocab=_zero(front) + list(pieces.scored) + _zero(back), **options)


def _piece_bpe(name: str, front: list[str], back: list[str], size: int, seed: int, **options: Any) -> Any:
    import transformers

    pieces = train_pieces("bpe", size, seed)
    tokens = [*front, *(piece for piece, _ in pieces.scored), *back]
    vocab = {token: i for i, token in enumerate(tokens)}
    return getattr(transformers, name)(vocab=vocab, merges=pieces.merges(), **options)


def _byte_bpe(name: str, front: list[str], back: list[str], size: int, seed: int, **options: Any) -> Any:
    import transformers

    tokens, merges = train_byte_bpe(size, seed)
    vocab = {token: i for i, token in enumerate([*front, *tokens, *back])}
    return getattr(transformers, name)(vocab=vocab, merges=list(merges), **options)


def _byte_backend(front: list[str], back: list[str], size: int, seed: int, template: str | None, **named: str) -> Any:
    """A byte-level BPE whose tokenizer class is the generic one, as BLOOM and ModernBERT have it."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokens, merges = train_byte_bpe(size, seed)
    vocab = {token: i for i, token in enumerate([*front, *tokens, *back])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    tokenizer.normalizer = normalizers.NFC() if template else None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if template:
        inserted = [(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=inserted)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def _chat(tokenizer: Any, start: str, end: str) -> Any:
    tokenizer.chat_template = _CHAT.replace("START", start).replace("END", end)
    return tokenizer


_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused0>", "<unused1>", "<start_of_turn>", "<end_of_turn>"]
_CONTROL = [f"[control_{i}]" for i in range(8, 20)]
_SENTINELS = [f"<extra_id_{i}>" for i in reversed(range(10))]
_MODERN = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
_BLOOM = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), ("<unk>", "<s>", "</s>", "<pad>"), strict=True))

# Recipe -> (size, seed) -> tokenizer. M2M-100 and Marian have no tokenizer.json: `_PLAIN` below writes them.
_RECIPES: dict[str, Callable[[int, int], Any]] = {
    "bert": lambda n, s: _wordpiece("BertTokenizer", _BERT, [], n, s),
    "mpnet": lambda n, s: _wordpiece("MPNetTokenizer", [*_S, "[UNK]"], ["<mask>"], n, s),
    "xlm-roberta": lambda n, s: _unigram("XLMRobertaTokenizer", _S, ["<mask>"], n, s),
    "t5": lambda n, s: _unigram("T5Tokenizer", ["<pad>", "</s>", "<unk>"], _SENTINELS, n, s, extra_ids=10),
    "mt5": lambda n, s: _unigram("T5Tokenizer", ["<pad>", "</s>", "<unk>"], [], n, s, extra_ids=0),
    "albert": lambda n, s: _unigram(
        "AlbertTokenizer", ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], [], n, s, do_lower_case=False
    ),
    "deberta-v2": lambda n, s: _unigram("DebertaV2Tokenizer", ["[PAD]", "[CLS]", "[SEP]", "[UNK]"], ["[MASK]"], n, s),
    "mbart": lambda n, s: _unigram(
        "MBartTokenizer", _S, [*_codes("mbart.tokenization_mbart"), "<mask>"], n, s, src_lang="en_XX"
    ),
    "mbart50": lambda n, s: _unigram(
        "MBart50Tokenizer", _S, [*_codes("mbart50.tokenization_mbart50"), "<mask>"], n, s, src_lang="en_XX"
    ),
    "xglm": lambda n, s: _unigram("XGLMTokenizer", _S, [f"<madeupword{i}>" for i in range(7)], n, s),
    "nllb": lambda n, s: _piece_bpe(
        "NllbTokenizer", _S, [*_codes("nllb.tokenization_nllb"), "<mask>"], n, s, src_lang="eng_Latn"
    ),
    "gemma": lambda n, s: _chat(
        _piece_bpe("GemmaTokenizer", _GEMMA + _BYTES, [], n, s, add_bos_token=True, extra_special_tokens=_GEMMA[-2:]),
        "<start_of_turn>",
        "<end_of_turn>",
    ),
    "llama": lambda n, s: _piece_bpe("LlamaTokenizer", ["<unk>", "<s>", "</s>", *_BYTES], [], n, s, add_bos_token=True),
    # Mistral's first models: control pieces that tokenizer.json has as plain vocabulary.
    "mistral": lambda n, s: _piece_bpe(
        "LlamaTokenizer", ["<unk>", "<s>", "</s>", *_CONTROL, *_BYTES], [], n, s, add_bos_token=True
    ),
    "gpt2": lambda n, s: _byte_bpe("GPT2Tokenizer", [], ["<|endoftext|>"], n, s),
    "roberta": lambda n, s: _byte_bpe("RobertaTokenizer", _S, ["<mask>"], n, s),
    "qwen2": lambda n, s: _chat(
        _byte_bpe("Qwen2Tokenizer", [], [], n, s, extra_special_tokens=["<|im_start|>", "<|im_end|>"]),
        "<|im_start|>",
        "<|im_end|>",
    ),
    "bloom": lambda n, s: _byte_backend(["<unk>", "<s>", "</s>", "<pad>"], [], n, s, None, **_BLOOM),
    "modernbert": lambda n, s: _byte_backend([], list(_MODERN.values()), n, s, "[CLS] $A [SEP]", **_MODERN),
}

# Recipe -> SentencePiece model of the real folder: file, special pieces in front and behind, unknown piece.
_MODEL_FILES: dict[str, tuple[str, list[str], list[str], str]] = {
    "xlm-roberta": ("sentencepiece.bpe.model", ["<unk>", "<s>", "</s>"], [], "<unk>"),
    "mbart": ("sentencepiece.bpe.model", ["<unk>", "<s>", "</s>"], [], "<unk>"),
    "mbart50": ("sentencepiece.bpe.model", ["<unk>", "<s>", "</s>"], [], "<unk>"),
    "xglm": ("sentencepiece.bpe.model", ["<unk>", "<s>", "</s>"], [], "<unk>"),
    "nllb": ("sentencepiece.bpe.model", ["<unk>", "<s>", "</s>"], [], "<unk>"),
    "t5": ("spiece.model", ["<pad>", "</s>", "<unk>"], [], "<unk>"),
    "mt5": ("spiece.model", ["<pad>", "</s>", "<unk>"], [], "<unk>"),
    "albert": ("spiece.model", ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], [], "<unk>"),
    "deberta-v2": ("spm.model", ["[PAD]", "[CLS]", "[SEP]", "[UNK]"], [], "[UNK]"),
    "gemma": ("tokenizer.model", _GEMMA + _BYTES, [], "<unk>"),
    "llama": ("tokenizer.model", ["<unk>", "<s>", "</s>", *_BYTES], [], "<unk>"),
    "mistral": ("tokenizer.model", ["<unk>", "<s>", "</s>", *_CONTROL, *_BYTES], [], "<unk>"),
}
_LEARNT_BPE = ("nllb", "gemma", "llama", "mistral")

FAMILIES: dict[str, tuple[str, ...]] = {
    "wordpiece": ("bert", "mpnet"),
    "unigram": ("xlm-roberta", "t5", "mt5", "albert", "deberta-v2", "mbart", "mbart50", "xglm"),
    "sentencepiece-bpe": ("gemma", "llama", "nllb"),
    "byte-bpe": ("gpt2", "qwen2", "roberta", "bloom", "modernbert"),
    "sentencepiece-json": ("marian", "marian-separate", "m2m_100"),
}
"""Tokenizer family -> the recipes of it; the first is what the family's name alone means."""


def tokenizer_files(
    family: str, folder: Path, *, seed: int = 0, size: int = 380, beside: bool = False, legacy: bool = False
) -> Path:
    """Write a trained tokenizer into `folder` so that AutoTokenizer loads it as the real model's.

    Args:
        family: A name of `FAMILIES` or one of its recipes.
        folder: Where to write; made if missing.
        seed: Chooses the training text.
        size: Learnt pieces to aim at, not counting specials, language codes and the 256 bytes.
        beside: Write the older form too: vocab.txt, vocab.json + merges.txt, or the SentencePiece model.
        legacy: Write tokenizer_config.json as transformers 4 does, with `added_tokens_decoder`.
    """
    recipe = FAMILIES.get(family, (family,))[0]
    shutil.copytree(_trained(recipe, seed, size), folder, dirs_exist_ok=True)
    if beside and recipe not in FAMILIES["sentencepiece-json"]:
        _write_older_form(recipe, folder, seed, size)
    if legacy:
        _write_version_4_config(folder)
    return folder


@functools.cache
def _workspace() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="polydistill-tests-")


@functools.cache
def _trained(recipe: str, seed: int, size: int) -> Path:
    folder = Path(_workspace().name) / f"{recipe}-{seed}-{size}"
    folder.mkdir()
    if recipe in _PLAIN:
        _PLAIN[recipe](folder, size, seed)
    else:
        _RECIPES[recipe](size, seed).save_pretrained(folder)
    return folder


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")


def _write_older_form(recipe: str, folder: Path, seed: int, size: int) -> None:
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    if recipe in _MODEL_FILES:
        name, front, back, unknown = _MODEL_FILES[recipe]
        pieces = train_pieces("bpe" if recipe in _LEARNT_BPE else "unigram", size, seed)
        pieces.write(folder / name, front, back, unknown)
    elif model["type"] == "WordPiece":
        tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
        (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    else:
        _dump(folder / "vocab.json", model["vocab"])
        lines = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_version_4_config(folder: Path) -> None:
    """Spell tokenizer_config.json as transformers 4 did, and add its special_tokens_map.json."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("backend", None)
    added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    config["added_tokens_decoder"] = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added
    }
    if extra := config.pop("extra_special_tokens", None):
        config["additional_special_tokens"] = extra
    _dump(path, config)
    named = {key: value for key, value in config.items() if key.endswith(("_token", "_tokens")) and value}
    _dump(folder / "special_tokens_map.json", {k: v for k, v in named.items() if not isinstance(v, bool)})


def _plain_config(folder: Path, name: str, extra: dict[str, Any] | None = None, **values: Any) -> None:
    specials = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>", **(extra or {})}
    _dump(folder / "special_tokens_map.json", specials)
    _dump(folder / "tokenizer_config.json", {"tokenizer_class": name, **specials, **values})


def _write_m2m_100(folder: Path, size: int, seed: int) -> None:
    """Ids come from vocab.json, in another order than the pieces; language codes come after it, not in it."""
    pieces = train_pieces("bpe", size, seed)
    pieces.write(folder / "sentencepiece.bpe.model", ["<unk>", "<s>", "</s>"])
    shuffled = [piece for piece, _ in pieces.scored]
    random.Random(seed).shuffle(shuffled)
    _dump(folder / "vocab.json", {token: i for i, token in enumerate(_S + shuffled)})
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    codes = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    specials = {"bos_token": "<s>", "sep_token": "</s>", "additional_special_tokens": codes}
    _plain_config(folder, "M2M100Tokenizer", specials, src_lang="en", num_madeup_words=8)


def _write_marian(folder: Path, size: int, seed: int, separate: bool = False) -> None:
    sides = {"source": ("en", "sw", "tr", "zh"), "target": ("ro", "ru", "el", "emoji")}
    learnt = {side: train_pieces("unigram", size * 2 // 3, seed, languages) for side, languages in sides.items()}
    for side, pieces in learnt.items():
        pieces.write(folder / f"{side}.spm", ["<unk>", "<s>", "</s>"])
    names = {side: [piece for piece, _ in pieces.scored] for side, pieces in learnt.items()}
    groups = list(names.values()) if separate else [names["source"] + names["target"] + [">>ron<<", ">>rus<<"]]
    for file, group in zip(("vocab.json", "target_vocab.json"), groups, strict=False):
        shuffled = sorted(set(group))
        random.Random(seed).shuffle(shuffled)
        _dump(folder / file, {token: i for i, token in enumerate(["</s>", "<unk>", *shuffled, "<pad>"])})
    # With two vocabularies <pad> and </s> must have the ids of the source side, which decoding uses as well.
    if separate:
        _align_pad(folder)
    _plain_config(
        folder, "MarianTokenizer", source_lang="eng", target_lang="ron", model_max_length=64, separate_vocabs=separate
    )


def _align_pad(folder: Path) -> None:
    source, target = (json.loads((folder / f).read_text("utf-8")) for f in ("vocab.json", "target_vocab.json"))
    pad = min(source["<pad>"], target["<pad>"])
    for file, vocab in (("vocab.json", source), ("target_vocab.json", target)):
        there = next(token for token, i in vocab.items() if i == pad)
        vocab[there], vocab["<pad>"] = vocab["<pad>"], pad
        _dump(folder / file, vocab)


_PLAIN: dict[str, Callable[[Path, int, int], None]] = {
    "marian": _write_marian,
    "marian-separate": functools.partial(_write_marian, separate=True),
    "m2m_100": _write_m2m_100,
}


# ---- models ----

AUTO_CLASS: dict[str, str] = {
    "base": "AutoModel",
    "masked-lm": "AutoModelForMaskedLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "causal-lm": "AutoModelForCausalLM",
    "pretraining": "AutoModelForPreTraining",
}
"""Head -> the Auto class of transformers that loads it."""

_LM_HEADS = ("masked-lm", "seq2seq-lm", "causal-lm")
_ENCODER = ("base", "masked-lm", "sequence-classification", "token-classification", "question-answering")
_DECODER = ("base", "causal-lm", "sequence-classification", "token-classification", "question-answering")
_SEQ2SEQ = ("base", "seq2seq-lm", "sequence-classification", "question-answering")

_BASIC = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 72,
    "initializer_range": 0.2,
}
_GROUPED = {**_BASIC, "num_key_value_heads": 1, "head_dim": 16}
_BART = {
    "d_model": 32,
    **{
        f"{side}_{what}": n
        for side in ("encoder", "decoder")
        for what, n in {"layers": 2, "attention_heads": 2, "ffn_dim": 40}.items()
    },
    "max_position_embeddings": 72,
    "init_std": 0.2,
}
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
_VISION = {
    "model_type": "siglip_vision_model",
    **{"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"image_size": 28, "patch_size": 14},
}


class _Plan(NamedTuple):
    """How an architecture is built: its usual tokenizer, its heads, its sizes."""

    tokenizer: str
    heads: tuple[str, ...]
    config: dict[str, Any]


_PLANS: dict[str, _Plan] = {
    "bert": _Plan("bert", (*_ENCODER, "causal-lm", "pretraining"), _BASIC),
    "distilbert": _Plan(
        "bert",
        _ENCODER,
        {
            "dim": 32,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 40,
            "max_position_embeddings": 72,
            "initializer_range": 0.2,
        },
    ),
    "roberta": _Plan("roberta", (*_ENCODER, "causal-lm"), _BASIC),
    "xlm-roberta": _Plan("xlm-roberta", (*_ENCODER, "causal-lm"), _BASIC),
    "xmod": _Plan(
        "xlm-roberta",
        (*_ENCODER, "causal-lm"),
        {**_BASIC, "languages": ["en_XX", "ro_RO"], "default_language": "ro_RO"},
    ),
    "deberta-v2": _Plan(
        "deberta-v2",
        _ENCODER,
        {
            **_BASIC,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "type_vocab_size": 0,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_buckets": 8,
        },
    ),
    "electra": _Plan("bert", (*_ENCODER, "causal-lm", "pretraining"), {**_BASIC, "embedding_size": 16}),
    "albert": _Plan("albert", (*_ENCODER, "pretraining"), {**_BASIC, "embedding_size": 16}),
    "modernbert": _Plan("modernbert", _ENCODER, _BASIC),
    "mpnet": _Plan("mpnet", _ENCODER, _BASIC),
    "t5": _Plan("t5", (*_SEQ2SEQ, "token-classification"), _T5),
    "mt5": _Plan("mt5", (*_SEQ2SEQ, "token-classification"), _T5),
    "umt5": _Plan("mt5", (*_SEQ2SEQ, "token-classification"), _T5),
    "mbart": _Plan("mbart", (*_SEQ2SEQ, "causal-lm"), _BART),
    "m2m_100": _Plan("m2m_100", ("base", "seq2seq-lm"), _BART),
    "marian": _Plan("marian", ("base", "seq2seq-lm"), _BART),
    "gpt2": _Plan(
        "gpt2", _DECODER, {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 72, "initializer_range": 0.2}
    ),
    "xglm": _Plan(
        "xglm",
        ("base", "causal-lm"),
        {
            "d_model": 32,
            "num_layers": 2,
            "attention_heads": 2,
            "ffn_dim": 40,
            "max_position_embeddings": 72,
            "init_std": 0.2,
        },
    ),
    "bloom": _Plan("bloom", _DECODER, {"hidden_size": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}),
    "llama": _Plan("llama", _DECODER, _GROUPED),
    "mistral": _Plan("llama", _DECODER, _GROUPED),
    "qwen2": _Plan("qwen2", _DECODER, {**_BASIC, "num_key_value_heads": 1}),
    "qwen3": _Plan("qwen2", _DECODER, _GROUPED),
    "gemma2": _Plan("gemma", _DECODER[:4], _GROUPED),
    "gemma3_text": _Plan("gemma", _DECODER[:3], _GROUPED),
    "gemma3": _Plan("gemma", _DECODER[:3], _GROUPED),
}
MODEL_TYPES = tuple(_PLANS)


class Case(NamedTuple):
    """A model to build: `model_folder(case.model_type, case.head, folder, **case.options)`."""

    model_type: str
    head: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """A readable identifier for parametrised tests."""
        options = [f"{key}={value}" for key, value in self.options.items()]
        return "-".join((self.model_type, self.head, *options)).translate(str.maketrans("", "", "{}' :"))


def _cases() -> list[Case]:
    cases = []
    for model_type, plan in _PLANS.items():
        rows = {"rows": 448} if model_type in ("mt5", "umt5") else {}
        for head in plan.heads:
            ties = ({"tied": True}, {"tied": False}) if head in _LM_HEADS else ({},)
            cases += [Case(model_type, head, {**tie, **rows}) for tie in ties]
    return [*cases, *_SPECIAL_CASES]


_TWO_VOCABULARIES = {"tokenizer": "marian-separate", "config": {"share_encoder_decoder_embeddings": False}}
_SPECIAL_CASES = [
    # multilingual-e5: a BERT with XLM-R's tokenizer and some rows that no token uses.
    Case("bert", "base", {"tokenizer": "xlm-roberta", "rows": 421}),
    Case("xlm-roberta", "base", {"beside": True, "legacy": True}),
    Case("xlm-roberta", "masked-lm", {"tied": False, "shards": 3}),
    Case("deberta-v2", "masked-lm", {"config": {"legacy": False}}),
    Case("t5", "seq2seq-lm", {"tied": True, "beside": True, "legacy": True}),
    Case("mbart", "seq2seq-lm", {"tied": True, "tokenizer": "mbart50"}),
    Case("m2m_100", "seq2seq-lm", {"tied": True, "tokenizer": "nllb"}),
    Case("m2m_100", "seq2seq-lm", {"tied": False, "tokenizer": "nllb", "shards": 4}),
    Case("marian", "base", _TWO_VOCABULARIES),
    Case("marian", "seq2seq-lm", {"tied": True, **_TWO_VOCABULARIES}),
    Case("marian", "seq2seq-lm", {"tied": False, **_TWO_VOCABULARIES}),
    Case("gpt2", "causal-lm", {"tied": True, "beside": True}),
    Case("llama", "causal-lm", {"tied": False, "shards": 3, "beside": True}),
    Case("mistral", "causal-lm", {"tied": False, "dtype": "float16"}),
    Case("gemma2", "causal-lm", {"tied": True, "dtype": "bfloat16", "beside": True}),
]

CASES: list[Case] = _cases()
"""Every architecture bare and with its heads, tied and untied; some in shards, some with spare rows."""


def model_folder(
    model_type: str,
    head: str,
    folder: Path,
    *,
    tied: bool | None = None,
    shards: int = 1,
    dtype: str = "float32",
    rows: int | None = None,
    tokenizer: str | None = None,
    size: int = 380,
    seed: int = 0,
    beside: bool = False,
    legacy: bool = False,
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a random model with its tokenizer into `folder`, as safetensors.

    Args:
        model_type: One of `MODEL_TYPES`.
        head: One of `AUTO_CLASS`.
        folder: Where to write; made if missing.
        tied: Whether the head shares the embedding; None is the architecture's own default.
        shards: How many weight files to aim at; more than one makes at least two.
        dtype: float32, bfloat16 or float16.
        rows: Rows of the embedding where it has more than the tokenizer needs.
        tokenizer: Recipe of `FAMILIES` in place of the architecture's usual one.
        size: As in `tokenizer_files`, like `seed`, `beside` and `legacy`.
        seed: Chooses weights as well.
        beside: As in `tokenizer_files`.
        legacy: As in `tokenizer_files`.
        config: Values of the model's configuration.
    """
    import torch
    import transformers

    recipe = tokenizer or _PLANS[model_type].tokenizer
    tokenizer_files(recipe, folder, seed=seed, size=size, beside=beside, legacy=legacy)
    ids = _ids(recipe, seed, size)
    torch.manual_seed(seed)
    settings = _settings(model_type, ids, rows, tied, config or {})
    model = getattr(transformers, AUTO_CLASS[head]).from_config(settings).eval()
    _fill(model, settings, untie_t5=tied is False and model_type in ("t5", "mt5", "umt5"))
    _set_generation(model, ids)
    model.to(getattr(torch, dtype))
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    model.save_pretrained(folder, max_shard_size=total if shards == 1 else total // shards)
    return folder


@functools.cache
def _ids(recipe: str, seed: int, size: int) -> dict[str, int]:
    """What a configuration takes from the tokenizer: sizes, and the ids of tokens by their role or text."""
    import transformers

    folder = _trained(recipe, seed, size)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = {**tokenizer.get_vocab(), "length": len(tokenizer)}
    for role in ("bos", "eos", "pad", "cls", "sep", "mask"):
        if (found := getattr(tokenizer, f"{role}_token_id", None)) is not None:
            ids[f"{role}_token_id"] = found
    if (target := folder / "target_vocab.json").exists():
        ids["target_length"] = len(json.loads(target.read_text(encoding="utf-8")))
    return ids


def _settings(model_type: str, ids: dict[str, int], rows: int | None, tied: bool | None, extra: dict[str, Any]) -> Any:
    """The model's configuration, its ids those of the tokenizer."""
    import transformers

    pad, eos = ids.get("pad_token_id"), ids.get("eos_token_id", ids.get("sep_token_id"))
    values: dict[str, Any] = {**_PLANS[model_type].config, "eos_token_id": eos}
    values["bos_token_id"] = ids.get("bos_token_id", ids.get("cls_token_id"))
    values["pad_token_id"] = eos if pad is None else pad  # GPT-2 and Llama have no <pad>
    values["vocab_size"] = rows or ids["length"]
    if model_type == "modernbert":
        values |= {"cls_token_id": ids["cls_token_id"], "sep_token_id": ids["sep_token_id"]}
    if model_type in ("t5", "mt5", "umt5", "marian"):
        values["decoder_start_token_id"] = pad
    elif model_type in ("mbart", "m2m_100"):
        values["decoder_start_token_id"] = eos
    if model_type == "marian":
        values |= {"decoder_vocab_size": ids.get("target_length", values["vocab_size"]), "forced_eos_token_id": eos}
    if model_type == "m2m_100" and "__ro__" in ids:
        values["vocab_size"] = rows or ids["length"] + 8  # its 8 made-up words have rows and no token
    if tied is not None:
        values["tie_word_embeddings"] = tied
    if model_type == "gemma3":
        text = {key: values.pop(key) for key in (*_GROUPED, "vocab_size", "bos_token_id", "pad_token_id")}
        text["model_type"], text["eos_token_id"] = "gemma3_text", eos
        values["eos_token_id"] = [eos, ids["<end_of_turn>"]]
        values |= {"text_config": text, "vision_config": _VISION, "mm_tokens_per_image": 1}
        values |= {"image_token_index": ids["<mask>"], "boi_token_index": ids["<unused0>"]}
        values["eoi_token_index"] = ids["<unused1>"]
    return transformers.AutoConfig.for_model(model_type, **values | extra)


def _fill(model: Any, settings: Any, untie_t5: bool) -> None:
    """Give the head's biases values, and T5 its own head, which its configuration alone no longer does."""
    import torch

    sizes = {getattr(settings, key, None) for key in ("vocab_size", "decoder_vocab_size")}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("bias") and tensor.shape[-1] in sizes:
                tensor.normal_()
    if untie_t5 and hasattr(model, "lm_head"):
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))


def _set_generation(model: Any, ids: dict[str, int]) -> None:
    """Ids that only the generation config has: forced and forbidden tokens, several ends."""
    generation = getattr(model, "generation_config", None)
    if generation is None:
        return
    for code in ("ro_RO", "ron_Latn", "__ro__"):
        if code in ids and model.config.is_encoder_decoder:
            generation.forced_bos_token_id = ids[code]
    for end in ("<|im_end|>", "<end_of_turn>"):
        if end in ids:
            generation.eos_token_id = [ids["eos_token_id"], ids[end]]
    if model.config.model_type == "marian":
        generation.bad_words_ids = [[ids["pad_token_id"]]]
        generation.forced_eos_token_id = ids["eos_token_id"]
