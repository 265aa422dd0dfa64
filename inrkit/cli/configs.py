"""inrkit show, inrkit copy"""

from __future__ import annotations

from pathlib import Path

import click

from inrkit.batch.shipped import studies, study_text
from inrkit.config import commented_yaml, parse_overrides, read_yaml, resolve
from inrkit.errors import ConfigError, escaped
from inrkit.files import require_place, write_text


@click.command()
@click.argument("config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def show(config: str, overrides: tuple[str, ...]) -> None:
    """Print a shipped config, or a config file, with every key and what it does; or a shipped study.

    KEY=VALUE changes it first: `inrkit show image network=siren` has the keys of another network.
    """
    click.echo(_whole(config, overrides), nl=False)


@click.command()
@click.argument("config")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def copy(config: str, out: Path, overrides: tuple[str, ...]) -> None:
    """Write a shipped config to a file of your own, with every key and what it does; or a shipped study.

    KEY=VALUE changes it first. Edit the file and give it to `inrkit fit`, with data.path=… if it names no signal; a
    study to `inrkit batch`.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; remove it first, or choose another name")
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"{out} should end in .yaml, so that inrkit knows it for a config")
    require_place(out)
    write_text(out, _whole(config, overrides))
    command = f"batch {out}" if config in studies() else f"fit {out} data.path=…"
    click.echo(escaped(f"{out}: edit it, then inrkit {command}"))


def _whole(config: str, overrides: tuple[str, ...]) -> str:
    """All keys of a config; without a signal, `data` is left out."""
    if config in studies():
        if overrides:
            raise ConfigError(f"{config} is a study; leave out {overrides[0]}, and give it to inrkit batch")
        return study_text(config)
    is_file = Path(config).suffix.lower() in (".yaml", ".yml")
    layer = read_yaml(Path(config)) if is_file else {"base": config}
    layers = [layer, parse_overrides(overrides)]
    has_signal = any(isinstance(each.get("data"), dict) and "path" in each["data"] for each in layers)
    whole = resolve(layers if has_signal else [*layers, {"data": {"path": ""}}]).to_dict()
    if not has_signal:
        del whole["data"]
    return commented_yaml(whole)
