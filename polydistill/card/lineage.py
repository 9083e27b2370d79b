"""The steps that made a model, a line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polydistill.card.text import at, printable, texts


def lineage_line(record: Mapping[str, Any]) -> str:
    """One run of a lineage, such as `trim (ro) of org/name@commit`."""
    languages = ", ".join(texts(at(record, "result", "languages")))
    command, source = printable(at(record, "command")), printable(at(record, "source", "source"))
    return f"{command}{f' ({languages})' if languages else ''} of {source}"
