"""The JSON files beside a tokenizer: special tokens, added tokens, language codes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from polydistill.catalog import Language
from polydistill.catalog.tables import closest
from polydistill.errors import UsageError
from polydistill.files.inside import files_below
from polydistill.files.jsonfiles import Part, read_json, read_text
from polydistill.vocab.checks import MOST_IDS, quoted
from polydistill.vocab.keep import KeepSet

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
EXTRA_LISTS = ("extra_special_tokens", "additional_special_tokens", "model_specific_special_tokens")
DEFAULT_LANGUAGE = {"NllbTokenizer": "eng_Latn", "MBartTokenizer": "en_XX", "MBart50Tokenizer": "en_XX"}
FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
TEMPLATE_TAG = re.compile(r"{[{%#].*?[}%#]}", re.DOTALL)
WILDCARDS = {"*": ".*", "?": ".", "[[]": r"\["}
ROLES = ("system", "user", "assistant", "model", "tool")
LANGUAGE_CODE = re.compile(r"__([a-z]{2,3})__|>>(\w+)<<|([a-z]{2,3}_(?:[A-Z]{2}|[A-Z][a-z]{3}))")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON, UTF-8."""
    path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")


def content(token: Any) -> str | None:
    """The text of a special token, written as a string or as an object."""
    return token.get("content") if isinstance(token, dict) else token


def language_code(token: str) -> str | None:
    """The code inside a language token of NLLB, mBART, M2M-100 or Marian, None for other tokens."""
    match = LANGUAGE_CODE.fullmatch(token)
    return next(filter(None, match.groups())) if match else None


def is_code_of(token: str, languages: Sequence[Language]) -> bool:
    """Whether a token is the language token of one of `languages`."""
    code = language_code(token)
    return code is not None and any(
        code.lower() in {name.lower() for name in (*lang.aliases, *lang.flores)} for lang in languages
    )


def matches(pattern: str, text: str) -> bool:
    """Whether a text matches a pattern: `*` is any text and `?` any character, all else is itself.

    `[[]` is a bracket, as in a shell, where one alone would begin a class of characters.
    """
    parts = (WILDCARDS.get(part) or re.escape(part) for part in re.split(r"([*?]|\[\[\])", pattern))
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def matching(patterns: Iterable[str], tokens: Iterable[str], languages: Sequence[Language]) -> dict[str, str]:
    """The added tokens that match a pattern, each with that pattern.

    Args:
        patterns: A token; or a pattern for the token's text, as in `matches`; or `lang:PATTERN` for the code of a
            language token, which spares the languages that are kept.
        tokens: The added tokens.
        languages: The languages that are kept.

    Raises:
        UsageError: A pattern matches nothing.
    """
    tokens = list(tokens)
    matched: dict[str, str] = {}
    for pattern in patterns:
        if pattern in tokens:
            found = hits = [pattern]
        elif pattern.startswith("lang:"):
            wanted = pattern.removeprefix("lang:")
            found = [t for t in tokens if (code := language_code(t)) and matches(wanted, code)]
            hits = [t for t in found if not is_code_of(t, languages)]
        else:
            found = hits = [t for t in tokens if matches(pattern, t)]
        if not found:
            raise UsageError(
                f"`drop_added={pattern!r}` matches none of the {len(tokens):,} added tokens.", _similar(pattern, tokens)
            )
        matched.update(dict.fromkeys(hits, pattern))
    return matched


def _similar(pattern: str, tokens: Sequence[str]) -> str:
    """Added tokens that may have been meant by a pattern without a match."""
    codes = [f"lang:{code}" for t in tokens if pattern.startswith("lang:") and (code := language_code(t))]
    close = closest(pattern, codes or tokens) or [*codes, *tokens][:3]
    if not close:
        return "Leave the pattern out: this tokenizer has no added tokens."
    named = ", ".join(map(repr, close))
    return f"Added tokens are {named}, for example; * and ? are the only wildcards. Quote the pattern."


