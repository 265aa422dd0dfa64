"""Steps to a PSNR from drawn weights, and from an encoder that was learned on other pictures.

Pictures of one size, side by side as channels, are fitted together: they share every layer but the last, whose rows
are a head for each. A new picture takes those layers and a last one of its own, as STRAINER does (Vyas et al., NeurIPS
2024).

    python tools/beginnings.py --learn 01.png 02.png 03.png 04.png --test 05.png 06.png 07.png 08.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import inrkit

RECIPE: dict[str, Any] = {
    "network": {
        "name": "siren",
        "hidden_features": 256,
        "hidden_layers": 3,
        "first_omega": 45,
        "weight_scale": 2.0,
    },
    "selector": {"name": "uniform", "draw": "quasi-random", "ratio": 0.06, "least": 8192},
    "optimizer": {"name": "soap", "lr": 7e-4, "beta1": 0.85, "beta2": 0.9},
    "metrics": ["psnr"],
    "compile": "never",
}
"""That of images."""


def picture(path: Path, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) pixels of a picture, turned to lie and reduced to W × H."""
    image = Image.open(path).convert("RGB")
    if image.height > image.width:
        image = image.transpose(Image.Transpose.ROTATE_90)
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


class Until(inrkit.Listener):
    """Ends a training at the first evaluation that reaches a PSNR, in dB."""

    def __init__(self, psnr: float) -> None:
        self.psnr = psnr
        self.step: int | None = None

    def on_evaluation(self, member: inrkit.Member, row: dict[str, float]) -> None:
        if row["psnr"] >= self.psnr and self.step is None:
            self.step = int(row["step"])
            member.stop()


def steps_to(pixels: np.ndarray, psnr: float, most: int, **beginning: Any) -> tuple[int | None, float]:
    """Steps to a PSNR, None if `most` do not reach it; and the PSNR after 20 steps.

    The learning rate stays, so that neither depends on how many steps are planned.
    """
    until = Until(psnr)
    run = inrkit.fit(
        pixels, schedule="constant", steps=most, every=5, callbacks=[until], quiet=True, **RECIPE, **beginning
    )
    early = next((row["psnr"] for row in run.history if row["step"] == 20), float("nan"))
    return until.step, early


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learn", nargs="+", type=Path, required=True, help="pictures that the encoder is learned on")
    parser.add_argument("--test", nargs="+", type=Path, required=True, help="pictures that begin with it")
    parser.add_argument("--size", nargs=2, type=int, default=(192, 128), help="width and height")
    parser.add_argument("--steps", type=int, default=450, help="of the encoder's training")
    parser.add_argument("--psnr", type=float, default=35.0, help="what is to be reached, dB")
    parser.add_argument("--most", type=int, default=600, help="steps after which a fit gives up")
    asked = parser.parse_args()
    size = (asked.size[0], asked.size[1])
    many = np.concatenate([picture(path, size) for path in asked.learn], axis=-1)
    schedule = {"name": "polynomial", "power": 1.5, "warmup": 0.05}
    shared = inrkit.fit(many, modality="array", schedule=schedule, steps=asked.steps, every=50, quiet=True, **RECIPE)
    one = inrkit.fit(
        picture(asked.learn[0], size), schedule=schedule, steps=asked.steps, every=50, quiet=True, **RECIPE
    )
    print(f"encoder of {len(asked.learn)}: {shared.metrics['psnr']:.2f} dB, of one: {one.metrics['psnr']:.2f} dB")
    print(
        f"| picture | drawn | one picture's weights | encoder of {len(asked.learn)} | the same, PSNR after 20 steps |"
    )
    print("|---|---|---|---|---|")
    for path in asked.test:
        pixels = picture(path, size)
        results = [
            steps_to(pixels, asked.psnr, asked.most),
            steps_to(pixels, asked.psnr, asked.most, init=one),
            steps_to(pixels, asked.psnr, asked.most, init=shared, init_skip=["last"]),
        ]
        shown = [str(step) if step is not None else f"over {asked.most}" for step, _ in results]
        early = ", ".join(f"{psnr:.1f}" for _, psnr in results)
        print(f"| {path.stem} | {' | '.join(shown)} | {early} |", flush=True)


if __name__ == "__main__":
    main()
