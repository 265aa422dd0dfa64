"""inrkit fit"""

from __future__ import annotations

from pathlib import Path

import click

from inrkit.config import parse_overrides
from inrkit.reports.watch import Watch
from inrkit.runs.execute import execute
from inrkit.runs.request import prepare
from inrkit.runs.writers import Harmless


@click.command()
@click.argument("target")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run; default runs/NAME.")
@click.option("--resume", is_flag=True, help="Continue a run from its checkpoint; train.steps may be raised.")
@click.option("--device", help="cpu, cuda, cuda:1, or auto; the same as device=….")
@click.option("--watch", "watched", is_flag=True, help="Serve a page that grows with the fit, on this machine alone.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def fit(
    target: str,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: bool,
    device: str | None,
    watched: bool,
    quiet: bool,
) -> int:
    """Fit an INR to a signal and leave a run's folder behind.

    TARGET is the signal's file (its suffix tells the modality), a config file, or the name of a shipped config
    (`inrkit list configs`); with --resume also a run's folder. Any key of the config may follow as KEY=VALUE.

    \b
    inrkit fit photo.png
    inrkit fit photo.png selector.ratio=0.3 train.steps=500
    inrkit fit photo.png base=image-paper --out runs/paper
    inrkit fit photo.png --watch
    inrkit fit runs/photo --resume
    inrkit fit other.png init=runs/photo
    """
    layers = [parse_overrides(overrides)]
    if device is not None:
        layers.append({"device": device})
    config, run = prepare(target, out=out, resume=resume, layers=layers)
    if not watched:
        execute(config, run, resume=resume, quiet=quiet, interruptible=True)
    else:
        watch = Watch(config, run)
        click.echo(f"watch it at {watch.address}", err=quiet)
        with watch.serving():
            listener = Harmless("--watch", watch)
            execute(config, run, resume=resume, quiet=quiet, interruptible=True, listeners=[listener])
            listener.conclude(run.result)
    return 0 if run.result["status"] == "done" else 130
