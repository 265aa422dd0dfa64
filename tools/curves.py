"""Plot PSNR over steps, or over seconds, of several runs: `python tools/curves.py OUT.png LABEL=RUN[,RUN…] …`.

Runs of one label are seeds of one setting: their mean is drawn, with a band from the lowest to the highest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from inrkit import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("groups", nargs="+", metavar="LABEL=RUN[,RUN…]")
    parser.add_argument("--over", choices=("step", "seconds"), default="step")
    parser.add_argument("--log", action="store_true", help="a logarithmic axis of steps or seconds")
    parser.add_argument("--points", help="published points, STEP:PSNR,STEP:PSNR,…, or SECONDS:PSNR", default="")
    parser.add_argument("--title", default="")
    arguments = parser.parse_args()

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for group in arguments.groups:
        label, _, runs = group.partition("=")
        histories = [Run(folder).history for folder in runs.split(",")]
        x = np.mean([[row[arguments.over] for row in history] for history in histories], axis=0)
        psnr = np.array([[row["psnr"] for row in history] for history in histories])
        (line,) = axes.plot(
            x, psnr.mean(axis=0), label=f"{label} ({len(histories)} seeds)" if len(histories) > 1 else label
        )
        axes.fill_between(x, psnr.min(axis=0), psnr.max(axis=0), color=line.get_color(), alpha=0.2)
        print(f"{label}: " + ", ".join(f"{at:g}: {value:.2f}" for at, value in zip(x, psnr.mean(axis=0), strict=True)))
    if arguments.points:
        points = [tuple(map(float, point.split(":"))) for point in arguments.points.split(",")]
        axes.plot(*zip(*points, strict=True), "k+", markersize=9, label="published code")
    axes.set(xlabel=arguments.over, ylabel="PSNR, dB", title=arguments.title)
    if arguments.log:
        axes.set_xscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    main()
