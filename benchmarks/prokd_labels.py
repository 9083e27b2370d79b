"""What prototypes do: to pseudo-labels of English dev data, and how far those of two languages are from each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import measure
import orjson

TEMPERATURES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
SENTENCES = 2_000  # of the training data, for the source's prototypes
LENGTH = 128
EDGE = 50  # steps over which a loss is averaged


def rectification(model: Path, data: Path) -> str:
    """F1 of a tagger's own labels of English dev sentences after rectification; no target data are read.

    Args:
        model: The tagger.
        data: The data folder.
    """
    import torch

    from polydistill.catalog import arch, language, task
    from polydistill.distill.prototypes import BY_TAG, BY_TYPE, nearness, rectified
    from polydistill.distill.unlabelled import Observed, Prototypes, observe, source_features, tagger
    from polydistill.labelled.sources import load_split
    from polydistill.progress import SILENT

    wanted, english = task("ner"), language("en")
    network = tagger(model, wanted, seed=0, length=LENGTH)
    found = arch(network.network.config.model_type)
    layer = network.network.config.num_hidden_layers
    train = load_split(wanted, english, "train_wikineural", data_dir=data, limit=SENTENCES)
    dev = load_split(wanted, english, "dev_wikineural", data_dir=data)
    seen: list[Observed] = []
    for split in (train, dev):
        features = source_features(network, [split], network.labels, False)
        seen.append(observe(network, features, network.labels, layer, found, bf16=False, progress=SILENT))
    source, target = seen
    guessed = target.logits.softmax(-1)
    rows = []
    for by in (BY_TYPE, BY_TAG):
        prototypes = Prototypes.of(source, target, network.labels, by)
        for distance in ("euclidean", "unit"):
            cells = []
            for temperature in TEMPERATURES:
                near = nearness(target.hidden, prototypes.target, temperature, distance)
                best = rectified(guessed, near, torch.tensor(prototypes.class_of)).argmax(-1)
                changed = float((best != guessed.argmax(-1)).float().mean())
                cells.append(f"{100 * _f1(target, best, network.labels):.2f} ({100 * changed:.2f})")
            rows.append([by, distance, *cells])
    head = ["classes", "distance", *(f"tau {t:g}" for t in TEMPERATURES)]
    plain = _f1(target, guessed.argmax(-1), network.labels)
    text = (
        f"English dev data alone: the {len(dev.examples):,} sentences of `dev_wikineural` as the text without labels, "
        f"the source's prototypes of {SENTENCES:,} training sentences, last layer. F1 (conlleval) of the tagger's "
        f"labels, {100 * plain:.2f} as they are, and in brackets the % of them that change."
    )
    return "\n\n".join(["## Rectification", text, measure.table(head, rows)])


def _f1(target: Any, labels: Any, names: Any) -> float:
    """Entity F1 of one long sentence: the words in the order in which they were read, which both sides share."""
    from polydistill.metrics.entities import entity_f1

    gold, found = ([names[i] for i in column.tolist()] for column in (target.tags, labels))
    return entity_f1([gold], [found], "conlleval").value


def alignment(runs: Mapping[str, tuple[Path, dict[str, Any]]]) -> str:
    """How near the prototypes of both languages are in the features of teachers, and what their alignment came to.

    Args:
        runs: Name -> the folder of a run of `prokd` and its record.
    """
    from safetensors.torch import load_file
    from torch.nn.functional import cosine_similarity

    rows = []
    for name, (folder, record) in runs.items():
        tensors = load_file(folder / "stages/prototypes/prototypes.safetensors")
        cosines = cosine_similarity(tensors["target_0"][:, None], tensors["source_0"][None], dim=-1)
        own = cosines.diagonal()
        others = cosines.masked_fill(own.diag().bool(), -1).max(1).values
        classes = record["result"]["prototypes"][0]["classes"]
        same = ", ".join(f"{label} {float(cosine):.3f}" for label, cosine in zip(classes, own, strict=True))
        steps = [orjson.loads(line) for line in (folder / "stages/teacher/losses.jsonl").read_bytes().splitlines()]
        losses = [step["alignment"] for step in steps if step.get("alignment")]
        ends = [f"{sum(part) / len(part):.4f}" if part else "" for part in (losses[:EDGE], losses[-EDGE:])]
        facts = next(stage["facts"] for stage in record["result"]["stages"] if stage["name"] == "teacher")
        rows.append([name, same, f"{float(others.max()):.3f}", *ends, f"{100 * facts['best']:.2f}"])
    head = [
        "teacher of",
        "cosine to the source's prototype",
        "largest to another class",
        "alignment at first",
        "at last",
        "English dev f1",
    ]
    text = (
        "Prototypes of the target in each teacher's features, by entity type; its loss of the alignment, a mean of "
        f"the first and the last {EDGE} steps that have one; and what it scores in English."
    )
    return "\n\n".join([text, measure.table(head, rows)])
