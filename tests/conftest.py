"""What the tests of whole models share. No network, and one thread: the models are tiny."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import tiny

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest.register_assert_rewrite("tiny_stacks")  # before a test file imports it

TEXT = tiny.sentences("ro", "en", count=80)


class Trimmed(NamedTuple):
    """A trimmed folder: where it is, what `trim` returned, and for each vocabulary the old id of every new one."""

    folder: Path
    result: Any
    kept: list[list[int]]


Cut = Callable[..., Trimmed]


def read(path: Path) -> Any:
    """What a JSON file says."""
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, value: Any) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Romanian and English text, one sentence a line."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(TEXT) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def cut(corpus: Path) -> Cut:
    """Trims a folder to the tokens that the text has twice; options are those of `TrimOptions`."""
    import transformers

    from polydistill.methods.trim import method as module

    transformers.logging.disable_progress_bar()

    def cut(folder: Path, out: Path, **options: Any) -> Trimmed:
        settings = {"languages": ("ro",), "text": (str(corpus),), "verify": False, **options}
        if not {"coverage", "vocab_size", "min_count", "min_share"} & settings.keys():
            settings["min_count"] = 2
        plans = []
        with mock.patch.object(module, "plan", side_effect=lambda *a: plans.append(original(*a)) or plans[0]):
            result = module.trim(module.TrimOptions(model=str(folder), output=out, **settings))
        return Trimmed(out, result, [keep.ids.tolist() for keep in plans[0].keeps])

    original = module.plan
    return cut


@pytest.fixture(scope="session", autouse=True)
def no_collection() -> Iterator[None]:
    """Verification frees no memory between its models, which are tiny: with all that is loaded it would take .3 s."""
    with mock.patch("polydistill.trimming.verification.gc"), mock.patch("polydistill.trimming.sentence_vectors.gc"):
        yield


@pytest.fixture(scope="session", autouse=True)
def no_flushing() -> Iterator[None]:
    """Nothing here needs to survive a power cut; tests of flushing see each call, `make test-faults` each effect."""
    with mock.patch("os.fsync"):
        yield


@pytest.fixture
def quick_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verification without all languages' letters, which take most of its time with tiny models."""
    from polydistill.methods.trim import method as trim

    monkeypatch.setattr(trim, "unwritten", lambda *_: {})


_modules_frozen = 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Later collections of garbage leave out what imports have made: it stays, and to look through it takes .3 s."""
    global _modules_frozen
    if len(sys.modules) > _modules_frozen + 50:
        gc.collect()
        gc.freeze()
        _modules_frozen = len(sys.modules)
