"""One run of a model's lineage, read so that a broken or hostile record yields less and never harm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from polydistill.card.text import mapping, objects, plain, printable, shared, texts

MOST_ITEMS = 200  # of a list or an object of a record
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")


class Step:
    """One run of a lineage; every attribute has its type, whatever the record says.

    Attributes:
        command: Such as `trim`.
        config: The configuration.
        source: The model it began with.
        result: What the command reported.
        texts: The data.
        versions: Package -> version.
        scores: Scores of what it made, with fractions from 0 to 1.
        costs: Its time and memory as ratios to other models'.
        others: Further models that took part: `role`, `source` and `record`.
    """

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.command = plain(raw.get("command"), 40)
        self.config = _some(mapping(raw.get("config")))
        self.source = mapping(raw.get("source"))
        self.result = mapping(raw.get("result"))
        self.texts = objects(raw.get("texts"))[:MOST_ITEMS]
        self.versions = _some(mapping(raw.get("versions")))
        self.scores = objects(raw.get("scores"))[:MOST_ITEMS]
        self.costs = objects(raw.get("costs"))[:MOST_ITEMS]
        self.others = objects(raw.get("others"))[:MOST_ITEMS]

    @property
    def languages(self) -> list[str]:
        """The codes of its languages."""
        return texts(self.result.get("languages"))

    @property
    def task(self) -> str:
        """The name of the task that it learnt, empty for none."""
        return plain(self.result.get("task") or "", 60)

    @property
    def came_from(self) -> str:
        """What the source is called: `org/name@commit`, `package==version (...)`, or a folder's name."""
        return plain(shared(str(self.source.get("source") or self.source.get("name") or "an unnamed model")))

    @property
    def base(self) -> str:
        """The source's short name."""
        return plain(Path(shared(str(self.source.get("name") or "model"))).name) or "model"

    @property
    def hub_name(self) -> str | None:
        """The source's name on the Hub, if it has one; a package's is the name of the model that it carries."""
        from polydistill.models.offline import MODELS

        name, source = str(self.source.get("name")), self.source.get("source")
        if carried := next((model.name for model in MODELS.values() if source == model.source == name), None):
            return carried
        return name if _HUB_NAME.fullmatch(name) and ".." not in name else None

    @property
    def package(self) -> str | None:
        """`package==version (...)` if the weights came from one."""
        return self.came_from if re.match(r"[\w.-]+==\S+", self.came_from) else None

    @property
    def llm(self) -> str | None:
        """The name on the Hub of the LLM that a stack stands on, if it has one."""
        from polydistill.models.offline import MODELS

        source = str(self.result.get("llm") or "")
        if carried := next((model.name for model in MODELS.values() if model.source == source), None):
            return carried
        name, _, commit = source.partition("@")
        return name if re.fullmatch(r"[0-9a-f]{40}", commit) and _HUB_NAME.fullmatch(name) else None

    @property
    def output(self) -> str | None:
        """The folder that it wrote."""
        written = self.config.get("output") or self.result.get("output")
        return printable(shared(written)) if isinstance(written, str) else None


def _some(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first entries of an object."""
    return dict(islice(value.items(), MOST_ITEMS))
