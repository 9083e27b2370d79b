"""What of the labelled data also stands in the text of phase 1: sentences that share eight words in a row with it.

  python benchmarks/overlap.py --data DATA

Dev and test data must share nothing with text that a model is trained on: this script, and every benchmark that trains
students, stops where they do. What training data share with the text, and what the parts of a labelled set share with
each other (formulas such as "he was born in"), is counted and told.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import measure

WORDS = 8  # in a row
WORD = re.compile(r"\w+")
# What chooses or scores -> text: none of it may stand there.
CHOOSING = {
    "ner/en/dev_wikineural.conll": ("text/en.txt",),
    "ner/en/test_wikineural.conll": ("text/en.txt",),
    "ner/sw/test.conll": ("text/sw.txt",),
    "ner/ro/test.conll": ("text/ro.txt",),
    "ner/de/test.conll": ("text/de.txt",),
    "ner/es/test.conll": ("text/es.txt",),
    "nli/en/dev.jsonl": ("text/en.txt",),
    "nli/en/test.jsonl": ("text/en.txt",),
    "nli/sw/test.jsonl": ("text/sw.txt",),
    "qa/en/dev.json": ("text/en.txt",),
    "qa/en/test.json": ("text/en.txt",),
    "qa/ro/test.json": ("text/ro.txt",),
    "qa/es/test.json": ("text/es.txt",),
}
# Told beside the results: what is trained on in the text of phase 1, and what the sets' own parts have in common.
TOLD = {
    "ner/en/train_wikineural.conll": ("text/en.txt",),
    "ner/sw/train.conll": ("text/sw.txt",),
    "ner/ro/train.conll": ("text/ro.txt",),
    "ner/de/train.conll": ("text/de.txt",),
    "ner/es/train.conll": ("text/es.txt",),
    "nli/en/train.jsonl": ("text/en.txt",),
    "qa/en/train.json": ("text/en.txt",),
    "ner/en/dev_wikineural.conll": ("ner/en/train_wikineural.conll",),
    "ner/en/test_wikineural.conll": ("ner/en/train_wikineural.conll",),
    "ner/sw/test.conll": ("ner/sw/train.conll",),
    "ner/ro/test.conll": ("ner/ro/train.conll",),
    "ner/de/test.conll": ("ner/de/train.conll",),
    "ner/es/test.conll": ("ner/es/train.conll",),
    "nli/en/dev.jsonl": ("nli/en/train.jsonl",),
    "qa/en/dev.json": ("qa/en/train.json",),
}


def runs_of(text: str) -> Iterator[tuple[str, ...]]:
    """All runs of eight words, in lower case, without marks."""
    words = WORD.findall(text.lower())
    return (tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1))


def sentences(file: Path) -> list[str]:
    """The sentences, texts, questions and paragraphs of a file, each once."""
    found: Iterable[str]
    if file.suffix == ".conll":
        found = measure.conll_sentences(file)
    elif file.suffix == ".jsonl":
        rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
        found = (row[key] for row in rows for key in ("premise", "hypothesis"))
    else:
        found = measure.qa_texts(file) if file.suffix == ".json" else measure.lines_of(file)
    return list(dict.fromkeys(found))


@cache
def _runs_of_file(file: Path) -> frozenset[tuple[str, ...]]:
    return frozenset(run for sentence in sentences(file) for run in runs_of(sentence))


def shared(file: Path, other: Path) -> tuple[int, int]:
    """(sentences that share eight words in a row with the other file, sentences that have eight words)."""
    known = _runs_of_file(other)
    long = [runs for sentence in sentences(file) if (runs := set(runs_of(sentence)))]
    return sum(not known.isdisjoint(runs) for runs in long), len(long)


def rows_of(data: Path, pairs: Mapping[str, Sequence[str]]) -> list[tuple[str, str, int, int]]:
    """(file, other file, sentences in both, sentences) of all that are there."""
    there = [
        (name, other)
        for name, others in pairs.items()
        for other in others
        if (data / name).is_file() and (data / other).is_file()
    ]
    return [(name, other, *shared(data / name, data / other)) for name, other in there]


def check(data: Path) -> None:
    """Stops a benchmark where dev or test data stand in text that is trained on."""
    for name, other, found, _ in rows_of(data, CHOOSING):
        if found:
            sys.exit(f"{found} sentences of {name} share {WORDS} words in a row with {other}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    head = ["labelled file", "stands in", f"sentences of at least {WORDS} words", "of them there", "%"]
    parts = []
    for title, pairs in (("Dev and test data in the text: must be 0", CHOOSING), ("What else is shared", TOLD)):
        rows = [
            [a, b, f"{n:,}", f"{found:,}", f"{100 * found / n:.1f}"] for a, b, found, n in rows_of(args.data, pairs)
        ]
        parts.append(f"## {title}\n\n{measure.table(head, rows)}")
    command = "python benchmarks/overlap.py --data DATA"
    measure.write_section(args.output, "overlap", command, "\n\n".join(parts), measure.versions("polydistill"))
    check(args.data)


if __name__ == "__main__":
    main()
