"""Random tokenizers of every family, so small that their pieces collide, and what trimming must keep of any of them."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers

from polydistill.vocab.keep import Evidence, KeepRule, KeepSet, select
from polydistill.vocab.tokenizer_json import TokenizerJson

CASES = settings(
    max_examples=220,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
FEWER = settings(CASES, max_examples=60)
BYTES = [f"<0x{b:02X}>" for b in range(256)]
BYTE_LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
LETTERS = "abcdé"
FOREIGN = "z中🙂 \t"  # no piece has them, but for the space
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True)
class Made:
    """A tokenizer.json in memory.

    Args:
        data: Its content.
        learnt: Tokens of text, which may be dropped.
        exact_unknown: Whether text is unknown after trimming exactly where it was before.
    """

    data: dict[str, Any]
    learnt: tuple[str, ...]
    exact_unknown: bool = True

    @functools.cached_property
    def raw(self) -> bytes:
        return orjson.dumps(self.data)

    @functools.cached_property
    def vocabulary(self) -> TokenizerJson:
        return TokenizerJson(empty_folder(), self.raw)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_buffer(self.raw)

    @property
    def byte_level(self) -> bool:
        return "ByteLevel" in str(self.data["pre_tokenizer"])

    def surface(self, token: str) -> str:
        """Text that may be written with a token."""
        if self.byte_level and token in self.data["model"]["vocab"]:
            return decoders.ByteLevel().decode([token])
        return token.removeprefix("##").replace("▁", " ")

    def trimmed(self, keep: KeepSet) -> Made:
        out = Path(workspace(), "out")
        out.mkdir(exist_ok=True)
        assert self.vocabulary.write(out, [keep], frozenset(), []) == []
        assert [p.name for p in out.iterdir()] == ["tokenizer.json"]
        return replace(self, data=orjson.loads((out / "tokenizer.json").read_bytes()))


@functools.cache
def _workspace() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="polydistill-tests-")


def workspace() -> Path:
    return Path(_workspace().name)


def empty_folder() -> Path:
    folder = workspace() / "empty"
    folder.mkdir(exist_ok=True)
    return folder


# ---- the parts of a tokenizer.json ----


def _tokenizer_json(draw: Any, model: dict[str, Any], specials: Sequence[str], **parts: Any) -> dict[str, Any]:
    """Around `model`: added tokens in and beyond its vocabulary, a post-processor, padding."""
    vocab = model["vocab"]
    tokens = [token for token, _ in vocab] if isinstance(vocab, list) else list(vocab)
    ids = {t: i for i, t in enumerate(tokens)} if isinstance(vocab, list) else dict(vocab)
    ids.update({t: len(ids) + i for i, t in enumerate(["<extra 1>", "<extra 2>"][: draw(st.integers(0, 2))])})
    added = [t for t in ids if t in specials or t.startswith("<extra")]
    # A piece of text that is an added token as well is matched before the model runs, unless its flags forbid it.
    added += draw(st.lists(st.sampled_from(sorted(set(tokens) - set(specials) - set(BYTES))), max_size=2, unique=True))
    flags = {t: dict(zip(FLAGS, draw(st.tuples(*[st.booleans()] * 4)), strict=True)) for t in added if t in ids}
    first, last = specials[0], specials[1]
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {first: {"id": first, "ids": [ids[first]], "tokens": [first]}},
    }
    bert = {"type": "BertProcessing", "sep": [last, ids[last]], "cls": [first, ids[first]]}
    sequence = {
        "type": "Sequence",
        "processors": [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}, template],
    }
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_type_id": 0}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": draw(st.sampled_from([None, {**padding, "pad_id": ids[last], "pad_token": last}])),
        "added_tokens": [
            {"id": ids[t], "content": t, **flags[t], "special": t in specials} for t in sorted(added, key=ids.get)
        ],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": draw(st.sampled_from([None, template, bert, sequence])),
        "decoder": None,
        **parts,
        "model": model,
    }


def _metaspace(scheme: str, split: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


METASPACE = st.builds(_metaspace, st.sampled_from(["always", "first", "never"]), st.booleans())


@st.composite
def wordpieces(draw: Any) -> Made:
    """WordPiece, with or without the single letters that let every word of known letters be written."""
    drawn = draw(
        st.lists(
            st.tuples(st.booleans(), st.text(LETTERS, min_size=1, max_size=4)), min_size=3, max_size=24, unique=True
        )
    )
    pieces = dict.fromkeys("##" * inside + text for inside, text in drawn)
    whole = draw(st.booleans())
    if whole:
        pieces |= dict.fromkeys(f"##{c}" for inside, text in drawn for c in text[not inside :])
    specials = ["[CLS]", "[PAD]", "[UNK]", "[MASK]"]
    order = draw(st.permutations([*specials, *pieces]))
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": draw(st.sampled_from([4, 100])),
        "vocab": {t: i for i, t in enumerate(order)},
    }
    bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
    data = _tokenizer_json(
        draw,
        model,
        specials,
        normalizer=draw(st.sampled_from([None, {**bert, "lowercase": False}])),
        pre_tokenizer=draw(st.sampled_from([{"type": "BertPreTokenizer"}, {"type": "WhitespaceSplit"}])),
    )
    return Made(data, tuple(pieces), whole)


@st.composite
def unigrams(draw: Any) -> Made:
    """Unigram with many equal scores, sometimes falling back to bytes; <unk> anywhere."""
    texts = draw(st.lists(st.text(LETTERS + "▁", min_size=1, max_size=4), min_size=3, max_size=24, unique=True))
    even = [0.0, -0.1, -0.2, -1.0, -1.5, -3.0, -10.0, -20.0, -35.0]
    # Cheap and dear pieces with nothing between: what unknown text costs decides more often.
    scores = st.sampled_from(draw(st.sampled_from([even, [-0.1, -20.0, -0.2, -20.5]])))
    specials = ["<s>", "</s>", "<unk>"]
    bytes_ = BYTES if draw(st.booleans()) else []
    pieces = [(text, draw(scores)) for text in texts]
    if "abab" not in texts and draw(st.booleans()):
        texts, pieces = [*texts, "abab"], [*pieces, ("abab", -60.0)]
    pieces += [(t, draw(st.sampled_from([0.0, -2.0]))) for t in specials]
    order = [*draw(st.permutations(pieces)), *((b, 0.0) for b in bytes_)]
    unk_id = [token for token, _ in order].index("<unk>")
    model = {"type": "Unigram", "unk_id": unk_id, "vocab": [list(p) for p in order], "byte_fallback": bool(bytes_)}
    return Made(_tokenizer_json(draw, model, specials, pre_tokenizer=draw(st.none() | METASPACE)), tuple(texts))


@st.composite
def merge_tables(draw: Any, letters: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Symbols beyond single letters, some of which no merge gives, and merges in any order, several to one symbol."""
    symbols = list(letters)
    merges: dict[tuple[str, str], None] = {}
    for i, j in draw(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=3, max_size=25)):
        left, right = symbols[i % len(symbols)], symbols[j % len(symbols)]
        if len(left + right) <= 6:
            merges[left, right] = None
            symbols += [left + right] if left + right not in symbols else []
    if draw(st.booleans()):  # every way to put a symbol together, as converted SentencePiece models have it
        for symbol in symbols:
            for cut in range(1, len(symbol)):
                if symbol[:cut] in symbols and symbol[cut:] in symbols:
                    merges[symbol[:cut], symbol[cut:]] = None
    unreachable = draw(st.lists(st.text(letters, min_size=2, max_size=4), max_size=4))
    longer = dict.fromkeys([*symbols[len(letters) :], *unreachable])
    return list(longer), draw(st.permutations(list(merges)))


