"""What checks, flushes and slices cost and save: this checkout beside an earlier one, in alternating rounds.

python benchmarks/safety.py --data DATA --before CHECKOUT
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import measure
from measure import MB, Run, alternate, median

HERE = Path(__file__).resolve().parents[1]
E5 = "intfloat/multilingual-e5-small"


def masked_lm(folder: Path) -> Path:
    """A model of 16 numbers a token with e5's 250,037 tokens and a head: small weights, large logits."""
    from transformers import AutoConfig, AutoModelForMaskedLM

    from polydistill.models.folder import tokenizer_files
    from polydistill.models.offline import prepare

    source = prepare(E5, log=lambda line: print(line, file=sys.stderr))
    config = AutoConfig.from_pretrained(
        source,
        local_files_only=True,
        trust_remote_code=False,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    AutoModelForMaskedLM.from_config(config, trust_remote_code=False).save_pretrained(folder)
    for file in tokenizer_files(source):
        shutil.copyfile(file, folder / file.name)
    return folder


def trim(checkout: Path, model: str | Path, text: Path, out: Path, *options: str) -> Run:
    """One trim as a whole process."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "polydistill", "trim", "--model", model, "--lang", "ro", "--text", text, "-o", out]
    run = measure.run(
        [*command, "-q", *options], env={"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}, cwd=out.parent
    )
    if run.code:
        raise SystemExit(run.error)
    return run


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Folder with text/ro.txt.")
    parser.add_argument("--before", type=Path, required=True, help="A checkout of an earlier version.")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    text, places = (args.data / "text/ro.txt").resolve(), {"before": args.before.resolve(), "after": HERE}
    with tempfile.TemporaryDirectory() as scratch:
        large = masked_lm(Path(scratch) / "large")
        cases = {
            "e5, `--no-verify`": (E5, "--no-verify"),
            "e5, verified": (E5,),
            "250,037 tokens of 16 numbers, masked LM, verified": (large,),
        }
        rows = []
        for name, (model, *options) in cases.items():
            functions = {
                who: partial(trim, place, model, text, Path(scratch) / "out", *options) for who, place in places.items()
            }
            found = alternate(functions, args.rounds)
            seconds = {who: median(run.seconds for run in runs) for who, runs in found.items()}
            peak = {who: median(run.peak_bytes for run in runs) / MB for who, runs in found.items()}
            rows.append(
                [
                    name,
                    f"{seconds['before']:.2f}",
                    f"{seconds['after']:.2f}",
                    f"{seconds['after'] / seconds['before']:.2f}",
                    f"{peak['before']:,.0f}",
                    f"{peak['after']:,.0f}",
                    f"{peak['after'] / peak['before']:.2f}",
                ]
            )
    head = ["trim to Romanian", "s before", "s now", "ratio", "peak MB before", "peak MB now", "ratio"]
    body = f"Medians of {args.rounds} alternating rounds of whole processes, one thread.\n\n{measure.table(head, rows)}"
    measure.write_section(
        Path(__file__).with_suffix(".md"),
        "safety",
        "python benchmarks/safety.py --data DATA --before CHECKOUT",
        body,
        measure.versions("polydistill", "tokenizers", "transformers", "torch"),
    )


if __name__ == "__main__":
    main()
