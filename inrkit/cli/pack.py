"""inrkit pack"""

from __future__ import annotations

from pathlib import Path

import click

from inrkit.batch import pack as packed
from inrkit.errors import escaped


@click.command()
@click.argument("study", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="STUDY...")
@click.argument("file", type=click.Path(path_type=Path))
def pack(study: tuple[Path, ...], file: Path) -> None:
    """Write the weights of many runs as one data set, to learn from networks rather than from signals.

    STUDY is the folder of a study, of a run, or one that runs are in; several may be given. FILE ends in .safetensors,
    which inrkit.Weights reads as a torch Dataset, or in .parquet. A run is a row of it; all must be of one network.
    Runs that are not done are left out.

    \b
    inrkit pack studies/thumbnails weights.safetensors
    inrkit pack runs/a runs/b weights.safetensors
    """
    done = packed(study, file)
    if done.left_out:
        click.echo(f"note: {done.left_out} of {done.left_out + done.runs} runs are not done and left out", err=True)
    click.echo(escaped(f"{file}: {done.runs:,} runs of {done.weights:,} weights each, {file.stat().st_size:,} bytes"))
