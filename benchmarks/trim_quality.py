"""What a trimmed vocabulary keeps of text that was not counted, and that models are the same on it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import measure
from measure import MB, conll_sentences
from trim_speed import prepared

SIZES = (5_000, 10_000, 15_000, 20_000, 20_297, 25_000, 30_000)  # 20,297: a rough run kept so many for Romanian
OFFLINE_SIZES = (10_000, 20_000, 25_000, 30_000, 40_000)
PROMPTS = {"en": "The capital of Romania is", "ro": "Bucureștiul este capitala", "sw": "Mji mkuu wa Kenya ni"}
NEW_TOKENS = 20


@dataclass
class Held:
    """Sentences that were not counted, tokenized by the original."""

    sentences: list[str]
    ids: list[list[int]]

    @cached_property
    def flat(self) -> Any:
        import numpy as np

        return np.fromiter((i for line in self.ids for i in line), np.int64)

    def shares(self, kept: Any) -> tuple[float, float]:
        """(share of token occurrences kept, share of sentences all of whose tokens are) for a mask over ids."""
        whole = sum(bool(kept[line].all()) for line in self.ids)
        return float(kept[self.flat].mean()), whole / len(self.ids)


def encoder(file: Path) -> Any:
    """Texts -> ids, by the tokenizer in a tokenizer.json."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


class Study:
    """One model and its languages: counts, and the sentences that were not counted."""

    def __init__(self, folder: Path, codes: Sequence[str], data: Path, *, corpora: bool = True) -> None:
        from polydistill.catalog import language
        from polydistill.models.refs import ModelRef, resolve
        from polydistill.models.source import Source
        from polydistill.trimming.counting import count

        self.source = Source.open(resolve(ModelRef.parse(str(folder))))
        self.languages = tuple(language(code) for code in codes)
        given = [f"{code}={data / 'text' / code}.txt" for code in codes] if corpora else []
        self.counts = count(self.source.vocabulary, self.languages, given)
        self.encode = encoder(folder / "tokenizer.json")
        self.held = {}
        for code in codes:
            sentences = conll_sentences(data / "ner" / code / "test.conll")
            self.held[code] = Held(sentences, self.encode(sentences))

    def trimmed(self, **rule: Any) -> list[Any]:
        """A table's line for a rule of `KeepRule`."""
        from polydistill.trimming import surgery
        from polydistill.trimming.plan import Wishes, plan, write_vocabulary
        from polydistill.vocab.keep import KeepRule

        made = plan(self.source, self.counts, Wishes(self.languages, KeepRule(**rule)))
        keep = made.keeps[0]
        with tempfile.TemporaryDirectory() as scratch:
            write_vocabulary(made, Path(scratch))
            encode = encoder(Path(scratch) / "tokenizer.json")
            tokenizer = measure.folder_bytes(Path(scratch))
        cells = []
        for held in self.held.values():
            mapped = [keep.table[line].tolist() for line in held.ids]
            same = sum(old == new for old, new in zip(mapped, encode(held.sentences), strict=True))
            share, whole = held.shares(keep.table >= 0)
            if same != round(whole * len(mapped)):
                raise SystemExit(f"{same} sentences tokenize identically, {whole:.4f} have only kept tokens")
            cells += [f"{share:.4f}", f"{same / len(mapped):.3f}"]
        parameters, nbytes = surgery.sizes(self.source.checkpoint, made.cuts, "keep")
        return [f"{len(keep):,}", *cells, f"{parameters / 1e6:.1f}", f"{(nbytes + tokenizer) / MB:.0f}"]

    @cached_property
    def frequencies(self) -> Any:
        """(size,) the languages' relative frequencies, added."""
        name = self.source.vocabulary.spaces[0].name
        counts = [self.counts.languages[lang.code].spaces[name] for lang in self.languages]
        return sum(c / c.sum() for c in counts)

    def line(self, kept: Any) -> list[Any]:
        """Number of tokens, then the two shares of each language."""
        cells = ("{:.4f} {:.3f}".format(*held.shares(kept)).split() for held in self.held.values())
        return [f"{int(kept.sum()):,}", *(cell for pair in cells for cell in pair)]

    def most_frequent(self, size: int | None) -> list[Any]:
        """A table's line for the special tokens and the most frequent ones, all that were seen or `size` together."""
        import numpy as np

        special = sorted(set(self.source.vocabulary.added.values()))
        order = np.argsort(-self.frequencies, kind="stable")
        order = order[(self.frequencies[order] > 0) & ~np.isin(order, special)]
        chosen = order if size is None else order[: max(0, size - len(special))]
        kept = np.zeros(len(self.frequencies), bool)
        kept[chosen] = kept[special] = True
        return self.line(kept)


def rules(sizes: Sequence[int]) -> list[tuple[str, dict[str, Any]]]:
    """The default coverage, then exact sizes."""
    return [("default", {"coverage": 0.9999}), *((f"{n:,}", {"vocab_size": n}) for n in sizes)]


def quality_rows(study: Study) -> list[list[Any]]:
    """Ours at every size and by default, each beside frequency order at the same size, and every token seen."""
    from polydistill.errors import UsageError

    rows, blank = [], ["-"] * (2 * len(study.held))
    seen = study.most_frequent(None)
    available = number(seen[0])
    for label, rule in rules((*SIZES, available)):
        try:
            ours = study.trimmed(**rule)
        except UsageError:
            ours = ["refused", *blank, "-", "-"]
        size = number(label if "vocab_size" in rule else ours[0])
        rows.append([label, *ours, *(study.most_frequent(size)[1:] if size <= available else blank)])
        print(rows[-1], file=sys.stderr)
    rows.append([f"{seen[0]}: every token that was counted, nothing else", "-", *blank, "-", "-", *seen[1:]])
    return rows


