"""Make docs/picture.png: a signal, what EVOS keeps training on, the reconstruction, and a detail rendered larger."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import inrkit

SIDE = 256
DETAIL = (150, 130)  # row and column of the upper left corner of the detail
SIZE = 32


class Watch(inrkit.Listener):
    """Keeps how often each coordinate survived."""

    def on_start(self, member: inrkit.Member) -> None:
        self.counts = torch.zeros(len(member.signal))
        self.times = 0

    def on_step(self, member: inrkit.Member, selected: int) -> None:
        ranking = member.selector.state_dict()["ranking"]
        self.counts[ranking] += 1
        self.times += 1


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        signal = Path(folder) / "signal.png"
        image = inrkit.MODALITIES.get("image")
        image(image.Options()).sample(signal)
        watch = Watch()
        options = {"base": "image-single", "selector": "evos"}
        run = inrkit.fit(signal, out=Path(folder) / "run", callbacks=[watch], quiet=False, **options)
        field = run.field
        fitted = f"fitted in {run.result['seconds']['train']:.0f} s: {run.metrics['psnr']:.1f} dB"
        original = np.asarray(Image.open(signal))
        reconstruction = field.render()
        rows, columns = np.meshgrid(
            np.linspace(DETAIL[0], DETAIL[0] + SIZE, SIDE),
            np.linspace(DETAIL[1], DETAIL[1] + SIZE, SIDE),
            indexing="ij",
        )
        detail = field(np.stack([rows, columns], axis=-1), physical=True).clip(0, 255).astype(np.uint8)
    heat = (watch.counts / watch.times).view(SIDE, SIDE).numpy() ** 0.5
    trained = (np.stack([heat, heat**1.5 * 0.75, heat**3 * 0.4], axis=-1) * 255).astype(np.uint8)
    panels = {
        "the signal": original,
        "what EVOS trains on": trained,
        fitted: reconstruction,
        "a detail, 8 times finer": detail,
    }
    sheet = Image.new("RGB", (4 * SIDE + 30, SIDE + 24), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, pixels) in enumerate(panels.items()):
        left = number * (SIDE + 10)
        sheet.paste(Image.fromarray(pixels), (left, 24))
        draw.text((left + 2, 4), title, fill="black", font_size=14)
    sheet.save("docs/picture.png")


if __name__ == "__main__":
    main()
