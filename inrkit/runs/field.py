"""Field: a trained INR that a user can call, render, save and load."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from inrkit.errors import ConfigError, DataError, InrkitError
from inrkit.evaluation.evaluate import decoded, default_chunk
from inrkit.files import to_json, written_whole
from inrkit.networks import NETWORKS, Network, precision_of, set_precision
from inrkit.plugins.options import parse
from inrkit.signals.embeddings import EMBEDDINGS, Embedding
from inrkit.signals.lattice import lattice_coordinates, slabs
from inrkit.signals.modality import MODALITIES, Modality
from inrkit.signals.transforms import TRANSFORMS, ValueTransform

_FORMAT = 1


@dataclass
class Field:
    """A network with everything that turns its numbers into the signal.

    Args:
        network: (…, E) network inputs to (…, C) values in the network's range.
        embedding: (…, D) coordinates in [−1, 1]^D to (…, E) network inputs.
        transform: from stored values to the network's range.
        names: what network, embedding, transform and modality are called in their registries.
        modality_options: the modality's options, in plain containers.
        grid_shape: the lattice that the signal came on; None for free points.
        dtype: of the stored values.
        value_range: what stored values are clipped to; None for real numbers.
        affine: (D, D + 1) map from [−1, 1]^D to physical units (pixels, seconds, the mesh's own units).
        metadata: what the modality needs to write a reconstruction.
    """

    network: Network
    embedding: Embedding
    transform: ValueTransform
    names: dict[str, str]
    modality_options: dict[str, Any]
    grid_shape: tuple[int, ...] | None
    dtype: np.dtype
    value_range: tuple[float, float] | None
    affine: np.ndarray
    metadata: dict[str, Any]

    @property
    def modality(self) -> Modality:
        """The modality that the signal is of, with the options that it was read with.

        Raises:
            ConfigError: it is not installed here.
        """
        plugin = MODALITIES.get(self.names["modality"])
        options, errors = parse(plugin.Options, self.modality_options, "modality")
        if errors:
            raise ConfigError("\n".join(errors))
        return plugin(options)

    @property
    def dimensions(self) -> int:
        """D."""
        return self.embedding.dimensions

    @property
    def channels(self) -> int:
        """C."""
        return self.network.channels

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def to(self, device: str | torch.device) -> Field:
        """Move the network to `device`."""
        self.network.to(device)
        return self

    def __call__(self, coordinates: Any, physical: bool = False) -> Any:
        """The signal's values at any coordinates.

        Args:
            coordinates: (…, D) tensor or array in [−1, 1]^D, or in physical units with `physical`.
            physical: whether coordinates are pixels, seconds, … rather than in [−1, 1]^D.

        Returns:
            (…, C) float32 in the units of the stored values; a tensor for a tensor, else an array.

        Raises:
            DataError: the last axis is not D long.
        """
        given = torch.as_tensor(coordinates, dtype=torch.float64)
        if given.ndim == 0 or given.shape[-1] != self.dimensions:
            raise DataError(
                f"coordinates have shape {tuple(given.shape)}; expected (…, {self.dimensions}), "
                f"{self.dimensions} numbers a point"
            )
        if physical:
            affine = torch.as_tensor(self.affine, dtype=torch.float64, device=given.device)
            offset = given - affine[:, -1]
            given = torch.linalg.solve(affine[:, :-1], offset[..., None])[..., 0]
        points = given.reshape(-1, self.dimensions).to(self.device, torch.float32)
        if len(points):
            values = self._values(lambda span: points[span], slice(0, len(points)))
        else:
            values = torch.empty(0, self.channels)
        values = values.reshape(*given.shape[:-1], self.channels)
        return values if isinstance(coordinates, Tensor) else values.cpu().numpy()

    def render(
        self,
        shape: tuple[int, ...] | None = None,
        *,
        scale: float | None = None,
        dtype: Any = None,
    ) -> np.ndarray:
        """The signal on a lattice of any resolution that covers the original extent.

        Args:
            shape: lengths of the D axes; the original ones if neither `shape` nor `scale` is given.
            scale: factor on the original lengths instead.
            dtype: of the result; the stored one if not given. Integers are rounded and clipped.

        Returns:
            (*shape, C).

        Raises:
            ConfigError: both or impossible lengths are given, or the signal came on no lattice and has no shape.
        """
        shape = self.lattice(shape, scale)
        dtype = np.dtype(self.dtype if dtype is None else dtype)
        try:
            result = np.empty((math.prod(shape), self.channels), dtype=dtype)
        except (MemoryError, ValueError) as error:
            raise ConfigError("a lattice of that size does not fit in memory; give a smaller shape or scale") from error
        device = self.device

        def coordinates(span: slice) -> Tensor:
            return lattice_coordinates(torch.arange(span.start, span.stop, device=device), shape)

        for span in slabs(shape, 1 << 18):
            values = self._values(coordinates, span).cpu().numpy()
            if dtype.kind in "iub":
                low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
                values = np.clip(np.rint(values.astype(np.float64)), low, high)
            result[span] = values
        return result.reshape(*shape, self.channels)

    def lattice(self, shape: tuple[int, ...] | None = None, scale: float | None = None) -> tuple[int, ...]:
        """The lattice that `render` would fill; arguments and errors are `render`'s."""
        if shape is not None and scale is not None:
            raise ConfigError("both a shape and a scale are given; give one of them")
        if shape is None:
            if self.grid_shape is None:
                raise ConfigError("this field came on no lattice; give a shape to render")
            if scale is not None and not 0 < scale * max(self.grid_shape) < math.inf:
                raise ConfigError(f"scale is {scale}; it must be a finite number above 0")
            shape = tuple(max(1, round(length * (scale or 1.0))) for length in self.grid_shape)
        shape = tuple(int(length) for length in shape)
        if len(shape) != self.dimensions or min(shape) < 1:
            raise ConfigError(
                f"shape is {','.join(map(str, shape))}; it must be {self.dimensions} lengths of at least 1"
            )
        return shape

    def save(self, path: str | Path) -> None:
        """Write weights and everything else that `load` needs to one safetensors file.

        Raises:
            RunError: the file cannot be written.
        """
        description = {
            "format": _FORMAT,
            "network": {"name": self.names["network"], "options": dataclasses.asdict(self.network.options)},
            "embedding": {"name": self.names["embedding"], "options": dataclasses.asdict(self.embedding.options)},
            "precision": precision_of(self.network),
            "dimensions": self.dimensions,
            "channels": self.channels,
            "transform": {"name": self.names["transform"], "state": self.transform.state()},
            "modality": {"name": self.names["modality"], "options": self.modality_options},
            "grid_shape": self.grid_shape,
            "dtype": self.dtype.str,
            "value_range": self.value_range,
            "affine": self.affine.tolist(),
            "metadata": self.metadata,
        }
        weights = {
            name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.network.state_dict().items()
        }
        with written_whole(Path(path)) as aside:
            aside.write_bytes(save(weights, metadata={"inrkit": to_json(description)}))

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "cpu", trust: bool = False) -> Field:
        """Read a field; runs no code from the file.

        Args:
            path: a field.safetensors, or the folder of a run.
            device: where the network goes.
            trust: whether a network may be named as `package.module:Name` and so imported.

        Raises:
            DataError: no field there, or a damaged one.
            ConfigError: its network or transform is not installed here.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "field.safetensors"
        try:
            with safe_open(path, framework="pt") as file:
                description = json.loads((file.metadata() or {})["inrkit"])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError as error:
            raise DataError(f"{path} does not exist; give a run's folder or a field.safetensors") from error
        except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
            raise DataError(f"{path} is not a field that inrkit saved, or is damaged: {error}") from error
        if not isinstance(description, dict):
            raise DataError(f"{path} is not a field that inrkit saved: its description is {description}")
        if description.get("format") != _FORMAT:
            raise DataError(f"{path} has format {description.get('format')}; this inrkit reads format {_FORMAT}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return cls._from(description, weights, trust).to(device)
        except InrkitError:
            raise
        except Exception as error:  # whatever a stranger's description leads torch or numpy to
            raise DataError(f"{path} is damaged: its description or its weights do not fit each other") from error

    @classmethod
    def _from(cls, description: dict[str, Any], weights: dict[str, Tensor], trust: bool) -> Field:
        names = {slot: str(description[slot]["name"]) for slot in ("network", "embedding", "transform", "modality")}
        network_class = NETWORKS.get(names["network"], targets=trust)
        embedding_class = EMBEDDINGS.get(names["embedding"], targets=trust)
        transform_class = TRANSFORMS.get(names["transform"], targets=trust)
        if ":" in names["modality"] and not trust:
            MODALITIES.get(names["modality"], targets=False)
        network_options, errors = parse(network_class.Options, description["network"]["options"], "network")
        embedding_options, more = parse(embedding_class.Options, description["embedding"]["options"], "embedding")
        if errors or more:
            raise ValueError("; ".join(errors + more))
        embedding = embedding_class(embedding_options, description["dimensions"])
        network = network_class(network_options, embedding.features, description["channels"])
        network.load_state_dict(weights)
        if description["precision"] not in ("float32", "bfloat16"):
            raise ValueError("precision")
        set_precision(network, description["precision"])
        grid_shape, value_range = description["grid_shape"], description["value_range"]
        dtype, affine = np.dtype(description["dtype"]), np.array(description["affine"], dtype=float)
        if dtype.kind not in "biuf" or affine.shape != (embedding.dimensions, embedding.dimensions + 1):
            raise ValueError("dtype or affine")
        if grid_shape is not None and min(grid_shape) < 1:
            raise ValueError("grid_shape")
        return cls(
            network=network.eval(),
            embedding=embedding,
            transform=transform_class.from_state(description["transform"]["state"]),
            names=names,
            modality_options=dict(description["modality"]["options"]),
            grid_shape=None if grid_shape is None else tuple(int(length) for length in grid_shape),
            dtype=dtype,
            value_range=None if value_range is None else (float(value_range[0]), float(value_range[1])),
            affine=affine,
            metadata=dict(description["metadata"]),
        )

    def _values(self, coordinates: Callable[[slice], Tensor], span: slice) -> Tensor:
        def inputs(part: slice) -> Tensor:
            return self.embedding(coordinates(part))

        return decoded(self.network, self.transform, inputs, span, default_chunk(self.device), self.value_range)
