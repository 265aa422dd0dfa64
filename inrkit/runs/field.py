"""Field: a trained INR that a user can call, render, save and load."""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from inrkit.coding.file import is_compressed
from inrkit.coding.file import read as read_compressed
from inrkit.device import available_memory, returned, wide
from inrkit.errors import ConfigError, DataError, InrkitError
from inrkit.evaluation.derivatives import hessian, jacobian
from inrkit.evaluation.evaluate import decoded, default_chunk
from inrkit.files import from_json, require_file, to_json, written_whole
from inrkit.networks import NETWORKS, Network, Tiles, coordinate_dtype, placed, precision_of, set_precision
from inrkit.networks.given import GIVEN, Given
from inrkit.networks.products import PRECISIONS
from inrkit.networks.shapes import shapes_of
from inrkit.plugins.options import parse
from inrkit.runs.tensor_file import write_tensors
from inrkit.signals.bends import Bends
from inrkit.signals.embeddings import EMBEDDINGS, Embedding
from inrkit.signals.lattice import Lengths, Region, lattice_coordinates, region_of, slabs
from inrkit.signals.modality import MODALITIES, Modality
from inrkit.signals.transforms import TRANSFORMS, ValueTransform

_FORMAT = 1


class FieldModule(nn.Module):
    """A field as one module: (…, D) coordinates in [−1, 1]^D to (…, C) stored values, not clipped.

    It is differentiable in the coordinates and in the weights, which it shares with the field. It stays in eval mode
    inside a model that trains.

    Args:
        embedding: (…, D) coordinates to (…, E) network inputs.
        network: (…, E) network inputs to (…, C) values in the network's range.
        transform: from stored values to the network's range.
    """

    def __init__(self, embedding: Embedding, network: nn.Module, transform: ValueTransform) -> None:
        super().__init__()
        self.embedding = embedding
        self.network = network
        self.transform = transform
        self.eval()

    def forward(self, coordinates: Tensor) -> Tensor:
        return self.transform.decode(self.network(self.embedding(coordinates)))

    def train(self, mode: bool = True) -> FieldModule:
        """Stay in eval mode; otherwise a field with dropout would be a different function at every call."""
        super().train(False)
        return self


