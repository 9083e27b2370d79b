"""A torch network as an ONNX file.

By `torch.onnx.export` itself: optimum-onnx 0.1, the newest, refuses transformers 5 (it wants < 4.58). Of its two
exporters the one on `torch.export`: it refuses a network of which it would have to fix a size, where the other one,
which traces and is deprecated, writes the size of the example into the graph.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polydistill.errors import PolydistillError
from polydistill.models.loading import loading_failed, quiet_transformers

OPSET = 18
LARGEST = 2**31 - 1  # bytes of one protobuf
AXES = ("batch_size", "sequence_length")  # as optimum and transformers.js call them
_LOUD = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def check_size(parameters: int, model: object) -> None:
    """Refuses a model whose float32 weights do not fit into one ONNX file.

    Raises:
        PolydistillError: It is too large.
    """
    if 4 * parameters >= LARGEST:
        raise PolydistillError(
            f"{model} would be an ONNX file of {4 * parameters / 1e9:.1f} GB, and one takes at most "
            f"{LARGEST / 1e9:.1f} GB.",
            "Make it smaller first: `polydistill trim` removes the vocabulary of other languages.",
        )


def write_onnx(network: Any, inputs: Mapping[str, Any], outputs: Sequence[str], path: Path) -> None:
    """Writes a network with batch and sequence of any size, in float32.

    Args:
        network: A model of transformers, in evaluation mode.
        inputs: Name -> (B, T) whole numbers to follow it with, both at least 2: 0 and 1 are special to torch.
        outputs: Fields of the model's output.
        path: The file to write.

    Raises:
        PolydistillError: torch cannot express it as a graph, or only for these sizes.
        OSError: The file cannot be written.
    """
    import onnx_ir
    import torch
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    any_size = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with _silence(), torch.no_grad():
            program = torch.onnx.export(
                _positional(network, tuple(inputs), outputs),
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=(tuple(any_size for _ in inputs),),
                verbose=False,
            )
            assert program is not None
            # Every node says in which file of this machine it was made, and there are thousands of them.
            ClearMetadataAndDocStringPass()(program.model)
            proto = onnx_ir.to_proto(program.model)
    except Exception as error:
        name = type(network).__name__
        hint = "Report it with the model's name; its architecture may not be expressible as a graph."
        raise loading_failed(f"torch cannot export {name} to ONNX", error, hint) from error
    _name_axes(proto.graph)
    path.write_bytes(proto.SerializeToString())


def _positional(network: Any, names: Sequence[str], outputs: Sequence[str]) -> Any:
    """The network as a module of named inputs in an order, and of nothing but these outputs."""
    import torch

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *values: Any) -> tuple[Any, ...]:
            found = self.network(**dict(zip(names, values, strict=True)), return_dict=True)
            return tuple(found[name] for name in outputs)

    return Positional().eval()


def _name_axes(graph: Any) -> None:
    """Calls the axes of inputs and outputs what they are, in place of `s77` and the like; shapes between go."""
    for value in (*graph.input, *graph.output):
        for dim, name in zip(value.type.tensor_type.shape.dim, AXES, strict=False):
            if dim.HasField("dim_param"):
                dim.dim_param = name
    del graph.value_info[:]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without what the exporter and its libraries print and log."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), quiet_transformers():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
