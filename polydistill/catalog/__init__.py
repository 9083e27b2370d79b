"""What polydistill knows about languages, tasks and model architectures: one TOML file each.

The files that ship lie in `polydistill.languages`, `polydistill.tasks` and `polydistill.arch`. A user's own
come from the folders in `include_path`, which hold sub-folders of the same names or plain `*.toml`
files; they add to what ships and override it. Files are read when first asked for, those that ship only once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Generic, TypeVar

from polydistill.catalog.tables import Table, closest
from polydistill.catalog.task import Task
from polydistill.catalog.writings import Corpus as Corpus
from polydistill.catalog.writings import Writing, Written, subtags
from polydistill.errors import PolydistillError, UsageError

ROLES = ("embedding", "head", "bias")
CAPABILITIES = ("trim", "reduce", "relations", "masked", "stack")
PAGE = "docs/architectures.md"  # how to describe an architecture


@dataclass(frozen=True, kw_only=True)
class Language(Written):
    """A language, as its TOML file describes it.

    Attributes:
        code: The short BCP-47 code that polydistill uses, such as `ro`.
        name: English name.
        native_name: Its own name for itself.
        scripts: ISO 15924 codes of every script in wide use, the commonest first.
        iso639_3: Three-letter code.
        aliases: Every spelling that names this language: codes, names, and the extra ones of the file.
        variants: Character -> another spelling of it in wide use.
        qa_normaliser: What is removed from answers before they are compared (`words: a an the`; see `metrics.answers`),
            or None.
        writings: The scripts that it can be requested in, if there are several.
        script_of: Code of the whole language, if this is one in one script; data sets use that code.
    """

    code: str
    name: str
    native_name: str
    scripts: tuple[str, ...]
    iso639_3: str
    aliases: tuple[str, ...] = ()
    variants: dict[str, str] = field(default_factory=dict, hash=False)
    qa_normaliser: str | None = None
    writings: tuple[Writing, ...] = ()
    script_of: str | None = None

    @classmethod
    def from_toml(cls, path: Traversable) -> Language:
        """Read a language's file.

        Raises:
            PolydistillError: the file is not TOML, or a key is missing, unknown or of a wrong type.
        """
        table = Table.load(path)
        code, name = table.file_name("code"), table.text("name")
        native, iso = table.text("native_name", name), table.text("iso639_3")
        scripts, extra, written = table.texts("scripts"), table.texts("aliases", ()), cls.read(table)
        language = cls(
            code=code,
            name=name,
            native_name=native,
            scripts=scripts,
            iso639_3=iso,
            aliases=tuple(dict.fromkeys([code, iso, *extra, *written["flores"], name, native])),
            variants=table.mapping("variants"),
            qa_normaliser=table.optional_text("qa_normaliser"),
            writings=tuple(Writing.from_table(writing) for writing in table.tables("writings")),
            **written,
        )
        table.finish()
        return language

    @property
    def every_script(self) -> tuple[str, ...]:
        """Codes of all scripts that it can be requested in, `scripts` first."""
        return tuple(dict.fromkeys((*self.scripts, *(writing.script for writing in self.writings))))

    def written(self, script: str) -> Language:
        """The language in one of its scripts, under a code such as `sr-Latn`; the language itself if it has only one.

        Raises:
            UsageError: It is not written in that script.
        """
        if script not in self.every_script:
            raise UsageError(
                f"{self.name} ({self.code}) has letters in {' and '.join(self.every_script)} here, not in {script}.",
                f"Write {' or '.join(f'{self.code}-{known}' for known in self.every_script)}; a TOML file adds others.",
            )
        writing = next((one for one in self.writings if one.script == script), None)
        if writing is None or self.scripts == (script,):
            return self
        code = f"{self.code}-{script}"
        own = (code, f"{self.code}_{script}", f"{self.iso639_3}_{script}", *writing.flores)
        names = (name for name in self.aliases if name not in self.flores and self.script_in(name) in (None, script))
        differing = {one.name: getattr(writing, one.name) for one in fields(Written)}
        differing["flores"] = writing.flores or self.flores  # what a translator calls the language, in any script
        return replace(
            self,
            code=code,
            name=f"{self.name} in {script}",
            scripts=(script,),
            aliases=tuple(dict.fromkeys([*own, *names])),
            writings=(),
            script_of=self.code,
            **differing,
        )

    def script_in(self, name: str) -> str | None:
        """The script in a name of the language, such as `zh-Hant` and `zh-TW`; None if there is none."""
        _, script, region = subtags(name)
        return script or next((one.script for one in self.writings if region in one.regions), None)


@dataclass(frozen=True)
class VocabularyTensor:
    """A tensor with one row (or column) per token.

    Attributes:
        suffix: Its name, or the end of it after a dot.
        axis: The axis along which tokens lie.
        role: `embedding`, `head` or `bias`.
        space: Which vocabulary it follows if a model has two: 0 the source's, 1 the target's.
    """

    suffix: str
    axis: int
    role: str
    space: int = 0


@dataclass(frozen=True)
class Layers:
    """Where the layers are.

    Attributes:
        path: Dotted path of their list below the base model; the encoder's where there are two.
        count_key: Config key with their number.
        decoder_path: The decoder's list in an encoder-decoder, or None.
        shared: Whether all layers have the same weights.
    """

    path: str
    count_key: str
    decoder_path: str | None = None
    shared: bool = False


@dataclass(frozen=True)
class Attention:
    """Modules of Q, K and V, relative to a layer.

    Attributes:
        query: Module of Q.
        key: Module of K.
        value: Module of V.
        scores: Whether attention is softmax(Q K^T / sqrt(d)) over all positions of a text, with Q and K as the modules
            give them: without rotation, bias or window.
    """

    query: str
    key: str
    value: str
    scores: bool = False


@dataclass(frozen=True)
class Arch:
    """A model architecture, as its TOML file describes it.

    Attributes:
        model_type: `model_type` in config.json.
        name: Readable name.
        supports: What can be done with it, out of `CAPABILITIES`.
        vocabulary: The tensors with a vocabulary axis.
        rows_keys: Config keys that hold the number of embedding rows; dotted for a sub-config.
        layers: Where the layers are, or None.
        attention: How Q, K and V are reached, or None.
    """

    model_type: str
    name: str
    supports: tuple[str, ...]
    vocabulary: tuple[VocabularyTensor, ...]
    rows_keys: tuple[str, ...] = ("vocab_size",)
    layers: Layers | None = None
    attention: Attention | None = None

    @classmethod
    def from_toml(cls, path: Traversable) -> Arch:
        """Read an architecture's file.

        Raises:
            PolydistillError: the file is not TOML, or a key is missing, unknown or of a wrong type or value.
        """
        table = Table.load(path)
        arch = cls(
            model_type=table.text("model_type"),
            name=table.text("name"),
            supports=table.texts("supports"),
            rows_keys=table.texts("rows_keys", ("vocab_size",)),
            vocabulary=tuple(_vocabulary_tensor(entry) for entry in table.tables("vocabulary")),
            layers=_layers(table.table("layers")),
            attention=_attention(table.table("attention")),
        )
        table.finish()
        for capability in arch.supports:
            if capability not in CAPABILITIES:
                raise table.refuse("supports", f"has '{capability}'", f"Known are {', '.join(CAPABILITIES)}.")
            if lacking := arch.lacks(capability):
                raise table.refuse(
                    "supports", f"has '{capability}', but {lacking}", "Leave it out, or correct the file."
                )
        if not arch.vocabulary:
            raise table.refuse("vocabulary", "is missing", "Add a [[vocabulary]] section for each such tensor.")
        return arch

    def lacks(self, capability: str) -> str | None:
        """Why the rest of the file rules a capability out; None if it does not."""
        layers = self.layers
        both = layers is not None and layers.decoder_path is not None
        if capability in ("reduce", "relations") and layers is None:
            return "there is no [layers]"
        if capability == "relations" and self.attention is None:
            return "there is no [attention]"
        if capability in ("reduce", "masked") and both:
            return "the model has a decoder beside its encoder"
        if capability == "reduce" and layers is not None and layers.shared:
            return "all layers have the same weights"
        return None

    def vocabulary_tensor(self, name: str) -> VocabularyTensor | None:
        """The description of the tensor called `name`, or None if it has no vocabulary axis."""
        found = [t for t in self.vocabulary if name == t.suffix or name.endswith("." + t.suffix)]
        return max(found, key=lambda tensor: len(tensor.suffix), default=None)


def _vocabulary_tensor(table: Table) -> VocabularyTensor:
    tensor = VocabularyTensor(
        table.text("suffix"), table.integer("axis", 0), table.text("role"), table.integer("space", 0)
    )
    table.finish()
    if tensor.role not in ROLES:
        raise table.refuse("role", f"is '{tensor.role}'", f"It must be one of {', '.join(ROLES)}.")
    if tensor.axis < 0:
        raise table.refuse("axis", "is negative", "Count axes from 0.")
    return tensor


def _layers(table: Table | None) -> Layers | None:
    if table is None:
        return None
    layers = Layers(
        path=table.text("path"),
        count_key=table.text("count_key"),
        decoder_path=table.optional_text("decoder_path"),
        shared=table.flag("shared", False),
    )
    table.finish()
    return layers


def _attention(table: Table | None) -> Attention | None:
    if table is None:
        return None
    attention = Attention(table.text("query"), table.text("key"), table.text("value"), table.flag("scores", False))
    table.finish()
    return attention


Entry = TypeVar("Entry", Language, Task, Arch)


@dataclass(frozen=True)
class _Shelf(Generic[Entry]):
    """One kind of entry: where its files are and how they are read.

    `marker` is a key that only this kind has; it tells apart the files that lie directly in a user's folder.
    """

    folder: str
    marker: str
    read: Callable[[Traversable], Entry]
    key: Callable[[Entry], str]


_LANGUAGES = _Shelf("languages", "code", Language.from_toml, lambda entry: entry.code)
_TASKS = _Shelf("tasks", "kind", Task.from_toml, lambda entry: entry.name)
_ARCHITECTURES = _Shelf("arch", "model_type", Arch.from_toml, lambda entry: entry.model_type)
_SHELVES: tuple[_Shelf[Any], ...] = (_LANGUAGES, _TASKS, _ARCHITECTURES)


def _toml_files(folder: Traversable) -> list[Traversable]:
    return sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)


@cache
def _shipped_file(shelf: _Shelf[Entry], stem: str) -> Entry | None:
    """The entry in the shipped file of that name; the others are not read."""
    if not stem.replace("-", "").replace("_", "").replace(".", "").isalnum():
        return None
    path = files(f"polydistill.{shelf.folder}").joinpath(f"{stem}.toml")
    return shelf.read(path) if path.is_file() else None


@cache
def _shipped(shelf: _Shelf[Entry]) -> dict[str, Entry]:
    stems = [file.name.removesuffix(".toml") for file in _toml_files(files(f"polydistill.{shelf.folder}"))]
    entries = [entry for stem in stems if (entry := _shipped_file(shelf, stem)) is not None]
    return {shelf.key(entry): entry for entry in entries}


def _user_files(shelf: _Shelf[Entry], include: Iterable[str | Path]) -> Iterator[Path]:
    for given in map(Path, include):
        if not given.exists():
            raise UsageError(f"The include path {given} does not exist.", "Give a folder or a TOML file.")
        for file in [given] if given.is_file() else sorted(given.glob("*.toml")):
            if _shelf_of(file) is shelf:
                yield file
        yield from sorted((given / shelf.folder).glob("*.toml"))


def user_files(include: Iterable[str | Path]) -> tuple[Path, ...]:
    """The TOML files below a user's include paths."""
    given = list(include)
    return tuple(file for shelf in _SHELVES for file in _user_files(shelf, given))


