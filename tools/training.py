"""Compare optimizers and value transforms on a picture: `OMP_NUM_THREADS=1 python tools/training.py`.

Each fits the astronaut of scikit-image at 96×96 by a SIREN 3×256 of weight scale 2, all coordinates at each step. An
optimizer is tried at three learning rates, warmed up and then lowered along a cosine; L-BFGS at three step lengths,
which stay, and with fewer steps, for about as many evaluations of the loss. AdamW without weight decay is Adam, and
left out.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.data import astronaut
from skimage.transform import resize

import inrkit
from inrkit import OPTIMIZERS, TRANSFORMS, Listener, Member

RATES = {
    "adam": (3e-4, 1e-3, 3e-3),
    "lbfgs": (0.3, 1.0, 3.0),
    "muon": (3e-4, 1e-3, 3e-3),
    "soap": (3e-4, 1e-3, 3e-3),
}
COSINE = {"name": "cosine", "warmup": 0.05}
TRANSFORMED = {"name": "soap", "lr": 1e-3}
"""The optimizer that transforms are compared with: what the image preset trains by."""
EVALUATIONS_OF_A_SEARCH = 6


class Evaluations(Listener):
    """Counts how often the whole signal passes forwards and backwards through the network."""

    def __init__(self) -> None:
        self.count = 0.0

    def on_start(self, member: Member) -> None:
        forward = member.forward

        def counting(coordinates: torch.Tensor) -> torch.Tensor:
            self.count += torch.is_grad_enabled() * len(coordinates) / len(member.signal)
            return forward(coordinates)

        member.forward = counting


def fit(picture: Path, out: Path, steps: int, **options: Any) -> tuple[float, int]:
    """PSNR in dB, and evaluations of the loss."""
    evaluations = Evaluations()
    run = inrkit.fit(
        picture,
        out=out,
        network={"name": "siren", "hidden_layers": 3, "hidden_features": 256, "weight_scale": 2.0},
        selector="full",
        objective="mse",
        metrics=["psnr"],
        steps=steps,
        precision="float32",
        device="cpu",
        log={"every": steps},
        callbacks=[evaluations],
        **options,
    )
    return run.metrics["psnr"], round(evaluations.count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--only", choices=("optimizers", "transforms"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = folder / "astronaut.png"
        pixels = resize(astronaut(), (96, 96), anti_aliasing=True)
        Image.fromarray(np.rint(255 * pixels).astype(np.uint8)).save(picture)
        if arguments.only != "transforms":
            print("| optimizer | learning rates | PSNR, dB | best | evaluations |\n|---|---|---|---|---|")
            for optimizer in RATES:
                line_search = OPTIMIZERS.get(optimizer).reevaluates
                steps = arguments.steps // EVALUATIONS_OF_A_SEARCH if line_search else arguments.steps
                more: Any = {"steps": steps, "schedule": "constant" if line_search else COSINE}
                key = "step_length" if line_search else "lr"
                found = [
                    fit(picture, folder / f"{optimizer}-{rate}", optimizer={"name": optimizer, key: rate}, **more)
                    for rate in RATES[optimizer]
                ]
                best = max(found)
                rates = ", ".join(f"{rate:g}" for rate in RATES[optimizer])
                values = ", ".join(f"{psnr:.2f}" for psnr, _ in found)
                print(f"| {optimizer} | {rates} | {values} | {best[0]:.2f} | {best[1]} |", flush=True)
        if arguments.only != "optimizers":
            print("\n| transform | PSNR, dB |\n|---|---|")
            for transform in TRANSFORMS.names():
                if transform != "identity":  # an 8-bit picture as it is lies far outside what a SIREN starts with
                    more = {"steps": arguments.steps, "schedule": COSINE, "optimizer": TRANSFORMED}
                    psnr, _ = fit(picture, folder / transform, transform=transform, **more)
                    print(f"| {transform} | {psnr:.2f} |", flush=True)


if __name__ == "__main__":
    main()
