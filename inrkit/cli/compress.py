"""inrkit compress"""

from __future__ import annotations

import math
import re
from pathlib import Path

import click

from inrkit.errors import ConfigError, escaped
from inrkit.runs.compression import compress as compress_field
from inrkit.runs.wording import duration, measured

_UNITS = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "kib": 1 << 10, "m": 10**6, "mb": 10**6, "mib": 1 << 20}

_FEW_BITS = 3.0
"""A parameter, below which a smaller network is better at equal size."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--bits", type=float, help="Most bits a parameter, the whole file counted; 6 if nothing is asked for.")
@click.option("--db", type=float, help="Least PSNR in dB; the file is the smallest found.")
@click.option("--size", metavar="BYTES", help="Most bytes: 20000, 20kB, 20KiB, 1.5MB.")
@click.option(
    "--steps", type=int, help="Steps of training on the rounded weights; a quarter of the fit's, at most 500."
)
@click.option("--signal", type=click.Path(path_type=Path), help="Where the file that was fitted is now.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, xpu, mps, or auto.")
@click.option(
    "--trust",
    is_flag=True,
    help="Import what the field names as package.module:Name; what the run's config.yaml names is imported anyway.",
)
def compress(
    run: Path,
    out: Path,
    bits: float | None,
    db: float | None,
    size: str | None,
    steps: int | None,
    signal: Path | None,
    device: str,
    trust: bool,
) -> None:
    """Write a fitted signal to a small file, which renders and evaluates like any other field.

    RUN is a run's folder; OUT is the file to write, by custom with the suffix .inr. The weights are rounded, trained
    for a while through that rounding, and entropy coded. RUN may also be the file of a field, whose weights are
    rounded as they are, because the signal is not at hand.

    \b
    inrkit compress runs/photo photo.inr --bits 5
    inrkit compress runs/photo photo.inr --db 35
    inrkit compress runs/photo photo.inr --size 20kB
    inrkit render photo.inr photo.png
    inrkit evaluate photo.inr --against photo.png
    """

    def told(line: str) -> None:
        click.echo(line, err=True)

    most = None if size is None else _bytes(size)
    done = compress_field(
        run,
        out,
        bits=bits,
        db=db,
        size=most,
        steps=steps,
        signal=signal,
        device=device,
        trust=trust,
        told=told,
    )
    a_value = f"{done.bits_per_value:.3g} bits a value, " if done.values else ""
    click.echo(escaped(f"{out}: {done.size:,} bytes, {a_value}{done.bits_per_parameter:.2f} bits a parameter"))
    if done.bits_per_parameter < _FEW_BITS:
        fitting = 8 * done.size // 5
        click.echo(f"note: a network of about {fitting:,} parameters would be better at this size", err=True)
    if done.after:
        click.echo(f"before: {measured(done.before)}")
        click.echo(f"after:  {measured(done.after)}  ({done.steps} steps, {duration(done.seconds)})")
    else:
        click.echo("note: neither trained on nor measured, because a field's file alone has no signal", err=True)


def _bytes(given: str) -> int:
    """A size in bytes, with or without a unit."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-z]*)\s*", given.lower())
    number = float(match[1]) * _UNITS.get(match[2], math.nan) if match else math.nan
    if not math.isfinite(number):
        raise ConfigError(f"--size is '{given}'; it must be a number of bytes, like 20000, 20kB or 1.5MB")
    return int(number)
