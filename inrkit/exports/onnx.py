"""ONNX: a field for every program with a runtime of it."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from inrkit.errors import ConfigError
from inrkit.exports.base import Export
from inrkit.exports.portable import CHECKED, Portable, in_float32, sampled
from inrkit.exports.telling import difference, kept, rows, size_of, untraceable
from inrkit.runs.field import Field

_OPSET = 18
"""The oldest with all that a field of tiles needs: sums into rows that occur more than once."""
_LARGEST = 2 << 30
"""Bytes of a file that protobuf can hold."""


class Onnx(Export):
    """ONNX, opset 18: (N, D) float64 physical coordinates to (N, C) float32 values. Of any network."""

    def write(self, field: Field, aside: Path, path: Path) -> str:
        try:
            import onnxscript  # noqa: F401  torch writes ONNX with it
        except ImportError as error:
            raise ConfigError("ONNX needs onnxscript; pip install 'inrkit[export]'") from error
        held = sum(tensor.numel() * tensor.element_size() for tensor in field.network.state_dict().values())
        if held >= _LARGEST:
            raise ConfigError(
                f"{path} would hold {size_of(held)} of weights, and a file of ONNX ends at 2 GB; use .pt2"
            )
        points = sampled(field, CHECKED)
        with in_float32(field), _quiet():
            module = Portable(field).cpu()
            try:
                program = torch.onnx.export(
                    module,
                    (torch.from_numpy(points),),
                    dynamo=True,
                    opset_version=_OPSET,
                    input_names=["coordinates"],
                    output_names=["values"],
                    dynamic_shapes=({0: torch.export.Dim("rows")},),
                )
            except Exception as error:  # torch raises many kinds at what it cannot trace
                raise ConfigError(untraceable(field, "ONNX", error)) from error
            assert program is not None
            for node in program.model.graph.all_nodes():  # where in torch it came from, which is most of a small file
                node.metadata_props.clear()
                node.doc_string = None
            program.model.metadata_props.update(_about(field))
            program.save(aside, external_data=False)
            expected = field(points, physical=True)
        told = f"{path}: {size_of(aside.stat().st_size)}, opset {_OPSET}, {rows(field)}; {kept(field)}"
        try:
            import onnxruntime
        except ImportError:
            return f"{told}; not compared, for lack of onnxruntime"
        session = onnxruntime.InferenceSession(aside.read_bytes(), providers=["CPUExecutionProvider"])
        (values,) = session.run(None, {"coordinates": points})
        return f"{told}; {difference(field, np.asarray(values), expected, 'onnxruntime')}"


def _about(field: Field) -> dict[str, str]:
    """What a file says of its coordinates and values, in plain text."""
    names = field.units
    return {
        "coordinates": f"physical, {', '.join(names)}" if names else "physical",
        "values": f"stored values of dtype {field.dtype}, not rounded"
        + (f", clipped to {field.value_range[0]:g} … {field.value_range[1]:g}" if field.value_range else ""),
        "written by": "inrkit",
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter has to say of itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
