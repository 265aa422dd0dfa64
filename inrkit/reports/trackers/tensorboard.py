"""TensorBoard: an event file in the run's folder, for `tensorboard --logdir runs`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from inrkit.reports.trackers.base import Hyperparameters, Tracker

FOLDER = "tensorboard"
"""In the run's folder."""


class TensorBoard(Tracker):
    """Numbers, pictures, sounds, meshes and hyperparameters, for TensorBoard."""

    package = "tensorboard"

    def open(self, name: str, hyperparameters: Hyperparameters, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        again: dict[str, Any] = {"purge_step": step + 1} if step else {}
        self._writer = SummaryWriter(str(self.run.folder / FOLDER), **again)
        self._hyperparameters = hyperparameters

    def numbers(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name.replace(" ", "_"), value, step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def sound(self, name: str, samples: np.ndarray, rate: int, step: int) -> None:
        self._writer.add_audio(name, samples, step, sample_rate=rate)

    def surface(self, name: str, vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, step: int) -> None:
        self._writer.add_mesh(
            name, vertices[None], colours[None], faces[None].astype(np.int32) if len(faces) else None, global_step=step
        )

    def close(self, metrics: dict[str, float], status: str) -> None:
        from torch.utils.tensorboard.summary import hparams

        # `SummaryWriter.add_hparams` would make a second run of the same name below the first.
        finite = {f"final/{name}": value for name, value in metrics.items() if math.isfinite(value)}
        for summary in hparams({**self._hyperparameters, "status": status}, finite):
            self._writer._get_file_writer().add_summary(summary)
        for name, value in finite.items():
            self._writer.add_scalar(name, value, self._step)
        self._writer.close()
