"""inrkit cite"""

from __future__ import annotations

from pathlib import Path

import click

from inrkit.reports.citations import cited
from inrkit.runs.run import Run


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def cite(run: Path) -> None:
    """Print the BibTeX of exactly the methods that a run used.

    \b
    inrkit cite runs/photo > methods.bib
    """
    click.echo(cited(Run(run).config), nl=False)
