"""WandB: a run of Weights & Biases; without the internet with WANDB_MODE=offline, in the run's folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from inrkit.files import from_json, require_file, to_json, write_text
from inrkit.reports.trackers.base import Hyperparameters, Tracker

FILE = "wandb.json"
"""In the run's folder: what W&B calls the run, so that a fit that is resumed goes on there too."""


class WandB(Tracker):
    """Numbers, pictures, sounds, points of meshes and hyperparameters, for Weights & Biases.

    The environment variables of wandb apply; the project is "inrkit" unless WANDB_PROJECT names another. A fit that is
    resumed goes on with its run there. What W&B has of steps that are made again, it keeps.
    """

    package = "wandb"

    def open(self, name: str, hyperparameters: Hyperparameters, step: int) -> None:
        import wandb

        kept = self.run.folder / FILE
        earlier = _read(kept) if step else {}
        project = earlier.get("project", os.environ.get("WANDB_PROJECT", "inrkit"))
        self._run = wandb.init(
            project=project,
            id=earlier.get("id"),
            resume="allow" if earlier else None,
            name=name,
            dir=str(self.run.folder),
            config=dict(hyperparameters),
            reinit="create_new",  # a process may train many at a time
            settings=wandb.Settings(console="off"),
        )
        write_text(kept, to_json({"id": str(self._run.id), "project": project}) + "\n")

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


def _read(path: Path) -> dict[str, str]:
    """The id and the project of an earlier run; empty if there is none."""
    try:
        require_file(path)
        said = from_json(path.read_text(encoding="utf-8"))
        found = {key: said[key] for key in ("id", "project")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if all(isinstance(value, str) for value in found.values()) else {}
