"""inrkit render"""

from __future__ import annotations

from pathlib import Path

import click

from inrkit.device import choose_device
from inrkit.errors import ConfigError
from inrkit.files import written_whole
from inrkit.runs.run import load


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--scale", type=float, help="Factor on the original resolution.")
@click.option("--shape", metavar="H,W", help="Lengths of the axes instead of a factor.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, or auto.")
@click.option("--trust", is_flag=True, help="Import a network that the field names as package.module:Name.")
def render(run: Path, out: Path, scale: float | None, shape: str | None, device: str, trust: bool) -> None:
    """Render a fitted signal at any resolution, in any format that its modality writes.

    RUN is a run's folder or a field.safetensors. Without --scale and --shape the original resolution is used.
    """
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent} is not a folder; make it first, or choose another")
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; give the name of a file to write")
    field = load(run, device=choose_device(device), trust=trust)
    lengths = None if shape is None else _lengths(shape)
    with written_whole(out) as aside:
        written = field.modality.export(aside, field, lengths, scale)
    click.echo(f"{out}: {written}")


def _lengths(shape: str) -> tuple[int, ...]:
    try:
        return tuple(int(length) for length in shape.replace("x", ",").split(","))
    except ValueError as error:
        raise ConfigError(f"--shape is '{shape}'; it must be whole numbers, like 512,768") from error
