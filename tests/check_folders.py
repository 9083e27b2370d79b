"""Compares trimmed model folders with their originals; run as a script in a process that knows nothing of polydistill.

    python check_folders.py JOBS.json REPORT.json

JOBS.json is a list of `{"name", "auto", "old", "new", "kept", "texts"}`: the Auto class of transformers, the two
folders, for each vocabulary the old id of every new one, and texts. REPORT.json maps each name to `{"problems": [...],
"texts": n, "tensors": n, "logits": n, "ids": n}`, how much was compared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-5
ID_KEYS = ("_token_id", "_token_index")
SHIFTING = ("ForSequenceClassification", "ForQuestionAnswering")  # they make the decoder's ids themselves
ID_LISTS = ("suppress_tokens", "begin_suppress_tokens")


class Check:
    """One pair of folders."""

    def __init__(self, job: dict[str, Any], problems: list[str]) -> None:
        from transformers import AutoTokenizer

        self.job = job
        self.kept = [np.array(ids) for ids in job["kept"]]
        self.problems = problems
        self.counts = {"texts": 0, "tensors": 0, "logits": 0, "ids": 0}
        self.old, self.new = (AutoTokenizer.from_pretrained(job[side]) for side in ("old", "new"))
        if type(self.old).__name__ == "M2M100Tokenizer":  # it writes no target before it knows the language
            self.old.tgt_lang = self.new.tgt_lang = "ro"
        self.models: list[Any] = []

    def expect(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)

    def map(self, ids: list[int], space: int = 0) -> list[int] | None:
        """Old ids -> new ids, None when one was dropped."""
        table = {int(old): new for new, old in enumerate(self.kept[space])}
        return [table[i] for i in ids] if all(i in table for i in ids) else None

    def run(self) -> dict[str, int]:
        self.tokenizers()
        texts = self.texts()
        self.load()
        if len(self.models) == 2:
            self.rows()
            self.weights()
            self.identifiers()
            self.outputs(texts)
        return self.counts

    def tokenizers(self) -> None:
        old, new = self.old, self.new
        self.expect(type(old) is type(new), f"tokenizer class {type(new).__name__}, not {type(old).__name__}")
        before = old.get_vocab()
        for token, i in new.get_vocab().items():
            self.expect(i < len(self.kept[0]), f"token {token!r} has the id {i}")
            if i < len(self.kept[0]):
                self.expect(before.get(token) == self.kept[0][i], f"token {token!r} stands at {i}")
        self.expect(len(new.get_vocab()) < len(before), "no token was dropped")
        self.expect(new.all_special_tokens == old.all_special_tokens, "special tokens changed")
        self.expect(self.map(old.all_special_ids) == new.all_special_ids, "ids of special tokens")

    def texts(self) -> list[str]:
        """Checks tokenization; returns the texts all of whose tokens were kept."""
        texts, chosen = self.job["texts"], []
        for text in texts:
            ids = self.new(text)["input_ids"]
            self.expect(all(0 <= i < len(self.kept[0]) for i in ids), f"ids of {text!r} are out of range")
            mapped = self.map(self.old(text)["input_ids"])
            if mapped is None:
                continue
            chosen.append(text)
            self.expect(mapped == ids, f"{text!r} tokenizes differently")
            plain = self.map(self.old(text, add_special_tokens=False)["input_ids"])
            self.expect(plain == self.new(text, add_special_tokens=False)["input_ids"], f"{text!r} without specials")
            pair = self.map(self.old(text, chosen[0])["input_ids"])
            self.expect(pair == self.new(text, chosen[0])["input_ids"], f"{text!r} in a pair")
        self.counts["texts"] = len(chosen)
        self.decoding()
        return chosen

    def decoding(self) -> None:
        """Ids of the side that the model writes, which has a vocabulary of its own in some Marian models."""
        for text in self.job["texts"]:
            before = self.old(text_target=text)["input_ids"]
            after = self.map(before, -1)
            if after is not None:
                self.expect(self.new(text_target=text)["input_ids"] == after, f"{text!r} as a target")
                self.expect(self.new.decode(after) == self.old.decode(before), f"{text!r} decodes differently")
                plain = [t.decode(i, skip_special_tokens=True) for t, i in ((self.old, before), (self.new, after))]
                self.expect(plain[0] == plain[1], f"{text!r} decodes differently without special tokens")

    def load(self) -> None:
        import transformers

        auto, reports = getattr(transformers, self.job["auto"]), []
        for side in ("old", "new"):
            model, report = auto.from_pretrained(self.job[side], output_loading_info=True, dtype="auto")
            self.models.append(model.eval())
            reports.append({key: sorted(map(str, value)) for key, value in report.items()})
        self.expect(reports[0] == reports[1], f"loading: {reports[1]} instead of {reports[0]}")
        self.expect(not any(reports[1].values()), f"loading: {reports[1]}")
        self.expect(type(self.models[0]) is type(self.models[1]), f"class {type(self.models[1]).__name__}")

    def rows(self) -> None:
        model = self.models[1]
        rows = model.get_input_embeddings().weight.shape[0]
        config = model.config.get_text_config()
        self.expect(len(self.new) <= rows, f"{len(self.new)} tokens and {rows} rows")
        self.expect(rows == len(self.kept[0]), f"{rows} rows for {len(self.kept[0])} tokens")
        self.expect(rows == config.vocab_size, f"vocab_size {config.vocab_size}, {rows} rows")
        if (head := model.get_output_embeddings()) is not None and head.weight.shape[0] > head.weight.shape[1]:
            wanted = getattr(config, "decoder_vocab_size", None) or rows
            self.expect(head.weight.shape[0] == wanted, f"head of {head.weight.shape[0]} rows, not {wanted}")

    def gathered(self, before: Any, after: Any) -> Iterator[Any]:
        """The original tensor cut to the shape of the new one, in each way that its lengths allow."""
        import torch

        axes = [i for i, (a, b) in enumerate(zip(before.shape, after.shape, strict=True)) if a != b]
        if not axes:
            yield before
            return
        (axis,) = axes
        for kept in self.kept:
            if len(kept) == after.shape[axis] and kept.max() < before.shape[axis]:
                yield before.index_select(axis, torch.from_numpy(kept))

    def weights(self) -> None:
        import torch

        before, after = (model.state_dict() for model in self.models)
        self.expect(list(before) == list(after), "names of tensors")
        for name, tensor in after.items():
            old = before[name]
            same = any(torch.equal(cut, tensor) for cut in self.gathered(old, tensor))
            self.expect(same and old.dtype == tensor.dtype, f"{name} differs")
            self.counts["tensors"] += old.shape != tensor.shape

    def identifiers(self) -> None:
        """Token ids in the configuration and the generation configuration."""
        old, new = self.models
        self._ids(old.config.to_dict(), new.config.to_dict(), "config")
        if getattr(old, "generation_config", None) is not None:
            self._ids(old.generation_config.to_dict(), new.generation_config.to_dict(), "generation_config")

    def _ids(self, before: dict[str, Any], after: dict[str, Any], where: str) -> None:
        self.expect(before.keys() == after.keys(), f"keys of {where}")
        for key, value in before.items():
            path = f"{where}.{key}"
            if isinstance(value, dict):
                self._ids(value, after[key], path)
            elif str(key).endswith(ID_KEYS) or key in (*ID_LISTS, "bad_words_ids"):
                self.expect(self._mapped(value) == after[key], f"{path}: {after[key]} for {value}")
                self.counts["ids"] += value is not None
            elif "vocab_size" not in str(key) and key != "_name_or_path":
                self.expect(value == after.get(key), f"{path}: {after.get(key)!r} instead of {value!r}")

    def _mapped(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._mapped(v) for v in value]
        if value is None or value < 0:
            return value
        mapped = self.map([value], -1)
        return mapped and mapped[0]

    def outputs(self, texts: list[str]) -> None:
        import torch

        texts = texts[:6]
        if not texts:
            return
        with torch.no_grad():
            results = [
                model.float()(**self.batch(model, tokenizer, texts, space))
                for model, tokenizer, space in zip(self.models, (self.old, self.new), (None, 0), strict=True)
            ]
        for (name, before), (_, after) in zip(*map(tensors, results), strict=True):
            if before.shape == after.shape:
                near = torch.equal(before, after)
                self.expect(near, f"{name} differs by {float((before - after).abs().max()):.3g}")
                continue
            kept = torch.from_numpy(self.kept[-1])
            difference = float((before[..., kept] - after).abs().max())
            self.expect(difference <= TOLERANCE, f"{name} differs by {difference:.3g}")
            self.expect(bool(torch.isfinite(after).all()), f"{name} is not finite")
            self.counts["logits"] += 1
        self.expect(len(list(tensors(results[1]))) > 0, "no outputs")

    def batch(self, model: Any, tokenizer: Any, texts: list[str], space: int | None) -> dict[str, Any]:
        """Padded ids; where one target is not written with kept tokens, both models get the source's."""
        import torch

        rows = tokenizer(texts)["input_ids"]
        batch = padded(rows, model.config.pad_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
        if model.config.is_encoder_decoder and not type(model).__name__.endswith(SHIFTING):
            targets = [self.map(self.old(text_target=t)["input_ids"], -1) for t in self.job["texts"]]
            chosen = [t for t, ids in zip(self.job["texts"], targets, strict=True) if ids is not None][: len(texts)]
            self.expect(len(chosen) == len(texts), "too few targets")
            ids = tokenizer(text_target=chosen)["input_ids"]
            if space == 0:
                self.expect(ids == [i for i in targets if i is not None][: len(texts)], "targets tokenize differently")
            batch["decoder_input_ids"] = padded(ids, model.config.pad_token_id)["input_ids"]
        return {key: torch.tensor(value) for key, value in batch.items()}


def padded(rows: list[list[int]], pad: int) -> dict[str, list[list[int]]]:
    width = max(map(len, rows))
    return {
        "input_ids": [row + [pad] * (width - len(row)) for row in rows],
        "attention_mask": [[1] * len(row) + [0] * (width - len(row)) for row in rows],
    }


def tensors(output: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of a model's output with their names."""
    import torch

    for name, value in output.items():
        if isinstance(value, torch.Tensor):
            yield name, value


def main(jobs: Path, report: Path) -> None:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    for job in json.loads(jobs.read_text(encoding="utf-8")):
        problems: list[str] = []
        found[job["name"]] = {"problems": problems}
        try:
            found[job["name"]] |= Check(job, problems).run()
        except Exception as error:  # one folder that cannot be loaded must not hide the others
            problems.append(f"{type(error).__name__}: {error}")
    report.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