def _shelf_of(file: Path) -> _Shelf[Any]:
    table = Table.load(file)
    for shelf in _SHELVES:
        if table.has(shelf.marker):
            return shelf
    raise PolydistillError(
        f"{file} describes neither a language, a task nor an architecture.",
        f"Give it one of the keys {', '.join(shelf.marker for shelf in _SHELVES)}.",
    )


def _users(shelf: _Shelf[Entry], include: Iterable[str | Path]) -> dict[str, Entry]:
    """The user's entries; a later path overrides an earlier one."""
    entries = [shelf.read(file) for file in _user_files(shelf, include)]
    return {shelf.key(entry): entry for entry in entries}


def _all(shelf: _Shelf[Entry], include: Iterable[str | Path]) -> dict[str, Entry]:
    merged = {**_shipped(shelf), **_users(shelf, include)}
    return {key: merged[key] for key in sorted(merged)}


def _fold(alias: str) -> str:
    return alias.strip().casefold().replace("_", "-")


def language(code: str, include: Sequence[str | Path] = ()) -> Language:
    """Find a language.

    Args:
        code: Any alias, in any case: `ro`, `ron`, `rum`, `ron_Latn`, `ro_RO`, `Romanian`. With a script, as in
            `sr-Latn` and `srp_Latn`, or a country that stands for one (`zh-TW`), it is the language in that script.
        include: The user's own folders (or TOML files); they add to and override what ships.

    Raises:
        UsageError: nothing has that name (the message says what is close), or the language is not written in that
            script.
        PolydistillError: a file is wrong.
    """
    wanted = _fold(code)
    users = _users(_LANGUAGES, include)
    exact = users.get(wanted) or _shipped_file(_LANGUAGES, wanted)
    if exact is not None:
        return exact
    plain = subtags(wanted).language
    spoken = _named(plain, users) if plain != wanted else None
    script = spoken.script_in(wanted) if spoken else None
    if spoken and script in spoken.every_script:
        return spoken.written(script)
    known = _named(wanted, users)
    if known is not None:
        return known
    if spoken is None:
        raise _unknown_language(code, _close(wanted, users))
    return spoken.written(script) if script else spoken