def _bpe(draw: Any, vocab: list[str], merges: list[tuple[str, str]], **options: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": draw(st.booleans()),
        "byte_fallback": False,
        "ignore_merges": draw(st.booleans()),
        "vocab": {t: i for i, t in enumerate(vocab)},
        "merges": [f"{a} {b}" for a, b in merges] if draw(st.booleans()) else [list(m) for m in merges],
        **options,
    }


@st.composite
def piece_bpes(draw: Any) -> Made:
    """SentencePiece-BPE as Llama, Gemma (with byte fallback) and NLLB (without) have it."""
    letters = LETTERS + "▁"
    longer, merges = draw(merge_tables(letters))
    specials = ["<s>", "</s>", "<unk>"]
    bytes_ = BYTES if draw(st.booleans()) else []
    # Single letters can be missing from a vocabulary that falls back to bytes; their merges are then missing too.
    missing = draw(st.sets(st.sampled_from(LETTERS), max_size=1)) if bytes_ else set()
    merges = [(a, b) for a, b in merges if not missing & set(a + b)]
    texts = draw(st.permutations([*(c for c in letters if c not in missing), *longer]))
    model = _bpe(draw, [*specials, *bytes_, *texts], merges, unk_token="<unk>", byte_fallback=bool(bytes_))
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]}
    if draw(st.booleans()):
        data = _tokenizer_json(draw, model, specials, normalizer=draw(st.sampled_from([spaces, prepend])))
    else:
        data = _tokenizer_json(draw, model, specials, pre_tokenizer=draw(METASPACE))
    return Made(data, tuple(texts))


