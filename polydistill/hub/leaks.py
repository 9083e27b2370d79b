"""What must not leave a machine with a model: its paths, and secrets."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.redaction import PATTERNS

_IN_TEXT = {name: re.compile(pattern.encode()) for name, pattern in PATTERNS.items()}
# In binary files any byte may come before and after.
_IN_BINARY = {name: re.compile(pattern.replace(r"\b", "").encode()) for name, pattern in PATTERNS.items()}
_PIECE = 1 << 22  # bytes that are searched together
_OVERLAP = 1 << 13  # bytes of a piece that are searched again with the next one
_ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be")
_RUN = 8  # printable characters in a row that may be text within other bytes
FOLDERS = "folders of this machine"
# Anybody's home, on this or another machine.
_HOMES = rb"/(?:home|Users)/[\w.-]+/|/root/[\w.-]|\\Users\\[\w.-]+\\"
_BEGINS = rb"(?:file://|[A-Za-z]:|(?<![\w:/\\.~-]))"  # where a path begins in a text, not within a path or an address
_HOMES_IN_TEXT, _HOMES_IN_BINARY = re.compile(_BEGINS + rb"(?:%b)" % _HOMES), re.compile(_HOMES)
# Two names behind slashes that do not belong to an address or a relative path.
_PATH = re.compile(r"(?:file://)?(?<![\w:/\\.~-])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\"`,;:|<>()\[\]{}]+){2,}[/\\]?")
_NAMES_A_PLACE = ("path", "file", "dir", "folder", "source")


class Leaks:
    """What must not be in any file that is sent, text or not.

    Args:
        secrets: Secrets that are known literally, such as the user's token.
        places: Folders whose names must not be told; one such as `/data`, which may be in any text by chance, is let
            through.
    """

    def __init__(self, secrets: Iterable[str] = (), places: Iterable[Path] = ()) -> None:
        told = [str(place) for place in places if len(place.parts) > 2]
        self._secrets = [secret.encode() for secret in secrets if secret]
        self._places = [text.encode() for text in told]
        self._foreign = [text.encode(code) for text in told if not text.isascii() for code in _ENCODINGS]
        names = b"|".join(map(re.escape, self._places))
        self._in_text = re.compile(_BEGINS + rb"(?:%b)(?:[/\\]|(?![\w.-]))" % names)

    def find(self, content: Path | bytes, *, homes: bool = True) -> str | None:
        """What kind of secret a file seems to hold, or `FOLDERS`; None if nothing.

        Args:
            content: The file, or what it would hold.
            homes: Whether somebody's home counts too; not in a vocabulary, which may have such a token.
        """
        for piece in _pieces(content):
            binary = b"\0" in piece
            if binary and any(place in piece for place in self._foreign):
                return FOLDERS
            for text in _texts_within(piece) if binary else _readings(piece):
                if (found := self._secret(text, binary)) or (found := self._folders(text, homes, binary)):
                    return found
        return None

    def _secret(self, text: bytes, binary: bool) -> str | None:
        if any(secret in text for secret in self._secrets):
            return "your own token"
        patterns = _IN_BINARY if binary else _IN_TEXT
        return next((name for name, pattern in patterns.items() if pattern.search(text)), None)

    def _folders(self, text: bytes, homes: bool, binary: bool) -> str | None:
        if any(place in text for place in self._places) and (binary or self._in_text.search(text)):
            return FOLDERS
        return FOLDERS if homes and (_HOMES_IN_BINARY if binary else _HOMES_IN_TEXT).search(text) else None


def _pieces(content: Path | bytes) -> Iterator[bytes]:
    """The content, in pieces that overlap."""
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        kept = b""
        while read := file.read(_PIECE):
            yield kept + read
            kept = (kept + read)[-_OVERLAP:]


def _readings(text: bytes) -> Iterator[bytes]:
    """A text as it is, and as JSON reads it."""
    yield text
    if b"\\/" in text or b"\\\\" in text:
        yield text.replace(b"\\/", b"/").replace(b"\\\\", b"\\")


def _texts_within(piece: bytes) -> Iterator[bytes]:
    """The longer printable runs in bytes that are not text, also as UTF-16."""
    whole = np.frombuffer(piece, np.uint8)
    for lane in (whole, whole[::2], whole[1::2]):
        run = (lane - 0x20) < 0x5F  # wraps around below 0x20
        for step in (1, 2, 4):  # now true where a run of _RUN printable ones begins
            run = run[:-step] & run[step:]
        starts = np.flatnonzero(run)
        if len(starts):
            breaks = np.flatnonzero(np.diff(starts) > 1)
            first, last = starts[np.r_[0, breaks + 1]], starts[np.r_[breaks, -1]] + _RUN
            bare = lane.tobytes()
            yield from _readings(b"\n".join(bare[a:b] for a, b in zip(first, last, strict=True)))


def without_paths(value: Any, places: Iterable[Path] = ()) -> Any:
    """A JSON value with every path of this machine cut down to its last name.

    Args:
        value: Any JSON value; the keys of objects are cleaned like the rest.
        places: Folders whose names may be anywhere in a text, such as the user's home.
    """
    from polydistill.card.text import shared

    if isinstance(value, Mapping):
        return {text_without_paths(str(key), places): without_paths(kept, places) for key, kept in value.items()}
    if isinstance(value, list):
        return [without_paths(item, places) for item in value]
    return text_without_paths(shared(value), places) if isinstance(value, str) else value


def settings_without_paths(value: Any, key: str = "") -> Any:
    """A model's settings without paths under keys such as `_name_or_path`; labels, tokens and templates stay."""
    if isinstance(value, Mapping):
        return {name: settings_without_paths(kept, str(name)) for name, kept in value.items()}
    if isinstance(value, list):
        return [settings_without_paths(item, key) for item in value]
    return without_paths(value) if isinstance(value, str) and key.endswith(_NAMES_A_PLACE) else value


def text_without_places(text: str, places: Iterable[Path]) -> str:
    """A text without the names of some folders; what follows them stays."""
    for place in places:
        if len(place.parts) > 1:  # where a path begins, and not within one, or within an address
            text = re.sub(rf"(?<![\w./\\~-]){re.escape(str(place))}(?:[/\\]|(?![\w.-]))", "", text)
    return text


def text_without_paths(text: str, places: Iterable[Path] = ()) -> str:
    """A text with every absolute path cut down to its last name."""
    text = text_without_places(text, places)
    return _PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], text)