@dataclass(eq=False)
class Field:
    """A network, and everything that turns its output into the signal. The network is always in eval mode.

    Args:
        network: (…, E) network inputs to (…, C) values in the network's range; any nn.Module, but `save` needs a
            registered network.
        channels: C.
        embedding: (…, D) coordinates in [−1, 1]^D to (…, E) network inputs.
        transform: from stored values to the network's range.
        names: names of network, embedding, transform and modality in their registries; "" for a network that is in
            none.
        modality_options: the modality's options, in plain containers.
        grid_shape: the lattice that the signal came on; None for free points.
        dtype: of the stored values.
        value_range: stored values are clipped to it; None for real numbers.
        affine: (D, D + 1) map from [−1, 1]^D to physical units (pixels, seconds, the mesh's own units), but for what
            metadata say of `Bends`.
        metadata: what the modality needs to write a reconstruction.
    """

    network: nn.Module
    channels: int
    embedding: Embedding
    transform: ValueTransform
    names: dict[str, str]
    modality_options: dict[str, Any]
    grid_shape: tuple[int, ...] | None
    dtype: np.dtype
    value_range: tuple[float, float] | None
    affine: np.ndarray
    metadata: dict[str, Any]

    def __post_init__(self) -> None:
        self.network.eval()

    def __repr__(self) -> str:
        extent = (
            f"{self.dimensions} dimensions" if self.grid_shape is None else "×".join(str(n) for n in self.grid_shape)
        )
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return (
            f"Field({self.names['modality'] or 'array'}, {extent}, "
            f"{self.channels} channel{'' if self.channels == 1 else 's'} {self.dtype}, "
            f"{self.names['network'] or type(self.network).__name__} {parameters:,} parameters)"
        )

    @property
    def modality(self) -> Modality:
        """The signal's modality, with the options that it was read with.

        Raises:
            ConfigError: it is not installed here.
        """
        plugin = MODALITIES.get(self.names["modality"])
        options, errors = parse(plugin.Options, self.modality_options, "modality")
        if errors:
            raise ConfigError(*errors)
        return plugin(options)

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the physical units of the D axes; see `Modality.units`. None at all if they are not known."""
        return self.modality.units(self.metadata, self.dimensions) if self.names["modality"] else ()

    @property
    def dimensions(self) -> int:
        """D."""
        return self.embedding.dimensions

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((tensor.device for tensor in chain(self.network.parameters(), self.network.buffers())), _CPU)

    @property
    def module(self) -> FieldModule:
        """The field as an nn.Module for a larger model, with the field's own weights; see `FieldModule`."""
        return FieldModule(self.embedding, self.network, self.transform)

    def to(self, device: str | torch.device) -> Field:
        """Move the network to `device`."""
        self.network.to(device)
        return self

    def __call__(self, coordinates: Tensor | ArrayLike, physical: bool = False) -> Any:
        """The signal's values at any coordinates.

        For a tensor, the values are differentiable in the coordinates, any number of times. The weights are constants;
        `module` has gradients in them too. If a value is clipped to the range of the dtype, its derivatives are 0.

        Args:
            coordinates: (…, D) tensor or array in [−1, 1]^D, or in physical units with `physical`.
            physical: whether coordinates are pixels, seconds, … rather than in [−1, 1]^D.

        Returns:
            (…, C) float32 in the units of the stored values; for a tensor a tensor on its device, else an array, of
            float64 where float32 would not tell the values apart.

        Raises:
            DataError: the last axis is not D long, or what is given are no numbers.
        """
        given = self._given(coordinates)
        points = given.reshape(-1, self.dimensions)
        if not len(points):
            values = points.new_empty((0, self.channels), dtype=torch.float32)
        elif isinstance(coordinates, Tensor):
            function = self._frozen()
            values = torch.cat([function(self._normalised(part, physical)) for part in points.split(self._chunk)])
            values = values if self.value_range is None else values.clamp(*self.value_range)
        else:
            values = self._values(lambda span: self._normalised(points[span], physical), slice(0, len(points)))
        values = values.reshape(*given.shape[:-1], self.channels).to(given.device)
        return values if isinstance(coordinates, Tensor) else values.numpy()

    def gradient(self, coordinates: Tensor | ArrayLike, physical: bool = False) -> Any:
        """First derivatives of the values, in stored units per physical unit: per pixel, per second, ….

        Like every derivative here, they are of the values before clipping to the range of the dtype, and carry no
        graph. They are computed in float32, even if the network was trained with products in bfloat16, whose 8 bits of
        mantissa are too coarse for slopes.

        Args:
            coordinates: (…, D) tensor or array in [−1, 1]^D, or in physical units with `physical`.
            physical: whether coordinates are pixels, seconds, … rather than in [−1, 1]^D. The derivatives are per
                physical unit in either case.

        Returns:
            (…, C, D); for a tensor a tensor on its device, else an array.

        Raises:
            DataError: the last axis is not D long, or what is given are no numbers.
        """
        return self._derived(coordinates, physical, self._slopes)

    def laplacian(self, coordinates: Tensor | ArrayLike, physical: bool = False) -> Any:
        """Sum of the second derivatives of the values along the physical axes, in stored units per squared physical
        unit.

        Args, errors and the rest are those of `gradient`.

        Returns:
            (…, C); for a tensor a tensor on its device, else an array.
        """
        return self._derived(coordinates, physical, lambda *at: self._curvatures(*at).diagonal(dim1=2, dim2=3).sum(-1))

    def hessian(self, coordinates: Tensor | ArrayLike, physical: bool = False) -> Any:
        """Second derivatives of the values, in stored units per squared physical unit.

        Args, errors and the rest are those of `gradient`.

        Returns:
            (…, C, D, D), symmetric; for a tensor a tensor on its device, else an array.
        """
        return self._derived(coordinates, physical, self._curvatures)

    def normals(self, coordinates: Tensor | ArrayLike, physical: bool = False) -> Any:
        """Unit vectors along the gradient in physical space. A signed distance grows outwards, so for it they are the
        surface's outward normals.

        Args and the rest are those of `gradient`.

        Returns:
            (…, D); zeros where the gradient is 0. For a tensor a tensor on its device, else an array.

        Raises:
            ConfigError: the field has more than one channel.
            DataError: as `gradient`.
        """
        if self.channels != 1:
            raise ConfigError(
                f"only a field of one channel, such as a signed distance, has normals; this one has {self.channels} "
                "channels; use gradient, which gives the derivatives of every channel"
            )
        return self._derived(coordinates, physical, lambda *at: _unit(self._slopes(*at)[:, 0]))

    def render(
        self,
        shape: int | Sequence[int] | None = None,
        *,
        scale: float | None = None,
        region: Region | tuple[Lengths, Lengths] | None = None,
        step: Lengths = None,
        extrapolate: bool = False,
        dtype: Any = None,
    ) -> np.ndarray:
        """The signal on a lattice of any resolution, over the original extent or a region of it.

        Args:
            shape: lengths of the D axes, or the one of a single axis; the original ones if nothing is given.
            scale: factor on the original lengths instead.
            region: (start, stop) in physical units, each a number or one for each axis, or a `Region`: values lie at
                start, start + step, … short of stop, where `field(x, physical=True)` has the same.
            step: in physical units; that of the original lattice if not given.
            extrapolate: whether a region may go beyond the original extent, where values are made up.
            dtype: of the result; the stored one if not given. Integers are rounded and clipped.

        Returns:
            (*shape, C); a memory map of a temporary file if it is larger than half of the memory that is free.

        Raises:
            ConfigError: contradicting or impossible lengths are given, or the signal came on no lattice and has no
                shape; what `region` raises.
        """
        if isinstance(region, tuple) or step is not None:
            if isinstance(region, Region):
                raise ConfigError("a Region has a step of its own; leave step out")
            start, stop = (None, None) if region is None else region
            region = self.region(start, stop, step, extrapolate=extrapolate)
        if region is not None and not (shape is None and scale is None):
            raise ConfigError("both a region and a shape or scale are given; a region's resolution is its step")
        shape = self.lattice(shape, scale) if region is None else region.shape
        dtype = np.dtype(self.dtype if dtype is None else dtype)
        result = _array((math.prod(shape), self.channels), dtype)
        device = self.device

        def coordinates(span: slice) -> Tensor:
            indices = torch.arange(span.start, span.stop, device=device)
            dtype = coordinate_dtype(self.network)
            return lattice_coordinates(indices, shape, dtype) if region is None else region.coordinates(indices, dtype)

        for span in slabs(shape):
            values = self._values(coordinates, span).cpu().numpy()
            if dtype.kind in "iub":
                low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
                values = np.clip(np.rint(values.astype(np.float64)), low, high)
            result[span] = values
        return result.reshape(*shape, self.channels)

    def region(
        self, start: Lengths = None, stop: Lengths = None, step: Lengths = None, *, extrapolate: bool = False
    ) -> Region:
        """A box of the signal, at a resolution of its own, for `render`.

        Args:
            start: where the leading values lie, in the order and the units of the physical axes: a number, or one for
                each axis, of which None, as for all, is the beginning of the signal.
            stop: where the region ends, likewise; values lie short of it. None is the end of the signal.
            step: from a value to the next, likewise; None is that of the signal's own lattice.
            extrapolate: whether values may lie beyond the signal's extent, where they are made up.

        Raises:
            ConfigError: the physical axes are oblique to the lattice's; or numbers are missing, impossible, or outside.
        """
        return region_of(self.affine, self.grid_shape, start, stop, step, extrapolate=extrapolate, bends=self._bends)

    def lattice(self, shape: int | Sequence[int] | None = None, scale: float | None = None) -> tuple[int, ...]:
        """The lattice that `render` would fill; arguments and errors are `render`'s."""
        if shape is not None and scale is not None:
            raise ConfigError("both a shape and a scale are given; give one of them")
        if shape is None:
            if self.grid_shape is None:
                raise ConfigError("this field's signal has no lattice; give a shape to render")
            if scale is not None and not 0 < scale * max(self.grid_shape) < math.inf:
                raise ConfigError(f"scale is {scale}; it must be a finite number above 0")
            shape = tuple(max(1, round(length * (scale or 1.0))) for length in self.grid_shape)
        given = tuple(shape) if isinstance(shape, Iterable) else (shape,)
        whole = all(isinstance(length, SupportsIndex) for length in given)
        if not whole or len(given) != self.dimensions or min(given) < 1:
            raise ConfigError(
                f"shape is {','.join(map(str, given))}; it must be {self.dimensions} "
                f"length{'s' if self.dimensions > 1 else ''} of at least 1, in whole numbers"
            )
        return tuple(int(length) for length in given)

    def save(self, path: str | Path) -> None:
        """Write weights and everything else that `load` needs to one safetensors file.

        Raises:
            ConfigError: `load` could not make the network again by its name, or the path is a folder.
            RunError: the file cannot be written.
        """
        if Path(path).is_dir():
            raise ConfigError(f"{path} is a folder; give the name of a file to write")
        write_field(path, self.description(), self.network.state_dict())

    def description(self) -> dict[str, Any]:
        """All that `load` needs besides the weights, in JSON's containers.

        Raises:
            ConfigError: `load` could not make the network again by its name.
        """
        if not self.names["network"] or not isinstance(self.network, Network):
            raise ConfigError(
                f"a field of {type(self.network).__name__} cannot be saved, because no name leads back to that "
                "network; derive it from inrkit.Network, and register it or name it as package.module:Name"
            )
        return {
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

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        trust: bool = False,
        network: nn.Module | None = None,
    ) -> Field:
        """Read a field; runs no code from the file.

        Args:
            path: a field.safetensors, a compressed field, or the folder of a run.
            device: where the network goes.
            trust: whether a network may be named as `package.module:Name` and so imported.
            network: the module, if the field's network was given in Python; it gets the file's weights.

        Raises:
            DataError: no field there, or a damaged one.
            ConfigError: its network or transform is not installed here.
        """
        description, weights = read_field(path)
        return field_of(description, weights, _file_of(path), device=device, trust=trust, network=network)

    @classmethod
    def _from(
        cls, description: dict[str, Any], weights: dict[str, Tensor], trust: bool, given: nn.Module | None
    ) -> Field:
        names = {slot: str(description[slot]["name"]) for slot in ("network", "embedding", "transform", "modality")}
        if names["network"] == GIVEN:
            if given is None:
                raise ConfigError(
                    "the field's network was a Python object, which no file holds; give it: "
                    "inrkit.load(path, network=module)"
                )
            network_class: Any = Given.holding(given)
        else:
            network_class = NETWORKS.get(names["network"], targets=trust)
        embedding_class = EMBEDDINGS.get(names["embedding"], targets=trust)
        transform_class = TRANSFORMS.get(names["transform"], targets=trust)
        if ":" in names["modality"] and not trust:
            MODALITIES.get(names["modality"], targets=False)
        network_options, errors = parse(network_class.Options, description["network"]["options"], "network")
        embedding_options, more = parse(embedding_class.Options, description["embedding"]["options"], "embedding")
        if errors or more:
            raise ValueError("; ".join(errors + more))
        dtype, affine = np.dtype(description["dtype"]), np.array(description["affine"], dtype=float)
        embedding = embedding_class(embedding_options, len(affine))
        if dtype.kind not in "biuf" or affine.shape != (description["dimensions"], description["dimensions"] + 1):
            raise ValueError("dtype or affine")
        if not np.isfinite(affine).all():
            raise ValueError("affine")

        def make() -> nn.Module:
            made: nn.Module = network_class(network_options, embedding.features, int(description["channels"]))
            return made

        if given is None:
            _require_same_shapes(make, weights)
        with torch.random.fork_rng(devices=[]):  # its initial weights are drawn, and then replaced
            if network_class is Tiles:
                assert network_options is not None
                network: nn.Module = Tiles.of(
                    network_options, embedding.features, int(description["channels"]), weights
                )
            else:
                network = make()
                network.load_state_dict(weights)
        if description["precision"] not in PRECISIONS:
            raise ValueError("precision")
        set_precision(network, description["precision"])
        grid_shape, value_range = description["grid_shape"], description["value_range"]
        if grid_shape is not None and (min(grid_shape) < 1 or len(grid_shape) != len(affine)):
            raise ValueError("grid_shape")
        if value_range is not None:
            low, high = value_range = tuple(float(end) for end in value_range)
            if not -_LARGEST <= low <= high <= _LARGEST:
                raise ValueError("value_range")
        transform = transform_class.from_state(description["transform"]["state"])
        if transform.decode(torch.zeros(1, int(description["channels"]))).shape[1] != description["channels"]:
            raise ValueError("transform")
        Bends.of(description["metadata"])  # raises an error now if it is damaged
        return cls(
            network=network,
            channels=int(description["channels"]),
            embedding=embedding,
            transform=transform,
            names=names,
            modality_options=dict(description["modality"]["options"]),
            grid_shape=None if grid_shape is None else tuple(int(length) for length in grid_shape),
            dtype=dtype,
            value_range=value_range,
            affine=affine,
            metadata=dict(description["metadata"]),
        )

    @property
    def _chunk(self) -> int:
        return default_chunk(self.device, self.network)

    def _given(self, coordinates: Tensor | ArrayLike) -> Tensor:
        """(…, D) coordinates as a tensor."""
        if not isinstance(coordinates, Tensor):
            array = np.asarray(coordinates)
            if array.dtype.kind not in "biuf":
                raise DataError(f"coordinates are of dtype {array.dtype}; expected real numbers")
            coordinates = torch.from_numpy(np.array(array, dtype=np.float32 if array.dtype == np.float32 else float))
        if coordinates.ndim == 0 or coordinates.shape[-1] != self.dimensions:
            raise DataError(
                f"coordinates have shape {tuple(coordinates.shape)}; expected (…, {self.dimensions}), "
                f"{self.dimensions} numbers a point"
            )
        return coordinates

    def _normalised(self, points: Tensor, physical: bool) -> Tensor:
        """(k, D) coordinates as those in [−1, 1]^D that the network takes, where it is."""
        if physical:
            points = self._straight(points)
            points = self._bends.bent(points) if self._bends else points
        return placed(points, self.network)

    def _straight(self, points: Tensor) -> Tensor:
        """(k, D) float64 coordinates by the affine map alone, from physical ones."""
        exact = wide(points)
        offset = exact - torch.as_tensor(self.affine[:, -1], device=exact.device)
        return offset @ torch.as_tensor(self._inverse.T.copy(), device=exact.device)

    @cached_property
    def _bends(self) -> Bends:
        return Bends.of(self.metadata)

    @property
    def _inverse(self) -> np.ndarray:
        """(D, D) from physical offsets to those in [−1, 1]^D."""
        try:
            return np.linalg.inv(self.affine[:, :-1].astype(np.float64))
        except np.linalg.LinAlgError as error:
            raise DataError("the field's affine map has no inverse, so it has no physical units") from error

    def _frozen(self) -> Callable[[Tensor], Tensor]:
        """`module` with its weights as constants, so that only the coordinates have a graph. Unlike a switch of
        gradients, this works under torch.func too."""
        module = self.module
        constants = {name: parameter.detach() for name, parameter in module.named_parameters()}

        def call(points: Tensor) -> Tensor:
            values: Tensor = torch.func.functional_call(module, constants, (points,))
            return values.to(torch.float32)

        return call

    def _slopes(self, function: Callable[[Tensor], Tensor], points: Tensor, inverse: Tensor) -> Tensor:
        """(k, C, D) gradients per physical unit at (k, D) normalised points."""
        return returned(jacobian(function, points), inverse) @ inverse

    def _curvatures(self, function: Callable[[Tensor], Tensor], points: Tensor, inverse: Tensor) -> Tensor:
        """(k, C, D, D) second derivatives per squared physical unit at (k, D) normalised points."""
        return inverse.mT @ returned(hessian(function, points), inverse) @ inverse

    def _derived(
        self,
        coordinates: Tensor | ArrayLike,
        physical: bool,
        derivative: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor],
    ) -> Any:
        """A derivative at any coordinates, in chunks.

        Args:
            coordinates: (…, D), as for `gradient`.
            physical: likewise.
            derivative: (k, …) of the frozen module, (k, D) normalised points and the affine map's (D, D) inverse.
        """
        given = self._given(coordinates).detach()
        points, function = given.reshape(-1, self.dimensions), self._frozen()
        inverse = torch.as_tensor(self._inverse, dtype=torch.float32, device=self.device)
        normalised = self._normalised
        if self._bends:
            straight, unbent = function, self._bends

            def function(places: Tensor) -> Tensor:
                return straight(unbent.bent(places))

            def normalised(points: Tensor, physical: bool) -> Tensor:
                points = self._straight(points) if physical else unbent.straightened(points)
                return placed(points, self.network)

        precision = precision_of(self.network)
        set_precision(self.network, "float32")
        try:
            # Also for no points, so that the result has its shape. A quarter, because graphs of derivatives take
            # memory.
            parts = [
                derivative(function, normalised(part, physical), inverse).to(given.device)
                for part in points.split(max(1, self._chunk // 4))
            ]
        finally:
            set_precision(self.network, precision)
        found = torch.cat(parts)
        found = found.reshape(*given.shape[:-1], *found.shape[1:])
        return found if isinstance(coordinates, Tensor) else found.numpy()

    def _values(self, coordinates: Callable[[slice], Tensor], span: slice) -> Tensor:
        def inputs(part: slice) -> Tensor:
            return self.embedding(coordinates(part))

        return decoded(self.network, self.transform, inputs, span, self._chunk, self.value_range)


def write_field(
    path: str | Path, description: dict[str, Any], weights: Mapping[str, Tensor | Sequence[Tensor]]
) -> None:
    """Write a field's file, without a copy of its weights in memory.

    Args:
        path: of the file.
        description: what `Field.description` gives.
        weights: of its network, by name; of a sequence, the rows of each in turn are one tensor.

    Raises:
        RunError: the file cannot be written.
    """
    with written_whole(Path(path)) as aside:
        write_tensors(aside, weights, {"inrkit": to_json(description)})


def read_field(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a field's file says of itself, and its network's weights by name; makes nothing of them yet.

    The weights of a field.safetensors are a memory map, which changes of them do not reach.

    Args:
        path: a field.safetensors, a compressed field, or the folder of a run.

    Raises:
        DataError: no field there, or a damaged one.
    """
    path = _file_of(path)
    try:
        require_file(path)
        if is_compressed(path):
            description, arrays = read_compressed(path)
            return _checked(path, description), {name: torch.from_numpy(array) for name, array in arrays.items()}
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get("inrkit")
            if said is None:
                raise ValueError("nothing in it says of what network its weights are")
            description = from_json(said)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        run = path.parent
        if path == _file_of(run) and (run / "config.yaml").exists():
            raise DataError(
                f"{run} has no field.safetensors; go on with inrkit fit {run} --resume, which writes it"
            ) from error
        raise DataError(f"{path} does not exist; give a run's folder or a field.safetensors") from error
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not a field that inrkit saved, or is damaged ({error}); give a run's folder or a "
            "field.safetensors"
        ) from error
    return _checked(path, description), weights


def field_of(
    description: Any,
    weights: dict[str, Tensor],
    path: Path,
    *,
    device: str | torch.device = "cpu",
    trust: bool = False,
    network: nn.Module | None = None,
) -> Field:
    """The field that a description and weights are of.

    Args:
        description: what `Field.description` gave.
        weights: of its network, by name.
        path: where both were read.
        device, trust, network: as for `Field.load`; so are the errors.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Field._from(_checked(path, description), weights, trust, network).to(device)
    except InrkitError:
        raise
    except Exception as error:  # a foreign description may make torch or numpy raise anything
        raise DataError(f"{path} is damaged: its description or its weights do not fit each other") from error


def _checked(path: Path, description: Any) -> dict[str, Any]:
    """A field's description, if this version can read it."""
    if not isinstance(description, dict):
        raise DataError(f"{path} is not a field that inrkit saved: its description is {description}")
    if description.get("format") != _FORMAT:
        raise DataError(f"{path} has format {description.get('format')}; this inrkit reads format {_FORMAT}")
    return description


def _require_same_shapes(make: Callable[[], nn.Module], weights: dict[str, Tensor]) -> None:
    """Refuse a description of a network that is not one of the weights beside it, before it takes any memory.

    Raises:
        ValueError: another network has these weights.
    """
    numbers = sum(tensor.numel() for tensor in weights.values())
    # Some networks make tables that they do not save.
    shapes = shapes_of(make, 8 * len(weights) + 64, 8 * numbers + (1 << 16))
    if shapes != {name: tensor.shape for name, tensor in weights.items()}:
        raise ValueError("the network and its weights have other shapes")


def _file_of(path: str | Path) -> Path:
    """The file of a field, which may be named by its run's folder.

    Raises:
        DataError: what is given is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise DataError(
            f"a field is loaded from a path, not from {type(path).__name__}; a run has its own as run.field"
        )
    path = Path(path)
    return path / "field.safetensors" if path.is_dir() else path


_LARGEST = float(torch.finfo(torch.float32).max)
_CPU = torch.device("cpu")


def _array(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array to fill, on the disk if it would take too much memory.

    Raises:
        ConfigError: there is no room for it there either.
    """
    size = math.prod(shape) * dtype.itemsize
    try:
        if size <= available_memory() / 2:
            return np.empty(shape, dtype)
        if size > shutil.disk_usage(tempfile.gettempdir()).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with tempfile.TemporaryFile() as file:
            # Room is taken now: a disk that runs full later would end the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except (MemoryError, ValueError, OverflowError, OSError, AttributeError) as error:  # not every system reserves
        raise ConfigError(
            "a lattice of that size fits neither in memory nor in the folder of temporary files; give a smaller shape "
            "or scale, or render it region by region"
        ) from error


def _unit(vectors: Tensor) -> Tensor:
    """(k, D) vectors of length 1; one of length 0 stays as it is."""
    # Divide by the largest component first, because the squares of small components would vanish.
    vectors = vectors / vectors.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1)
