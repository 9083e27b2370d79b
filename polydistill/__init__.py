"""Makes multilingual language models small enough to use in one language or pair, and proves what was kept."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polydistill.api import (
        bistil,
        compare,
        count,
        diff,
        embed,
        evaluate,
        export,
        finetune,
        info,
        load_stack,
        model_card,
        prokd,
        publish,
        stack,
        trim,
        trim_objects,
    )
    from polydistill.errors import PolydistillError, UsageError

# Loaded when first asked for: `import polydistill` costs nothing.
_API = (
    "bistil",
    "compare",
    "count",
    "diff",
    "embed",
    "evaluate",
    "export",
    "finetune",
    "info",
    "load_stack",
    "model_card",
    "prokd",
    "publish",
    "stack",
    "trim",
    "trim_objects",
)
_HOME = {"PolydistillError": "errors", "UsageError": "errors", **dict.fromkeys(_API, "api")}
__all__ = [
    "PolydistillError",
    "UsageError",
    "bistil",
    "compare",
    "count",
    "diff",
    "embed",
    "evaluate",
    "export",
    "finetune",
    "info",
    "load_stack",
    "model_card",
    "prokd",
    "publish",
    "stack",
    "trim",
    "trim_objects",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("polydistill")
    if name not in _HOME:
        raise AttributeError(f"module 'polydistill' has no attribute {name!r}")
    return getattr(import_module(f"polydistill.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
