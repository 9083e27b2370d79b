"""How cards speak of a student that learnt from projected labels."""

from __future__ import annotations

from polydistill.card.step import Step
from polydistill.card.text import at, code, number, plain
from polydistill.card.told import BY, Told

SIMALIGN = """\
@inproceedings{jalili-sabet-etal-2020-simalign,
  title = {{SimAlign}: High Quality Word Alignments Without Parallel Training Data Using Static and Contextualized
    Embeddings},
  author = {Jalili Sabet, Masoud and Dufter, Philipp and Yvon, Fran{\\c{c}}ois and Sch{\\"u}tze, Hinrich},
  booktitle = {Findings of the Association for Computational Linguistics: EMNLP 2020},
  year = {2020},
  note = {arXiv:2004.08728}
}"""


def _language(step: Step, role: str) -> str:
    return plain(step.result.get(role), 20)


def _title(step: Step) -> str:
    return f"{step.base} for {step.task} in {_language(step, 'target')}"


def _introduction(step: Step) -> str:
    source, target = _language(step, "source"), _language(step, "target")
    return (
        f"{code(step.came_from)} trained for {step.task} in {target} by {BY}. Its labels were carried over by "
        f"translations of {source} sentences: a tagger tagged one side, words were aligned by hidden states (after "
        "SimAlign, Jalili Sabet et al. 2020, arXiv 2004.08728), and the tags of entities that aligned fully went along."
    )


def _limitations(step: Step) -> list[str]:
    return [
        f"No labels in {_language(step, 'target')} that anybody made were used, neither to train it nor to choose the "
        "checkpoint.",
        "The teacher's mistakes went along with its tags.",
    ]


def _method(step: Step) -> list[str]:
    found = step.result.get("projection")
    kept, pairs = number(at(found, "kept")), number(at(found, "pairs"))
    if kept is None or pairs is None:
        return []
    return [f"Of {pairs:,.0f} pairs of sentences {kept:,.0f} were kept."]


TOLD = Told(
    title=_title,
    introduction=_introduction,
    tag="annotation-projection",
    citations=lambda step: [SIMALIGN],
    limitations=_limitations,
    method=_method,
    labels_of=lambda step: [_language(step, "source")],
)
