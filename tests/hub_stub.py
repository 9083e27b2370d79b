"""A stand-in of the Hub on the loopback interface, which serves local folders as models and data sets.

The Hub's client reads HF_ENDPOINT when it is imported, so what talks to the stub is a process of its own: see `run`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from forks import fork
from hub_repos import Repos

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info|refs)(?:/([^/]+))?)?(?:/(.*))?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class HubStub:
    """Serves `models` and `datasets` (name -> folder); `faults` maps a name to the status it is answered with.

    `writable` has the repositories that can be written to, and faults of theirs.
    """

    models: dict[str, Path] = field(default_factory=dict)
    datasets: dict[str, Path] = field(default_factory=dict)
    faults: dict[str, tuple[int, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    writable: Repos = field(default_factory=Repos)

    def __enter__(self) -> HubStub:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fetched(self) -> set[str]:
        """Names of the files that were asked for."""
        found = (_FILE.fullmatch(path) for path in self.requests)
        return {match[4] for match in found if match}


def run(code: str, *, endpoint: str, home: Path, **environment: str) -> Any:
    """Run Python in a process that sees the stub as the Hub; returns the JSON it prints on its last line."""
    env = environment_of(endpoint, home, POLYDISTILL_CACHE=str(home / "polydistill"), **environment)
    done = fork(code, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def environment_of(endpoint: str, home: Path, **more: str) -> dict[str, str]:
    """The environment of a process that sees the stub as the Hub."""
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "no_proxy": "127.0.0.1",
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    return {**kept, **settings, **more}


def refusing() -> str:
    """An endpoint that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def _handler(stub: HubStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        @property
        def endpoint(self) -> str:
            return stub.endpoint

        def body(self) -> bytes:
            if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def cut(self, share: float = 0.5) -> int:
            """Ends the connection when a part of what is sent has come; returns its bytes."""
            came = self.rfile.read(int(share * int(self.headers.get("Content-Length") or 0)))
            self.end()
            return len(came)

        def end(self, *, silent: bool = False) -> None:
            """Ends the connection, or leaves that to the client and says nothing until then."""
            self.close_connection = True
            with suppress(OSError):
                if silent:
                    self.connection.recv(1)
                self.connection.shutdown(socket.SHUT_RDWR)

        def trickle(self, content: bytes) -> None:
            """Sends byte after byte, slowly, until the client leaves."""
            with suppress(OSError):
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.02)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            if not self.writes():
                self.answer(self.body())

        def do_GET(self) -> None:
            if not self.writes():
                self.answer(b"")

        def writes(self) -> bool:
            """Whether it was answered as a request that concerns a repository that can be written to."""
            address = urlsplit(self.path)
            path = unquote(address.path)
            stub.requests.append(f"{self.command} {path}" if self.command == "PUT" else path)
            done = stub.writable.answer(self, self.command, path, parse_qs(address.query))
            if not done:
                stub.requests.pop()
            return done

        def answer(self, body: bytes) -> None:
            # The branch of converted files is the same commit as `main`, under a name with slashes.
            path = unquote(urlsplit(self.path).path).replace("refs/convert/parquet", "main")
            stub.requests.append(path)
            if match := _API.fullmatch(path):
                self.api(match, body)
            elif match := _FILE.fullmatch(path):
                self.file(match)
            else:
                self.refuse(404, "EntryNotFound")

        def folder(self, kind: str, name: str, revision: str) -> Path | None:
            folder = (stub.models if kind == "models" else stub.datasets).get(name)
            if name in stub.faults:
                self.refuse(*stub.faults[name])
            elif folder is None:
                self.refuse(404, "RepoNotFound")
            elif revision not in ("main", COMMIT):
                self.refuse(404, "RevisionNotFound")
            else:
                return folder
            return None

        def api(self, match: re.Match[str], body: bytes) -> None:
            kind, name, what, revision, inner = match.groups()
            folder = self.folder(kind, name, revision or "main")
            if folder is None:
                return
            entries = [entry(folder, path) for path in sorted(folder.rglob("*"))]
            if what == "tree":
                recursive = "recursive=true" in self.path.lower()
                place = folder / (inner or "")
                if not place.is_dir():
                    self.refuse(404, "EntryNotFound")
                    return
                found = place.rglob("*") if recursive else place.iterdir()
                self.send(json.dumps([entry(folder, path) for path in sorted(found)]).encode())
            elif what == "paths-info":
                wanted = parse_qs(body.decode()).get("paths", [])
                self.send(json.dumps([e for e in entries if e["path"] in wanted]).encode())
            else:
                info = {
                    "_id": "0",
                    "id": name,
                    "modelId": name,
                    "sha": COMMIT,
                    "private": False,
                    "gated": False,
                    "disabled": False,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                    "siblings": [{"rfilename": e["path"]} for e in entries if e["type"] == "file"],
                }
                self.send(json.dumps(info).encode())

        def file(self, match: re.Match[str]) -> None:
            folder = self.folder("datasets" if match[1] else "models", match[2], match[3])
            if folder is None:
                return
            path = folder / match[4]
            if not path.is_file():
                self.refuse(404, "EntryNotFound")
                return
            data = path.read_bytes()
            self.send(data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT})

        def refuse(self, status: int, code: str) -> None:
            self.send(b'{"error":"refused"}', {"X-Error-Code": code}, status)

        def send(self, data: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
            part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if part and status == 200:
                first, last = int(part[1]), int(part[2] or len(data) - 1)
                headers = {**(headers or {}), "Content-Range": f"bytes {first}-{last}/{len(data)}"}
                data, status = data[first : last + 1], 206
            self.send_response(status)
            for name, value in {
                "Accept-Ranges": "bytes",
                "Content-Type": "application/json",
                **(headers or {}),
            }.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    return Handler


def entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    data = b"" if path.is_dir() else path.read_bytes()
    oid = hashlib.sha1(name.encode() + data).hexdigest()
    return {"type": "directory" if path.is_dir() else "file", "oid": oid, "size": len(data), "path": name}
