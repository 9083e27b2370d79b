"""How cards speak of a bilingual distillation."""

from __future__ import annotations

from polydistill.card.step import Step
from polydistill.card.text import at, code, items, joined, mapping, objects, plain
from polydistill.card.told import BY, Told
from polydistill.methods.sparse.card import LT_SFT

BISTIL = """\
@inproceedings{ansell-etal-2023-distilling,
  title = {Distilling Efficient Language-Specific Models for Cross-Lingual Transfer},
  author = {Ansell, Alan and Ponti, Edoardo Maria and Korhonen, Anna and Vuli{\\'c}, Ivan},
  booktitle = {Findings of the Association for Computational Linguistics: ACL 2023},
  year = {2023},
  note = {arXiv:2306.01709}
}"""
RELATIONS = """\
@inproceedings{wang-etal-2021-minilmv2,
  title = {{MiniLMv2}: Multi-Head Self-Attention Relation Distillation for Compressing Pretrained Transformers},
  author = {Wang, Wenhui and Bao, Hangbo and Huang, Shaohan and Dong, Li and Wei, Furu},
  booktitle = {Findings of the Association for Computational Linguistics: ACL-IJCNLP 2021},
  year = {2021},
  note = {arXiv:2012.15828}
}"""
_NAMED = "BiStil (Ansell et al. 2023, arXiv 2306.01709)"


def _title(step: Step) -> str:
    return f"{step.base} for {f'{step.task} in ' if step.task else ''}{joined(step.languages)}"


def _introduction(step: Step) -> str:
    kept = [plain(layer, 8) for layer in items(step.result.get("layers"))]
    layers = f"layer{'' if len(kept) == 1 else 's'} {joined(kept)} (counted from 0)"
    began = f"initialised with the vocabulary of both languages and the teacher's {layers}"
    if step.task and not any(stage.get("name") == "general" for stage in objects(step.result.get("stages"))):
        return (
            f"{code(step.came_from)} distilled for {step.task} in {joined(step.languages)} by {BY}, from a tuned "
            f"teacher with phase 2 of {_NAMED}. The student was {began}."
        )
    return (
        f"A student of {code(step.came_from)} for {joined(step.languages)}, distilled by {BY} with {_NAMED}. It was "
        f"{began}."
    )


def _citations(step: Step) -> list[str]:
    objectives = [mapping(at(step.result, "settings", phase, "objectives")) for phase in ("phase_1", "phase_2")]
    relations = any("relations" in named for named in objectives)
    return [BISTIL, *([LT_SFT] if step.task else []), *([RELATIONS] if relations else [])]


def _labels_of(step: Step) -> list[str]:
    return step.languages[:1] if step.task else []


def _limitations(step: Step) -> list[str]:
    said = ["It is for two languages; text in others was neither trained on nor measured."]
    if step.task:
        return [*said, f"All labelled data were in {joined(_labels_of(step))}."]
    return [*said, "It has no task head; the checkpoint was chosen on held-out text."]


TOLD = Told(
    title=_title,
    introduction=_introduction,
    tag="bilingual-distillation",
    citations=_citations,
    limitations=_limitations,
    cuts=True,
    labels_of=_labels_of,
)
