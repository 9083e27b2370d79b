"""Recipes that come with polydistill."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from polydistill.errors import UsageError

FOLDER = Path(__file__).parent


def preset_names() -> list[str]:
    """Their names."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def preset_text(name: str) -> str:
    """A recipe as text.

    Raises:
        UsageError: There is none of that name; says what is close.
    """
    if name not in preset_names():
        close = get_close_matches(name, preset_names(), n=1)
        hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(preset_names())}."
        raise UsageError(f"There is no recipe '{name}'.", hint)
    return (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
