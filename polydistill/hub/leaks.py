"""What must not leave a machine with a model: paths of it, and secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# What each looks like to whoever gave it out; the names go into messages, what was found never does.
_SECRETS = {
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}\b|\bapi_org_[A-Za-z0-9]{30,}\b",
    "an AWS key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a GitHub token": rb"\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_[A-Za-z0-9_]{50,}\b",
    "a GitLab token": rb"\bglpat-[A-Za-z0-9_-]{20,}\b",
    "a Google key": rb"\bAIza[0-9A-Za-z_-]{35}\b",
    "a Slack token": rb"\bxox[abprs]-[0-9A-Za-z-]{20,}",
    "an API key": rb"\bsk-[A-Za-z0-9_-]{32,}\b",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _SECRETS.items()}
_HEADER = 8  # bytes of the length that safetensors begin with
_WEIGHTS = (".safetensors", ".onnx", ".onnx_data", ".data", ".gguf")
# Two names behind slashes that do not belong to an address or a relative path.
_PATH = re.compile(r"(?:file://)?(?<![\w:/\\.~-])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\"`,;:|<>()\[\]{}]+){2,}[/\\]?")
_NAMES_A_PLACE = ("path", "file", "dir", "folder", "source")


def secret_in(path: Path, known: Iterable[str] = ()) -> str | None:
    """What kind of secret a file seems to hold, None if none; of weights only the header is looked at.

    Args:
        path: The file.
        known: Secrets that are known literally, such as the user's own token.
    """
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            length = int.from_bytes(file.read(_HEADER), "little")
            content = file.read(min(length, 100_000_000))
        else:
            content = b"" if path.suffix in _WEIGHTS else file.read()
    return secret_in_text(content, known)


def secret_in_text(content: bytes, known: Iterable[str] = ()) -> str | None:
    """As `secret_in`, of content."""
    if any(secret and secret.encode() in content for secret in known):
        return "your own token"
    return next((name for name, pattern in _PATTERNS.items() if pattern.search(content)), None)


def redacted(text: str, known: Iterable[str] = ()) -> str:
    """A short line without secrets and addresses, for a message."""
    for secret in filter(None, known):
        text = text.replace(secret, "***")
    text = re.sub(r"\w+://\S+", "(address)", text)
    for pattern in _PATTERNS.values():
        text = re.sub(pattern.pattern.decode(), "***", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


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
