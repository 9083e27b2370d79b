"""How the card of a model speaks of the step that made it; each method says it for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from polydistill.card.step import Step

BY = "[polydistill](https://pypi.org/project/polydistill/)"


def _nothing(step: Step) -> Sequence[Any]:
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
        method: Paragraphs on how it was done, where there is more to say than the stages do.
        kept: Lines on what was kept of the model's vocabulary, as it was measured.
        sizes: Files that it wrote in other formats: name, bytes of the weights before, bytes of the file.
        cuts: Whether the model knows the step's languages alone, since its vocabulary was cut.
        labels_of: Codes of the languages whose labels were read.
        library: The library that loads the model, where it is neither transformers nor sentence-transformers.
        use: `card.facts.Facts`, name of the model -> Python that loads and uses it, where its class does not say it.
        files: Whether it wrote several files, each a whole model with scores of its own, in place of a checkpoint.
        reference: What tables call the model that the scores are compared with.
    """

    title: Callable[[Step], str]
    introduction: Callable[[Step], str]
    tag: str
    citations: Callable[[Step], Sequence[str]] = _nothing
    limitations: Callable[[Step], Sequence[str]] = _nothing
    method: Callable[[Step], Sequence[str]] = _nothing
    kept: Callable[[Step], Sequence[str]] = _nothing
    sizes: Callable[[Step], Sequence[tuple[str, float, float]]] = _nothing
    cuts: bool = False
    labels_of: Callable[[Step], Sequence[str]] = _nothing
    library: str | None = None
    use: Callable[[Any, str], str] | None = None
    files: bool = False
    reference: str = "teacher"
