"""inrkit evaluate"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import numpy as np

from inrkit.config import resolve
from inrkit.device import choose_device
from inrkit.errors import ConfigError, DataError, escaped
from inrkit.evaluation.between import noise_between
from inrkit.evaluation.evaluate import default_chunk, left_out
from inrkit.evaluation.evaluate import evaluate as evaluate_network
from inrkit.evaluation.places import Placed, leave_out_beyond, map_between
from inrkit.files import to_json
from inrkit.runs.build import evaluated_most, read_signal
from inrkit.runs.run import Run, load
from inrkit.runs.wording import measured
from inrkit.signals.bends import Bends
from inrkit.signals.signal import Signal


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path), help="Another file than the one that was fitted.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, xpu, mps, or auto.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--trust",
    is_flag=True,
    help="Import what the field names as package.module:Name; what the run's config.yaml names is imported anyway.",
)
def evaluate(run: Path, against: Path | None, device: str, as_json: bool, trust: bool) -> None:
    """Measure a fitted signal against the file it was fitted to, or against another one.

    RUN is a run's folder; or the file of a field, a compressed one for example, with --against.

    Another file may have another resolution and another extent: the field is evaluated where the file's values lie,
    in physical units such as seconds, millimetres or metres, and what lies beyond the signal that was fitted does not
    count in PSNR. Axes that merely count pixels or cells are taken to have the same extent in both. Of a signal larger
    than the run's log.evaluated, the same crops are measured as by the fit.
    """
    chosen = choose_device(device)
    if run.is_file():
        field = load(run, device=chosen, trust=trust)
        if against is None:
            raise ConfigError(f"{run} is a field alone, which does not say what it was fitted to; add --against FILE")
        modality = {"name": field.names["modality"], **field.modality_options}
        config = resolve([{"modality": modality, "data": {"path": str(against)}}])
    else:
        config = Run(run).config
        field = load(run, device=chosen, trust=trust)
    if against is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(against), weights=""))
    dataset = read_signal(config).dataset
    if (dataset.dimensions, dataset.channels) != (field.dimensions, field.channels):
        raise DataError(
            f"{config.data.path} has {dataset.dimensions} dimensions and {dataset.channels} channels, but the field "
            f"has {field.dimensions} and {field.channels}; give a file like the one that was fitted"
        )
    embedding = field.embedding
    units = config.modality.make().units(dataset.metadata, dataset.dimensions)
    between = None if against is None else map_between(dataset.affine, units, field.affine, field.units)
    bends = Bends.of(dataset.metadata), Bends.of(field.metadata)
    if against is not None and between is None and any(bends):
        between = np.eye(dataset.dimensions, dataset.dimensions + 1)
    if between is not None:
        embedding = Placed(embedding, between, bends)
        beyond = leave_out_beyond(dataset, between, bends)
        if beyond == 1:
            raise DataError(
                f"{config.data.path} lies elsewhere than what was fitted; give a file that overlaps with it"
            )
        if beyond:
            click.echo(
                f"note: {100 * beyond:.3g} % of {escaped(config.data.path)} lie beyond what was fitted", err=True
            )
    signal = Signal(dataset, field.transform, embedding).to(chosen)
    names, most = config.general.metrics, evaluated_most(config)
    for metric in left_out(names, dataset):
        click.echo(f"note: {metric} is left out: it is not defined where a part is not known", err=True)
    metrics = evaluate_network(field.network, signal, names, default_chunk(chosen, field.network), most)
    metrics |= config.modality.make().assess(field, Path(config.data.path))
    noise = noise_between(metrics, dataset, min(most, len(dataset)), field.network.options)
    if noise is not None:
        click.echo(f"note: {noise}", err=True)
    click.echo(to_json(metrics) if as_json else f"{escaped(config.data.path)}: {measured(metrics)}")
