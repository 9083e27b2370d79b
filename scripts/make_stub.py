"""Writes polydistill/__init__.pyi, from which editors and type checkers know the public functions and their options.

python scripts/make_stub.py

The functions are made at run time from their options; the stub says the same in text.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import polydistill
from polydistill import api, errors

STUB = Path(polydistill.__file__).with_name("__init__.pyi")
HEAD = '''\
"""Made by scripts/make_stub.py."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

'''
_MODULE = re.compile(r"\b(?:\w+\.)+(?=\w)")


def stub() -> str:
    """The text of the stub."""
    names = polydistill.__all__
    written = [name for name in names if _is_written(name)]
    made = [getattr(polydistill, name) for name in names if name not in written]
    classes = {inspect.signature(function).return_annotation for function in made}
    classes.add(inspect.signature(made[0]).parameters["progress"].annotation)
    imports = [f"from {home(getattr(polydistill, name))} import {name} as {name}" for name in written]
    imports += [f"from {found.__module__} import {found.__name__}" for found in classes if found.__module__ != "numpy"]
    functions = "\n".join(_function(function) for function in made)
    return HEAD + "\n".join(sorted(imports)) + "\n\n__version__: str\n\n" + functions


def home(thing: Any) -> str:
    """The module that has a public name."""
    return next(module.__name__ for module in (errors, api) if getattr(module, thing.__name__, None) is thing)


def _is_written(name: str) -> bool:
    """Whether a name is that of a class, or of a function that was written and not made."""
    thing = getattr(polydistill, name)
    return inspect.isclass(thing) or thing.__module__ != "polydistill"


def _function(function: Any) -> str:
    found = inspect.signature(function)
    kinds = [parameter.kind for parameter in found.parameters.values()]
    shown = [f"    {_parameter(parameter)},\n" for parameter in found.parameters.values()]
    shown.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "    *,\n")
    about = textwrap.indent(f'"""{inspect.getdoc(function)}\n"""', "    ")
    return f"def {function.__name__}(\n{''.join(shown)}) -> {_type(found.return_annotation)}:\n{about}\n"


def _parameter(parameter: inspect.Parameter) -> str:
    text = f"{parameter.name}: {_type(parameter.annotation)}"
    return text if parameter.default is parameter.empty else f"{text} = {_default(parameter.default)}"


def _type(annotation: Any) -> str:
    text = _MODULE.sub("", inspect.formatannotation(annotation))
    text = re.sub(r"^Optional\[(.*)\]$", r"\1 | None", text)
    return f"np.{text}" if text == "ndarray" else text


def _default(value: Any) -> str:
    """A default as it is written, `...` for what has no such form."""
    try:
        ast.literal_eval(repr(value))
    except (ValueError, SyntaxError):
        return "..."
    return repr(value)


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
