"""What the new layout of the package costs: this checkout beside the one before it, in alternating rounds.

python benchmarks/rebuild.py --data DATA --before CHECKOUT
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import measure
from measure import alternate, median

HERE = Path(__file__).resolve().parents[1]
E5 = "intfloat/multilingual-e5-small"
LENGTH, TEXT = {"before": "--length", "after": "--max-length"}, {"before": "--corpus", "after": "--text"}


def command(checkout: Path, place: Path, *args: str | Path) -> float:
    """Seconds of a command as a whole process."""
    shutil.rmtree(place / "out", ignore_errors=True)
    run = measure.run(
        [sys.executable, "-m", "polydistill", *args],
        env={"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        cwd=place,
    )
    if run.code:
        raise SystemExit(run.error)
    return run.seconds


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Folder with text/ro.txt.")
    parser.add_argument("--before", type=Path, required=True, help="A checkout of the version before.")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    text, places = (args.data / "text/ro.txt").resolve(), {"before": args.before.resolve(), "after": HERE}
    trim = {who: ["trim", "--model", E5, "--lang", "ro", TEXT[who], text, "-q", "-o", "out"] for who in places}
    train = [
        "sparse",
        "train",
        "--model",
        "trimmed",
        "--lang",
        "ro",
        "--text",
        text,
        "--steps",
        "10",
        "--batch-size",
        "4",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        command(HERE, place, *trim["after"], "--no-verify")
        shutil.move(place / "out", place / "trimmed")
        cases: dict[str, tuple[int, dict[str, list[str | Path]]]] = {
            "`--help`": (4, {who: ["--help"] for who in places}),
            "`ls languages`": (4, {who: ["ls", "languages"] for who in places}),
            "`card` of a trimmed model": (4, {who: ["card", "trimmed"] for who in places}),
            "`info` of a trimmed model": (4, {who: ["info", "trimmed"] for who in places}),
            "`count`": (1, {who: ["count", *trim[who][1:7], "-q", "-o", "out/c.json"] for who in places}),
            "`trim`, without verification": (1, {who: [*trim[who], "--no-verify"] for who in places}),
            "`trim`, verified": (1, trim),
            "`sparse train`, 2 x 10 steps of 4 x 64 tokens": (
                1,
                {who: [*train, LENGTH[who], "64", "-q", "-o", "out"] for who in places},
            ),
        }
        rows = []
        for name, (times, by) in cases.items():
            functions = {who: partial(command, places[who], place, *by[who]) for who in places}
            found = alternate(functions, times * args.rounds)
            before, after = (median(found[who]) for who in ("before", "after"))
            rows.append([name, times * args.rounds, f"{before:.3f}", f"{after:.3f}", f"{after / before:.2f}"])
    body = "Medians of whole processes in alternating rounds, one thread.\n\n"
    body += measure.table(["command", "rounds", "s before", "s now", "ratio"], rows)
    measure.write_section(
        Path(__file__).with_suffix(".md"),
        "rebuild",
        "python benchmarks/rebuild.py --data DATA --before CHECKOUT",
        body,
        measure.versions("torch", "transformers", "click"),
    )


if __name__ == "__main__":
    main()