def check_config(top: Part) -> None:
    """Refuses a tokenizer_config.json or special_tokens_map.json with a value of the wrong type.

    Raises:
        PolydistillError: It has one; the message says where.
    """
    for name in ("tokenizer_class", "src_lang", "tgt_lang", "source_lang", "target_lang"):
        top[name].optional(str)
    for role in NAMED:
        _check_token(top[role])
    for name in EXTRA_LISTS:
        tokens = top[name]
        for token in tokens.items() if isinstance(tokens.value, list) else tokens.members():
            _check_token(token)
    for key in top["added_tokens_decoder"].optional(dict) or ():
        token = top["added_tokens_decoder"][key]
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < MOST_IDS):
            raise token.refuse(f"stands under {quoted(key)}, which is not an id below {MOST_IDS:,}")
        token.of(dict)
        token["content"].of(str)
    for name in ("separate_vocabs", "do_lower_case", "add_bos_token", "add_eos_token"):
        top[name].optional(bool)
    length = top["model_max_length"]
    if type(length.value) not in (type(None), int, float) or (length.value or 1) < 1:
        raise length.wrong("a number of tokens")
    template = top["chat_template"]
    if not isinstance(template.value, str):
        for named in template.items():
            named.of(dict)
            named["template"].of(str)


def _check_token(part: Part) -> None:
    """A special token is a text, or an object with its text."""
    if isinstance(part.value, dict):
        part["content"].of(str)
    elif part.value is not None:
        part.of(str)


