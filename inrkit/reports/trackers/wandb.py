"""WandB: a run of Weights & Biases; without the internet with WANDB_MODE=offline, in the run's folder."""

from __future__ import annotations

import os

import numpy as np

from inrkit.reports.trackers.base import Hyperparameters, Tracker


class WandB(Tracker):
    """Numbers, pictures, sounds, points of meshes and hyperparameters, for Weights & Biases.

    The environment variables of wandb apply; the project is "inrkit" unless WANDB_PROJECT names another.
    """

    package = "wandb"

    def open(self, name: str, hyperparameters: Hyperparameters, step: int) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "inrkit"),
            name=name,
            dir=str(self.run.folder),
            config=dict(hyperparameters),
            reinit="create_new",  # a process may train many at a time
            settings=wandb.Settings(console="off"),
        )

    def numbers(self, values: dict[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        import wandb

        self._run.log({name: wandb.Image(pixels)}, step=step)

    def sound(self, name: str, samples: np.ndarray, rate: int, step: int) -> None:
        import wandb

        self._run.log({name: wandb.Audio(samples, sample_rate=rate)}, step=step)

    def surface(self, name: str, vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, step: int) -> None:
        import wandb

        self._run.log({name: wandb.Object3D(np.hstack([vertices, colours]).astype(np.float64))}, step=step)

    def close(self, metrics: dict[str, float], status: str) -> None:
        self._run.summary.update({f"final/{name}": value for name, value in metrics.items()} | {"status": status})
        self._run.finish(exit_code=int(status == "failed"))
