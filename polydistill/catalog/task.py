"""What a task's TOML file says: what is asked, which labels exist, and where the data is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from typing import Any

from polydistill.catalog.tables import Table

CLASSIFICATION, TAGGING, SPAN_EXTRACTION = "classification", "tagging", "span-extraction"
WORD_TAGGING = "word-tagging"
RETRIEVAL, SIMILARITY, MULTIPLE_CHOICE = "retrieval", "similarity", "multiple-choice"
# Kind -> the metrics that it can have, the usual one first; multiple choice has no harness yet.
METRICS = {
    CLASSIFICATION: ("accuracy",),
    TAGGING: ("f1",),
    WORD_TAGGING: ("accuracy",),
    SPAN_EXTRACTION: ("f1", "exact_match"),
    RETRIEVAL: ("accuracy_at_1",),
    SIMILARITY: ("spearman",),
    MULTIPLE_CHOICE: ("accuracy",),
}
PAIR, TEXT = ("premise", "hypothesis"), ("text",)  # what is classified
# Kind -> the fields of its examples, which `columns` finds on the Hub; those of classification are `Task.fields`.
FIELDS = {
    TAGGING: ("tokens", "tags"),
    WORD_TAGGING: ("tokens", "tags"),
    SPAN_EXTRACTION: ("id", "context", "question", "answers"),
    RETRIEVAL: ("source", "target"),
    SIMILARITY: ("first", "second", "score"),
}
WITH_LABELS = (CLASSIFICATION, TAGGING, WORD_TAGGING)
PARQUET_BRANCH = "refs/convert/parquet"


@dataclass(frozen=True)
class HubSource:
    """A data set of the Hub, and the languages that it has.

    Attributes:
        dataset: Hub id.
        languages: Language code -> configuration; or its value in `language_column`, where there is one.
        splits: `train`, `dev`, `test` or another name -> split on the Hub; those that it lacks are absent.
        columns: Field of an example -> column; a field that is absent has its own name.
        config: The only configuration of a data set whose languages are mixed.
        language_column: The column that tells them apart; the value may continue after a hyphen, as in ids.
        revision: Commit on the Hub; or its branch of converted files, for a data set that is a script itself.
        types: Entity type there -> ours, where they differ; a type that is absent becomes O.
        mend: Whether known faults of this publication are repaired: an I- tag that begins an entity
            becomes B-, and an answer that is not at its offset is looked for.
    """

    dataset: str
    languages: Mapping[str, str] = field(hash=False)
    splits: Mapping[str, str] = field(hash=False)
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    config: str | None = None
    language_column: str | None = None
    revision: str | None = None
    types: Mapping[str, str] = field(default_factory=dict, hash=False)
    mend: bool = False


@dataclass(frozen=True, kw_only=True)
class InDataFolder:
    """What the user's data folder has of a task.

    Attributes:
        local: Template of a file below the folder, with `{lang}` and usually `{split}`.
        local_languages: Language code -> its folder, for the languages that it has of this data.
        local_splits: Split -> name of its file, for what it has of this data; empty for whatever is there.
        any_language: Whether files of other languages in it belong to the task too.
    """

    local: str | None = None
    local_languages: Mapping[str, str] = field(default_factory=dict, hash=False)
    local_splits: Mapping[str, str] = field(default_factory=dict, hash=False)
    any_language: bool = False


@dataclass(frozen=True)
class Task(InDataFolder):
    """A labelled task, as its TOML file describes it.

    Attributes:
        name: What the command line calls it.
        description: One sentence.
        kind: One of `METRICS`.
        metric: The main metric.
        labels: Label names in the order of their ids on the Hub; only classification and the two taggings have them.
        pairs: Whether two texts are classified together, as in NLI, or one.
        not_scored: Entity types that become O in gold and predictions.
        hub: Its data set on the Hub, None if it has only local files.
        split_sources: Split -> the data set that it comes from, if not `hub`.
        licence: Licence of the data.
        citation: Paper.
        url: Home page.
        own: Whether the labels are those that the data has; see `labelled.own`. In the file it is `own_labels`.
    """

    name: str
    description: str
    kind: str
    metric: str
    labels: tuple[str, ...] = ()
    pairs: bool = True
    not_scored: tuple[str, ...] = ()
    hub: HubSource | None = None
    split_sources: Mapping[str, HubSource] = field(default_factory=dict, hash=False)
    licence: str | None = None
    citation: str | None = None
    url: str | None = None
    own: bool = False

    @classmethod
    def from_toml(cls, path: Traversable) -> Task:
        """Read a task's file.

        Raises:
            PolydistillError: the file is not TOML, or a key is missing, unknown or of a wrong type or value.
        """
        table = Table.load(path)
        task = cls(
            name=table.file_name("name"),
            description=table.text("description"),
            kind=table.text("kind"),
            metric=table.text("metric"),
            labels=table.texts("labels", ()),
            pairs=table.flag("pairs", True),
            not_scored=table.texts("not_scored", ()),
            hub=_hub_source(hub) if (hub := table.table("hub")) else None,
            split_sources=_split_sources(table.table("split_sources")),
            local=table.optional_text("local"),
            local_languages=table.names("local_languages"),
            local_splits=table.names("local_splits"),
            any_language=table.flag("any_language", False),
            licence=table.optional_text("licence"),
            citation=table.optional_text("citation"),
            url=table.optional_text("url"),
            own=table.flag("own_labels", False),
        )
        table.finish()
        _check(task, table)
        return task

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that the task names, sorted."""
        sources = [*self.split_sources.values(), *([self.hub] if self.hub else [])]
        return tuple(sorted({*self.local_languages, *(code for source in sources for code in source.languages)}))

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of its examples."""
        if self.kind == CLASSIFICATION:
            return (*(PAIR if self.pairs else TEXT), "label")
        return FIELDS.get(self.kind, ())

    def facts(self) -> dict[str, Any] | None:
        """What records say about the task of a model, None if the task has no labels."""
        if self.kind not in WITH_LABELS:
            return None
        return {
            "kind": self.kind,
            "labels": list(self.scored_labels),
            "pairs": self.pairs and self.kind == CLASSIFICATION,
        }

    @property
    def entity_types(self) -> tuple[str, ...]:
        """The types of a tagging task's labels, in their order: PER, ORG, ..."""
        return tuple(dict.fromkeys(label[2:] for label in self.labels if label[1:2] == "-"))

    @property
    def scored_labels(self) -> tuple[str, ...]:
        """The labels that a model of the task predicts: all that are scored."""
        return tuple(label for label in self.labels if label.partition("-")[2] not in self.not_scored)

    def source(self, split: str) -> HubSource | None:
        """Where a split comes from on the Hub."""
        return self.split_sources.get(split, self.hub)


