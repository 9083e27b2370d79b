"""What all benchmarks share: measuring processes and functions, and writing tables.

Run as a script it is the launcher of a measured process. It imports nothing but the standard library, because a process
inherits the peak memory of the one that started it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MB = 1e6
MACHINE_FACTOR = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, kilobytes elsewhere


@dataclass(frozen=True)
class Run:
    """One process: seconds from start to end, its largest resident memory, its exit code, the end of its stderr."""

    seconds: float
    peak_bytes: int
    code: int
    error: str = ""


def launch(command: Sequence[str], result: Path) -> None:
    """Starts a process, waits for it and writes what it used: wait4 also tells the memory of that process alone."""
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace").replace("\r", "\n").strip().splitlines()[-12:]
    code = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * MACHINE_FACTOR
    result.write_text(json.dumps({"seconds": seconds, "peak_bytes": peak, "code": code, "error": "\n".join(said)}))


def run(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Run:
    """Measures a whole process, started from a small one."""
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(result)]
        subprocess.run([*launcher, *map(str, command)], check=True, env={**os.environ, **(env or {})}, cwd=cwd)
        return Run(**json.loads(result.read_text()))


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def alternate(functions: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, list[Any]]:
    """Calls every function once a round; every other round goes backwards, so that none is always the first."""
    found: dict[str, list[Any]] = {name: [] for name in functions}
    for i in range(repetitions):
        for name in list(functions)[:: -1 if i % 2 else 1]:
            found[name].append(functions[name]())
            print(f"round {i + 1}: {name}: {_short(found[name][-1])}", file=sys.stderr)
    return found


def _short(value: Any) -> str:
    if isinstance(value, Run):
        return f"{value.seconds:.2f} s, {value.peak_bytes / MB:.0f} MB, exit {value.code}"
    return f"{value:.3f} s" if isinstance(value, float) else str(value)


median = statistics.median


def folder_bytes(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def machine() -> str:
    """Cores, memory and system, without names or paths."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB memory, {platform.system()} {platform.machine()}"


def versions(*packages: str) -> str:
    """`name version` of installed packages, and Python's."""
    from importlib import metadata

    found = [f"{name} {metadata.version(name)}" for name in packages]
    return ", ".join([f"Python {platform.python_version()}", *found])


def write_section(file: Path, name: str, command: str, body: str, used: str) -> None:
    """Puts a table between its markers in a Markdown file, which is made if it is not there.

    Args:
        file: The Markdown file.
        name: Of the section.
        command: What regenerates it.
        body: Markdown.
        used: Versions.
    """
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    facts = f"{time.strftime('%Y-%m-%d')}; {machine()}; {used}.\n\n`{command}`"
    section = f"{start}\n{body.strip()}\n\n{facts}\n{end}"
    text = file.read_text(encoding="utf-8") if file.is_file() else f"# {file.stem.capitalize()}: measured\n"
    if start in text and end in text:
        before, after = text.split(start)[0], text.split(end)[1]
        text = before + section + after
    else:
        text = text.rstrip() + "\n\n" + section + "\n"
    file.write_text(text, encoding="utf-8")
    print(section)


def lines_of(file: Path, size: int | None = None) -> list[str]:
    """Lines of a text file that are not empty, at most `size` bytes of them."""
    lines, total = [], 0
    for line in file.read_text(encoding="utf-8").splitlines():
        total += len(line.encode()) + 1
        if size is not None and total > size:
            break
        if line.strip():
            lines.append(line)
    return lines


def conll_sentences(file: Path) -> list[str]:
    """The sentences of a `token tag` file, tokens joined by spaces."""
    blocks = file.read_text(encoding="utf-8").split("\n\n")
    sentences = (" ".join(line.split(" ")[0] for line in block.splitlines() if line) for block in blocks)
    return [s for s in sentences if s.strip()]


def qa_texts(file: Path) -> list[str]:
    """Every context and every question of a SQuAD file, each once."""
    texts: dict[str, None] = {}
    for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            texts[" ".join(paragraph["context"].split())] = None
            texts.update((" ".join(question["question"].split()), None) for question in paragraph["qas"])
    return list(texts)


if __name__ == "__main__":
    launch(sys.argv[2:], Path(sys.argv[1]))
