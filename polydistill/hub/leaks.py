"""What must not leave a machine with a model: paths of it, and secrets."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.redaction import PATTERNS

_IN_TEXT = {name: re.compile(pattern.encode()) for name, pattern in PATTERNS.items()}
# Among bytes that are no text any may stand before and behind.
_IN_BINARY = {name: re.compile(pattern.replace(r"\b", "").encode()) for name, pattern in PATTERNS.items()}
_PIECE = 1 << 22  # bytes that are looked at together
_OVERLAP = 1 << 13  # bytes of a piece that are looked at again with the next one
_ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be")
_RUN = 8  # printable characters in a row that may be text within other bytes
FOLDERS = "folders of this machine"
# Homes of whoever it is, on this or another machine.
_HOMES = rb"/(?:home|Users)/[\w.-]+/|/root/[\w.-]|\\Users\\[\w.-]+\\"
_BEGINS = rb"(?:file://|[A-Za-z]:|(?<![\w:/\\.~-]))"  # where a path begins in a text, and not within one or an address
_HOMES_IN_TEXT, _HOMES_IN_BINARY = re.compile(_BEGINS + rb"(?:%b)" % _HOMES), re.compile(_HOMES)
# Two names behind slashes that do not belong to an address or a relative path.
_PATH = re.compile(r"(?:file://)?(?<![\w:/\\.~-])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\"`,;:|<>()\[\]{}]+){2,}[/\\]?")
_NAMES_A_PLACE = ("path", "file", "dir", "folder", "source")


class Leaks:
    """What must not stand in any file that is sent, be it a text or not.

    Args:
        secrets: Secrets that are known literally, such as the user's own token.
        places: Folders whose names must not be told; one such as `/data` may stand in any text by chance and is let
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
            homes: Whether somebody's home counts too; not in a vocabulary, where such a token may stand.
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
    """A text as it is, and as JSON would read it."""
    yield text
    if b"\\/" in text or b"\\\\" in text:
        yield text.replace(b"\\/", b"/").replace(b"\\\\", b"\\")


def _texts_within(piece: bytes) -> Iterator[bytes]:
    """What can be read in bytes that are not a text, also as UTF-16: of each reading, all longer printable runs."""
    whole = np.frombuffer(piece, np.uint8)
    for lane in (whole, whole[::2], whole[1::2]):
        run = (lane - 0x20) < 0x5F  # wraps around below 0x20
        for step in (1, 2, 4):  # now true where _RUN printable ones begin
            run = run[:-step] & run[step:]
        starts = np.flatnonzero(run)
        if len(starts):
            breaks = np.flatnonzero(np.diff(starts) > 1)
            first, last = starts[np.r_[0, breaks + 1]], starts[np.r_[breaks, -1]] + _RUN
            bare = lane.tobytes()
            yield from _readings(b"\n".join(bare[a:b] for a, b in zip(first, last, strict=True)))


def without_paths(value: Any, places: Iterable[Path] = ()) -> Any:
    """A JSON value in which of every path of this machine the last name is left.

    Args:
        value: Any JSON value; the keys of objects are cleaned like the rest.
        places: Folders whose names may stand anywhere in a text, such as the user's home.
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
    """A text without the names of some folders, and with what stands behind them."""
    for place in places:
        if len(place.parts) > 1:  # where a path begins, and not within one, or within an address
            text = re.sub(rf"(?<![\w./\\~-]){re.escape(str(place))}(?:[/\\]|(?![\w.-]))", "", text)
    return text


def text_without_paths(text: str, places: Iterable[Path] = ()) -> str:
    """A text in which of every absolute path the last name is left."""
    text = text_without_places(text, places)
    return _PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], text)
