"""How cards speak of a student that learnt without labels of its language."""

from __future__ import annotations

from polydistill.card.step import Step
from polydistill.card.text import at, code, first, joined, mapping, number, plain, texts
from polydistill.card.told import BY, Told

PROKD = """\
@inproceedings{ge-etal-2023-prokd,
  title = {{ProKD}: An Unsupervised Prototypical Knowledge Distillation Network for Zero-Resource Cross-Lingual Named
    Entity Recognition},
  author = {Ge, Ling and Hu, Chunming and Ma, Guanghui and Zhang, Hong and Liu, Jihong},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year = {2023},
  note = {arXiv:2301.08855}
}"""
TSL = """\
@inproceedings{wu-etal-2020-single,
  title = {Single-/Multi-Source Cross-Lingual {NER} via Teacher-Student Learning on Unlabeled Data in Target Language},
  author = {Wu, Qianhui and Lin, Zijia and Karlsson, B{\\"o}rje F. and Lou, Jian-Guang and Huang, Biqing},
  booktitle = {Proceedings of the 58th Annual Meeting of the Association for Computational Linguistics},
  year = {2020},
  note = {arXiv:2004.12440}
}"""
_TSL = "distillation of a teacher's probabilities, after TSL (Wu et al. 2020, arXiv 2004.12440)"
_METHODS = {
    "prokd": "a reconstruction of ProKD (Ge et al. 2023, arXiv 2301.08855; its code is not public)",
    "tsl": _TSL,
    "selftrain": f"{_TSL}, and of its pseudo-labels",
    "transfer": "direct transfer: the teacher as it is",
}


def _target(step: Step) -> str:
    return plain(step.result.get("target"), 20)


def _title(step: Step) -> str:
    return f"{step.base} for {step.task} in {_target(step)}"


def _introduction(step: Step) -> str:
    named = str(step.result.get("method"))
    method = _METHODS.get(named, plain(named, 60))
    if named == "prokd" and not at(step.result, "settings", "aligned"):
        method += ", with a teacher whose prototypes were not aligned"
    if named != "transfer" and at(step.result, "settings", "student_from") == "teacher":
        method += " (TSL's student begins with the pretrained encoder, this one began as a copy of the teacher)"
    return (
        f"{code(step.came_from)} trained for {step.task} in {_target(step)} by {BY}, with labels in "
        f"{joined(_labels_of(step))} only. The method is {method}."
    )


def _labels_of(step: Step) -> list[str]:
    return texts(step.result.get("sources"))


def _citations(step: Step) -> list[str]:
    method = step.result.get("method")
    return [*([PROKD] if method == "prokd" else []), *([TSL] if method != "transfer" else [])]


def _limitations(step: Step) -> list[str]:
    return [
        f"No labels in {_target(step)} were used, neither to train it nor to choose the checkpoint.",
        "Text in other languages was not seen.",
    ]


def _method(step: Step) -> list[str]:
    """Settings, since the method has open choices, and what became of the pseudo-labels."""
    settings = {name: v for name, v in mapping(step.result.get("settings")).items() if v is not None}
    if not settings:
        return []
    said = ["\n".join(f"- {first(name, 60)}: {plain(value)}" for name, value in settings.items())]
    labels = step.result.get("pseudo_labels")
    share, changed = number(at(labels, "share_entity")), number(at(labels, "changed"))
    if share is not None:
        rectified = "" if changed is None else f"; prototypes changed {100 * changed:.2f} % of its tags"
        words = f"The teacher tags {100 * share:.1f} % of the words in {_target(step)} as part of an entity"
        said.append(f"{words}{rectified}.")
    return said


TOLD = Told(
    title=_title,
    introduction=_introduction,
    tag="zero-resource-tagging",
    citations=_citations,
    limitations=_limitations,
    method=_method,
    cuts=True,
    labels_of=_labels_of,
)
