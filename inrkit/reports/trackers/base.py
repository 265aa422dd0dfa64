"""Tracker: the base class of writers that keep a run in the books of another program."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from inrkit.config import Config
from inrkit.errors import ConfigError
from inrkit.reports.views import Compared, colours_of, compare, surfaces_of, top_of
from inrkit.runs import drawing
from inrkit.runs.preview import Pace, Preview
from inrkit.runs.run import Run
from inrkit.runs.writers import Writer
from inrkit.selectors import Selection
from inrkit.signals.dataset import CoordinateDataset
from inrkit.training.member import Member

_LONGEST = 512
"""Pixels of a picture's longer side."""
_SOUND = 1 << 20
"""Samples of a sound that are kept."""

Hyperparameters = dict[str, str | float | int | bool]


class Tracker(Writer):
    """Keeps the numbers of a training while it goes on, pictures of the fit, and at the end the signal beside its fit.

    Numbers and pictures take one part in a hundred of the time each, at most; what each evaluation finds is kept in any
    case.

    Attributes:
        package: to import, after which its key in `log` and the extra of inrkit that installs it are called.

    Raises:
        ConfigError: the package is missing.
    """

    package: ClassVar[str]

    def __init__(self, config: Config, run: Run) -> None:
        super().__init__(config, run)
        try:
            importlib.import_module(self.package)
        except ImportError as error:
            raise ConfigError(f"log.{self.package} needs: pip install 'inrkit[{self.package}]'") from error
        self._dataset: CoordinateDataset | None = None
        self._preview: Preview | None = None
        self._paces = {"numbers": Pace(0.01, 0.5), "picture": Pace(0.01, 2.0)}
        self._last: tuple[Tensor, float] | None = None
        self._step = 0
        self._opened = False

    @abstractmethod
    def open(self, name: str, hyperparameters: Hyperparameters, step: int) -> None:
        """Begin, or go on.

        Args:
            name: of the run.
            hyperparameters: all settings but those of checkpoints and logs, by their full keys.
            step: that is done; 0 for a new run.
        """

    @abstractmethod
    def numbers(self, values: dict[str, float], step: int) -> None:
        """Keep numbers of a step, by their names."""

    @abstractmethod
    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Keep an (H, W, C) uint8 picture of one, three or four channels."""

    @abstractmethod
    def sound(self, name: str, samples: np.ndarray, rate: int, step: int) -> None:
        """Keep (T,) float32 samples in [−1, 1]."""

    @abstractmethod
    def surface(self, name: str, vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, step: int) -> None:
        """Keep a mesh of (V, 3) vertices with uint8 colours and (F, 3) faces, or points without faces."""

    @abstractmethod
    def close(self, metrics: dict[str, float], status: str) -> None:
        """End, with the last metrics, and how the run ended."""

    def on_start(self, member: Member) -> None:
        self._dataset, self._step = member.signal.dataset, member.step
        settings = {name: value for name, value in self.config.to_dict().items() if name not in ("checkpoint", "log")}
        self.open(self.run.folder.name, flat(settings), member.step)
        self._opened = True

    def on_selection(self, member: Member, selection: Selection, loss: Tensor) -> None:
        self._last = loss.detach(), len(selection.indices) / member.selector.count

    def on_evaluation(self, member: Member, row: dict[str, float]) -> None:
        values = {name: value for name, value in row.items() if name not in ("step", "seconds")}
        self.numbers({**self._now(member), **values}, member.step)

    def on_step(self, member: Member, selected: int) -> None:
        self._step = member.step
        if self._paces["numbers"].due:
            with self._paces["numbers"].spent():
                self.numbers(self._now(member), member.step)
        if self._paces["picture"].due:
            with self._paces["picture"].spent():
                self._preview = self._preview or Preview(member, self.config.modality.plugin.looks, _LONGEST)
                self.picture("growing", self._preview.pixels(), member.step)

    def conclude(self, result: dict[str, Any]) -> None:
        if not self._opened:
            return
        try:
            if result["status"] != "failed":
                self._show()
        finally:
            self.close({name: float(value) for name, value in result["metrics"].items()}, result["status"])

    def _now(self, member: Member) -> dict[str, float]:
        told = {"seconds": member.seconds["train"], "learning rate": float(member.optimizer.param_groups[0]["lr"])}
        if self._last is not None:
            told |= {"loss": float(self._last[0]), "share": self._last[1]}
        return told

    def _show(self) -> None:
        """Keep the signal beside its fit, as people look at its kind."""
        surfaces, step = surfaces_of(self.config, self.run), self._step
        if surfaces:
            top = top_of(surfaces)
            for name, surface in zip(("original", "fit"), surfaces, strict=True):
                vertices = surface.vertices.astype(np.float32)
                self.surface(name, vertices, surface.faces, colours_of(surface, top), step)
            return
        if self._dataset is None or self._dataset.grid_shape is None:
            return
        compared = compare(self.config, self.run, self._dataset)
        if compared is None:
            return
        if self.config.modality.plugin.looks == "sound" and len(compared.lengths) == 1:
            self._show_sound(compared)
        elif len(compared.lengths) > 1:
            self._show_picture(compared)

    def _show_sound(self, compared: Compared) -> None:
        for name, values in (("original", compared.original), ("fit", compared.fit)):
            if values is not None:
                samples = (values[:_SOUND].astype(np.float32).mean(axis=1) / compared.peak).clip(-1, 1)
                self.sound(name, samples, compared.rate(len(values)), self._step)

    def _show_picture(self, compared: Compared) -> None:
        for name, values in (("original", compared.original), ("fit", compared.fit)):
            if values is not None:
                image = drawing.as_image(compared.bytes(_plane(values)))
                self.picture(name, _pixels(drawing.reduced(image, _LONGEST)), self._step)
        if (errors := compared.errors) is not None:
            plane = _plane(errors[..., None])[..., 0]
            image = drawing.as_image(drawing.colours(plane, drawing.lightest(plane)))
            self.picture("error", _pixels(drawing.reduced(image, _LONGEST)), self._step)


def _plane(values: np.ndarray) -> np.ndarray:
    """(H, W, C): of more axes the last two, at the middle of the others."""
    while values.ndim > 3:
        values = values[len(values) // 2]
    return values


def _pixels(image: Any) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def flat(settings: Mapping[str, Any], before: str = "") -> Hyperparameters:
    """Nested settings by their full keys; what is neither a number nor a text is a text."""
    told: Hyperparameters = {}
    for name, value in settings.items():
        key = f"{before}{name}"
        if isinstance(value, Mapping):
            told |= flat(value, f"{key}.")
        else:
            told[key] = value if isinstance(value, str | float | int | bool) else str(value)
    return told
