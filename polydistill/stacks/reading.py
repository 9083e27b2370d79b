"""How a text becomes token ids for an encoder or an LLM: its language's code, pairs of texts, windows."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polydistill.catalog import Language, language
from polydistill.errors import PolydistillError, UsageError
from polydistill.models.loading import load_tokenizer, longest_input
from polydistill.vocab.tokenizer_config import language_code

NATIVE = "native"
SCRIPT = re.compile(r"[_-]([A-Z][a-z]{3})$")
TRADITIONAL = re.compile(r"[_-](TW|HK|MO)$")  # where Chinese is written in Hant, as CLDR has it
Rows = dict[str, list[list[int]]]


class Reader:
    """A tokenizer, fast or slow, that knows which language it reads and keeps the two texts of a pair apart.

    It can be called and can pad like a tokenizer, which is all that predict loops ask of one.

    Args:
        tokenizer: Of transformers. It is changed: it pads and cuts on the right.
        config: The model's configuration, which limits the length.
        max_length: Most tokens of an input, special tokens included; the model's own limit if that is lower.

    Attributes:
        tokenizer: That of transformers.
        max_length: Most tokens of an input.
        codes: The codes of the languages that have to be named; empty where none has to.
        separator: What stands between the texts of a pair: `native` if the tokenizer has its own way, else a token.

    Raises:
        PolydistillError: Nothing could stand between the texts of a pair.
    """

    def __init__(self, tokenizer: Any, config: Any, max_length: int | None = None) -> None:
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        self.tokenizer = tokenizer
        self.max_length = longest_input(tokenizer, config, max_length)
        self.codes = _codes(tokenizer)
        self._language: str | None = None
        self.separator = NATIVE if self._separates() else tokenizer.sep_token or tokenizer.eos_token
        if self.separator is None:
            raise PolydistillError(
                f"The tokenizer of {tokenizer.name_or_path} has no token that could separate two texts.",
                "Give it an end-of-text token (eos_token).",
            )

    @classmethod
    def open(cls, folder: Path, config: Any, max_length: int | None = None) -> Reader:
        """The reader of a model's folder."""
        return cls(load_tokenizer(folder), config, max_length)

    def copy(self) -> Reader:
        """Another reader of the same tokenizer, with a language, not yet named, and a length of its own."""
        found = copy.copy(self)
        found.tokenizer, found._language = copy.deepcopy(self.tokenizer), None
        return found

    @property
    def language(self) -> str | None:
        """The code of the language that is read; None before one is named, and where none has to be."""
        return self._language

    def read_language(self, name: str | Language | None, include: Sequence[Path] = ()) -> str | None:
        """Sets the language of what is read from now on.

        Args:
            name: A code of the tokenizer's, such as `swh_Latn`, or any name of a language that the catalogue knows.
            include: Folders with languages of the user's own.

        Returns:
            The tokenizer's code; None where it has none.

        Raises:
            UsageError: The tokenizer has no code for it, or needs one and nothing was named.
        """
        if not self.codes:
            if isinstance(name, str):
                language(name, tuple(include))  # a slip of the pen is none the better for not being needed
            return None
        self._language = find_code(self.codes, name, include)
        self.tokenizer.src_lang = self._language
        return self._language

    def __call__(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int | None = None, **_: Any
    ) -> Rows:
        """Token ids of texts or pairs of texts, cut to fit; of a pair the longer text is cut.

        Args:
            texts: (n,) texts, or the first ones of pairs.
            pairs: (n,) the second ones.
            max_length: Most tokens, if less than the reader's own.

        Returns:
            `input_ids` and `attention_mask`, lists of n lists, and `token_type_ids` where the model has them.
        """
        longest = min(self.max_length, max_length or self.max_length)
        self._check_language()
        if pairs is None or self.separator == NATIVE:
            found = self.tokenizer(
                list(texts),
                None if pairs is None else list(pairs),
                truncation="longest_first",
                max_length=longest,
                verbose=False,
            )
            rows = {key: list(found[key]) for key in ("input_ids", "attention_mask", "token_type_ids") if key in found}
            for i, ids in enumerate(rows["input_ids"]):
                if not ids:  # an empty text, where nothing stands around texts
                    rows["input_ids"][i], rows["attention_mask"][i] = [self.tokenizer.pad_token_id], [1]
            return rows
        before, after = self._around()
        room = longest - len(before) - len(after) - 1
        between = [self.tokenizer.convert_tokens_to_ids(self.separator)]
        both = zip(self._bare(texts), self._bare(pairs), strict=True)
        cut = (_fitting(first, second, room) for first, second in both)
        ids = [[*before, *first, *between, *second, *after] for first, second in cut]
        return {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}

    def windows(self, texts: Sequence[str]) -> tuple[list[dict[str, list[int]]], list[int]]:
        """Texts of any length as inputs that fit.

        Returns:
            (inputs, the number of the text that each is of), a text's inputs one after the other.
        """
        self._check_language()
        before, after = self._around()
        room = self.max_length - len(before) - len(after)
        if room < 1:
            raise UsageError(f"{self.max_length} tokens leave no room for text.", "Allow more.")
        found, owners = [], []
        for i, bare in enumerate(self._bare(texts)):
            for start in range(0, max(1, len(bare)), room):
                ids = [*before, *bare[start : start + room], *after] or [self.tokenizer.pad_token_id]
                found.append({"input_ids": ids, "attention_mask": [1] * len(ids)})
                owners.append(i)
        return found, owners

    def length(self, text: str) -> int:
        """Tokens of a whole text, special tokens included."""
        return len(self._bare([text])[0]) + sum(map(len, self._around()))

    def pad(self, rows: Sequence[Mapping[str, Any]], **options: Any) -> Any:
        """Rows of one length, as the tokenizer pads."""
        return self.tokenizer.pad(list(rows), **options)

    def save(self, folder: Path) -> None:
        """Writes the tokenizer into a folder."""
        self.tokenizer.save_pretrained(str(folder))

    def _check_language(self) -> None:
        if self.codes and self._language is None:
            find_code(self.codes, None)

    def _bare(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens without any that mark begin, end or language."""
        found = self.tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)
        return [list(ids) for ids in found["input_ids"]]

    def _around(self) -> tuple[list[int], list[int]]:
        """Tokens that stand before and after a text."""
        return _split(self.tokenizer("x", verbose=False)["input_ids"], self._bare(["x"])[0])

    def _separates(self) -> bool:
        """Whether the tokenizer itself puts something between the texts of a pair."""
        single = self.tokenizer("x", verbose=False)["input_ids"]
        return len(self.tokenizer("x", "x", verbose=False)["input_ids"]) > len(single) + len(self._bare(["x"])[0])


def _fitting(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Both texts, the longer one cut until they fit into so many tokens."""
    spare = max(0, len(first) + len(second) - room)
    while spare:
        longer = first if len(first) > len(second) else second
        off = min(spare, max(1, abs(len(first) - len(second))))
        del longer[len(longer) - off :]
        spare -= off
    return first, second


def _split(whole: Sequence[int], bare: Sequence[int]) -> tuple[list[int], list[int]]:
    """What stands before and after a part of a sequence."""
    at = next(i for i in range(len(whole)) if list(whole[i : i + len(bare)]) == list(bare))
    return list(whole[:at]), list(whole[at + len(bare) :])


def _codes(tokenizer: Any) -> tuple[str, ...]:
    """The codes of languages that a tokenizer has to be told; a code that it does not know becomes <unk> in silence."""
    if not hasattr(tokenizer, "src_lang"):
        return ()
    found = {token: language_code(token) for token in tokenizer.all_special_tokens}
    known = (code for token, code in found.items() if code and _is_known(tokenizer, token))
    return tuple(dict.fromkeys(known))


def _is_known(tokenizer: Any, token: str) -> bool:
    return tokenizer.convert_tokens_to_ids(token) not in (None, tokenizer.unk_token_id)


def find_code(codes: Sequence[str], name: str | Language | None, include: Sequence[Path] = ()) -> str:
    """The code of a language among those of a tokenizer.

    Args:
        codes: Those of the tokenizer.
        name: One of them, or any name of a language; a script in it (`zh-Hant`, `zh-TW`) has to be the code's.
        include: Folders with languages of the user's own.

    Raises:
        UsageError: There is none, or nothing was named.
    """
    some = ", ".join(codes[:3])
    if name is None:
        raise UsageError("The encoder needs to know the language of the text.", f"Add `language`, such as {some}.")
    if isinstance(name, str) and name in codes:
        return name
    script = _script(name) if isinstance(name, str) else None
    found = name if isinstance(name, Language) else _language(name, codes, include)
    known = codes_of(codes, found)
    fitting = [code for code in known if script is None or code.endswith(script)]
    if fitting:
        return fitting[0]
    hint = f"Did you mean {' or '.join(known)}?" if known else f"It knows {len(codes)} languages, such as {some}."
    asked = name if isinstance(name, str) and known else found.name
    raise UsageError(f"The encoder has no code for {asked}.", hint)


def codes_of(codes: Sequence[str], language: Language) -> list[str]:
    """The codes of a language, the commonest script first."""
    folded = {code.casefold(): code for code in codes}
    aliases = (alias.casefold() for alias in (*language.flores, language.code, *language.aliases))
    return list(dict.fromkeys(folded[alias] for alias in aliases if alias in folded))


def _script(name: str) -> str | None:
    """The script that a name ends with, or that of Chinese in the country that it ends with."""
    if found := SCRIPT.search(name):
        return found[1]
    return "Hant" if TRADITIONAL.search(name) else None


def _language(name: str, codes: Sequence[str], include: Sequence[Path]) -> Language:
    """A language by any of its names, or by a name with a script or country behind it."""
    try:
        return language(name, tuple(include))
    except UsageError as error:
        part = re.split(r"[_-]", name)[0]
        try:
            found = language(part, tuple(include))
        except UsageError:
            raise error from None
        if _script(name) and codes_of(codes, found) and "_" not in name:
            return found
        close = codes_of(codes, found)
        if not close:
            return found
        raise UsageError(f"The encoder has no language '{name}'.", f"Did you mean {' or '.join(close)}?") from error