def number(text: str) -> int:
    return int(text.replace(",", ""))


def quality(args: argparse.Namespace) -> None:
    """What is kept of text that was not counted, against the size of the vocabulary."""
    body = [
        "## What is kept of text that was not counted",
        "Counted: text/LANG.txt. Measured: ner/LANG/test, tokens joined by spaces. `tokens` is the share of token "
        "occurrences kept, `sentences` the share that tokenizes identically, `M` millions of parameters, `MB` weights "
        "and tokenizer. Right of them, for the same number of tokens, the special tokens and the most frequent ones of "
        "the counts (a keep set only: for BPE it lacks the pieces that its merges need). A size that is refused is too "
        "small for what must stay.",
    ]
    for model, folder in prepared(args).items():
        for codes in args.languages:
            study = Study(folder, codes.split("+"), args.data)
            pairs = [f"{c} {what}" for c in study.held for what in ("tokens", "sentences")]
            head = ["--vocab-size", "tokens", *pairs, "M", "MB", *(f"frequency: {p}" for p in pairs)]
            body += [f"### {model}, {codes}", measure.table(head, quality_rows(study))]
        if "ro" in args.languages:
            study = Study(folder, ["ro"], args.data, corpora=False)
            sizes = [n for n in OFFLINE_SIZES if n <= study.source.vocabulary.spaces[0].size]
            rows = [[name, *study.trimmed(**rule)] for name, rule in rules(sizes)]
            head = ["--vocab-size", "tokens", "ro tokens", "ro sentences", "M", "MB"]
            body += [f"### {model}, ro, no text: the offline default (wordfreq)", measure.table(head, rows)]
    used = measure.versions("polydistill", "tokenizers", "wordfreq")
    measure.write_section(
        args.output, "quality", "python benchmarks/trim.py quality --data DATA", "\n\n".join(body), used
    )


# --- the same outputs


def same(args: argparse.Namespace) -> None:
    """Equal embeddings through sentence-transformers, and the same greedy text from Gemma."""
    import polydistill

    args.models = args.models or ["e5", "minilm", "gemma"]
    rows = []
    for model, folder in prepared(args).items():
        codes = ("en", "ro", "sw") if model == "gemma" else ("ro", "sw")
        out = args.scratch / f"{model}-same"
        corpora = [f"{code}={args.data / 'text' / code}.txt" for code in codes]
        trimmed = polydistill.trim(str(folder), languages=codes, text=corpora, verify=False, output=out, overwrite=True)
        rows += continuations(folder, out) if model == "gemma" else embeddings(model, folder, out, args.data, codes)
        print(model, trimmed.vocabulary, file=sys.stderr)
    body = [
        "## The same outputs",
        "Trimmed for ro + sw (Gemma: en + ro + sw) at the default coverage, float32. Embeddings by "
        "sentence-transformers of the first 64 sentences of ner/LANG/test that have only kept tokens; Gemma's greedy "
        f"continuation of {NEW_TOKENS} tokens.",
        measure.table(["model", "text", "compared", "result"], rows),
    ]
    command = "python benchmarks/trim.py same --data DATA"
    used = measure.versions("polydistill", "sentence-transformers", "transformers", "torch")
    measure.write_section(args.output, "same", command, "\n\n".join(body), used)


def kept_only(folder: Path, out: Path, sentences: list[str], most: int = 64) -> list[str]:
    """The first sentences whose tokens, by name, are all in both tokenizers."""
    from transformers import AutoTokenizer

    old, new = (AutoTokenizer.from_pretrained(f) for f in (folder, out))
    known = new.get_vocab()
    tokens = ((s, old.convert_ids_to_tokens(old(s)["input_ids"])) for s in sentences)
    return [s for s, found in tokens if all(t in known for t in found)][:most]


def embeddings(model: str, folder: Path, out: Path, data: Path, codes: Sequence[str]) -> list[list[Any]]:
    import numpy as np
    from sentence_transformers import SentenceTransformer

    before, after = (SentenceTransformer(str(f), device="cpu") for f in (folder, out))
    rows = []
    for code in codes:
        sentences = kept_only(folder, out, conll_sentences(data / "ner" / code / "test.conll"))
        difference = float(np.abs(before.encode(sentences) - after.encode(sentences)).max())
        verdict = "equal" if difference <= 1e-5 else "DIFFERENT"
        rows.append(
            [model, f"{len(sentences)} sentences, {code}", "embeddings", f"{verdict}, at most {difference:.1e} apart"]
        )
    return rows


def continuations(folder: Path, out: Path) -> list[list[Any]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts, rows = [], []
    for place in (folder, out):
        tokenizer = AutoTokenizer.from_pretrained(place)
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
        made = {}
        for code, prompt in PROMPTS.items():
            ids = tokenizer(prompt, return_tensors="pt")
            with torch.no_grad():
                found = model.generate(**ids, max_new_tokens=NEW_TOKENS, do_sample=False)[0]
            made[code] = tokenizer.convert_ids_to_tokens(found)
        texts.append((made, tokenizer.get_vocab()))
        del model
    (old, _), (new, known) = texts
    for code, prompt in PROMPTS.items():
        gone = [token for token in old[code] if token not in known]
        if gone:
            verdict = f"not comparable: the original writes {', '.join(map(repr, gone))}, which was dropped"
        else:
            verdict = "the same tokens" if old[code] == new[code] else f"DIFFERENT: {''.join(new[code])}"
        rows.append(["gemma", f"{code}: {prompt}", f"{len(old[code])} tokens", verdict])
    return rows
