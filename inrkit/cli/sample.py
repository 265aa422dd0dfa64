"""inrkit sample"""

from __future__ import annotations

from pathlib import Path

import click

from inrkit.errors import ConfigError, escaped
from inrkit.files import require_place, written_whole
from inrkit.signals.modality import MODALITIES


@click.command()
@click.argument("modality")
@click.argument("out", type=click.Path(path_type=Path))
def sample(modality: str, out: Path) -> None:
    """Write a small signal of a modality to a file, for trying things out.

    MODALITY is a name of `inrkit list modalities`; OUT's suffix chooses the format.
    """
    plugin = MODALITIES.get(modality)
    require_place(out)
    if out.exists():
        raise ConfigError(f"{out} exists already; remove it first, or choose another name")
    with written_whole(out) as aside:
        plugin(plugin.Options()).sample(aside)
    click.echo(escaped(f"{out}: try inrkit fit {out}"))
