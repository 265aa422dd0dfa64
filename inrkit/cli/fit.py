"""inrkit fit"""

from __future__ import annotations

from pathlib import Path

import click

from inrkit.config import Config, parse_overrides
from inrkit.errors import ConfigError, InrkitError
from inrkit.reports.run_page import write_run_page
from inrkit.reports.watch import Watch
from inrkit.runs.execute import execute
from inrkit.runs.request import prepare
from inrkit.runs.run import Run
from inrkit.runs.wording import measured
from inrkit.runs.writers import Harmless


@click.command()
@click.argument("target")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run; default runs/NAME.")
@click.option("--resume", is_flag=True, help="Continue a run from its checkpoint; train.steps may be raised.")
@click.option("--device", help="cpu, cuda, cuda:1, xpu, mps, or auto; the same as device=….")
@click.option("--workers", type=click.IntRange(min=1), help="Cut the signal into regions, and fit so many at a time.")
@click.option("--launcher", help="What fits the regions: local (the default), or ray.")
@click.option("--address", help="Of a Ray cluster to join, whose nodes fit the regions.")
@click.option("--watch", "watched", is_flag=True, help="Serve a page that grows with the fit, on this machine alone.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def fit(
    target: str,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: bool,
    device: str | None,
    workers: int | None,
    launcher: str | None,
    address: str | None,
    watched: bool,
    quiet: bool,
) -> int:
    """Fit an INR to a signal and leave a run's folder behind.

    TARGET is the signal's file (its suffix tells the modality), a config file, or the name of a shipped config
    (`inrkit list configs`); with --resume also a run's folder. Any key of the config may follow as KEY=VALUE;
    TARGET may be left out where data.path=… names the signal.

    \b
    inrkit fit photo.png
    inrkit fit photo.png selector.ratio=0.3 train.steps=500
    inrkit fit photo.png base=image-paper --out runs/paper
    inrkit fit photo.png --watch
    inrkit fit huge.tif --workers 8
    inrkit fit runs/photo --resume
    inrkit fit other.png init=runs/photo
    """
    second = next((word for word in overrides if "=" not in word and Path(word).exists()), None)
    if second is not None:
        raise ConfigError(f"{second} is a second file, and a fit takes one; inrkit batch fits many, --out names a run")
    layers = [parse_overrides(overrides)]
    if device is not None:
        layers.append({"device": device})
    config, run = prepare(target, out=out, resume=resume, layers=layers)
    if workers or launcher or address or config.regions.values:
        if watched:
            raise ConfigError("--watch shows no fit region by region; leave it out")
        options = {"name": launcher or ("ray" if address else "local"), **({"address": address} if address else {})}
        _fit_regions(config, run, options, workers or 0, resume, quiet)
    elif not watched:
        execute(config, run, resume=resume, quiet=quiet, interruptible=True)
    else:
        watch = Watch(config, run, lambda address: click.echo(f"watch it at {address}", err=quiet))
        with watch.serving():
            listener = Harmless("--watch", watch)
            execute(config, run, resume=resume, quiet=quiet, interruptible=True, listeners=[listener])
            listener.conclude(run.result)
    return 0 if run.result["status"] == "done" else 130


def _fit_regions(config: Config, run: Run, launcher: dict[str, str], workers: int, resume: bool, quiet: bool) -> None:
    """Fit region by region, and say what there is to look at."""
    from inrkit.batch.regions import execute_regions, launcher_of  # slow to import

    execute_regions(config, run, launcher_of(launcher, workers), resume=resume, quiet=quiet)
    result = run.result
    opened = [run.reconstruction or run.folder]
    if config.log.report:
        try:
            opened.append(write_run_page(run, config=config))
        except (InrkitError, OSError) as error:  # the fit is not a failure for want of it
            click.echo(f"note: no page of the run: {error}", err=True)
    if quiet:
        return
    click.echo(f"{result['status']} after {result['steps']:,} steps: {measured(result['metrics'])}", err=True)
    if result["status"] == "interrupted":
        click.echo(f"go on with: inrkit fit {run.folder} --resume", err=True)
    for path in opened:
        click.echo(f"look at {path}", err=True)