@st.composite
def byte_bpes(draw: Any) -> Made:
    """Byte-level BPE as GPT-2, RoBERTa and Qwen have it: merges of letters, of a letter's bytes, of spaces."""
    longer, merges = draw(merge_tables("abcdĠÃ©"))
    specials = ["<s>", "</s>", "<unk>"]
    texts = [*BYTE_LETTERS, *draw(st.permutations(longer))]
    front = draw(st.booleans())
    model = _bpe(draw, [*specials, *texts] if front else [*texts, *specials], merges)
    flags = {"add_prefix_space": draw(st.booleans()), "trim_offsets": True, "use_regex": draw(st.booleans())}
    data = _tokenizer_json(draw, model, specials, pre_tokenizer={"type": "ByteLevel", **flags})
    return Made(data, tuple(longer))


# ---- choosing ----


@st.composite
def evidence_for(draw: Any, ids: dict[str, int], learnt: Sequence[str], size: int) -> Evidence:
    """Counts of some learnt tokens; smoothing may expect some that were not seen."""
    counts = np.zeros(size, np.int64)
    places = [ids[t] for t in learnt]
    counts[places] = draw(st.lists(st.integers(0, 4), min_size=len(places), max_size=len(places)))
    smoothing = draw(st.sampled_from([0.0, 1e-3]))
    expected = counts.astype(float)
    expected[[i for i in places if counts[i] == 0]] = smoothing
    return Evidence("xx", counts, expected)


class Choice(NamedTuple):
    """What a rule keeps of some evidence."""

    keep: KeepSet
    evidence: Evidence
    rule: KeepRule

    def again(self, space: Any) -> KeepSet:
        """The same once more."""
        return select(space, space.required(), [self.evidence], self.rule)

    def on_trimmed(self, space: Any) -> KeepSet:
        """The same on the trimmed tokenizer; a share of what is left would be another wish, so all of it is asked."""
        ids = self.keep.ids
        evidence = replace(self.evidence, counts=self.evidence.counts[ids], expected=self.evidence.expected[ids])
        rule = self.rule if self.rule.coverage is None else KeepRule(coverage=1.0)
        return select(space, space.required(), [evidence], rule)


@st.composite
def choices(draw: Any, space: Any, learnt: Sequence[str]) -> Choice:
    """What some rule keeps of random evidence."""
    evidence = draw(evidence_for(space.ids, learnt, space.size))
    least = len(select(space, space.required(), [], KeepRule(min_count=1)))
    rule = draw(
        st.builds(KeepRule, coverage=st.sampled_from([0.3, 0.5, 0.9, 1.0]))
        | st.builds(KeepRule, min_count=st.integers(1, 3))
        | st.builds(KeepRule, vocab_size=st.integers(least, len(set(space.ids.values()))))
    )
    keep = select(space, space.required(), [evidence], rule)
    assert rule.vocab_size in (None, len(keep))
    return Choice(keep, evidence, rule)


