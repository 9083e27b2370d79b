"""Options made from the fields of a configuration dataclass, and those that all commands share."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from polydistill.cli.messages import with_flags
from polydistill.errors import PolydistillError, UsageError, library_said
from polydistill.files.outputs import keep
from polydistill.options.settings import Options, Setting, declared, value_type

KINDS = {
    str: "text in quotes",
    Path: "a path in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}
Config = TypeVar("Config", bound=Options)
Function = TypeVar("Function", bound=Callable[..., Any])


class LanguageType(click.ParamType):
    """A language; the shell completes codes and English names."""

    name = "lang"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Codes and names that begin with what was typed."""
        from polydistill.catalog import languages

        wanted = incomplete.casefold()
        return [
            CompletionItem(lang.code, help=lang.name)
            for lang in languages()
            if lang.code.startswith(wanted) or lang.name.casefold().startswith(wanted)
        ]


class SectionedCommand(click.Command):
    """A command that lists its options under the headings of their fields, and names settings by its flags."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs it; a mistake is told with the flags of this command."""
        try:
            return super().invoke(ctx)
        except PolydistillError as error:
            error.message, error.hint = with_flags(error.message, ctx), with_flags(error.hint, ctx)
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one section a heading, in the order in which headings first appear."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                flags, text = record
                sections.setdefault(getattr(param, "section", "General"), []).append((flags, with_flags(text, ctx)))
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class SectionedOption(click.Option):
    """An option that knows its heading."""

    def __init__(self, *args: Any, section: str = "General", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


def config_options(config: type, *, only: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Adds an option for each one that a class of options declares."""

    def decorate(function: Function) -> Function:
        for one in reversed(declared(config).values()):
            if (only and one.name not in only) or one.is_argument:
                continue
            function = _option(one)(function)
        return function

    return decorate


def _option(one: Setting) -> Callable[[Function], Function]:
    kind, multiple = value_type(one.hint)
    default = None if multiple else one.default
    options: dict[str, Any] = {"help": one.asked("help"), "section": one.asked("section"), "default": default}
    options["cls"] = SectionedOption
    if kind is bool:
        options.update(is_flag=True, show_default="/" in one.flags[0])
    else:
        is_language = one.asked("metavar") == "LANG"
        options["type"] = LanguageType() if is_language else click.Path(path_type=Path) if kind is Path else kind
        options.update(multiple=multiple, metavar=one.asked("metavar"), show_default=one.default not in (None, (), ""))
    return click.option(*one.flags, one.name, **options)


def common_options(function: Function) -> Function:
    """--json, -q, -v."""
    for option in (
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            help="Show the rate of every step, even of quick ones.",
            cls=SectionedOption,
        ),
        click.option("-q", "--quiet", is_flag=True, help="Print no notes and no progress.", cls=SectionedOption),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object.", cls=SectionedOption),
    ):
        function = option(function)
    return function


def config_file_option(function: Function) -> Function:
    """--config."""
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        metavar="FILE.toml",
        cls=SectionedOption,
        help="Options from a TOML file; those on the command line win.",
    )(function)


def build_config(
    config: type[Config],
    ctx: click.Context,
    values: dict[str, Any],
    file: Path | None,
    exclusive: Sequence[tuple[str, ...]] = (),
) -> Config:
    """A configuration from the command line over a TOML file over the defaults.

    Args:
        config: The dataclass.
        ctx: Knows which options the command line gave.
        values: The options' values.
        file: The TOML file.
        exclusive: Groups of options that exclude each other: one on the command line wins over all of them in the file.

    Raises:
        UsageError: The file is not TOML, or has a key that is no option.
    """
    merged = dict(values)
    keep(*([] if file is None else [file]))
    if file is not None:
        given = {name for name in values if (source := ctx.get_parameter_source(name)) and source.name != "DEFAULT"}
        given |= {name for group in exclusive if given & set(group) for name in group}
        merged |= {name: value for name, value in _read_toml(file, config).items() if name not in given}
    return config.of(**merged)


def _read_toml(file: Path, config: type) -> dict[str, Any]:
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {file} cannot be read ({error.strerror}).", "Check the path.") from error
    except (ValueError, RecursionError) as error:  # also of numbers with thousands of digits
        raise UsageError(f"--config {file} is not valid TOML ({library_said(error)}).", "Correct that line.") from error
    known = declared(config)
    by_flag = {one.flag.removeprefix("--"): name for name, one in known.items() if not one.is_argument}
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = by_flag.get(key, key.replace("-", "_"))
        if name not in known:
            raise UsageError(f"--config {file}: {key!r} is not an option of this command.", "See --help for the names.")
        if name in found:
            raise UsageError(f"--config {file}: {key!r} is given twice.", "Remove one of the two.")
        found[name] = _converted(value, known[name].hint, f"--config {file}: {key}")
    return found


def _converted(value: Any, hint: Any, where: str) -> Any:
    kind, multiple = value_type(hint)
    values = value if isinstance(value, list) else [value]
    if not multiple and isinstance(value, list):
        raise UsageError(f"{where} takes one value, not a list.", "Leave the brackets out.")
    converted = []
    for item in values:
        fits = (
            isinstance(item, str)
            if kind in (str, Path)
            else isinstance(item, kind) or (kind is float and type(item) is int)
        )
        if not fits or (kind is int and isinstance(item, bool)):
            raise UsageError(f"{where} must be {KINDS[kind]}, not {item!r}.", "Correct that line.")
        converted.append(Path(item) if kind is Path else item)
    return tuple(converted) if multiple else converted[0]