def _hub_source(table: Table) -> HubSource:
    source = HubSource(
        dataset=table.text("dataset"),
        languages=table.names("languages"),
        splits=table.mapping("splits"),
        columns=table.mapping("columns"),
        config=table.optional_text("config"),
        language_column=table.optional_text("language_column"),
        revision=table.optional_text("revision"),
        types=table.mapping("types"),
        mend=table.flag("mend", False),
    )
    table.finish()
    if (source.config is None) != (source.language_column is None):
        raise table.refuse("config", "and language_column go together", "Give both, or one configuration per language.")
    return source


def _split_sources(table: Table | None) -> dict[str, HubSource]:
    return {} if table is None else {split: _hub_source(source) for split, source in table.all_tables().items()}


def _check(task: Task, table: Table) -> None:
    """Refuse values that cannot be evaluated."""
    if task.kind not in METRICS:
        raise table.refuse("kind", f"is '{task.kind}'", f"It must be one of {', '.join(METRICS)}.")
    if task.metric not in METRICS[task.kind]:
        known = " or ".join(METRICS[task.kind])
        raise table.refuse("metric", f"is '{task.metric}'", f"A task of kind {task.kind} has {known}.")
    if task.own and (task.kind not in WITH_LABELS or task.labels or task.hub is not None):
        raise table.refuse("own_labels", "is only for labelled data in files", "Name the labels, or leave it out.")
    if not task.own and bool(task.labels) != (task.kind in WITH_LABELS):
        need = "needs" if not task.labels else "has no"
        raise table.refuse(
            "labels", f"does not fit: a task of kind {task.kind} {need} labels", "Correct the labels or the kind."
        )
    if table.has("pairs") and task.kind != CLASSIFICATION:
        raise table.refuse(
            "pairs", f"does not fit: a task of kind {task.kind} does not classify texts", "Leave it out."
        )
    if task.hub is None and task.local is None:
        raise table.refuse("local", "is missing", "Give a template of local files, a [hub] section, or both.")
    if task.local is not None:
        _check_template(task.local, table)
    if task.kind == TAGGING and not task.own:
        _check_tags(task, table)
    elif len({label.casefold() for label in task.labels}) != len(task.labels):
        raise table.refuse("labels", "names a label twice", "Labels are compared without regard to case.")


def _check_template(template: str, table: Table) -> None:
    """Refuses a file template with placeholders other than {lang} and {split}."""
    example = "Write for instance ner/{lang}/{split}.conll."
    if "{lang}" not in template:
        raise table.refuse("local", "has no {lang}", example)
    rest = template.replace("{lang}", "").replace("{split}", "")
    if "{" in rest or "}" in rest:
        raise table.refuse("local", "has braces other than {lang} and {split}", example)
    if template.startswith("/") or ".." in template.split("/") or "*" in template:
        raise table.refuse("local", "does not name a file in the data folder", example)


def _check_tags(task: Task, table: Table) -> None:
    wanted = {"O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in task.entity_types)}
    if set(task.labels) != wanted or len(wanted) != len(task.labels):
        raise table.refuse("labels", "is not a set of IOB2 tags", "Give O, and B- and I- of each entity type, once.")
