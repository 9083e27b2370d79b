"""SentencePiece models: beside a tokenizer.json, or as the tokenizer itself with a vocab.json (Marian, M2M-100)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.catalog import Language
from polydistill.errors import PolydistillError, library_errors
from polydistill.files.jsonfiles import HINT, LARGEST_VOCABULARY, Part, read_bytes, read_json
from polydistill.vocab import charsmap
from polydistill.vocab.bpe import NEVER, merge_path
from polydistill.vocab.checks import LONGEST_TOKEN, MOST_IDS, check_ids, quoted
from polydistill.vocab.keep import KeepSet, tokens_by_id
from polydistill.vocab.tokenizer_config import TokenizerConfig, content, language_code, write_json

SUFFIXES = (".model", ".spm")
NORMAL, UNKNOWN, USER_DEFINED, UNUSED, BYTE, BPE_TYPE = 1, 2, 4, 5, 6, 2  # sentencepiece_model.proto
TEXT = (NORMAL, USER_DEFINED)
FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")  # the first ids of XLM-R, mBART, NLLB and XGLM


def files(folder: Path) -> list[Path]:
    """The SentencePiece (or other binary) vocabularies of a folder."""
    return sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES)


def read_model(path: Path) -> Any:
    """Parses a SentencePiece model.

    Returns:
        A `ModelProto`.

    Raises:
        PolydistillError: The file is something else.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    raw = read_bytes(path, LARGEST_VOCABULARY)
    try:
        proto.ParseFromString(raw)
        names = [p.piece for p in proto.pieces]
    except (DecodeError, UnicodeDecodeError) as error:
        raise PolydistillError(f"{path} is not a SentencePiece model.", "Download the model again.") from error
    if why := _fault(proto, names):
        raise PolydistillError(f"{path} is not a whole SentencePiece model: {why}.", "Download the model again.")
    return proto


def _fault(proto: Any, names: Sequence[str]) -> str | None:
    """What is wrong with a model that could be parsed: a cut file still parses where a field ends."""
    if not 0 < len(names) < MOST_IDS:
        return f"it has {len(names):,} pieces"
    if not all(names) or max(map(len, names)) > LONGEST_TOKEN:
        return f"a piece is empty, or longer than {LONGEST_TOKEN:,} characters"
    if len(set(names)) < len(names):
        return f"the piece {quoted(Counter(names).most_common(1)[0][0])} is in it twice"
    if not np.isfinite([p.score for p in proto.pieces]).all():
        return "a score is not a number"
    if [p.type for p in proto.pieces].count(UNKNOWN) != 1:
        return "it has no unknown piece, or several"
    if not proto.HasField("trainer_spec") or not proto.HasField("normalizer_spec"):
        return "it is cut off"
    for spec in (proto.normalizer_spec, proto.denormalizer_spec):
        if spec.precompiled_charsmap and (why := charsmap.fault(spec.precompiled_charsmap)):
            return f"its character map {why}"
    return None


def trimmed(proto: Any, keeps: Callable[[str], bool]) -> Any:
    """A copy with the pieces for which `keeps` holds; control, unknown and byte pieces always stay."""
    return _with_pieces(proto, [p for p in proto.pieces if p.type not in TEXT or keeps(p.piece)])


