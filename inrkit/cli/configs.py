"""inrkit show, inrkit copy"""

from __future__ import annotations

from pathlib import Path

import click

from inrkit.batch.shipped import studies, study_text
from inrkit.config import commented_yaml, read_yaml, resolve
from inrkit.errors import ConfigError, escaped
from inrkit.files import require_place, write_text


@click.command()
@click.argument("config")
def show(config: str) -> None:
    """Print a shipped config, or a config file, with every key and what it does; or a shipped study."""
    click.echo(_whole(config), nl=False)


@click.command()
@click.argument("config")
@click.argument("out", type=click.Path(path_type=Path))
def copy(config: str, out: Path) -> None:
    """Write a shipped config to a file of your own, with every key and what it does; or a shipped study.

    Edit it and give it to `inrkit fit`, with data.path=… if it names no signal; a study to `inrkit batch`.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; remove it first, or choose another name")
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"{out} should end in .yaml, so that inrkit knows it for a config")
    require_place(out)
    write_text(out, _whole(config))
    command = f"batch {out}" if config in studies() else f"fit {out} data.path=…"
    click.echo(escaped(f"{out}: edit it, then inrkit {command}"))


def _whole(config: str) -> str:
    """All keys of a config; without a signal, `data` is left out."""
    if config in studies():
        return study_text(config)
    is_file = Path(config).suffix.lower() in (".yaml", ".yml")
    layer = read_yaml(Path(config)) if is_file else {"base": config}
    has_signal = isinstance(layer.get("data"), dict) and "path" in layer["data"]
    whole = resolve([layer] if has_signal else [layer, {"data": {"path": ""}}]).to_dict()
    if not has_signal:
        del whole["data"]
    return commented_yaml(whole)
