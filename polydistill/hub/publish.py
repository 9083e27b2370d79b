"""Publishing a model's folder on the Hub: one commit that is there whole or not at all, through `HfApi` alone."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from polydistill.card import human_bytes, is_unedited
from polydistill.errors import PolydistillError, UsageError
from polydistill.hub.failures import explained, patiently
from polydistill.hub.opening import check_opens
from polydistill.hub.publication import CARD, FROM_HUB, Item, Publication, gather
from polydistill.hub.session import Session, There, quietly
from polydistill.progress import SILENT, Progress
from polydistill.settings import setting

if TYPE_CHECKING:
    from polydistill.methods.export import ExportResult

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")
_BRANCH = re.compile(r"(?!refs/)[A-Za-z0-9][\w./-]{0,99}")
# What a loader reads: where the folder has it no longer, it would be mixed with what is sent.
_STALE = re.compile(
    r"model.*\.safetensors(\.index\.json)?|tokenizer.*|vocab\.(json|txt)|merges\.txt|added_tokens\.json|.*\.spm"
    r"|special_tokens_map\.json|sentencepiece.*\.model|spiece\.model|generation_config\.json|chat_template\.jinja"
    r"|modules\.json|sentence_bert_config\.json|config_sentence_transformers\.json|difference.*\.safetensors"
)
_STALE_FOLDERS = re.compile(r"onnx|\d+_[A-Za-z]+")
_HEAD_ALONE = re.compile(r"\ufeff?\s*---\s*\n.*?\n---\s*", re.DOTALL)


@dataclass(frozen=True)
class PublishConfig:
    """What to publish where; each field but the first two is an option of the command line."""

    folder: Path
    repository: str
    private: bool = setting(False, "Make a new repository private; one that exists stays as it is.", "Repository")
    revision: str = setting("main", "Branch to commit to; made if it is missing.", "Repository", metavar="BRANCH")
    license: str | None = setting(
        None, "Licence identifier, where no model of the lineage states one.", "Card", metavar="ID"
    )
    card: str | None = setting(
        None,
        "record: a new card. folder: the README.md that is there. hub: the Hub's stays. [default: record, or folder "
        "if that README.md was edited by hand; stops if the Hub's was]",
        "Card", metavar="SOURCE",
    )  # fmt: skip
    onnx: bool = setting(False, "Make ONNX files of the model first and send them too.", "Repository")
    int8: bool = setting(False, "With --onnx: one with weights of 8 bits as well.", "Repository")
    verify: bool = setting(
        True, "Load what would be sent and compute with it first.", "Checks", flags=("--verify/--no-verify",)
    )
    dry_run: bool = setting(
        False, "List files, sizes and the card; send nothing, load nothing (but for --onnx), need no token.", "Checks"
    )


@dataclass(frozen=True)
class Published:
    """What was published, or would be; `to_json` is the object of `--json`.

    Attributes:
        repository: `org/name`.
        publication: Files and card.
        revision: The branch.
        commit: What the branch points to now; None after a dry run.
        url: Of that commit.
        sent: Paths that the commit changed.
        removed: Paths that it removed: parts of an older model.
        notes: What was decided on the way.
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
            "command": self.command, "repository": self.repository, "files": files, "card": self.publication.card,
            "left_out": self.publication.left_out, "notes": list(self.notes),
        }  # fmt: skip
        if self.commit is None:
            return found
        done = {"revision": self.revision, "commit": self.commit, "url": self.url}
        return {**found, **done, "sent": list(self.sent), "removed": list(self.removed)}