def _named(name: str, users: dict[str, Language]) -> Language | None:
    """The whole language of that name."""
    # An exact code wins over an alias, so that a new language cannot be hidden by an old one's other names.
    return users.get(name) or _shipped_file(_LANGUAGES, name) or _by_alias(users).get(name)


def _by_alias(users: dict[str, Language]) -> dict[str, Language]:
    merged = {**_shipped(_LANGUAGES), **users}
    # The user's come last, so that theirs win; a shipped alias of a language they override leads to theirs.
    return {
        _fold(alias): merged[entry.code]
        for entry in [*_shipped(_LANGUAGES).values(), *users.values()]
        for alias in entry.aliases
    }


def _close(wanted: str, users: dict[str, Language]) -> list[Language]:
    by_alias = _by_alias(users)
    return [by_alias[alias] for alias in closest(wanted, by_alias)]


def _unknown_language(code: str, close: list[Language]) -> UsageError:
    names = list(dict.fromkeys(f"{entry.code} ({entry.name})" for entry in close))
    listed = "`polydistill ls languages` lists them all"
    hint = f"Did you mean {' or '.join(names)}? {listed}." if names else f"{listed}; to add one, write a TOML file."
    return UsageError(f"Unknown language '{code}'.", hint)


def resolve_languages(codes: Sequence[str], include: Sequence[Path]) -> tuple[Language, ...]:
    """The languages by any of their names, each once.

    Raises:
        UsageError: None is given, or one is unknown.
    """
    if not codes:
        raise UsageError("No language was given.", "Add one, for instance `languages=ro`.")
    return tuple({(found := language(code, include)).code: found for code in codes}.values())


