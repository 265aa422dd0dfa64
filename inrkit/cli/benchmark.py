"""inrkit benchmark"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from inrkit.files import to_json
from inrkit.runs.benchmark import benchmark as measure
from inrkit.runs.wording import duration


@click.command()
@click.argument("words", nargs=-1, metavar="[CONFIG|FILE] [KEY=VALUE]...")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Measure steps for so long.",
)
@click.option("--device", help="cpu, cuda, cuda:1, xpu, mps, or auto; the same as device=….")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def benchmark(words: tuple[str, ...], seconds: float, device: str | None, as_json: bool) -> None:
    """Measure how fast this machine fits: its matrix products, a training's steps, and where their time goes.

    CONFIG is a shipped config (`inrkit list configs`; image, if none is given), fitted to a sample that the program
    makes, or a config file; FILE is a signal. Any key of the config may follow as KEY=VALUE. No run is left behind.

    \b
    inrkit benchmark
    inrkit benchmark audio
    inrkit benchmark photo.png train.precision=float32 selector=uniform
    """
    named = bool(words) and "=" not in words[0]
    target, overrides = (words[0], words[1:]) if named else ("image", words)
    report = measure(target, overrides=overrides, seconds=seconds, device=device)
    if as_json:
        click.echo(to_json(report))
        return
    for title, value in _rows(report):
        click.echo(f"{title:<28}{value}".rstrip())


def _rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The report as lines, each with a name and a value; a heading has no value."""
    signal, fit, step = report["signal"], report["fit"], report["step"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lattice = f" ({'×'.join(map(str, signal['shape']))})" if signal["shape"] else ""
    yield "device", f"{report['device']}; {versions}"
    yield "signal", f"{signal['modality']} {signal['source']}, {signal['coordinates']:,} coordinates{lattice}"
    compiled = ", compiled" if fit["compiled"] else ""
    yield (
        "fit",
        f"{fit['network']}, {fit['selector']} selection, {fit['optimizer']}, {fit['precision']} products{compiled}",
    )
    yield "", ""
    yield "matrix products", ""
    for precision, peak in report["peaks"].items():
        best = f"square {_rate(peak['square'])}, a layer of 256 {_rate(peak['layer'])}"
        yield f"  {precision}", best
    yield "", ""
    first = report["first_step"]
    yield "first step", f"{duration(first['seconds'])}, {first['coordinates']:,} coordinates"
    pace = f"{1000 * step['seconds']:.3g} ms" if step["seconds"] < 1 else duration(step["seconds"])
    yield "a step", f"{pace}, {step['coordinates']:,.0f} coordinates (mean of {step['steps']:,})"
    yield "coordinates a second", f"{step['coordinates_per_second']:,.0f}"
    yield "arithmetic", f"{_rate(step['teraflops'])}, {step['share_of_peak']:.0%} of the {fit['precision']} peak"
    yield "peak memory", f"{report['peak_memory'] / 2**30:.2f} GiB"
    yield "", ""
    yield "a step's time", ""
    for part, share in report["shares"].items():
        yield f"  {part}", f"{share:.1%}"


def _rate(teraflops: float) -> str:
    return f"{teraflops:.3g} TFLOP/s" if teraflops >= 1 else f"{1000 * teraflops:.3g} GFLOP/s"
