"""Tokenizers in one tokenizer.json (the `tokenizers` library), whatever their model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from polydistill.catalog import Language
from polydistill.errors import PolydistillError, library_errors
from polydistill.files.jsonfiles import HINT, LARGEST_VOCABULARY, Part, parse_json, read_bytes, short
from polydistill.vocab import sentencepiece_model, sentencepiece_unigram, wordpiece
from polydistill.vocab.bpe import BPE, byte_alphabet
from polydistill.vocab.checks import check_tokenizer, quoted
from polydistill.vocab.counts import WORDS, Cut, bare_words
from polydistill.vocab.keep import KeepSet, tokens_by_id
from polydistill.vocab.tokenizer_config import DEFAULT_LANGUAGE, TokenizerConfig, is_code_of, language_code, write_json
from polydistill.vocab.unigram import Unigram
from polydistill.vocab.wordpiece import WordPiece

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Encode = Callable[[list[str]], list[list[int]]]
NAME = "tokenizer.json"
MODELS: dict[str, Callable[[dict[str, Any], bool], Unigram | WordPiece | BPE]] = {
    "Unigram": lambda model, byte_level: Unigram(model),
    "WordPiece": lambda model, byte_level: WordPiece(model),
    "BPE": BPE,
}


class TokenizerJson:
    """One tokenizer.json and the files beside it: a vocabulary of a single id space.

    Args:
        folder: Where the tokenizer is.
        raw: The bytes of its tokenizer.json, if the folder has none and it was converted.
    """

    name = "vocabulary"
    may_drop = True  # whether added tokens can be left out

    def __init__(self, folder: Path, raw: bytes | None = None) -> None:
        self.folder = folder
        self._raw = raw
        self.config = TokenizerConfig(folder)
        content = raw or read_bytes(folder / NAME, LARGEST_VOCABULARY)
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self.data, kind = checked(content, folder, self.config)
        if kind not in MODELS:
            raise PolydistillError(
                f"{folder} has a tokenizer of the kind {short(kind or 'unknown')}, which cannot be trimmed.",
                f"Supported are {', '.join(MODELS)}, and SentencePiece models with a vocab.json.",
            )
        model = self.data["model"]
        self.model = MODELS[kind](model, _is_byte_level(self.data))
        listed = {t["content"]: t["id"] for t in self.data.get("added_tokens", [])}
        named = {**self.config.added_tokens(), **dict.fromkeys(self.config.special(), -1)}
        # transformers makes special what the files beside it name, even what is plain vocabulary in this file.
        known = {t: self.model.ids[t] for t in named if t in self.model.ids}
        beside = {t: i for t, i in self.config.added_tokens().items() if t not in listed and t not in known}
        self.added: dict[str, int] = {**listed, **known, **beside}
        self._check_added(listed, beside)
        following = max([len(self.model.ids) - 1, *self.added.values()]) + 1
        new = (t for t in named if t not in self.added)
        self.added.update(zip(new, count(following), strict=False))

    def _check_added(self, listed: Mapping[str, int], beside: Mapping[str, int]) -> None:
        """Checks that the added tokens that the vocabulary lacks have ids of their own, those that the library gives
        them.

        Raises:
            PolydistillError: Another token has such an id.
        """
        taken = {*self.model.ids.values(), *listed.values()} if beside else set()
        for token, i in beside.items():
            if i in taken:
                raise PolydistillError(
                    f"{self.folder}: the files beside {NAME} give {quoted(token)} the id {i}, which another token has.",
                    HINT,
                )
            taken.add(i)
        beyond = [i for token, i in listed.items() if token not in self.model.ids]
        if beyond != [*range(len(self.model.ids), len(self.model.ids) + len(beyond))]:
            _ = self._tokenizer  # which compares them

    @property
    def spaces(self) -> list[TokenizerJson]:
        """Its only id space is the tokenizer itself."""
        return [self]

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token -> id, added tokens included."""
        return {**self.model.ids, **self.added}

    @cached_property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self.ids.values()) + 1

    @cached_property
    def tokens(self) -> list[str]:
        """(size,) the token of each id, "" where there is none."""
        return tokens_by_id(self.ids, self.size)

    def guards(self) -> list[int]:
        """Ids that the model needs although nothing uses them."""
        return self.model.guards()

    def forms(self, text: str) -> list[str]:
        """The forms of a short text in the vocabulary."""
        return self.model.forms(text)

    def dependencies(self, token: str) -> Sequence[str]:
        """Tokens without which the model would not produce `token`.

        Added tokens have them too: matched before the model runs they need none, but their flags can forbid the match
        (`single_word`), and Gemma's runs of spaces are listed as `▁▁` while text has them as spaces at that point.
        """
        return self.model.dependencies(token)

    def required(self) -> dict[int, str]:
        """Old id -> reason: unknown and byte pieces, added tokens, what the post-processor and padding insert."""
        required = self.model.required()
        required.update(dict.fromkeys(self.added.values(), "special"))
        required.update({self.ids[t]: "special" for t in self.needed() if t in self.ids})
        return required

    def needed(self) -> dict[str, str]:
        """Token -> what needs it: these cannot be dropped."""
        return {**self._written(), **{t: f"it is the tokenizer's {role}" for t, role in self.config.named().items()}}

    def beyond(self, rows: int) -> frozenset[str]:
        """The added tokens whose ids are beyond the rows of a model, which cannot use them.

        Raises:
            PolydistillError: The tokenizer itself writes one of them.
        """
        found = frozenset(t for t, i in self.added.items() if i >= rows and t not in self.model.ids)
        written = self._written()
        for token in sorted(found & written.keys(), key=self.added.__getitem__):
            raise PolydistillError(
                f"The model has {rows:,} rows, none of them for {token} with the id {self.added[token]:,}, which must "
                f"stay: {written[token]}.",
                "Give it a row: load the model with transformers, call model.resize_token_embeddings(len(tokenizer)), "
                "save model and tokenizer into one folder, and trim that.",
            )
        return found

    def _written(self) -> dict[str, str]:
        """Token -> what writes it into text or ids."""
        inserted = _post_processor_tokens(self.data.get("post_processor"))
        needed = {t: "the post-processor inserts it" for t in inserted if not language_code(t)}
        if self.data.get("padding"):
            needed[self.data["padding"]["pad_token"]] = "padding uses it"
        unk = self.model.model.get("unk_token")
        if unk:
            needed[unk] = "it stands for unknown text"
        templates = "\n".join(self.config.chat_templates)
        for token in self.added if templates else ():
            if token in templates:
                needed.setdefault(token, "the chat template writes it")
        return needed

    def unknown(self) -> frozenset[str]:
        """Tokens that stand for what the vocabulary cannot write: the unknown token, and bytes of split characters."""
        required = self.model.required()
        names = {i: token for token, i in self.model.ids.items() if i in required}
        if isinstance(self.model, BPE) and self.model.byte_level:
            return frozenset(c for b, c in byte_alphabet().items() if b >= 0x80)
        return frozenset(names.values())

    def template_texts(self) -> list[str]:
        """The literal texts of the chat templates, so that their tokens stay."""
        return self.config.template_texts(self.added)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        """Without truncation and padding.

        Raises:
            PolydistillError: The library cannot read it, or numbers its added tokens differently.
        """
        from tokenizers import Tokenizer

        path = self.folder / NAME
        with library_errors(f"{path} cannot be read", HINT):
            tokenizer = Tokenizer.from_buffer(self._raw) if self._raw else Tokenizer.from_file(str(path))
            tokenizer.no_truncation()
            tokenizer.no_padding()
        for token in self.data.get("added_tokens", []):
            found = tokenizer.token_to_id(token["content"])
            if found != token["id"]:
                raise PolydistillError(
                    f"{path} gives the added token {quoted(token['content'])} the id {token['id']}, but the "
                    f"`tokenizers` library gives it {found}.",
                    HINT,
                )
        return tokenizer

    @cached_property
    def encoders(self) -> list[Encode]:
        """One function from texts to ids, without special tokens, truncation or padding."""
        tokenizer = self._tokenizer

        def encode(texts: list[str]) -> list[list[int]]:
            with library_errors(f"The tokenizer of {self.folder} cannot cut a text", HINT):
                return [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

        return [encode]

    @property
    def cut(self) -> Cut | None:
        """How lines may be cut for counting according to its files, None if they do not tell."""
        if sentencepiece_unigram.splits_at_white_space(self.data):
            return WORDS
        return bare_words(self.added) if wordpiece.splits_at_punctuation(self.data) else None

    @cached_property
    def counting_encoders(self) -> list[Encode]:
        """The same, or a faster way if the files show that it gives the same ids.

        SentencePiece is five times as fast for its own models; ASCII needs no normaliser in BERT's.
        """
        fast = sentencepiece_unigram.encoder(self.data, lambda texts: self.encoders[0](texts))
        if fast is None and wordpiece.splits_at_punctuation(self.data):
            fast = wordpiece.encoder(self.data, self._tokenizer, self.added)
        return self.encoders if fast is None else [fast]

    def write(
        self, out: Path, keeps: Sequence[KeepSet], dropped: frozenset[str], languages: Sequence[Language]
    ) -> list[str]:
        """Writes the trimmed tokenizer's files.

        Args:
            out: An existing folder.
            keeps: The one KeepSet.
            dropped: Added tokens that go.
            languages: The languages that stay.

        Returns:
            Notes for the user.
        """
        (keep,) = keeps
        model = self.model.trimmed(keep)
        (out / NAME).write_bytes(orjson.dumps(self._trimmed(keep, model, dropped, languages)))
        special = [t["content"] for t in self.data.get("added_tokens", []) if t.get("special")]
        self.config.write(out, keep, dropped, languages, self.ids, special)
        notes: list[str] = []
        if self.config.class_name == "MBart50Tokenizer" and any(map(language_code, dropped)):
            notes.append(
                "transformers writes all codes of mBART-50 into a tokenizer that it saves, the dropped ones too: "
                "beside a fine-tuned model, put this folder's tokenizer files."
            )
        self._write_older(out, model)
        for path in sentencepiece_model.files(self.folder):
            if self.config.class_name in DEFAULT_LANGUAGE and any(map(language_code, dropped)):
                notes.append(f"{path.name} was left out: {self.config.class_name} numbers all language codes after it.")
            else:
                notes += sentencepiece_model.rewrite_beside(path, out / path.name, self.ids, keep)
        return notes

    def _write_older(self, out: Path, model: Mapping[str, Any]) -> None:
        """Writes the older form of the tokenizer if the folder has it and it can express the same as tokenizer.json."""
        vocab = model["vocab"]
        if (self.folder / "vocab.txt").is_file() and isinstance(self.model, WordPiece):
            tokens = sorted(vocab, key=vocab.__getitem__)
            if [*map(vocab.__getitem__, tokens)] == [*range(len(tokens))] and not any("\n" in t for t in tokens):
                (out / "vocab.txt").write_text("".join(t + "\n" for t in tokens), encoding="utf-8")
        if (self.folder / "merges.txt").is_file() and "merges" in model:
            write_json(out / "vocab.json", vocab)
            merges = (m if isinstance(m, str) else " ".join(m) for m in model["merges"])
            (out / "merges.txt").write_text("#version: 0.2\n" + "".join(m + "\n" for m in merges), encoding="utf-8")

    def _trimmed(
        self, keep: KeepSet, model: dict[str, Any], dropped: frozenset[str], languages: Sequence[Language]
    ) -> dict[str, Any]:
        data = {**self.data, "model": model}
        kept = [t for t in self.data.get("added_tokens", []) if t["content"] not in dropped]
        data["added_tokens"] = [{**t, "id": keep.new(t["id"])} for t in kept]
        stand_in = next((t for t in self.added if t not in dropped and is_code_of(t, languages)), None)
        replaced = {t: stand_in for t in dropped if stand_in and language_code(t)}
        data["post_processor"] = _post_processor(self.data.get("post_processor"), self.ids, keep, replaced)
        if self.data.get("padding"):
            padding = self.data["padding"]
            data["padding"] = {**padding, "pad_id": keep.new(self.ids[padding["pad_token"]])}
        return data


def checked(content: bytes, folder: Path, config: TokenizerConfig) -> tuple[dict[str, Any], str | None]:
    """Parses a tokenizer.json and refuses one that is broken.

    Args:
        content: Its bytes.
        folder: Its folder.
        config: The files beside it.

    Returns:
        (its content, the kind of its model or None); if the kind is not in `MODELS`, little was checked.

    Raises:
        PolydistillError: It is broken; the message says what is wrong, and where.
    """
    data: dict[str, Any] = parse_json(content, folder / NAME, unique=True)
    top = Part(folder / NAME, data)
    model = top["model"].optional(dict)
    kind = (top["model"]["type"].optional(str) or _guess_type(model)) if model else None
    if kind in MODELS:
        check_tokenizer(top, kind, config.added_tokens())
    return data, kind


def _guess_type(model: Mapping[str, Any]) -> str | None:
    """Old files leave the model's type out."""
    if "merges" in model:
        return "BPE"
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "WordPiece" if "continuing_subword_prefix" in model else None


def _steps(part: Any, key: str) -> list[dict[str, Any]]:
    """The members of a Sequence, or the one step itself."""
    if not part:
        return []
    return [s for step in part[key] for s in _steps(step, key)] if part.get("type") == "Sequence" else [part]


def _is_byte_level(data: Mapping[str, Any]) -> bool:
    steps = _steps(data.get("pre_tokenizer"), "pretokenizers") + _steps(data.get("normalizer"), "normalizers")
    return any(step.get("type") == "ByteLevel" for step in steps)


def _post_processor_tokens(processor: Any) -> list[str]:
    tokens: list[str] = []
    for step in _steps(processor, "processors"):
        if step["type"] == "TemplateProcessing":
            tokens += [t for special in step["special_tokens"].values() for t in special["tokens"]]
        tokens += [step[key][0] for key in ("sep", "cls") if key in step]
    return tokens


def _post_processor(processor: Any, ids: Mapping[str, int], keep: KeepSet, replaced: Mapping[str, str]) -> Any:
    """The post-processor with new ids; `replaced` says which language token stands in for one that is gone.

    Raises:
        PolydistillError: It inserts a token that is gone.
    """
    if not processor:
        return processor
    if processor["type"] == "Sequence":
        return {**processor, "processors": [_post_processor(p, ids, keep, replaced) for p in processor["processors"]]}

    def entry(token: str) -> tuple[str, int]:
        token = replaced.get(token, token)
        if ids[token] not in keep:
            raise PolydistillError(
                f"The tokenizer's post-processor inserts {token}, which would be dropped.",
                "Leave it out of `drop_added`, or keep its language with `languages`.",
            )
        return token, keep.new(ids[token])

    copy = dict(processor)
    if processor["type"] == "TemplateProcessing":
        for form in ("single", "pair"):
            copy[form] = [
                {"SpecialToken": {**step["SpecialToken"], "id": replaced.get(name, name)}}
                if "SpecialToken" in step and (name := step["SpecialToken"]["id"])
                else step
                for step in processor[form]
            ]
        copy["special_tokens"] = {}
        for name, special in processor["special_tokens"].items():
            entries = [entry(token) for token in special["tokens"]]
            new = replaced.get(name, name)
            copy["special_tokens"][new] = {"id": new, "ids": [i for _, i in entries], "tokens": [t for t, _ in entries]}
    for key in ("sep", "cls"):
        if key in processor:
            copy[key] = list(entry(processor[key][0]))
    return copy
