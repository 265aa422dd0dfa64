"""inrkit export"""

from __future__ import annotations

from pathlib import Path

import click

from inrkit.errors import escaped
from inrkit.exports import export as exported


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--trust", is_flag=True, help="Import a network that the field names as package.module:Name.")
def export(run: Path, file: Path, trust: bool) -> None:
    """Write a fitted field as a file that other programs can call; the ending of FILE says as what.

    \b
    .html   a page in which the network itself runs, to zoom, turn, slice and listen
    .onnx   for the runtimes of ONNX: (rows, D) coordinates in physical units to (rows, C) values
    .pt2    the same for torch alone, without inrkit
    .glsl   the function as text for a shader

    RUN is a run's folder or a field.safetensors. Each file gives values at any coordinate, in the signal's physical
    units, tiles and their blending included. `inrkit list exports` lists those of other packages too.

    \b
    inrkit export runs/photo photo.html
    """
    click.echo(escaped(exported(run, file, trust=trust)))
