"""Makes multilingual language models small enough to use in one language or pair, and proves what was kept."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

# Loaded when first asked for: `import polydistill` costs nothing. Methods have functions made from their options.
_HOME = {
    "PolydistillError": "errors",
    "UsageError": "errors",
    "compare": "api",
    "count": "api",
    "diff": "api",
    "embed": "api",
    "evaluate": "api",
    "info": "api",
    "load_stack": "api",
    "model_card": "api",
    "publish": "api",
    "run": "api",
    "trim": "api",
    "trim_objects": "api",
}
_METHODS = ("bistil", "export", "finetune", "prokd", "project", "sparse_train", "stack")
__all__ = sorted([*_HOME, *_METHODS])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("polydistill")
    if name in _HOME:
        return getattr(import_module(f"polydistill.{_HOME[name]}"), name)
    if name.startswith("_") or find_spec(f"polydistill.{name}"):  # a module, which is imported next
        raise AttributeError(f"module 'polydistill' has no attribute {name!r}")
    function = import_module("polydistill.runs.functions").named(name)
    if function is None:
        raise AttributeError(f"module 'polydistill' has no attribute {name!r}")
    return function


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
