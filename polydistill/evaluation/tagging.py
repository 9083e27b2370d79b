"""Sentences in words: one tag a word, from the word's first token. Long sentences are windowed, never cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from polydistill.evaluation.classification import softmax
from polydistill.evaluation.heads import TaskModel
from polydistill.labelled.examples import TaggedExample
from polydistill.labelled.schemes import IOB2, parts, to_iob2
from polydistill.metrics.entities import entity_f1
from polydistill.metrics.items import Measured
from polydistill.metrics.loyalty import label_loyalty, probability_loyalty
from polydistill.training.batching import NOT_TRAINED, Feature, run

MAX_LENGTH = 512
CONTEXT = 0.25  # share of a window that it has in common with the next one


@dataclass(frozen=True)
class Window:
    """A part of a sentence that fits the model.

    Args:
        sentence: Which sentence.
        start: Its first word.
        stop: One more than its last word.
        own: (first, stop) words that take their tags from this window; every word is one window's own.
    """

    sentence: int
    start: int
    stop: int
    own: tuple[int, int]


def windows(sentence: int, tokens_of_words: Sequence[int], room: int) -> list[Window]:
    """Cuts a sentence into windows that overlap, each word being tagged where it has most context.

    Args:
        sentence: Which sentence.
        tokens_of_words: Number of tokens of each word.
        room: Most tokens of a window, special tokens not counted; a longer word has a window to itself.
    """
    n, spans, start = len(tokens_of_words), [], 0
    ends = np.concatenate(([0], np.cumsum(tokens_of_words)))
    while True:
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + room, side="right")) - 1)
        spans.append((start, min(stop, n)))
        if stop >= n:
            break
        reach = max(ends[stop] - CONTEXT * room, ends[stop + 1] - room)  # the next word has to fit
        start = max(start + 1, min(int(np.searchsorted(ends, reach, side="left")), stop))
    borders = [0, *((a[1] + b[0] + 1) // 2 for a, b in itertools.pairwise(spans)), n]
    return [Window(sentence, a, b, (borders[i], borders[i + 1])) for i, (a, b) in enumerate(spans)]


def features(model: TaskModel, examples: Sequence[TaggedExample]) -> list[tuple[Window, Feature]]:
    """The inputs of all windows.

    Of a feature, `first` is the position of each of the window's words' first token, -1 for none, and `words` the
    window's word that each token belongs to, -1 for special tokens.
    """
    if not examples:
        return []
    split = {"is_split_into_words": True, "verbose": False}
    before = " " if _glues_words(model.tokenizer) else ""
    sentences = [[before + word for word in e.tokens] for e in examples]
    whole = model.tokenizer(sentences, add_special_tokens=False, **split)
    room = model.max_length - model.tokenizer.num_special_tokens_to_add()
    parts: list[Window] = []
    for i, example in enumerate(examples):
        words = [w for w in whole.word_ids(i) if w is not None]
        parts += windows(i, np.bincount(words, minlength=len(example.tokens)).tolist(), room)
    texts = [sentences[w.sentence][w.start : w.stop] for w in parts]
    encoded = model.tokenizer(texts, truncation=True, max_length=model.max_length, **split)
    found = []
    for i, window in enumerate(parts):
        first = [-1] * (window.stop - window.start)
        words = [-1 if word is None else word for word in encoded.word_ids(i)]
        for position, word in enumerate(words):
            if word >= 0 and first[word] < 0:
                first[word] = position
        found.append((window, {**{key: encoded[key][i] for key in encoded}, "first": first, "words": words}))
    return found


def _glues_words(tokenizer: Any) -> bool:
    """Whether it takes words that are given one by one as parts of one long word, as byte-level BPE does."""
    given = tokenizer(["a", "a"], is_split_into_words=True, add_special_tokens=False, verbose=False)
    return bool(given["input_ids"] != tokenizer("a a", add_special_tokens=False, verbose=False)["input_ids"])


def training_features(model: TaskModel, examples: Sequence[TaggedExample]) -> list[Feature]:
    """The same with `labels`: the tag's number at the first token of each of the window's own words.

    `word_ids` has the word's number there and -1 elsewhere, `token_words` has it at all tokens of these words, and
    `example` is the sentence's.
    """
    ids = {label: i for i, label in enumerate(model.labels)}
    found = []
    for window, feature in features(model, examples):
        labels, first = [NOT_TRAINED] * len(feature["input_ids"]), feature.pop("first")
        words, own = [-1] * len(labels), range(window.own[0] - window.start, window.own[1] - window.start)
        whole = [window.start + word if word in own else -1 for word in feature.pop("words")]
        for word in range(*window.own):
            if (position := first[word - window.start]) >= 0:
                labels[position] = ids[examples[window.sentence].tags[word]]
                words[position] = word
        about = {"word_ids": words, "token_words": whole, "example": window.sentence}
        found.append({**feature, "labels": labels, **about})
    return found


def word_logits(
    model: TaskModel,
    examples: Sequence[TaggedExample],
    *,
    batch_size: int,
    bf16: bool = False,
    done: Callable[[int], object] = lambda n: None,
) -> list[np.ndarray]:
    """(words, L) float32 of each sentence, from each word's first token; not numbers for a word without tokens."""
    found = [np.full((len(e.tokens), len(model.labels)), np.nan, np.float32) for e in examples]
    parts = features(model, examples)
    rows = run(
        model.network, model.tokenizer, [f for _, f in parts], batch_size, lambda o: [o.logits], bf16=bf16, done=done
    )
    for (window, feature), (logits,) in zip(parts, rows, strict=True):
        for word in range(*window.own):
            if (position := feature["first"][word - window.start]) >= 0:
                found[window.sentence][word] = logits[position]
    return found


