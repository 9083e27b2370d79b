"""How the card of a model speaks of the step that made it; each method says it for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from polydistill.card.facts import Facts, Step

BY = "[polydistill](https://pypi.org/project/polydistill/)"


def _nothing(step: Step) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Told:
    """What a method's cards say; every function reads a step that may be broken or hostile, and yields Markdown.

    Attributes:
        title: The heading.
        introduction: What the model is, and what it was made from.
        tag: What the Hub's filter calls it.
        citations: BibTeX of the papers that the step goes back to.
        limitations: What a reader has to know, a sentence or paragraph each.
        cuts: Whether the model knows its languages alone, since its vocabulary was cut.
        labels_of: Codes of the languages whose labels were read.
        library: The library that loads the model, where it is neither transformers nor sentence-transformers.
        use: Facts, name of the model -> Python that loads and uses it, where the model's class does not say it.
    """

    title: Callable[[Step], str]
    introduction: Callable[[Step], str]
    tag: str
    citations: Callable[[Step], Sequence[str]] = _nothing
    limitations: Callable[[Step], Sequence[str]] = _nothing
    cuts: bool = False
    labels_of: Callable[[Step], Sequence[str]] = _nothing
    library: str | None = None
    use: Callable[[Facts, str], str] | None = None
