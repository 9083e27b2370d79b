"""Questions about a paragraph: the answer is cut from the paragraph by offsets. Long paragraphs are windowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from polydistill.errors import PolydistillError
from polydistill.evaluation.heads import TaskModel
from polydistill.evaluation.offsets import Offset, completed, tokens_of
from polydistill.labelled.examples import QuestionExample
from polydistill.metrics.answers import answer_scores
from polydistill.metrics.items import Measured
from polydistill.training.batching import Feature, run

MAX_LENGTH = 384
OVERLAP = 128  # tokens that a window has in common with the next one
BEST, LONGEST_ANSWER = 20, 30  # starts and ends that are tried; tokens, or characters where these have several tokens
LONGEST_QUESTION = 64  # tokens, and no more than half an input


def features(model: TaskModel, examples: Sequence[QuestionExample]) -> list[Feature]:
    """The inputs of all windows.

    Of a feature, `example` is the question's number, `offsets` has (start, end) in the paragraph for each token and
    None outside of it, with all marks of its last letter, and `covered` whether some token has it for each character
    of the paragraph.

    Raises:
        PolydistillError: A question leaves no room for a paragraph.
    """
    if not examples:
        return []
    tokenizer = model.tokenizer
    longest = min(LONGEST_QUESTION, model.max_length // 2)
    questions = [_cut(tokenizer, e.question.lstrip(), longest) for e in examples]
    room = model.max_length - longest - tokenizer.num_special_tokens_to_add(pair=True)
    overlap = min(OVERLAP, room // 2)  # even beside the longest question a window goes further than the overlap
    try:
        encoded = tokenizer(
            questions,
            [e.context for e in examples],
            truncation="only_second",
            max_length=model.max_length,
            stride=overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )
    except Exception as error:  # tokenizers raise plain Exceptions
        raise PolydistillError(
            f"{model.max_length} tokens leave no room for a paragraph beside its question.", "Raise `max_length`."
        ) from error
    found: list[Feature] = []
    windows: list[list[list[Offset]]] = [[] for _ in examples]
    for i, example in enumerate(encoded["overflow_to_sample_mapping"]):
        own = zip(encoded["offset_mapping"][i], encoded.sequence_ids(i), strict=True)
        windows[example].append([tuple(o) if part == 1 and o[1] > o[0] else None for o, part in own])
        inputs = {key: encoded[key][i] for key in ("input_ids", "attention_mask", "token_type_ids") if key in encoded}
        found.append({**inputs, "example": example})
    places = [completed(e.context, own) for e, own in zip(examples, windows, strict=True)]
    rest = [iter(own) for own, _ in places]
    return [{**f, "offsets": next(rest[f["example"]]), "covered": places[f["example"]][1]} for f in found]


def _cut(tokenizer: Any, question: str, longest: int) -> str:
    """The question, or as much of it as is read: so many tokens."""
    offsets = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    (places,), _ = completed(question, [[tuple(offset) for offset in offsets["offset_mapping"]]])
    last = places[longest - 1] if len(places) > longest else None
    return question[: last[1]] if last else question


def training_features(model: TaskModel, examples: Sequence[QuestionExample]) -> list[Feature]:
    """The same with `start_positions` and `end_positions` of the first reference; 0 where a window lacks it.

    A question whose answer no window has as a whole gives no input: to be trained on it would teach that it has no
    answer.
    """
    found, answered = [], set()
    for feature in features(model, examples):
        text, start = examples[feature["example"]].answers[0]
        tokens = tokens_of(feature.pop("offsets"), feature.pop("covered"), start, start + len(text))
        first, last = tokens or (0, 0)
        if tokens:
            answered.add(feature["example"])
        found.append({**feature, "start_positions": first, "end_positions": last})
    return [feature for feature in found if feature["example"] in answered]


def predict(
    model: TaskModel,
    examples: Sequence[QuestionExample],
    *,
    batch_size: int,
    bf16: bool = False,
    done: Callable[[int], object] = lambda n: None,
) -> list[dict[str, Any]]:
    """The answer of each question: its text, where it starts, and the sum of its two logits."""
    parts = features(model, examples)
    rows = run(
        model.network,
        model.tokenizer,
        parts,
        batch_size,
        lambda o: [o.start_logits, o.end_logits],
        bf16=bf16,
        done=done,
    )
    best: list[dict[str, Any]] = [{"text": "", "start": 0, "score": -np.inf} for _ in examples]
    for feature, (starts, ends) in zip(parts, rows, strict=True):
        score, span = best_span(starts, ends, feature["offsets"])
        if span and score > best[feature["example"]]["score"]:
            context = examples[feature["example"]].context
            best[feature["example"]] = {"text": context[span[0] : span[1]].strip(), "start": span[0], "score": score}
    return [{**found, "score": float(max(found["score"], -1e9))} for found in best]


def best_span(starts: np.ndarray, ends: np.ndarray, offsets: Sequence[Offset]) -> tuple[float, tuple[int, int] | None]:
    """The likeliest span of a window: of at most 30 tokens, or of as many as 30 characters have there on average.

    Args:
        starts: (T,) logits of the first token.
        ends: (T,) logits of the last one.
        offsets: (T,) where each token stands in the paragraph.

    Returns:
        The sum of its logits, and (start, end) in the paragraph; None if the window has no paragraph.
    """
    inside = np.array([i for i, offset in enumerate(offsets) if offset], np.int64)
    if not len(inside):
        return -np.inf, None
    first = inside[np.argsort(-starts[inside], kind="stable")[:BEST]]
    last = inside[np.argsort(-ends[inside], kind="stable")[:BEST]]
    sums = starts[first][:, None] + ends[last][None, :]
    length = last[None, :] - first[:, None] + 1
    characters = max(end for _, end in filter(None, offsets)) - min(start for start, _ in filter(None, offsets))
    longest = LONGEST_ANSWER * max(1.0, len(inside) / characters)
    sums = np.where((length >= 1) & (length <= longest), sums, -np.inf)
    i, j = np.unravel_index(int(np.argmax(sums)), sums.shape)
    if not np.isfinite(sums[i, j]):  # no such pair among the best: the single likeliest token
        single = inside[int(np.argmax(starts[inside] + ends[inside]))]
        return float(starts[single] + ends[single]), offsets[single]
    begin, end = offsets[first[i]], offsets[last[j]]
    assert begin and end
    return float(sums[i, j]), (begin[0], end[1])


def measure(
    examples: Sequence[QuestionExample], predictions: Sequence[dict[str, Any]], language: str
) -> list[Measured]:
    """Exact match and F1 in both normalisations."""
    found, references = [p["text"] for p in predictions], [[text for text, _ in e.answers] for e in examples]
    return [m for rule in ("squad", "mlqa") for m in answer_scores(found, references, language, rule)]


def loyalty(teacher: Sequence[dict[str, Any]], student: Sequence[dict[str, Any]], language: str) -> list[Measured]:
    """Share of answers that are the teacher's, as MLQA normalises them."""
    exact, _ = answer_scores([p["text"] for p in student], [[p["text"]] for p in teacher], language, "mlqa")
    return [replace(exact, metric="label_loyalty")]
