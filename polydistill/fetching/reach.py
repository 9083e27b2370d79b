"""Asks the Hub, and interprets its silence, refusals and hashes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polydistill.errors import PolydistillError
from polydistill.fetching.client import HubSilent, connect

_COMMIT = re.compile(r"[0-9a-f]{40}")


class OutOfReach(Exception):
    """The Hub did not answer; the text says why. Callers go on without it."""


def hub_info(name: str, revision: str | None, kind: str = "model") -> Any:
    """What the Hub says of a model or a data set: its commit, its files.

    Args:
        name: `org/name`.
        revision: Branch, tag or commit, if one was asked for.
        kind: "model" or "data set".

    Raises:
        OutOfReach: The Hub did not answer, or not in a form that can be read.
        PolydistillError: It does not exist, or access was refused.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    with hub_errors(name, revision, kind):
        try:
            ask = HfApi().dataset_info if kind == "data set" else HfApi().model_info
            info: Any = ask(name, revision=revision)
            if isinstance(info.sha, str) and _COMMIT.fullmatch(info.sha):
                return info
        except (HFValidationError, HfHubHTTPError):
            raise
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            pass  # not JSON, or in another form
        raise OutOfReach("its answer cannot be read")


@contextlib.contextmanager
def hub_errors(name: str, revision: str | None, kind: str = "model") -> Iterator[None]:
    """Turn the Hub client's errors into ours; its own texts are long and may repeat a request's headers.

    Args:
        name: `org/name` of what is asked for.
        revision: Its revision, if one was asked for.
        kind: "model" or "data set".

    Raises:
        OutOfReach: The Hub did not answer, or could not.
        PolydistillError: It said no.
    """
    from huggingface_hub import errors

    page = f"https://huggingface.co/{'datasets/' if kind == 'data set' else ''}{name}"
    try:
        connect()
        yield
    except errors.GatedRepoError as error:
        raise PolydistillError(
            f"The {kind} {name} is gated: its owner wants you to accept conditions first.",
            f"Accept them on {page}, then log in with `hf auth login`.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise PolydistillError(
            f"The {kind} {name} has no revision {revision}.", f"Its branches and tags are on {page}/tree/main."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise PolydistillError(
            f"The Hub has no {kind} {name}, or it is private, and there is no folder or file of that name.",
            f"Check the spelling; for a private {kind} log in with `hf auth login`.",
        ) from error
    except errors.HFValidationError as error:
        raise PolydistillError(f"{name} is not a valid name on the Hub.", "Write org/name.") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise PolydistillError(
                f"The Hub refused access to the {kind} {name} ({status}).",
                "Log in with `hf auth login`, with a token that may read it.",
            ) from error
        raise OutOfReach(f"it answered with status {status}") from error
    except (PolydistillError, OutOfReach):
        raise
    except Exception as error:
        reason = _out_of_reach(error)
        if reason is None:
            raise
        raise OutOfReach(reason) from error


def _out_of_reach(error: Exception) -> str | None:
    """Why an exception means that the Hub is out of reach, None if it means something else."""
    if (silence := next((each for each in chain(error) if isinstance(each, HubSilent)), None)) is not None:
        return str(silence)
    if isinstance(error, OSError) and error.errno is None and str(error).startswith("Consistency check failed"):
        return "a file is not as large as announced"
    if not is_network_error(error):
        return None
    return "HF_HUB_OFFLINE is set" if type(error).__name__ == "OfflineModeIsEnabled" else type(error).__name__


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, its cause, the cause's cause and so on."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def is_network_error(error: BaseException) -> bool:
    """Whether an exception means that a server could not be reached.

    The Hub's client has changed its HTTP library more than once, so it is known by its module's name.
    """
    for seen in chain(error):
        library = type(seen).__module__.split(".")[0].rstrip("0123456789")
        if library in ("httpx", "httpcore", "requests", "urllib", "aiohttp"):
            return True
        if isinstance(seen, (ConnectionError, TimeoutError, HubSilent)):
            return True
        if type(seen).__name__ in ("LocalEntryNotFoundError", "IncompleteSnapshotError", "gaierror"):
            return True
    return False


def hub_hash(content: Path | bytes, *, git: bool) -> str:
    """The hash under which the Hub knows a file: git's SHA-1 of a small one, the SHA-256 of a large one."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if git else hashlib.sha256()
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
