"""The stub, from which editors know the public functions, says what the program says."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import polydistill

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import make_stub


def test_it_is_up_to_date() -> None:
    assert make_stub.STUB.read_text(encoding="utf-8") == make_stub.stub(), "run `python scripts/make_stub.py`"


def test_every_public_name_is_in_it() -> None:
    text = make_stub.STUB.read_text(encoding="utf-8")
    for name in polydistill.__all__:
        assert f"def {name}(" in text or f" as {name}\n" in text


def test_every_made_function_has_a_docstring_and_types() -> None:
    for name in polydistill.__all__:
        thing = getattr(polydistill, name)
        assert inspect.getdoc(thing)
        if not inspect.isclass(thing) and thing.__module__ == "polydistill":
            found = inspect.signature(thing)
            assert all(p.annotation is not inspect.Parameter.empty for p in found.parameters.values())
            assert found.return_annotation is not inspect.Signature.empty
