"""Secrets: what they look like, which ones the user has, and messages without them."""

from __future__ import annotations

import netrc
import os
import re
from contextlib import suppress
from pathlib import Path

from polydistill.errors import library_said

# What each looks like to whoever gave it out; the names go into messages, what was found never does.
PATTERNS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}\b|\bapi_org_[A-Za-z0-9]{30,}\b",
    "an AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_[A-Za-z0-9_]{50,}\b",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}\b",
    "a Google key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "a Slack token": r"\bxox[abprs]-[0-9A-Za-z-]{20,}",
    "an API key": r"\bsk-[A-Za-z0-9_-]{32,}\b",
}
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
_HOST = "huggingface.co"
_SHORTEST = 8  # characters; what is shorter stands everywhere by chance


def own_tokens() -> tuple[str, ...]:
    """The user's tokens for the Hub: of the environment, of `hf auth login`, and the password in `.netrc`."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_stored_tokens

    found = {os.environ.get(name, "").strip() for name in _VARIABLES}
    with suppress(Exception):  # a broken file of tokens is said when one is needed
        found |= set(get_stored_tokens().values())
    with suppress(OSError):
        found.add(Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8", errors="replace").strip())
    with suppress(OSError, netrc.NetrcParseError):
        found.add((netrc.netrc().authenticators(_HOST) or ("", "", ""))[2] or "")
    return tuple(sorted(token for token in found if len(token) >= _SHORTEST))


def redacted(text: str, limit: int = 200) -> str:
    """A line of at most `limit` characters without secrets and addresses, for what somebody else's library said."""
    for secret in own_tokens():
        text = text.replace(secret, "***")
    text = re.sub(r"\w+://\S+", "(address)", text)
    for pattern in PATTERNS.values():
        text = re.sub(pattern, "***", text)
    return library_said("".join(c if c.isprintable() else " " for c in text), limit)
