"""Benchmarks of `polydistill trim`: each part writes its own tables into benchmarks/trim.md.

  python benchmarks/trim.py setup --envs ENVS                     # virtual environments of the peers
  python benchmarks/trim.py peers --data DATA --envs ENVS         # or --peer-env NAME=PYTHON, several times
  python benchmarks/trim.py counting --data DATA
  python benchmarks/trim.py cutting --data DATA
  python benchmarks/trim.py large --data DATA
  python benchmarks/trim.py quality --data DATA
  python benchmarks/trim.py same --data DATA                  # embeddings and greedy text

DATA is a folder with text/LANG.txt, ner/LANG/test.conll, qa/LANG/test.json and parallel/udhr/LANG.txt. The models come
from the packages of the extra `offline`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import trim_large
import trim_peers
import trim_quality
import trim_speed


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = made.add_subparsers(required=True)
    commands = {
        "setup": trim_peers.setup,
        "peers": trim_peers.peers,
        "counting": trim_speed.counting,
        "cutting": trim_speed.cutting,
        "large": trim_large.large,
        "quality": trim_quality.quality,
        "same": trim_quality.same,
    }
    added = {name: parts.add_parser(name, help=function.__doc__) for name, function in commands.items()}
    for name, part in added.items():
        part.set_defaults(function=commands[name])
        part.add_argument("--scratch", type=Path, help="a folder on the disk to measure [default: a temporary one]")
        if name != "setup":
            part.add_argument("--data", type=Path, required=True)
            part.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "trim.md")
            part.add_argument("--repetitions", type=int, default=5)
    for name in ("setup", "peers"):
        added[name].add_argument("--envs", type=Path, required=name == "setup", help="folder of virtual environments")
        added[name].add_argument("--only", nargs="*", choices=trim_peers.PEERS, help="only these peers")
    added["peers"].add_argument("--peer-env", action="append", default=[], metavar="NAME=PYTHON")
    added["peers"].add_argument("--bytes", type=int, default=2_000_000, help="of the text")
    added["peers"].add_argument("--sentences", type=int, default=1000, help="checked, of each of two texts")
    added["large"].add_argument("--bytes", type=int, default=2_000_000_000, help="of the checkpoint")
    for name in ("counting", "cutting", "quality", "same"):
        added[name].add_argument("--models", nargs="*", help="only these: e5 gemma minilm")
    added["quality"].add_argument("--languages", nargs="*", default=["ro", "sw", "en+sw"])
    return made


def main() -> None:
    args = parser().parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        args.scratch = args.scratch or Path(temporary)
        args.function(args)


if __name__ == "__main__":
    main()
