"""pt2: a field as a program of torch."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from inrkit.errors import ConfigError
from inrkit.exports.base import Export
from inrkit.exports.portable import CHECKED, Portable, in_float32, sampled
from inrkit.exports.telling import difference, kept, rows, size_of, untraceable
from inrkit.runs.field import Field


class TorchProgram(Export):
    """torch.export, for torch without inrkit: (N, D) float64 physical coordinates to (N, C) float32. Of any network."""

    def write(self, field: Field, aside: Path, path: Path) -> str:
        points = sampled(field, CHECKED)
        with in_float32(field), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                program = torch.export.export(
                    Portable(field).cpu(),
                    (torch.from_numpy(points),),
                    dynamic_shapes=({0: torch.export.Dim("rows")},),
                )
            except Exception as error:  # torch raises many kinds at what it cannot trace
                raise ConfigError(untraceable(field, "a program of torch", error)) from error
            torch.export.save(program, aside)
            expected = field(points, physical=True)
            with torch.inference_mode():
                values = torch.export.load(aside).module()(torch.from_numpy(points))
        told = f"{path}: {size_of(aside.stat().st_size)}, {rows(field)}; {kept(field)}"
        return f"{told}; {difference(field, values.numpy(), expected, 'it')}"
