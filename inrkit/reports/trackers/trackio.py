"""Trackio: a run of trackio, in its database on this machine."""

from __future__ import annotations

import contextvars
import os

import numpy as np

from inrkit.reports.trackers.base import Hyperparameters, Tracker


class Trackio(Tracker):
    """Numbers, pictures, sounds, points of meshes and hyperparameters, for trackio.

    The environment variables of trackio apply; the project is "inrkit" unless TRACKIO_PROJECT names another.
    """

    package = "trackio"

    def open(self, name: str, hyperparameters: Hyperparameters, step: int) -> None:
        import trackio

        # In a context of its own: `init` ends the run that it finds in the present one.
        self._run = contextvars.copy_context().run(
            trackio.init,
            os.environ.get("TRACKIO_PROJECT", "inrkit"),
            name=name,
            config=dict(hyperparameters),
            resume="allow" if step else "never",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def numbers(self, values: dict[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        import trackio

        self._run.log({name: trackio.Image(pixels if pixels.shape[2] > 1 else pixels[..., 0])}, step=step)

    def sound(self, name: str, samples: np.ndarray, rate: int, step: int) -> None:
        import trackio

        self._run.log({name: trackio.Audio(samples, sample_rate=rate)}, step=step)

    def surface(self, name: str, vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, step: int) -> None:
        import trackio

        self._run.log({name: trackio.Object3D(np.hstack([vertices, colours]).astype(np.float64))}, step=step)

    def close(self, metrics: dict[str, float], status: str) -> None:
        self._run.log({f"final/{name}": value for name, value in metrics.items()} | {"status": status}, step=self._step)
        self._run.finish()
