"""A method: options, a plan made of them, and how its cards speak; command, function, TOML and docs follow from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from polydistill.options.groups import Placed
from polydistill.options.settings import Options
from polydistill.progress import Progress

if TYPE_CHECKING:
    from polydistill.card.told import Told
    from polydistill.runs.plan import Plan
    from polydistill.runs.result import Result

Given = TypeVar("Given", bound=Options)
Chosen = TypeVar("Chosen", bound=Placed)


def python_name(command: str) -> str:
    """What a command is called in Python: `sparse train` is `sparse_train`."""
    return command.replace(" ", "_").replace("-", "_")


def later(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that is imported when it is first called, so that help and cards do without it.

    Args:
        module: The module.
        name: The function's name there.
    """

    def call(*arguments: Any, **named: Any) -> Any:
        return getattr(import_module(module), name)(*arguments, **named)

    return call


@dataclass(frozen=True)
class Maker(Generic[Given]):
    """A command that makes a model and records it, whoever runs it.

    Attributes:
        name: Its command, such as `bistil` or `sparse train`.
        options: The class of its options.
        told: How cards speak of what it has made.
    """

    name: str
    options: type[Given]
    told: Told


@dataclass(frozen=True)
class Method(Maker[Chosen]):
    """A method: the runner runs its plan, and its command and its function follow from it.

    Attributes:
        about: What it does, in a paragraph or two, for its help and its docstring; settings stand in backticks.
        prepare: Checks everything that a run needs, and says what it will do. It trains nothing.
        table: The readable form of its result; without it, sizes, stages and scores.
        examples: Command lines with their settings as Python has them: `polydistill trim languages=ro`.
        exclusive: Groups of options that exclude each other: one on the command line wins over a file's.
        shared: Whether several processes can share a run, as `torchrun` starts them.
    """

    about: str
    prepare: Callable[[Chosen, Progress], Plan]
    table: Callable[[Result], str] | None = None
    examples: Sequence[str] = ()
    exclusive: Sequence[tuple[str, ...]] = ()
    shared: bool = False