@dataclass(frozen=True)
class Plan:
    """What one commit would change.

    Attributes:
        repository: `org/name`.
        new: Whether the repository is made first.
        send: Files that differ from what is there.
        remove: Paths of an older model's parts.
    """

    repository: str
    new: bool
    send: tuple[Item, ...]
    remove: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Size of what is sent, at most."""
        return sum(item.bytes for item in self.send)

    @property
    def is_empty(self) -> bool:
        """Whether all is there already."""
        return not self.send and not self.remove


def publish(
    config: PublishConfig, progress: Progress = SILENT, confirm: Callable[[Plan], bool] = lambda plan: True
) -> Published:
    """Publishes a folder in one commit; what the Hub has already is not sent.

    Args:
        config: What and where.
        progress: Where to report.
        confirm: Asked once before anything is sent.

    Raises:
        UsageError: Repository, branch or another value cannot be one.
        PolydistillError: The folder is not fit to be published, the Hub refused, or could not be reached; then the
            branch is as it was.
    """
    _check_names(config)
    token = None if config.dry_run else _token()
    if config.int8 and not config.onnx:
        raise UsageError("--int8 is for ONNX files.", "Add --onnx.")
    with tempfile.TemporaryDirectory(prefix="polydistill-") as place:
        exported = None
        if config.onnx:
            _gather(config, token)  # what is wrong with the folder is said before anything is made of it
            exported = _exported(config, Path(place), progress)
        return _published(config, token, exported, progress, confirm)


def _gather(config: PublishConfig, token: str | None, exported: ExportResult | None = None) -> Publication:
    """What would be sent, with the ONNX files that were made of it."""
    made = {str(file["path"]): exported.output / str(file["path"]) for file in exported.files} if exported else {}
    return gather(
        config.folder.expanduser(), config.repository, licence=config.license, source=config.card,
        secrets=[token] if token else [], beside=made, exported=exported.to_json() if exported else None,
    )  # fmt: skip


def _exported(config: PublishConfig, place: Path, progress: Progress) -> ExportResult:
    """ONNX files of the folder, made now and checked against torch.

    Raises:
        PolydistillError: The model cannot be exported.
    """
    from polydistill.methods.export import export
    from polydistill.methods.export_plan import ExportConfig

    folder = config.folder.expanduser()
    return export(ExportConfig(str(folder), onnx=True, int8=config.int8, output=place / "onnx"), progress)


def _published(
    config: PublishConfig,
    token: str | None,
    exported: ExportResult | None,
    progress: Progress,
    confirm: Callable[[Plan], bool],
) -> Published:
    publication = _gather(config, token, exported)
    notes = _notes(publication, progress)
    result = Published(config.repository, publication, config.revision, notes=notes)
    if token is None:
        return result
    with quietly(progress):
        with explained(config.repository, token):
            session = Session.open(config.repository, config.revision, token)
            there = session.look()
            publication, settled = _settle_card(session, config, publication, there)
        if config.private and there.public:
            raise PolydistillError(
                f"{config.repository} is there already, and public.", "Make it private on its settings page first."
            )
        plan = _plan(config.repository, publication, there)
        if not plan.is_empty:
            if config.verify:
                progress.note("Loading what would be sent ...")
                _verify(publication)
            if not confirm(plan):
                raise PolydistillError("Nothing was sent.", "Answer y, or add --yes, to publish.")
            progress.note(f"Sending {len(plan.send)} files, {human_bytes(plan.bytes)}, to {config.repository} ...")
        with explained(config.repository, token):
            session.prepare(there, private=config.private)
            commit = _commit(session, publication, plan, there)
    return replace(
        result, publication=publication, commit=commit, url=session.address(commit), removed=plan.remove,
        sent=tuple(item.path for item in plan.send), notes=(*notes, *settled),
    )  # fmt: skip


def _commit(session: Session, publication: Publication, plan: Plan, there: There) -> str:
    """The commit; tried again it is planned again, since the first try may have arrived without its answer."""
    tries = 0

    def attempt() -> str:
        nonlocal tries
        tries += 1
        now, seen = plan, there
        if tries > 1:
            seen = session.look()
            now = _plan(session.repository, publication, seen)
            moved = there.exists and seen.head != (there.head or there.start)
            if moved and not now.is_empty:
                raise PolydistillError(
                    f"{session.repository} was changed by somebody else meanwhile; nothing was published.",
                    "Look at what is there now, then run the same command again.",
                )
        if now.is_empty:
            return str(seen.head or seen.start)
        return session.commit(now.send, now.remove, seen.head or seen.start)

    return patiently(attempt)


def _check_names(config: PublishConfig) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(config.repository)
        fits = _NAME.fullmatch(config.repository) is not None
    except HFValidationError:
        fits = False
    if not fits:
        raise UsageError(
            "The repository's name cannot be one of the Hub.",
            "Write ORG/NAME, with letters, digits, '-', '_' and '.', at most 96 in all, and neither '--' nor '..'.",
        )
    if not _BRANCH.fullmatch(config.revision) or ".." in config.revision or config.revision.endswith(("/", ".lock")):
        raise UsageError("--revision is not the name of a branch.", "Use letters, digits, '-', '_' and '.'.")


def _token() -> str:
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise PolydistillError("HF_HUB_OFFLINE is set, so nothing can be published.", "Unset it, or add --dry-run.")
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
        said = f"{CARD} is not as `polydistill card` makes it, so it was edited by hand, and goes as it is"
        notes.append(f"{said}; --card record makes a new one.")
    for note in notes:
        progress.note(note)
    return tuple(notes)


def _verify(publication: Publication) -> None:
    with tempfile.TemporaryDirectory(prefix="polydistill-") as place:
        publication.stage(Path(place))
        check_opens(Path(place))


def _settle_card(
    session: Session, config: PublishConfig, publication: Publication, there: There
) -> tuple[Publication, tuple[str, ...]]:
    """Leaves the Hub's card where that was asked for.

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
            "Say which one it shall have: --card record (a new one), --card folder, or --card hub (it stays).",
        )
    return publication, ()


def _plan(repository: str, publication: Publication, there: There) -> Plan:
    """Which files differ, and which of an older model's would be mixed with them."""
    ours = {item.path for item in publication.files} | {CARD}
    changed = tuple(item for item in publication.files if _differs(item, there.files.get(item.path)))
    stale = tuple(sorted(path for path in there.files if path not in ours and _is_stale(path)))
    return Plan(repository, not there.exists, changed, stale)


def _differs(item: Item, there: tuple[str, bool] | None) -> bool:
    if there is None:
        return True
    known, large = there
    if not large and item.bytes > 100_000_000:  # as a small file it would not be there
        return True
    digest = hashlib.sha256() if large else hashlib.sha1(b"blob %d\0" % item.bytes, usedforsecurity=False)
    if isinstance(item.content, bytes):
        digest.update(item.content)
    else:
        with item.content.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest() != known


def _is_stale(path: str) -> bool:
    parts = PurePosixPath(path).parts
    if any(_STALE_FOLDERS.fullmatch(part) for part in parts[:-1]):
        return True
    return len(parts) == 1 and _STALE.fullmatch(path) is not None
