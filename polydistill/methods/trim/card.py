"""How cards speak of a trim."""

from __future__ import annotations

from typing import Any

from polydistill.card.step import Step
from polydistill.card.text import at, code, first, joined, mapping, number, plain
from polydistill.card.told import BY, Told

TRIMMING = """\
@inproceedings{abdaoui-etal-2020-load,
  title = {Load What You Need: Smaller Versions of Multilingual {BERT}},
  author = {Abdaoui, Amine and Pradel, Camille and Sigel, Gr{\\'e}goire},
  booktitle = {Proceedings of SustaiNLP: Workshop on Simple and Efficient Natural Language Processing},
  year = {2020},
  note = {arXiv:2010.05609}
}

@inproceedings{ushio-etal-2023-efficient,
  title = {Efficient Multilingual Language Model Compression through Vocabulary Trimming},
  author = {Ushio, Asahi and Zhou, Yi and Camacho-Collados, Jose},
  booktitle = {Findings of the Association for Computational Linguistics: EMNLP 2023},
  year = {2023},
  note = {arXiv:2305.15020}
}"""


def _title(step: Step) -> str:
    return f"{step.base} trimmed to {joined(step.languages)}"


def _introduction(step: Step) -> str:
    dtype = step.config.get("dtype")
    rows = "are the original's, bit for bit" + ("." if dtype == "keep" else f", converted to {plain(dtype, 20)}.")
    return (
        f"{code(step.came_from)} with its vocabulary trimmed to {joined(step.languages)} by {BY}. The embedding rows "
        f"that stay {rows}"
    )


def _kept(step: Step) -> list[str]:
    lines = [
        f"{first(name, 20)}: {100 * share:.3f} % of the token occurrences in the counted text"
        for name, share in _shares(step.result.get("coverage"))
    ]
    lines += [
        f"{first(name, 20)}: about {100 * share:.2f} % expected of new text of the same kind (Good-Turing)"
        for name, share in _shares(step.result.get("expected_coverage"))
    ]
    reasons = [f"{plain(name, 40)} {n:,.0f}" for name, n in _shares(step.result.get("kept"))]
    return [*lines, *([f"tokens by reason: {', '.join(reasons)}"] if reasons else []), *_verified(step)]


def _shares(value: Any) -> list[tuple[str, float]]:
    return [(str(name), n) for name, share in mapping(value).items() if (n := number(share)) is not None]


def _verified(step: Step) -> list[str]:
    check = mapping(step.result.get("verification"))
    lines, same = number(check.get("sentences")), number(check.get("identical"))
    if lines is None or same is None:
        return ["not verified against the original"]
    new_text = mapping(check.get("new_text"))
    text = "other text" if check.get("held_out") else "the text" if new_text else "words that were counted"
    said = f"verified on {lines:,.0f} lines of {text}: {same:,.0f} tokenize identically"
    apart = number(check.get("max_abs_difference"))
    said += f"; largest difference of outputs on those: {apart:.3g}" if apart is not None else ""
    vectors = number(at(check, "vectors", "max_abs_difference"))
    said += f"; of sentence vectors, prompts included: {vectors:.3g}" if vectors is not None else ""
    tried, right = number(new_text.get("sentences")), number(new_text.get("identical"))
    if tried is None or right is None:
        return [said]
    estimate = f"of {tried:,.0f} lines that the vocabulary was chosen without, {right:,.0f} tokenize identically"
    return [said, f"estimate for new text: {estimate}"]


TOLD = Told(
    title=_title,
    introduction=_introduction,
    tag="vocabulary-trimming",
    citations=lambda step: [TRIMMING],
    limitations=lambda step: ["It keeps the biases and mistakes of the original: a trim only takes tokens away."],
    kept=_kept,
    cuts=True,
)