def predict(
    model: TaskModel,
    examples: Sequence[TaggedExample],
    *,
    batch_size: int,
    bf16: bool = False,
    done: Callable[[int], object] = lambda n: None,
) -> list[dict[str, Any]]:
    """The likeliest tag of each word in IOB2, and its probability of every tag; a word without tokens is O.

    Of classes that have no O, a word without tokens has none, and all have the same probability.

    The probabilities of a model that tags in IOB1 or IO are those of its own tags, for which there is nothing in IOB2.
    """
    own, scheme = (model.tags.tags, model.tags.scheme) if model.tags else (model.labels, IOB2)
    names = sorted(set(model.labels), key=model.labels.index)
    columns = np.array([[label == name for label in model.labels] for name in names], np.float64).T
    nothing = "O" if "O" in names else ""
    outside = np.array([float(name == "O") if nothing else 1 / len(names) for name in names])
    predictions = []
    for logits in word_logits(model, examples, batch_size=batch_size, bf16=bf16, done=done):
        known = ~np.isnan(logits).any(-1)
        shares = np.where(known[:, None], softmax(logits) @ columns, outside)  # types that are not scored count as O
        best = np.argmax(logits, -1).tolist() if len(logits) else []
        tags = to_iob2([own[i] if k else nothing for i, k in zip(best, known, strict=True)], scheme)
        predictions.append({"tags": tags, "names": names, "probabilities": np.round(shares, 6).tolist()})
    return predictions


def measure(examples: Sequence[TaggedExample], predictions: Sequence[dict[str, Any]], language: str) -> list[Measured]:
    """Entity F1 in both scorings."""
    gold, found = [e.tags for e in examples], [p["tags"] for p in predictions]
    return [entity_f1(gold, found, "conlleval"), entity_f1(gold, found, "strict-iob2")]


def loyalty(teacher: Sequence[dict[str, Any]], student: Sequence[dict[str, Any]], language: str) -> list[Measured]:
    """Of the tags of words and of their probabilities; a tag that only one of the two has is never the other's.

    Where one tags in another scheme than IOB2 and the other does not, the probabilities are those of the types of
    entities and of none, and the normalisation of their loyalty is `types`.
    """
    tags = [[tag for p in found for tag in p["tags"]] for found in (teacher, student)]
    names = [found[0]["names"] for found in (teacher, student)]
    of_tags = set(names[0]) == set(names[1]) or all(map(_are_iob2, names))
    classes = names if of_tags else [[parts(name)[1] for name in own] for own in names]
    wanted = list(dict.fromkeys([*classes[0], *classes[1]]))
    shares = []
    for found, own in zip((teacher, student), classes, strict=True):
        columns = np.array([[name == each for each in wanted] for name in own], np.float64)
        shares.append(np.array([word for p in found for word in p["probabilities"]]) @ columns)
    probabilities = probability_loyalty(*shares)
    return [label_loyalty(*tags), probabilities if of_tags else replace(probabilities, normalisation="types")]


def _are_iob2(names: Sequence[str]) -> bool:
    """Whether a B- begins the entities of every type."""
    begun = {kind for prefix, kind in map(parts, names) if prefix == "B"}
    return {kind for _, kind in map(parts, names)} <= {"", *begun}
