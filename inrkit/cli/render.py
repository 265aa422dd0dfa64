"""inrkit render"""

from __future__ import annotations

from pathlib import Path

import click

from inrkit.device import choose_device
from inrkit.errors import ConfigError, escaped
from inrkit.files import require_place, written_whole
from inrkit.runs.run import load, made_from


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--scale", type=float, help="Factor on the original resolution.")
@click.option("--shape", metavar="H,W", help="Lengths of the axes instead of a factor.")
@click.option("--from", "start", metavar="A,B,...", help="Where the first values of a region lie, in physical units.")
@click.option("--to", "stop", metavar="A,B,...", help="Where the region ends; values lie short of it.")
@click.option("--step", metavar="S or S,S,...", help="From a value to the next, in physical units.")
@click.option("--extrapolate", is_flag=True, help="Let a region go beyond the signal, where values are made up.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, xpu, mps, or auto.")
@click.option("--trust", is_flag=True, help="Import a network that the field names as package.module:Name.")
def render(
    run: Path,
    out: Path,
    scale: float | None,
    shape: str | None,
    start: str | None,
    stop: str | None,
    step: str | None,
    extrapolate: bool,
    device: str,
    trust: bool,
) -> None:
    """Render a fitted signal, or a region of it, at any resolution, in any format that its modality writes.

    RUN is a run's folder, a field.safetensors or a compressed field. Without --scale, --shape and --step the original
    resolution is used.

    --from, --to and --step are in physical units, a number for each axis: seconds of a sound; rows and columns in
    pixels of a picture; (y, x) on the ground of a GeoTIFF; millimetres (x, y, z) of a scan; a mesh's own (x, y, z);
    seconds, rows and columns of a video. Values lie at from, from + step, … short of to. What is left empty is the
    signal's own end or step: of a video, --from 1.5,, --to 3,, is all of its picture from 1.5 s to 3 s. A single
    number is for all axes.

    \b
    inrkit render runs/speech part.wav --from 1.5 --to 2 --step 0.0001
    inrkit render runs/terrain part.tif --from 9000,3000 --to 7000,5000 --step 5
    """
    require_place(out, *made_from(run))
    field = load(run, device=choose_device(device), trust=trust)
    lengths = None if shape is None else _lengths(shape)
    region = {}
    if not (start is None and stop is None and step is None):
        if not (lengths is None and scale is None):
            raise ConfigError("a region's resolution is its --step; leave --scale and --shape out")
        ends = (_numbers(name, given) for name, given in (("--from", start), ("--to", stop), ("--step", step)))
        region = {"region": field.region(*ends, extrapolate=extrapolate)}
    with written_whole(out) as aside:
        written = field.modality.export(aside, field, lengths, scale, **region)
    click.echo(escaped(f"{out}: {written}"))


def _numbers(option: str, given: str | None) -> float | list[float | None] | None:
    """Numbers with commas between them, of which some may be left out; a single one stands for all axes."""
    if given is None:
        return None
    try:
        numbers = [float(number) if number.strip() else None for number in given.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} is '{given}'; it must be numbers with commas between them, like 1.5,20") from error
    return numbers[0] if len(numbers) == 1 else numbers


def _lengths(shape: str) -> tuple[int, ...]:
    try:
        return tuple(int(length) for length in shape.replace("x", ",").split(","))
    except ValueError as error:
        raise ConfigError(f"--shape is '{shape}'; it must be whole numbers, like 512,768") from error
