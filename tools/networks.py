"""Compare the networks: `python tools/networks.py [PICTURE]` fits a reduced picture with each, on one CPU thread.

Each network tries a quarter of, once and four times the learning rate published for it, on a short run, and fits
with the best of them: Adam, all pixels at every step, the rate falling along half a cosine. `--first` compares
published first frequencies with those from the signal's spectrum instead, on the picture and on a chirp.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from inrkit import NETWORKS, CoordinateDataset
from inrkit.networks import Network
from inrkit.signals.signal import Signal
from inrkit.signals.transforms import MinMax, MinMaxOptions

RATES = {
    "siren": 1e-4,
    "finer": 5e-4,
    "finer-gauss": 1e-3,
    "finer-wire": 1e-3,
    "wire": 5e-3,
    "gauss": 5e-3,
    "pe-mlp": 1e-3,
    "fourier-features": 1e-3,
    "mfn-fourier": 1e-2,
    "mfn-gabor": 1e-2,
    "bacon": 5e-3,
    "hash-grid": 1e-2,
}
FIRST = {
    "siren": "first_omega",
    "finer": "first_omega",
    "finer-wire": "first_omega",
    "pe-mlp": "octaves",
    "fourier-features": "sigma",
    "mfn-fourier": "input_scale",
    "mfn-gabor": "input_scale",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?", type=Path, help="skimage's astronaut if none is given")
    parser.add_argument("--side", type=int, default=64, help="the picture is reduced to this many pixels, squared")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--trial", type=int, default=60, help="steps for which each learning rate is tried")
    parser.add_argument("--only", nargs="+", choices=sorted(RATES), default=sorted(RATES))
    parser.add_argument("--first", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    signal = picture(arguments.picture, arguments.side)
    if arguments.first:
        compare_first(signal, chirp(), [name for name in arguments.only if name in FIRST], arguments.steps)
    else:
        compare(signal, arguments.only, arguments.steps, arguments.trial)


def compare(signal: Signal, names: list[str], steps: int, trial: int) -> None:
    print("| network | parameters | rate | PSNR, dB | seconds | dB at each rate tried |\n|---|---|---|---|---|---|")
    for name in names:
        tried = {rate: fit(name, signal, rate, trial)[0] for rate in (RATES[name] * by for by in (0.25, 1, 4))}
        best = max(tried, key=lambda rate: (math.isfinite(tried[rate]), tried[rate]))
        psnr, seconds, network = fit(name, signal, best, steps)
        count = sum(parameter.numel() for parameter in network.parameters())
        rates = ", ".join(f"{rate:g}: {value:.1f}" for rate, value in tried.items())
        print(f"| {name} | {count:,} | {best:g} | {psnr:.2f} | {seconds:.0f} | {rates} |", flush=True)


def compare_first(still: Signal, sound: Signal, names: list[str], steps: int) -> None:
    print("| network | option | picture, published | from the picture | chirp, published | from the chirp |")
    print("|---|---|---|---|---|---|")
    for name in names:
        cells = []
        for signal in (still, sound):
            for given in ({}, {FIRST[name]: 0}):
                psnr, _, network = fit(name, signal, RATES[name], steps, **given)
                cells.append(f"{psnr:.2f} ({getattr(network.options, FIRST[name]):.4g})")
        print(f"| {name} | `{FIRST[name]}` | {' | '.join(cells)} |", flush=True)


def fit(name: str, signal: Signal, rate: float, steps: int, **given: float) -> tuple[float, float, Network]:
    """PSNR in dB over the range of the network's values, processor seconds of the steps, and the network."""
    plugin = NETWORKS.get(name)
    torch.manual_seed(0)
    options = plugin.fitted(plugin.Options(**given), signal)
    network = plugin(options, signal.dataset.dimensions, signal.dataset.channels)
    whole = slice(0, len(signal))
    coordinates, targets = signal.inputs(whole), signal.targets(whole)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    start = time.process_time()
    for _ in range(steps):
        loss = (network(coordinates) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    seconds = time.process_time() - start
    with torch.no_grad():
        error = (network(coordinates) - targets).square().mean().item()
    return 10 * math.log10(4 / error) if math.isfinite(error) else math.nan, seconds, network


def picture(path: Path | None, side: int) -> Signal:
    if path is None:
        from skimage.data import astronaut

        image = Image.fromarray(astronaut())
    else:
        image = Image.open(path).convert("RGB")
    values = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))
    return with_range(CoordinateDataset(values))


def chirp() -> Signal:
    """A quarter of a second at 8 kHz whose tone rises from 50 to 1500 Hz."""
    seconds = np.arange(2000) / 8000
    phase = 2 * np.pi * (50 * seconds + (1500 - 50) * 2 * seconds**2)
    return with_range(CoordinateDataset(np.sin(phase).astype(np.float32)[:, None]))


def with_range(dataset: CoordinateDataset) -> Signal:
    return Signal(dataset, MinMax.fit(MinMaxOptions(), dataset))


if __name__ == "__main__":
    main()