# ---- checking ----


@st.composite
def texts_with(draw: Any, surfaces: Sequence[str]) -> list[str]:
    """Texts put together from the given strings, from letters, and from both."""
    surfaces = [s for s in surfaces if "\ufffd" not in s] or ["a"]
    letters = st.text(LETTERS + FOREIGN, max_size=6)
    known = st.lists(st.sampled_from(surfaces), max_size=6).map("".join)
    spaced = st.lists(st.sampled_from(surfaces), max_size=4).map(" ".join)
    mixed = st.lists(st.sampled_from(surfaces) | letters, max_size=5).map("".join)
    return draw(st.lists(known | spaced | mixed | letters, min_size=3, max_size=8))


def check_texts(
    texts: Sequence[str],
    before: Callable[[str], list[int]],
    after: Callable[[str], list[int]],
    keep: KeepSet,
    skip: frozenset[int] = frozenset(),
) -> Counter[str]:
    """Text all of whose tokens are kept has the mapped ids; other text has ids in range.

    Args:
        texts: What to encode.
        before: The original.
        after: The trimmed one.
        keep: What was kept.
        skip: Tokens that say nothing about the text that they stand for.
    """
    seen: Counter[str] = Counter()
    for text in texts:
        old, new = before(text), after(text)
        if all(i in keep and i not in skip for i in old):
            assert new == [keep.new(i) for i in old], (text, old, new)
            seen["same"] += bool(old)
        else:
            assert all(0 <= i < len(keep) for i in new), (text, new)
            seen["other"] += 1
    return seen


def check_made(made: Made, data: Any) -> Counter[str]:
    """All invariants of one tokenizer.json under one random selection."""
    vocabulary = made.vocabulary
    choice = data.draw(choices(vocabulary, made.learnt))
    keep = choice.keep
    new = made.trimmed(keep)
    check_ids(made, new, keep)
    surfaces = [made.surface(t) for t, i in vocabulary.ids.items() if i in keep and t in made.learnt]
    texts = data.draw(texts_with(surfaces))
    unknown = made.tokenizer.token_to_id("[UNK]")
    skip = frozenset() if made.exact_unknown else frozenset({unknown})
    seen: Counter[str] = Counter()
    if "merges" in made.data["model"]:
        seen["paths"] = check_merge_paths(made, new, keep)
    for special in (False, True):
        before, after = (lambda t, m=m, s=special: m.tokenizer.encode(t, add_special_tokens=s).ids for m in (made, new))
        seen += check_texts(texts, before, after, keep, skip)
    padded = zip(*(m.tokenizer.encode_batch(texts) for m in (made, new)), strict=True)
    for old, mine in padded:
        if all(i in keep and i not in skip for i in old.ids):
            # How far is padded hangs on the longest text, which may have other tokens now.
            pairs = list(zip(old.ids, mine.ids, strict=False))
            assert all(keep.new(i) == j for i, j in pairs)
    everything = made.trimmed(KeepSet.everything(vocabulary.size))
    assert everything.data == made.data
    again = Made(made.data, made.learnt)
    assert again.trimmed(choice.again(again.vocabulary)).raw == new.raw, "same input, other bytes"
    second = choice.on_trimmed(new.vocabulary)
    assert second.ids.tolist() == list(range(len(keep))), "trimming twice is not trimming once"
    assert new.trimmed(second).raw == new.raw
    return seen


def check_ids(made: Made, new: Made, keep: KeepSet) -> None:
    """Ids are contiguous and belong to the same tokens as before, wherever they stand."""
    old_ids, new_ids = made.vocabulary.ids, new.vocabulary.ids
    assert sorted(new_ids.values()) == list(range(len(keep)))
    assert new_ids == {t: keep.new(i) for t, i in old_ids.items() if i in keep}
    assert new.tokenizer.get_vocab(with_added_tokens=True) == new_ids
    assert new.tokenizer.get_vocab_size() == len(keep)
    for added in new.data["added_tokens"]:
        assert new.tokenizer.token_to_id(added["content"]) == added["id"]
    assert [t["content"] for t in new.data["added_tokens"]] == [t["content"] for t in made.data["added_tokens"]]
    if (unk := made.data["model"].get("unk_id")) is not None:
        assert new.data["model"]["vocab"][new.data["model"]["unk_id"]] == made.data["model"]["vocab"][unk]
    if unk_token := made.data["model"].get("unk_token"):
        assert new.tokenizer.token_to_id(unk_token) == keep.new(old_ids[unk_token])


