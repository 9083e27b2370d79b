"""The Hub's API for one repository and branch: who may write, what is there, one commit."""

from __future__ import annotations

import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from polydistill.card.text import printable
from polydistill.errors import PolydistillError
from polydistill.fetching.client import connect, forget
from polydistill.hub.failures import Unreadable, patiently
from polydistill.hub.publication import Item
from polydistill.progress import SILENT, Progress

_COMMIT = re.compile(r"[0-9a-f]{40}")
_COMMITS = 20  # how many of other people's newer commits are looked at


@dataclass(frozen=True)
class There:
    """What a branch has.

    Attributes:
        exists: Whether there is such a repository.
        public: Whether everybody can see it.
        head: The branch's commit, None if there is no such branch.
        start: Where a new branch would begin: the commit of `main`.
        files: Path -> (hash, whether it is the SHA-256 of a large file and not git's SHA-1 of a small one).
    """

    exists: bool
    public: bool = False
    head: str | None = None
    start: str | None = None
    files: Mapping[str, tuple[str, bool]] = field(default_factory=dict)

    @property
    def at(self) -> str | None:
        """The commit that the branch points to, or would."""
        return self.head or self.start


@dataclass(frozen=True)
class Session:
    """Talks to the Hub; it raises what the Hub's client raises."""

    api: Any
    repository: str
    branch: str

    @classmethod
    def open(cls, repository: str, branch: str, token: str) -> Session:
        """Asks whose token it is, and, as far as the answer says, whether it may write there.

        Raises:
            PolydistillError: It may not.
        """
        from huggingface_hub import HfApi

        connect()
        api = HfApi(token=token)
        who = patiently(lambda: _named(api.whoami()))
        role = ((who.get("auth") or {}).get("accessToken") or {}).get("role")
        owner, _, short = repository.partition("/")
        known = [str(who.get("name")), *(str(org.get("name")) for org in who.get("orgs") or [])]
        if role == "read":
            raise PolydistillError("The token can only read.", "Make one with the role `write` and log in with it.")
        # A fine-grained token need not tell its owner's organisations; what it may do turns out later.
        if role != "fineGrained" and owner.lower() not in map(str.lower, known):
            raise PolydistillError(
                f"The token belongs to {printable(known[0])}, who is not a member of {owner}.",
                f"Publish to {printable(known[0])}/{short}, or log in as somebody who is.",
            )
        return cls(api, repository, branch)

    def look(self) -> There:
        """What the branch has now."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        try:
            main = patiently(lambda: self.api.model_info(self.repository))
        except RepositoryNotFoundError:
            return There(exists=False)
        try:
            head = patiently(lambda: self.api.model_info(self.repository, revision=self.branch)).sha
        except RevisionNotFoundError:
            return There(True, not main.private, start=main.sha, files=self._files(main.sha))
        return There(True, not main.private, head, main.sha, self._files(head))

    def _files(self, commit: str) -> dict[str, tuple[str, bool]]:
        from huggingface_hub.hf_api import RepoFile

        listing = patiently(lambda: list(self.api.list_repo_tree(self.repository, revision=commit, recursive=True)))
        files = [entry for entry in listing if isinstance(entry, RepoFile)]
        return {f.path: (f.lfs.sha256, True) if f.lfs else (f.blob_id, False) for f in files}

    def read(self, path: str, commit: str) -> str:
        """The text of a file."""

        def fetch() -> str:
            with tempfile.TemporaryDirectory(prefix="polydistill-") as place:
                file = self.api.hf_hub_download(self.repository, path, revision=commit, local_dir=place)
                return Path(file).read_text(encoding="utf-8", errors="replace")

        return patiently(fetch)

    def prepare(self, there: There, *, private: bool) -> None:
        """Makes the repository and the branch if they are missing."""
        if not there.exists:
            patiently(lambda: self.api.create_repo(self.repository, private=private, exist_ok=True))
        if self.branch != "main" and there.head is None:
            patiently(lambda: self.api.create_branch(self.repository, branch=self.branch, exist_ok=True))

    def look_at(self, commit: str) -> There:
        """What a commit has.

        Raises:
            Unreadable: It has no files, so the answer is wrong: every repository has some.
        """
        files = self._files(commit)
        if not files:
            raise Unreadable
        return There(True, head=commit, files=files)

    def commits_since(self, before: str | None) -> list[str]:
        """The branch's commits after another one, the newest first.

        Raises:
            Unreadable: The other one is not among them, or too far back.
        """
        commits = patiently(lambda: self.api.list_repo_commits(self.repository, revision=self.branch))
        names = [str(commit.commit_id) for commit in commits]
        if before not in names[: _COMMITS + 1]:
            raise Unreadable
        return names[: names.index(str(before))]

    def upload(self, send: Sequence[Item], remove: Sequence[str]) -> list[Any]:
        """Sends the large files that the Hub does not have yet; nobody sees them before a commit.

        Args:
            send: Files to add or replace.
            remove: Paths to remove.

        Returns:
            The changes, for `commit`.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        def sent() -> list[Any]:
            add = [CommitOperationAdd(item.path, item.content) for item in send]
            self.api.preupload_lfs_files(self.repository, add, revision=self.branch, free_memory=False)
            return [*add, *(CommitOperationDelete(path, is_folder=False) for path in remove)]

        return patiently(sent)

    def commit(self, operations: Sequence[Any], parent: str | None) -> str:
        """Makes one commit, and asks only once: without an answer, look at the branch before asking again.

        Args:
            operations: What `upload` returned.
            parent: What the branch must still point to.

        Returns:
            The commit.
        """
        forget()
        said = "Publish with polydistill"
        done = self.api.create_commit(
            self.repository, operations, commit_message=said, revision=self.branch, parent_commit=parent
        )
        if not (isinstance(done.oid, str) and _COMMIT.fullmatch(done.oid)):
            raise Unreadable
        return done.oid

    def address(self, commit: str | None = None) -> str:
        """The page of a commit, or of the branch's commits, without a password that the endpoint may have."""
        parts = urlsplit(str(self.api.endpoint))
        endpoint = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
        return f"{endpoint}/{self.repository}/{f'tree/{commit}' if commit else f'commits/{self.branch}'}"


def _named(who: Any) -> Any:
    """The answer to the question whose token it is, if it says that."""
    if not isinstance(who.get("name"), str):
        raise Unreadable
    return who


@contextmanager
def quietly(progress: Progress) -> Iterator[None]:
    """Without the Hub client's own messages, which repeat addresses; with its bars only on a terminal."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    shown = progress is not SILENT and not getattr(progress, "quiet", True) and sys.stderr.isatty()
    level, hide = logging.get_verbosity(), not shown and not are_progress_bars_disabled()
    logging.set_verbosity_error()
    if hide:
        disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if hide:
            enable_progress_bars()
