"""Makes one commit, and asks the Hub what it has if the answer is broken or does not come."""

from __future__ import annotations

import time
from dataclasses import dataclass

from polydistill.errors import PolydistillError
from polydistill.fetching.client import forget
from polydistill.hub.failures import ATTEMPTS, NOTHING, failure, pause_after, still_at_work, timed_out
from polydistill.hub.plan import Plan, plan_for
from polydistill.hub.publication import Publication
from polydistill.hub.session import Session, There
from polydistill.progress import Progress

LATE = (2.0, 5.0)  # seconds after which the Hub is asked again if it may still be at work
_UNKNOWN = "it is not known whether it was published, since the Hub does not say what it has now"
_NOT_YET = "it has published nothing so far, but may still be at work on it"
_ELSE = "nothing was published, since somebody else changed {name} meanwhile"
_LOOK = "Look at {address}, or run the same command again: what has arrived is not sent again."


@dataclass(frozen=True)
class Truth:
    """What the Hub has after a commit without a good answer.

    Attributes:
        there: The branch now, None if the Hub did not say.
        commit: The commit that has what was to be published, None if there is none.
        moved: Whether the branch has changed in another way.
    """

    there: There | None
    commit: str | None = None
    moved: bool = False


def send(session: Session, publication: Publication, plan: Plan, there: There, progress: Progress) -> str:
    """Makes one commit that is there whole or not at all.

    Args:
        session: The repository and its branch, which exist.
        publication: What the branch should have afterwards.
        plan: How it differs from what is there.
        there: What is there; the commit is only made on top of it.
        progress: Where to report.

    Returns:
        The commit.

    Raises:
        PolydistillError: It was not made, or whether it was made is not known; the message says which.
    """
    for attempt in range(ATTEMPTS):
        operations = _uploaded(session, plan)
        try:
            return session.commit(operations, there.at)
        except KeyboardInterrupt:
            progress.warn(f"The commit was being sent; check whether it arrived at {session.address()}.")
            raise
        except Exception as error:
            truth = find_out(session, publication, there, patient=still_at_work(error))
            if truth.commit is not None:
                _tell(session, truth, progress)
                return truth.commit
            final = truth.there is None or truth.moved or timed_out(error)
            pause = None if final else pause_after(error, attempt)
            if pause is None or attempt + 1 == ATTEMPTS:
                raise _explained(session, error, truth) from None
        time.sleep(pause)
    raise AssertionError


def _uploaded(session: Session, plan: Plan) -> list[object]:
    """The changes, with their large files on the Hub, where nobody sees them until the commit.

    Raises:
        PolydistillError: They could not be sent.
    """
    try:
        return session.upload(plan.send, plan.remove)
    except Exception as error:
        raise failure(error, session.repository, NOTHING) from None


def find_out(session: Session, publication: Publication, before: There, *, patient: bool = False) -> Truth:
    """Asks the Hub whether it has what was to be published.

    Args:
        session: The repository and its branch.
        publication: What the branch should have.
        before: What it had.
        patient: Ask again a little later if it has not.
    """
    for pause in (*(LATE if patient else ()), None):
        forget()
        try:
            truth = _now(session, publication, before)
        except Exception:
            return Truth(None)
        if truth.commit is not None or truth.moved or pause is None:
            return truth
        time.sleep(pause)
    raise AssertionError


def _now(session: Session, publication: Publication, before: There) -> Truth:
    there = session.look()
    if plan_for(session.repository, publication, there).is_empty:
        return Truth(there, there.at)
    if there.at == before.at:
        return Truth(there)
    # Somebody else has changed the branch, before our commit or after it.
    for commit in session.commits_since(before.at):
        if plan_for(session.repository, publication, session.look_at(commit)).is_empty:
            return Truth(there, commit, moved=True)
    return Truth(there, moved=True)


def _tell(session: Session, truth: Truth, progress: Progress) -> None:
    progress.note("The Hub's answer to the commit was lost; asked again, it says that the commit is there.")
    if truth.moved:
        progress.warn(f"Somebody else has changed {session.repository} since: its newest commit is a different one.")


def _explained(session: Session, error: Exception, truth: Truth) -> PolydistillError:
    look = _LOOK.format(address=session.address())
    if truth.there is None:
        return failure(error, session.repository, _UNKNOWN, look)
    if truth.moved:
        said = _ELSE.format(name=session.repository)
        return failure(error, session.repository, said, "Look at what is there now, then run the same command again.")
    if still_at_work(error):
        return failure(error, session.repository, _NOT_YET, look)
    return failure(error, session.repository, NOTHING)