def check_merge_paths(made: Made, new: Made, keep: KeepSet) -> int:
    """Every kept BPE token that the merges gave before is still given by them. Returns how many were looked at."""
    looked = 0
    for token, old in made.data["model"]["vocab"].items():
        if old not in keep or token in BYTES:
            continue
        was = [t.id for t in made.tokenizer.model.tokenize(token)]
        if was == [old]:
            assert [t.id for t in new.tokenizer.model.tokenize(token)] == [keep.new(old)], token
            looked += 1
    return looked


def feasible_sizes(space: Any, evidence: Evidence) -> None:
    """Every size between what must stay and the whole vocabulary is met exactly; each set holds the smaller ones."""
    sizes = range(len(select(space, space.required(), [], KeepRule(min_count=1))), len(set(space.ids.values())) + 1)
    keeps = [select(space, space.required(), [evidence], KeepRule(vocab_size=n)) for n in sizes]
    assert [len(k) for k in keeps] == list(sizes)
    for smaller, larger in itertools.pairwise(keeps):
        assert set(smaller.ids.tolist()) < set(larger.ids.tolist())


# ---- SentencePiece models with a vocab.json ----


@st.composite
def sentencepiece_models(draw: Any, kind: str) -> bytes:
    """A `.spm` file of the type `unigram` or `bpe`: colliding pieces, equal scores, user-defined ones, bytes."""
    from sentencepiece import sentencepiece_model_pb2 as pb2

    role = pb2.ModelProto.SentencePiece
    model = pb2.ModelProto()
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = draw(st.booleans())
    model.normalizer_spec.remove_extra_whitespaces = draw(st.booleans())
    spec = model.trainer_spec
    spec.model_type = spec.BPE if kind == "bpe" else spec.UNIGRAM
    spec.byte_fallback = draw(st.booleans())
    spec.unk_id, spec.bos_id, spec.eos_id, spec.pad_id = 0, 1, 2, -1
    for name in ("<unk>", "<s>", "</s>"):
        model.pieces.add(piece=name, score=0.0, type=role.UNKNOWN if name == "<unk>" else role.CONTROL)
    for byte in BYTES if spec.byte_fallback else ():
        model.pieces.add(piece=byte, score=0.0, type=role.BYTE)
    if kind == "bpe":
        longer, _ = draw(merge_tables(LETTERS + "▁"))
        single = draw(st.sets(st.sampled_from(LETTERS + "▁"), min_size=3))
        texts = draw(st.permutations([*sorted(single), *longer]))
        scores: list[float] = [-float(i // draw(st.integers(1, 2))) for i in range(len(texts))]
    else:
        texts = draw(st.lists(st.text(LETTERS + "▁", min_size=1, max_size=4), min_size=3, max_size=20, unique=True))
        grid = st.sampled_from([-0.1, -0.2, -1.0, -1.5, -3.0, -10.0, -20.0, -35.0])
        scores = [draw(grid) for _ in texts]
    defined = draw(st.sets(st.sampled_from(texts), max_size=1))
    for text, score in zip(texts, scores, strict=True):
        model.pieces.add(piece=text, score=score, type=role.USER_DEFINED if text in defined else role.NORMAL)
    spec.vocab_size = len(model.pieces)
    return model.SerializeToString()


def text_pieces(model: bytes) -> list[str]:
    """The pieces of a `.spm` file that stand for text, without single bytes."""
    from sentencepiece import sentencepiece_model_pb2 as pb2

    role = pb2.ModelProto.SentencePiece
    pieces = pb2.ModelProto.FromString(model).pieces
    return [p.piece for p in pieces if p.type in (role.NORMAL, role.USER_DEFINED)]
