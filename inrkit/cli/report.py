"""inrkit report"""

from __future__ import annotations

from pathlib import Path

import click

from inrkit.errors import ConfigError
from inrkit.reports.run_page import write_run_page
from inrkit.reports.study_page import write_study_page
from inrkit.runs.run import Run


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write report.html, a page to look at, of a run or of a study. It opens from disk, and needs no network.

    FOLDER is that of a run, or of a study.

    \b
    inrkit report runs/photo
    """
    if Run(folder).exists:
        click.echo(f"look at {write_run_page(Run(folder))}")
    elif (folder / "results.jsonl").exists():
        click.echo(f"look at {write_study_page(folder)}")
    else:
        raise ConfigError(f"{folder} is neither a run nor a study; give the folder of a fit or of a batch")
