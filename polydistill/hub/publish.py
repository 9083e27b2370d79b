"""Publishes a model's folder on the Hub, in one commit that is made whole or not at all, through `HfApi` alone."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.card import human_bytes, is_unedited
from polydistill.errors import PolydistillError, UsageError
from polydistill.fetching.client import interruptible
from polydistill.hub.commit import send
from polydistill.hub.failures import explained
from polydistill.hub.opening import check_opens
from polydistill.hub.plan import Plan, plan_for
from polydistill.hub.publication import CARD, FROM_HUB, Publication, gather
from polydistill.hub.session import Session, There, quietly
from polydistill.options.settings import Options, setting
from polydistill.progress import SILENT, Progress
from polydistill.redaction import own_tokens
from polydistill.wording import counted

if TYPE_CHECKING:
    from polydistill.runs.result import Result

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")
_BRANCH = re.compile(r"(?!refs/)[A-Za-z0-9][\w./-]{0,99}")
_HEAD_ALONE = re.compile(r"\ufeff?\s*---\s*\n.*?\n---\s*", re.DOTALL)


@dataclass(frozen=True)
class PublishOptions(Options):
    """What to publish where; each field but the first two is an option on the command line."""

    folder: Path
    repository: str
    private: bool = setting(False, "Make a new repository private; one that exists stays as it is.", "Repository")
    revision: str = setting("main", "Branch to commit to, created if it is missing.", "Repository", metavar="BRANCH")
    license: str | None = setting(
        None, "Licence identifier, if no model of the lineage states one.", "Card", metavar="ID"
    )
    card: str | None = setting(
        None,
        "record: a new card. folder: the folder's README.md. hub: keep the Hub's. [default: record, or folder "
        "if its README.md was edited by hand; stops if the Hub's was]",
        "Card",
        metavar="SOURCE",
    )
    onnx: bool = setting(False, "Make ONNX files of the model first and send them too.", "Repository")
    int8: bool = setting(False, "With `onnx`: also one with 8-bit weights.", "Repository")
    verify: bool = setting(True, "First load what would be sent and compute with it.", "Checks")
    dry_run: bool = setting(
        False,
        "List files, sizes and the card; send nothing, load nothing (except with `onnx`), need no token.",
        "Checks",
    )


@dataclass(frozen=True)
class Published:
    """What was published, or would be; `to_json` is what the command prints as JSON.

    Attributes:
        repository: `org/name`.
        publication: Files and card.
        revision: The branch.
        commit: What the branch points to now; None after a dry run.
        url: Of that commit.
        sent: Paths that the commit changed.
        removed: Paths that it removed: parts of an older model.
        notes: Decisions that the user should know.
    """

    repository: str
    publication: Publication
    revision: str
    commit: str | None = None
    url: str | None = None
    sent: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    command: str = field(default="publish", init=False)

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        files = [{"path": item.path, "bytes": item.bytes} for item in self.publication.files]
        found = {
            "command": self.command,
            "repository": self.repository,
            "files": files,
            "card": self.publication.card,
            "left_out": self.publication.left_out,
            "notes": list(self.notes),
        }
        if self.commit is None:
            return found
        done = {"revision": self.revision, "commit": self.commit, "url": self.url}
        return {**found, **done, "sent": list(self.sent), "removed": list(self.removed)}


def publish(
    config: PublishOptions, progress: Progress = SILENT, confirm: Callable[[Plan], bool] = lambda plan: True
) -> Published:
    """Publishes a folder in one commit; files that the Hub already has are not sent.

    Args:
        config: What and where.
        progress: Where to report.
        confirm: Asked once before anything is sent.

    Raises:
        UsageError: The name of the repository or branch, or another value, is not valid.
        PolydistillError: The folder is not fit to be published, the Hub refused, or could not be reached; it says what
            became of the branch.
    """
    _check_names(config)
    token = None if config.dry_run else _token()
    if config.int8 and not config.onnx:
        raise UsageError("`int8` is for ONNX files.", "Add `onnx`.")
    with tempfile.TemporaryDirectory(prefix="polydistill-") as place:
        exported = None
        if config.onnx:
            _gather(config, token)  # what is wrong with the folder is told before ONNX files are made of it
            exported = _exported(config, Path(place), progress)
        return _published(config, token, exported, progress, confirm)


def _gather(config: PublishOptions, token: str | None, exported: Result | None = None) -> Publication:
    """What would be sent, with the ONNX files that were made of it."""
    made = (
        {str(file["path"]): exported.output / str(file["path"]) for file in exported.facts["files"]} if exported else {}
    )
    return gather(
        config.folder.expanduser(),
        config.repository,
        licence=config.license,
        source=config.card,
        secrets=[*own_tokens(), *([token] if token else [])],
        beside=made,
        exported=exported.to_json() if exported else None,
    )


def _exported(config: PublishOptions, place: Path, progress: Progress) -> Result:
    """ONNX files of the folder, made now and checked against torch.

    Raises:
        PolydistillError: The model cannot be exported.
    """
    from polydistill import registry
    from polydistill.runs.runner import run

    export = registry.method("export")
    folder = str(config.folder.expanduser())
    return run(export, export.options.of(folder, int8=config.int8, output=place / "onnx"), progress)


def _published(
    config: PublishOptions,
    token: str | None,
    exported: Result | None,
    progress: Progress,
    confirm: Callable[[Plan], bool],
) -> Published:
    publication = _gather(config, token, exported)
    notes = _notes(publication, progress)
    result = Published(config.repository, publication, config.revision, notes=notes)
    if token is None:
        return result
    with quietly(progress), interruptible():
        with explained(config.repository):
            session = Session.open(config.repository, config.revision, token)
            there = session.look()
            publication, settled = _settle_card(session, config, publication, there)
            _check_private(config, there)
        plan = plan_for(config.repository, publication, there)
        if not plan.is_empty:
            if config.verify:
                progress.note("Loading what would be sent ...")
                _verify(publication)
            if not confirm(plan):
                raise PolydistillError("Nothing was sent.", "To publish, answer y or add `yes`.")
            progress.note(
                f"Sending {counted(len(plan.send), 'file')}, {human_bytes(plan.bytes)}, to {config.repository} ..."
            )
        commit = _sent(session, config, publication, plan, there, progress)
    return replace(
        result,
        publication=publication,
        commit=commit,
        url=session.address(commit),
        removed=plan.remove,
        sent=tuple(item.path for item in plan.send),
        notes=(*notes, *settled),
    )


def _check_private(config: PublishOptions, there: There) -> None:
    if config.private and there.public:
        raise PolydistillError(
            f"{config.repository} already exists and is public.", "Make it private on its settings page first."
        )


def _sent(
    session: Session, config: PublishOptions, publication: Publication, plan: Plan, there: There, progress: Progress
) -> str:
    """The commit that has all of it: a new one, or the present one if nothing changes."""
    new = not there.exists
    with explained(config.repository):
        session.prepare(there, private=config.private)
    if new:
        with explained(config.repository, "nothing was published, and the new repository is empty"):
            there = session.look()
            _check_private(config, there)  # as somebody else may have made it meanwhile
    if plan.is_empty:
        return str(there.at)
    return send(session, publication, plan, there, progress)


def _check_names(config: PublishOptions) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(config.repository)
        fits = _NAME.fullmatch(config.repository) is not None
    except HFValidationError:
        fits = False
    if not fits:
        raise UsageError(
            "The Hub does not allow this repository name.",
            "Write ORG/NAME, with letters, digits, '-', '_' and '.', at most 96 in all, and neither '--' nor '..'.",
        )
    if not _BRANCH.fullmatch(config.revision) or ".." in config.revision or config.revision.endswith(("/", ".lock")):
        raise UsageError("`revision` is not the name of a branch.", "Use letters, digits, '-', '_' and '.'.")


def _token() -> str:
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise PolydistillError("HF_HUB_OFFLINE is set, so nothing can be published.", "Unset it, or add `dry_run`.")
    token = get_token()
    if token is None:
        raise PolydistillError(
            "There is no token to publish with.", "Log in with `hf auth login`, or set HF_TOKEN to one that may write."
        )
    return token


def _notes(publication: Publication, progress: Progress) -> tuple[str, ...]:
    notes = []
    if publication.cleaned:
        notes.append(
            f"Sent without paths of this machine: {', '.join(publication.cleaned)}; the folder stays as it is."
        )
    if publication.edited:
        said = f"{CARD} is not as `polydistill card` makes it, so it was edited by hand, and is sent as it is"
        notes.append(f"{said}; `card=record` makes a new one.")
    for note in notes:
        progress.note(note)
    return tuple(notes)


def _verify(publication: Publication) -> None:
    with tempfile.TemporaryDirectory(prefix="polydistill-") as place:
        publication.stage(Path(place))
        check_opens(Path(place))


def _settle_card(
    session: Session, config: PublishOptions, publication: Publication, there: There
) -> tuple[Publication, tuple[str, ...]]:
    """Keeps the Hub's card if the user wants that.

    Raises:
        PolydistillError: Somebody has edited it there, and nobody said what becomes of it.
    """
    at = there.head or there.start
    if CARD not in there.files or at is None or config.card not in (None, FROM_HUB):
        return publication, ()
    text = session.read(CARD, at)
    if config.card == FROM_HUB:
        kept = tuple(item for item in publication.files if item.path != CARD)
        note = f"{CARD} stays as it is on the Hub; what it says may not hold for this model."
        return replace(publication, files=kept, card=text), (note,)
    same = text.replace("\r\n", "\n") == publication.card
    if not (same or is_unedited(text) or _HEAD_ALONE.fullmatch(text) or not text.strip()):
        raise PolydistillError(
            f"The {CARD} of {config.repository} was not made by polydistill, or was edited since.",
            "Choose its card: `card=record` (a new one), `card=folder`, or `card=hub` (it stays).",
        )
    return publication, ()