def _with_pieces(proto: Any, pieces: Sequence[Any]) -> Any:
    """A copy with these of its pieces."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    del copy.pieces[:]
    copy.pieces.extend(pieces)
    position = {p.piece: i for i, p in enumerate(pieces)}
    copy.trainer_spec.vocab_size = len(pieces)
    for name in ("unk_id", "bos_id", "eos_id", "pad_id"):
        old = getattr(proto.trainer_spec, name)
        if 0 <= old < len(proto.pieces):
            # A specification with default values may name a piece of text, which may be gone.
            setattr(copy.trainer_spec, name, position.get(proto.pieces[old].piece, -1))
    if "self_test_data" in copy.DESCRIPTOR.fields_by_name:  # its samples need pieces that are gone
        copy.ClearField("self_test_data")
    else:  # sentencepiece 0.2.3 does not know the field any more
        copy.DiscardUnknownFields()
    return copy


def rewrite_beside(path: Path, target: Path, ids: Mapping[str, int], keep: KeepSet) -> list[str]:
    """Writes the model that agrees with the trimmed tokenizer.json, or nothing if it cannot be made to agree.

    It keeps exactly the pieces whose ids are kept, so that readers number them as tokenizer.json does.

    Returns:
        A note when the file is left out.
    """
    try:
        proto = read_model(path)
    except PolydistillError:
        return [f"{path.name} is not a SentencePiece model and was left out; tokenizer.json has all that is needed."]
    numbers = piece_ids(proto, ids)
    new = _with_pieces(proto, [p for p, i in zip(proto.pieces, numbers, strict=True) if i in keep])
    kept = {token: keep.new(i) for token, i in ids.items() if i in keep}
    why = disagreement(proto, ids, keep) or _fault(new, [p.piece for p in new.pieces])
    if not why and piece_ids(new, kept) != [keep.new(i) for i in numbers if i in keep]:
        why = "its pieces would not have the ids of tokenizer.json"
    raw = new.SerializeToString()
    if not why and not _is_usable(raw):
        why = "it needs pieces, such as its bytes, that were dropped"
    if why:
        return [f"{path.name} was left out, since it would not agree with tokenizer.json: {why}."]
    target.write_bytes(raw)
    return []


def _is_usable(raw: bytes) -> bool:
    """Whether the SentencePiece library accepts a model, which must have all 256 bytes if it has any, for example."""
    from sentencepiece import SentencePieceProcessor

    try:
        SentencePieceProcessor(model_proto=raw)
    except (RuntimeError, OSError):
        return False
    return True


def piece_ids(proto: Any, ids: Mapping[str, int]) -> list[int]:
    """The id that readers give each piece: its position, or one more where the first four ids are fairseq's.

    Args:
        proto: A model beside a tokenizer.json; in fairseq's layout it begins with <unk>, <s> and </s>.
        ids: Token -> id, as tokenizer.json has it.
    """
    count = len(proto.pieces)
    names = [p.piece for p in proto.pieces[:3]]
    if names == ["<unk>", "<s>", "</s>"] and [ids.get(token) for token in FAIRSEQ] == [0, 1, 2, 3]:
        return [3, 0, 2, *range(4, count + 1)]
    return [*range(count)]


def disagreement(proto: Any, ids: Mapping[str, int], keep: KeepSet | None = None) -> str | None:
    """Why a SentencePiece model does not number its pieces as tokenizer.json does, None if it does.

    A control piece, which no text becomes, may have another name there, as in models whose spare pieces were renamed.

    Args:
        proto: The model.
        ids: Token -> id, as tokenizer.json has it.
        keep: The ids that matter; None for all.
    """
    for p, i in zip(proto.pieces, piece_ids(proto, ids), strict=True):
        there = ids.get(p.piece)
        if there == i or (keep is not None and i not in keep and (there is None or there not in keep)):
            continue
        if there is None and p.type not in (*TEXT, BYTE):
            continue
        other = "lacks it" if there is None else f"gives it {there:,}"
        return f"the model gives its piece {quoted(p.piece)} the id {i:,}, tokenizer.json {other}"
    return None


@dataclass(frozen=True)
class JsonSpace:
    """One table of ids (a vocab.json) and the SentencePiece models whose pieces it numbers."""

    name: str
    file: str
    table: dict[str, int]
    extra: dict[str, int] = field(default_factory=dict)
    models: tuple[Path, ...] = ()
    unk: str = "<unk>"

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token -> id."""
        return {**self.table, **self.extra}

    @cached_property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self.ids.values()) + 1

    @cached_property
    def tokens(self) -> list[str]:
        """(size,) the token of each id, "" where there is none."""
        return tokens_by_id(self.ids, self.size)

    @cached_property
    def protos(self) -> list[Any]:
        """The parsed models."""
        return [read_model(path) for path in self.models]

    def guards(self) -> list[int]:
        """The lowest score of each Unigram model, which sets the penalty of unknown text."""
        found = []
        for proto in self.protos:
            normal = [p for p in proto.pieces if p.type == NORMAL]
            if proto.trainer_spec.model_type != BPE_TYPE and normal:
                lowest = min(normal, key=lambda p: p.score)
                found += [self.ids[lowest.piece]] if lowest.piece in self.ids else []
        return found

    @cached_property
    def _scores(self) -> list[dict[str, float]]:
        """Piece -> score, for the BPE models: SentencePiece merges a pair if its text is a piece, best score first."""
        bpe = [p for p in self.protos if p.trainer_spec.model_type == BPE_TYPE]
        mergeable = (NORMAL, USER_DEFINED, UNUSED)
        return [{p.piece: p.score for p in proto.pieces if p.type in mergeable} for proto in bpe]

    def dependencies(self, token: str) -> Sequence[str]:
        """The pieces on the merge path of `token` in each BPE model."""
        found: dict[str, None] = {}
        for scores in self._scores:
            if token in scores:
                found.update(dict.fromkeys(merge_path(token, partial(_rank, scores))))
        return tuple(found)

    def forms(self, text: str) -> list[str]:
        """The forms of a short text in the vocabulary."""
        return [text, "▁" + text]

    def required(self) -> dict[int, str]:
        """Special tokens, language codes and everything that is not a piece of a model."""
        pieces = {p.piece for proto in self.protos for p in proto.pieces if p.type in (NORMAL, USER_DEFINED)}
        required = {i: "special" for token, i in self.ids.items() if token not in pieces}
        required[self.ids[self.unk]] = "special"
        bytes_ = {p.piece for proto in self.protos for p in proto.pieces if p.type == BYTE}
        required.update({self.ids[b]: "alphabet" for b in bytes_ if b in self.ids})
        return required

    @property
    def cut(self) -> None:
        """Not known from the files."""

    @property
    def counting_encoders(self) -> list[Callable[[list[str]], list[list[int]]]]:
        """The same."""
        return self.encoders

    @cached_property
    def encoders(self) -> list[Callable[[list[str]], list[list[int]]]]:
        """One function from texts to ids for each model."""
        from sentencepiece import SentencePieceProcessor

        def encoder(path: Path) -> Callable[[list[str]], list[list[int]]]:
            with library_errors(f"{path} cannot be read", HINT):
                processor = SentencePieceProcessor(model_file=str(path))
            ids, unk = self.ids, self.ids[self.unk]

            def encode(texts: list[str]) -> list[list[int]]:
                with library_errors(f"{path} cannot cut a text", HINT):
                    return [[ids.get(p, unk) for p in ps] for ps in processor.encode(texts, out_type=str)]

            return encode

        _ = self.protos  # refuses what the library would read past its end
        return [encoder(path) for path in self.models]


