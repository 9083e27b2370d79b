"""Repositories of the loopback Hub that can be written to: branches, commits, large files, and faults to order."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

LARGE = (".safetensors", ".onnx", ".gguf", ".model")
_REPO = r"([^/]+/[^/]+)"


@dataclass
class Repo:
    """Commits are whole trees: path -> content."""

    private: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])
    branches: dict[str, int] = field(default_factory=lambda: {"main": 0})
    messages: list[str] = field(default_factory=list)

    def oid(self, index: int) -> str:
        return hashlib.sha1(f"{id(self)} {index}".encode()).hexdigest()

    def index(self, revision: str) -> int | None:
        known = {self.oid(i): i for i in range(len(self.commits))}
        return self.branches.get(revision, known.get(revision))

    def tree(self, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[branch]]


@dataclass
class Fault:
    """What `path` (a pattern) is answered with, so many times: a status, or a cut after half of what is sent.

    `done` does what was asked for first; then `status` and `text` are the answer, or only a `share` of the bytes of the
    true one comes before the connection ends, or stays `silent`, or goes on with a byte now and then, `slowly`.
    """

    path: str
    status: int = 0
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    text: str = "refused"
    done: bool = False
    share: float | None = None
    silent: bool = False
    slowly: bool = False
    meanwhile: Callable[[], object] = lambda: None  # what else happens on the Hub before it answers
    came: int = 0  # bytes that a cut let through

    def spoil(self, handler: Any) -> None:
        """Puts a bad answer in place of the true one that follows."""
        true = handler.send

        def send(data: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
            del handler.send  # the next request of this connection is answered well again
            self.meanwhile()
            if self.status:
                true(self.text.encode(), self.headers, self.status)
                return
            out, handler.wfile = handler.wfile, io.BytesIO()
            true(data, headers, status)
            raw, handler.wfile = handler.wfile.getvalue(), out
            known = int((self.share or 0) * len(raw))
            out.write(raw[:known])
            out.flush()
            if self.slowly:
                handler.trickle(raw[known:])
            handler.end(silent=self.silent)

        handler.send = send


def is_large(path: str, content: bytes) -> bool:
    return path.endswith(LARGE) or len(content) > 1_000_000


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Repos:
    """Answers what concerns repositories that can be written to; `answer` returns False for anything else."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.large: dict[str, bytes] = {}
        self.received: list[str] = []  # digests of the large files that were sent whole
        self.faults: list[Fault] = []

    def allow(self, token: str, name: str, *orgs: str, role: str = "write") -> None:
        """A token and whose it is."""
        auth = {"accessToken": {"role": role}}
        self.tokens[token] = {"name": name, "orgs": [{"name": org} for org in orgs], "auth": auth, "type": "user"}

    def answer(self, handler: Any, method: str, path: str, query: dict[str, list[str]]) -> bool:
        for fault in self.faults:
            if fault.times and re.search(fault.path, f"{method} {path}"):
                fault.times -= 1
                if fault.done:
                    fault.spoil(handler)
                    break
                if fault.status:
                    handler.body()
                    fault.meanwhile()
                    handler.send(json.dumps({"error": fault.text}).encode(), fault.headers, fault.status)
                elif fault.silent:
                    handler.body()
                    fault.meanwhile()
                    handler.end(silent=True)
                else:
                    fault.came = handler.cut()
                return True
        for pattern, action in self._routes():
            if match := re.fullmatch(pattern, f"{method} {path}"):
                answer = action(handler, query, *match.groups())
                if answer is None:
                    return False
                status, value, *headers = answer
                body = value if isinstance(value, bytes) else json.dumps(value).encode()
                handler.send(body, headers[0] if headers else None, status)
                return True
        return False

    def _routes(self) -> list[tuple[str, Callable[..., Any]]]:
        return [
            (r"GET /api/whoami-v2", self._whoami),
            (r"POST /api/repos/create", self._create),
            (r"POST /api/validate-yaml", self._validate),
            (rf"POST /api/models/{_REPO}/branch/(.+)", self._branch),
            (rf"POST /api/models/{_REPO}/preupload/(.+)", self._preupload),
            (rf"POST /api/models/{_REPO}/commit/(.+)", self._commit),
            (rf"POST /{_REPO}\.git/info/lfs/objects/batch", self._batch),
            (r"PUT /lfs/([0-9a-f]{64})", self._put),
            (r"POST /lfs/verify", self._verify),
            (rf"GET /api/models/{_REPO}/tree/([^/]+)(?:/.*)?", self._list),
            (rf"GET /api/models/{_REPO}/commits/(.+)", self._commits),
            (rf"GET /api/models/{_REPO}(?:/revision/(.+))?", self._info),
            (rf"(?:GET|HEAD) /{_REPO}/resolve/([^/]+)/(.+)", self._file),
        ]

    # --- who asks

    def _who(self, handler: Any) -> dict[str, Any] | None:
        return self.tokens.get((handler.headers.get("Authorization") or "").removeprefix("Bearer "))

    def _writer(self, handler: Any, name: str, *, creates: bool = False) -> tuple[Any, ...] | None:
        """What a request that writes is refused with, None if it may."""
        who = self._who(handler)
        if who is None:
            return 401, {"error": "Invalid username or password."}
        owners = [who["name"], *(org["name"] for org in who["orgs"])]
        if name.split("/")[0] not in owners or who["auth"]["accessToken"]["role"] == "read":
            return 403, {"error": "You don't have the rights required"}
        if not creates and name not in self.repos:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        return None

    def _whoami(self, handler: Any, query: Any) -> Any:
        who = self._who(handler)
        return (200, who) if who else (401, {"error": "Invalid username or password."})

    # --- repositories

    def _create(self, handler: Any, query: Any) -> Any:
        wanted = json.loads(handler.body())
        owner = wanted.get("organization") or (self._who(handler) or {}).get("name", "")
        name = f"{owner}/{wanted['name']}"
        if refused := self._writer(handler, name, creates=True):
            return refused
        known = name in self.repos
        self.repos.setdefault(name, Repo(private=wanted.get("visibility") == "private" or bool(wanted.get("private"))))
        return (409 if known else 200), {"url": f"{handler.endpoint}/{name}", "name": name}

    def _branch(self, handler: Any, query: Any, name: str, branch: str) -> Any:
        handler.body()
        if refused := self._writer(handler, name):
            return refused
        repo = self.repos[name]
        if branch in repo.branches:
            return 409, {"error": "exists"}
        repo.branches[branch] = repo.branches["main"]
        return 200, {}

    def _validate(self, handler: Any, query: Any) -> Any:
        text = json.loads(handler.body())["content"]
        found = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
        values = yaml.safe_load(found[1]) if found else None
        if not isinstance(values, dict) or not values.get("license"):
            return 400, {"errors": [{"message": '"license" is missing'}], "warnings": []}
        return 200, {"errors": [], "warnings": []}

    def _known(
        self, handler: Any, name: str, revision: str
    ) -> tuple[Repo, int] | tuple[int, Any, dict[str, str]] | None:
        repo = self.repos.get(name)
        if repo is None:
            return None
        if repo.private and self._who(handler) is None:
            return 401, {"error": "no"}, {"X-Error-Code": "RepoNotFound"}
        index = repo.index(revision)
        if index is None:
            return 404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"}
        return repo, index

    def _info(self, handler: Any, query: Any, name: str, revision: str | None) -> Any:
        found = self._known(handler, name, revision or "main")
        if found is None or len(found) == 3:
            return found
        repo, index = found
        siblings = [{"rfilename": path} for path in repo.commits[index]]
        facts = {"_id": "0", "id": name, "modelId": name, "sha": repo.oid(index), "private": repo.private, "tags": []}
        return 200, {**facts, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "siblings": siblings}

    def _list(self, handler: Any, query: Any, name: str, revision: str) -> Any:
        found = self._known(handler, name, revision)
        if found is None or len(found) == 3:
            return found
        repo, index = found
        entries = []
        for path, content in repo.commits[index].items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob(content)}
            if is_large(path, content):
                entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        return 200, entries

    def _commits(self, handler: Any, query: Any, name: str, revision: str) -> Any:
        found = self._known(handler, name, revision)
        if found is None or len(found) == 3:
            return found
        repo, index = found
        facts = {"authors": [{"user": "ann"}], "date": "2026-01-01T00:00:00.000Z", "title": "a", "message": ""}
        return 200, [{"id": repo.oid(i), **facts} for i in range(index, -1, -1)]

    def _file(self, handler: Any, query: Any, name: str, revision: str, path: str) -> Any:
        found = self._known(handler, name, revision)
        if found is None or len(found) == 3:
            return found
        repo, index = found
        content = repo.commits[index].get(path)
        if content is None:
            return 404, {"error": "no"}, {"X-Error-Code": "EntryNotFound"}
        return 200, content, {"ETag": f'"{sha256(content)}"', "X-Repo-Commit": repo.oid(index)}

    # --- one commit

    def _preupload(self, handler: Any, query: Any, name: str, revision: str) -> Any:
        wanted = json.loads(handler.body())["files"]
        if refused := self._writer(handler, name):
            return refused
        there = self.repos[name].tree(revision)
        files = []
        for file in wanted:
            path, large = file["path"], file["path"].endswith(LARGE) or file["size"] > 1_000_000
            known = there.get(path)
            oid = None if known is None else sha256(known) if large else blob(known)
            mode = "lfs" if large else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return 200, {"files": files}

    def _batch(self, handler: Any, query: Any, name: str) -> Any:
        wanted = json.loads(handler.body())
        if refused := self._writer(handler, name):
            return refused
        objects = []
        for large in wanted["objects"]:
            entry = {"oid": large["oid"], "size": large["size"]}
            if large["oid"] not in self.large:
                upload = {"href": f"{handler.endpoint}/lfs/{large['oid']}?signature=s3cr3t", "header": {}}
                entry["actions"] = {"upload": upload, "verify": {"href": f"{handler.endpoint}/lfs/verify"}}
            objects.append(entry)
        return 200, {"transfer": "basic", "objects": objects}

    def _put(self, handler: Any, query: Any, digest: str) -> Any:
        content = handler.body()
        if sha256(content) != digest:
            return 400, {"error": "another content"}
        self.large[digest] = content
        self.received.append(digest)
        return 200, b""

    def _verify(self, handler: Any, query: Any) -> Any:
        large = json.loads(handler.body())
        return (200, {}) if len(self.large.get(large["oid"], b"")) == large["size"] else (404, {"error": "no"})

    def _commit(self, handler: Any, query: Any, name: str, revision: str) -> Any:
        lines = [json.loads(line) for line in handler.body().splitlines()]
        if refused := self._writer(handler, name):
            return refused
        repo = self.repos[name]
        tree, header = dict(repo.tree(revision)), lines[0]["value"]
        if header.get("parentCommit") not in (None, repo.oid(repo.branches[revision])):
            return 412, {"error": "The branch has moved."}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.large:
                    return 400, {"error": "no such large file"}
                tree[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del tree[value["path"]]
        repo.commits.append(tree)
        repo.branches[revision] = len(repo.commits) - 1
        repo.messages.append(header["summary"])
        oid = repo.oid(len(repo.commits) - 1)
        return 200, {"commitUrl": f"{handler.endpoint}/{name}/commit/{oid}", "commitOid": oid, "pullRequestUrl": None}
