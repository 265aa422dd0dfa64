"""inrkit list"""

from __future__ import annotations

import inspect

import click

from inrkit.batch import studies
from inrkit.batch.shipped import study_comment
from inrkit.config import preset_comment, presets
from inrkit.config.schema import KINDS
from inrkit.errors import ConfigError
from inrkit.plugins.registry import Registry

_KINDS = {kind.plural: kind.registry for kind in KINDS}

_FILES = {
    "configs": lambda: [(name, preset_comment(name)) for name in presets()],
    "studies": lambda: [(name, study_comment(name)) for name in studies()],
}


@click.command(
    "list",
    help="List what can be chosen by name, the plug-ins of other packages included.\n\n"
    f"KIND is one of {', '.join([*_KINDS, *_FILES])}; all of them if none is given.",
)
@click.argument("kind", required=False, metavar="[KIND]", type=click.Choice([*_KINDS, *_FILES]))
def list_(kind: str | None) -> None:
    for each in [kind] if kind else [*_KINDS, *_FILES]:
        if not kind:
            click.echo(f"{each}:")
        rows = _FILES[each]() if each in _FILES else _plugins(_KINDS[each])
        width = max((len(name) for name, _ in rows), default=0)
        for name, about in rows:
            click.echo(f"{'' if kind else '  '}{name:<{width}}  {about}")


def _plugins(registry: Registry) -> list[tuple[str, str]]:
    rows = []
    for name in registry.names():
        try:
            about = (inspect.getdoc(registry.get(name)) or "").partition("\n\n")[0].replace("\n", " ")
        except ConfigError as error:
            about = f"broken: {error}"
        rows.append((name, about))
    return rows