class TokenizerConfig:
    """tokenizer_config.json, special_tokens_map.json and added_tokens.json of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = read_json(folder / FILES[0], optional=True)
        self.special_map: dict[str, Any] = read_json(folder / FILES[1], optional=True)
        self.added: dict[str, int] = read_json(folder / FILES[2], optional=True)
        check_config(Part(folder / FILES[0], self.config))
        check_config(Part(folder / FILES[1], self.special_map))
        for token in Part(folder / FILES[2], self.added).members():
            token.whole_number(0, MOST_IDS - 1)

    @property
    def class_name(self) -> str:
        """The tokenizer class, without the old suffix `Fast`."""
        return str(self.config.get("tokenizer_class", "")).removesuffix("Fast")

    def named(self) -> dict[str, str]:
        """Token -> its role, for the tokens that have one."""
        roles = {}
        for source in (self.special_map, self.config):
            roles.update({text: role for role in NAMED if (text := content(source.get(role)))})
        return roles

    def other_roles(self) -> dict[str, str]:
        """Token -> its role, for roles that only some models have, such as Gemma 3's `image_token`."""
        roles = {}
        for source in (self.special_map, self.config):
            roles.update({content(value): key for key, value in source.items() if _is_other_role(key, value)})
        return {text: key for text, key in roles.items() if text}

    def special(self) -> list[str]:
        """All tokens that these files say are special, in the order in which transformers adds those that are new."""
        return [*dict.fromkeys((*self._decoded(special=True), *self.named(), *self.other_roles(), *self.listed()))]

    def listed(self) -> list[str]:
        """The additional special tokens."""
        found: dict[str, None] = {}
        for source in (self.config, self.special_map):
            for key in EXTRA_LISTS:
                values = source.get(key) or []
                found.update(dict.fromkeys(filter(None, map(content, _values(values)))))
        return list(found)

    def added_tokens(self) -> dict[str, int]:
        """Token -> id, as far as these files say."""
        return {**self.added, **self._decoded()}

    def _decoded(self, *, special: bool = False) -> dict[str, int]:
        """Token -> id as `added_tokens_decoder` has it; only those that it marks as special, if `special`."""
        decoder = self.config.get("added_tokens_decoder") or {}
        found = sorted((int(i), t) for i, t in decoder.items() if t.get("special") or not special)
        return {str(content(t)): i for i, t in found}

    @cached_property
    def chat_templates(self) -> list[str]:
        """The sources of the chat templates."""
        template = self.config.get("chat_template")
        found = [template] if isinstance(template, str) else [t.get("template", "") for t in template or []]
        return found + [read_text(p) for p in files_below(self.folder) if p.suffix == ".jinja"]

    def template_texts(self, added: Iterable[str]) -> list[str]:
        """The literal texts of the chat templates, whole and cut at the added tokens, which are matched first."""
        texts: list[str] = []
        for template in self.chat_templates:
            texts += TEMPLATE_TAG.sub("\n", template).splitlines()
            texts += [(a or b).replace("\\n", "\n") for a, b in QUOTED.findall(template)]
        between = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))) or "(?!)")
        parts = [part for text in dict.fromkeys(texts) if between.search(text) for part in between.split(text)]
        return [*texts, *filter(None, parts), *ROLES, *(r + "\n" for r in ROLES)] if texts else []

    def write(
        self,
        out: Path,
        keep: KeepSet,
        dropped: frozenset[str],
        languages: Sequence[Language],
        ids: Mapping[str, int] | None = None,
        special: Sequence[str] = (),
    ) -> None:
        """Writes the files that were there, with new ids and without the dropped tokens.

        Args:
            out: An existing folder.
            keep: The ids that stay.
            dropped: Added tokens that go.
            languages: The languages that stay.
            ids: Token -> old id according to the tokenizer itself; these files may be older than it.
            special: Tokens that the tokenizer itself says are special.
        """
        known = ids or {}
        config = dict(self.config)
        if "added_tokens_decoder" in config:
            decoder = {known.get(str(content(t)), int(i)): t for i, t in config["added_tokens_decoder"].items()}
            config["added_tokens_decoder"] = {
                str(keep.new(i)): token for i, token in decoder.items() if content(token) not in dropped and i in keep
            }
        if (
            isinstance(config.get("unk_id"), int) and config["unk_id"] in keep
        ):  # DeBERTa-v2's class builds its model with it
            config["unk_id"] = keep.new(config["unk_id"])
        if dropped:
            config = _without(config, dropped)
            self._settle_class(config, dropped, special)
            self._settle_language(config, dropped, languages)
        if config or (self.folder / FILES[0]).is_file():
            write_json(out / FILES[0], config)
        if (self.folder / FILES[1]).is_file():
            write_json(out / FILES[1], _without(self.special_map, dropped))
        if (self.folder / FILES[2]).is_file():
            old = {t: known.get(t, i) for t, i in self.added.items() if t not in dropped}
            write_json(out / FILES[2], {t: keep.new(i) for t, i in old.items() if i in keep})

    def _settle_class(self, config: dict[str, Any], dropped: frozenset[str], special: Sequence[str]) -> None:
        """Keeps the tokenizer's class from adding the dropped tokens again, as some do if no list is given."""
        name = self.class_name
        if name == "M2M100Tokenizer":
            raise UsageError(
                "M2M-100's tokenizer computes the ids of its language codes, so none of them can be dropped.",
                "Leave `drop_added` out; the codes take 100 rows.",
            )
        if name == "T5Tokenizer" and any(t.startswith("<extra_id_") for t in dropped):
            left = {*self.added_tokens(), *self.listed()} - dropped
            config["extra_ids"] = sum(t.startswith("<extra_id_") for t in left)
        if all(config.get(key) is None for key in EXTRA_LISTS) and name in (*DEFAULT_LANGUAGE, "T5Tokenizer"):
            # What such a list names is special, so no other token goes into it.
            gone = {*dropped, *self.named(), *self.other_roles()}
            config["extra_special_tokens"] = [t for t in dict.fromkeys((*self.special(), *special)) if t not in gone]

    def _settle_language(self, config: dict[str, Any], dropped: frozenset[str], languages: Sequence[Language]) -> None:
        """Makes sure that the default source language is a code that stays."""
        default = DEFAULT_LANGUAGE.get(self.class_name)
        current = config.get("src_lang") or default
        if current in dropped:
            tokens = [t for t in (*self.added_tokens(), *self.listed()) if t not in dropped]
            config["src_lang"] = next((t for t in tokens if is_code_of(t, languages)), None)
        if config.get("tgt_lang") in dropped:
            config["tgt_lang"] = None


def _values(tokens: Any) -> list[Any]:
    return list(tokens.values()) if isinstance(tokens, Mapping) else list(tokens)


def _is_other_role(key: str, value: Any) -> bool:
    return key.endswith("_token") and key not in NAMED and isinstance(value, str | dict)


def _without(config: Mapping[str, Any], dropped: frozenset[str]) -> dict[str, Any]:
    """A copy whose roles and lists of additional tokens lack the dropped ones."""
    copy = {
        key: value
        for key, value in config.items()
        if not ((key in NAMED or _is_other_role(key, value)) and content(value) in dropped)
    }
    for key in EXTRA_LISTS:
        if isinstance(copy.get(key), list):
            copy[key] = [t for t in copy[key] if content(t) not in dropped]
        elif isinstance(copy.get(key), dict):
            copy[key] = {k: t for k, t in copy[key].items() if content(t) not in dropped}
    return copy