def languages(include: Sequence[str | Path] = ()) -> list[Language]:
    """Every language, by code. `include` and errors as in `language`."""
    return list(_all(_LANGUAGES, include).values())


def task(name: str, include: Sequence[str | Path] = ()) -> Task:
    """Find a task by its name, in any case.

    Raises:
        UsageError: nothing has that name; the message says what is close.
        PolydistillError: a file is wrong.
    """
    wanted = _fold(name)
    known = {_fold(key): entry for key, entry in _all(_TASKS, include).items()}
    if wanted in known:
        return known[wanted]
    close = closest(wanted, known)
    own = "files with labels of your own are read by classification and ner"
    hint = f"Did you mean {' or '.join(close)}?" if close else f"Known are {', '.join(sorted(known))}; {own}."
    raise UsageError(f"Unknown task '{name}'.", hint)


def tasks(include: Sequence[str | Path] = ()) -> list[Task]:
    """Every task, by name. `include` and errors as in `task`."""
    return list(_all(_TASKS, include).values())


def arch(model_type: str, include: Sequence[str | Path] = ()) -> Arch:
    """Find an architecture by the `model_type` of a model's config.json.

    Raises:
        PolydistillError: it is not supported (the message says what is, and how to add one), or a file is wrong.
    """
    found = _users(_ARCHITECTURES, include).get(model_type) or _shipped_file(_ARCHITECTURES, model_type)
    if found is not None and found.model_type == model_type:
        return found
    known = _all(_ARCHITECTURES, include)
    if model_type in known:
        return known[model_type]
    raise PolydistillError(
        f"The architecture '{model_type}' is unknown.",
        f"Supported are {', '.join(known)}. To add another, give a TOML file with `include_path`: {PAGE} shows how.",
    )


def architectures(include: Sequence[str | Path] = ()) -> list[Arch]:
    """Every architecture, by model type. `include` and errors as in `arch`."""
    return list(_all(_ARCHITECTURES, include).values())
