"""A process of its own in which a network of torch and its ONNX files take turns (see `beside`)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from polydistill.evaluation.turns import one_round, take_turns
from polydistill.exporting.beside import outputs_of
from polydistill.exporting.networks import HEADS, load_network, onnx_network
from polydistill.models.loading import load_tokenizer
from polydistill.processes import answer


def timed(job: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """(seconds of one input, inputs a second together) of torch and of each file of a job of `beside.latency`."""
    import torch

    torch.set_num_threads(job["threads"])
    model, head, features = Path(job["model"]), HEADS[job["head"]], job["features"]
    tokenizer = load_tokenizer(model)
    tokenizer.padding_side = "right"
    network = load_network(model, head)
    networks = {"torch": network}
    networks |= {name: onnx_network(Path(path), network.config) for name, path in job["files"].items()}
    rounds = {
        name: partial(one_round, partial(outputs_of, network, tokenizer, head=head), features)
        for name, network in networks.items()
    }
    return take_turns(rounds, len(features), repeat=job["rounds"])


if __name__ == "__main__":
    answer(timed)
