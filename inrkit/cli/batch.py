"""inrkit batch"""

from __future__ import annotations

from pathlib import Path

import click

from inrkit.batch import RUNNABLE, read_study, run_study
from inrkit.batch.plan import plan
from inrkit.errors import ConfigError, InrkitError
from inrkit.reports.study_page import write_study_page


@click.command()
@click.argument("study")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results; default studies/NAME.")
@click.option("--workers", type=click.IntRange(min=1), help="Jobs at a time; the same as launcher.workers=….")
@click.option("--launcher", help="What runs the jobs; the same as launcher=….")
@click.option("--address", help="Of a Ray cluster to join, with --launcher ray; the same as launcher.address=….")
@click.option("--only", help="Run jobs of these statuses only: FAILED, INTERRUPTED, PENDING, with commas between.")
@click.option("--limit", type=click.IntRange(min=0), help="Run so many jobs at most, and leave the others pending.")
@click.option("--retries", type=click.IntRange(min=0), help="Try a failed job again; the same as job.retries=….")
@click.option("--dry-run", is_flag=True, help="Print what would be run and how long it would take; write nothing.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def batch(
    study: str,
    overrides: tuple[str, ...],
    out: Path | None,
    workers: int | None,
    launcher: str | None,
    address: str | None,
    only: str | None,
    limit: int | None,
    retries: int | None,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Run a study: many fits over files, selectors, networks, seeds, any config key.

    STUDY is a YAML file, or the name of a shipped study (`inrkit list studies`). Any key of the config may follow as
    KEY=VALUE; for a key of the study's matrix, VALUE is its values. Run again, a study makes only what is missing,
    failed or changed.

    \b
    inrkit batch study.yaml --workers 2
    inrkit batch study.yaml --dry-run
    inrkit batch study.yaml --only failed --retries 1
    inrkit batch selectors 'data.path=photos/*.png' 'seed=[0,1,2]' train.steps=2000
    """
    words = [*overrides]
    if launcher is not None:
        words.insert(0, f"launcher={launcher}")  # below its options
    if address is not None:
        words.append(f"launcher.address={address}")
    if workers is not None:
        words.append(f"launcher.workers={workers}")
    if retries is not None:
        words.append(f"job.retries={retries}")
    statuses = _statuses(only)
    folder = out if out is not None else Path("studies") / Path(study).stem
    asked = read_study(study, words, folder)
    if dry_run:
        for line in plan(asked, folder, statuses, limit):
            click.echo(line)
        return 0
    code = run_study(asked, folder, only=statuses, limit=limit, quiet=quiet)
    _write_page(folder, quiet)
    return code


def _write_page(folder: Path, quiet: bool) -> None:
    """Write report.html; the study is not a failure for want of it."""
    try:
        path = write_study_page(folder)
    except (InrkitError, OSError) as error:
        click.echo(f"note: no page of the study: {error}", err=True)
        return
    if not quiet:
        click.echo(f"look at {path}")


def _statuses(only: str | None) -> tuple[str, ...]:
    if only is None:
        return RUNNABLE
    statuses = tuple(word.strip().lower() for word in only.split(","))
    for status in statuses:
        if status not in RUNNABLE:
            raise ConfigError(f"--only is '{status}'; it must be one or more of: {', '.join(RUNNABLE)}")
    return statuses