def _rank(scores: Mapping[str, float], left: str, right: str) -> float:
    return -scores.get(left + right, -NEVER)


def read_table(path: Path) -> dict[str, int]:
    """Token -> id, from a vocab.json.

    Raises:
        PolydistillError: It is not one.
    """
    return check_ids(Part(path, read_json(path, largest=LARGEST_VOCABULARY, unique=True)))


class SentencePieceVocabulary:
    """Marian and M2M-100: pieces from `.spm`/`.model` files, ids from vocab.json (and target_vocab.json)."""

    may_drop = False  # M2M-100 computes the ids of its codes

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = TokenizerConfig(folder)
        unk = content(self.config.config.get("unk_token")) or "<unk>"
        models = files(folder)
        table = read_table(folder / "vocab.json")
        if not models or unk not in table:
            raise PolydistillError(
                f"{folder} lacks vocab.json with {unk}, or its SentencePiece models.", "Download the model again."
            )
        if self.config.config.get("separate_vocabs") and (folder / "target_vocab.json").exists():
            target = read_table(folder / "target_vocab.json")
            if unk not in target:
                raise PolydistillError(f"{folder / 'target_vocab.json'} lacks {unk}.", HINT)
            source_model, target_model = folder / "source.spm", folder / "target.spm"
            self.spaces = [
                JsonSpace("vocabulary", "vocab.json", table, {}, (source_model,), unk),
                JsonSpace("target", "target_vocab.json", target, {}, (target_model,), unk),
            ]
        else:
            self.spaces = [JsonSpace("vocabulary", "vocab.json", table, self._beyond(table), tuple(models), unk)]

    def _beyond(self, table: Mapping[str, int]) -> dict[str, int]:
        """M2M-100's language codes have ids after the table's, computed by its class; its files may not name them."""
        if self.config.class_name != "M2M100Tokenizer":
            return {}
        config = Part(self.folder / "config.json", read_json(self.folder / "config.json", optional=True))
        rows = config["vocab_size"].whole_number(0, MOST_IDS) if "vocab_size" in config.value else 0
        first = max(table.values()) + 1
        codes = [token for token in self.config.listed() if language_code(token)]
        added = self.config.added_tokens() or {token: first + i for i, token in enumerate(codes)}
        named = {i: token for token, i in added.items()}
        return {named.get(i, f"<row {i}>"): i for i in range(first, max([rows, *(i + 1 for i in named)]))}

    @cached_property
    def fingerprint(self) -> str:
        """Names the vocabulary that counts belong to: a hash of its files."""
        parts = [self.folder / space.file for space in self.spaces] + [m for s in self.spaces for m in s.models]
        return hashlib.sha256(b"".join(path.read_bytes() for path in parts)).hexdigest()

    @property
    def added(self) -> dict[str, int]:
        """The language codes and other tokens that are not pieces of text."""
        space = self.spaces[0]
        return {t: i for t, i in space.ids.items() if language_code(t) or t in space.extra}

    def needed(self) -> dict[str, str]:
        """Token -> what needs it."""
        return {t: f"it is the tokenizer's {role}" for t, role in self.config.named().items()}

    def beyond(self, rows: int) -> frozenset[str]:
        """None: the ids that `config.json` gives room for are counted as tokens, and the tables hold the others."""
        return frozenset()

    def unknown(self) -> frozenset[str]:
        """The unknown token."""
        return frozenset({self.spaces[0].unk})

    def template_texts(self) -> list[str]:
        """None: these models have no chat template."""
        return []

    def write(
        self, out: Path, keeps: Sequence[KeepSet], dropped: frozenset[str], languages: Sequence[Language]
    ) -> list[str]:
        """Writes the tables, the models and the configuration; see `TokenizerJson.write`."""
        for space, keep in zip(self.spaces, keeps, strict=True):
            write_json(out / space.file, keep.vocabulary(space.table))
            for path, proto in zip(space.models, space.protos, strict=True):
                new = trimmed(proto, lambda p, s=space, k=keep: p not in s.ids or s.ids[p] in k)  # type: ignore[misc]
                (out / path.name).write_bytes(new.SerializeToString())
        self.config.write(out, keeps[0], dropped, languages)
        return []
