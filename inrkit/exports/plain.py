"""A field as plain numbers, for programs without torch: what its layers are, and its weights in texels of four.

A texel holds four float32 numbers. The weights of a layer lie in blocks of four outputs: a texel of their biases, then
for each input a texel of its four weights. What is missing of a block or of an input's four is 0.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inrkit.errors import ConfigError
from inrkit.exports.portable import bends_of, inverse_of
from inrkit.exports.telling import size_of
from inrkit.networks.encoded import FourierFeatures, Positional
from inrkit.networks.finer import Finer, FinerGauss
from inrkit.networks.gauss import Gauss
from inrkit.networks.perceptron import Perceptron
from inrkit.networks.siren import Siren
from inrkit.networks.tiles import Tiles
from inrkit.runs.field import Field
from inrkit.signals import transforms
from inrkit.signals.embeddings import Identity

WIDTH = 2048
"""Texels in a row of the texture, which every machine with WebGL2 can hold."""
MOST_ROWS = 4096
"""Rows of the largest texture: 134 MB."""
MOST_CHANNELS = 4
_MOST_FEATURES = 1024
"""Numbers of an encoding, each of which is written out in a shader."""
_MOST_TILES = 46_000
"""Tiles along an axis: their squares are integers of 32 bits."""


@dataclass(frozen=True)
class Layer:
    """A linear layer and what follows it.

    Args:
        inputs: n.
        outputs: m.
        activation: sine, sin(ωz); finer, sin(ω(|z| + 1)z); gauss, exp(−(sz)²); finer-gauss,
            exp(−(s·sin(ω(|z| + 1)z))²); relu; or none.
        omega: ω.
        scale: s.
    """

    inputs: int
    outputs: int
    activation: str
    omega: float = 1.0
    scale: float = 1.0

    @property
    def texels(self) -> int:
        """How many it takes in the texture."""
        return -(-self.outputs // 4) * (1 + self.held)

    @property
    def held(self) -> int:
        """Inputs in the texture: of hidden features a multiple of four."""
        return self.inputs if self.inputs <= 4 else 4 * -(-self.inputs // 4)


@dataclass(frozen=True)
class Encoding:
    """What is made of coordinates before the first layer: feature f is a kind of phases[f] · x.

    Args:
        kinds: (F,) "itself", "sine" or "cosine".
        phases: (F, D).
    """

    kinds: list[str]
    phases: np.ndarray


@dataclass(frozen=True)
class Grid:
    """Where tiles are; see `Tiling`."""

    lattice: tuple[int, ...]
    counts: tuple[int, ...]
    sides: tuple[int, ...]
    overlaps: tuple[float, ...]
    scale: float


@dataclass(frozen=True)
class Plain:
    """A field as plain numbers.

    Args:
        name: of the network, or of a tile's.
        dimensions: D.
        channels: C, at most four.
        encoding: None for coordinates as they are.
        layers: of the network, or of each tile's.
        grid: the tiles; None for one network.
        texels: (n, 4) float32. With tiles, first two for each tile: row of its network or −1, spread, 0, 0; and its
            mean. Then the networks, one after the other.
        transform: kind "linear", "power" or "boxcox", and its numbers; from the network's range to stored values.
            Scale and shift may be lists of C numbers.
        value_range: stored values are clipped to it.
        matrix: (D, D) from physical offsets to those in [−1, 1]^D.
        offset: (D,) physical place of the middle.
        bends: for each bent axis its knots; see `Bends`.
        parameters: of all networks.
        networks: how many there are.
    """

    name: str
    dimensions: int
    channels: int
    encoding: Encoding | None
    layers: list[Layer]
    grid: Grid | None
    texels: np.ndarray
    transform: dict[str, Any]
    value_range: tuple[float, float] | None
    matrix: np.ndarray
    offset: np.ndarray
    bends: dict[int, tuple[np.ndarray, np.ndarray]]
    parameters: int
    networks: int

    @property
    def first(self) -> int:
        """The texel where the networks begin."""
        return 2 * math.prod(self.grid.counts) if self.grid else 0

    @property
    def stride(self) -> int:
        """Texels of a network."""
        return sum(layer.texels for layer in self.layers)

    @property
    def texture(self) -> np.ndarray:
        """(rows, WIDTH, 4) float32: the texels, and zeros to the end of the last row."""
        rows = -(-len(self.texels) // WIDTH)
        filled = np.zeros((rows * WIDTH, 4), dtype=np.float32)
        filled[: len(self.texels)] = self.texels
        return filled.reshape(rows, WIDTH, 4)


def plain(field: Field, what: str) -> Plain:
    """A field as plain numbers.

    Args:
        field: of a perceptron, or of tiles of perceptrons.
        what: the export, for messages.

    Raises:
        ConfigError: the field has a network, an embedding or a transform that `what` does not know, or is too large.
    """
    network = field.network
    name = field.names["network"] or type(network).__name__
    if field.channels > MOST_CHANNELS:
        raise ConfigError(f"{what} holds fields of at most {MOST_CHANNELS} channels; this one has {field.channels}")
    if not 1 <= field.dimensions <= 3:
        raise ConfigError(f"{what} holds fields of at most 3 dimensions; this one has {field.dimensions}")
    if type(field.embedding) is not Identity:
        raise ConfigError(f"{what} knows no embedding '{field.names['embedding']}'; export .onnx or .pt2 instead")
    tiles = network if isinstance(network, Tiles) else None
    each: nn.Module = network if tiles is None else tiles.each
    known = _ACTIVATIONS.get(type(each))
    if known is None:
        found = f"'{name}'" if tiles is None else f"{type(each).__name__} in tiles"
        raise ConfigError(
            f"{what} knows siren, finer, finer-gauss, gauss, pe-mlp, fourier-features and tiles of these, not the "
            f"network {found}; export .onnx or .pt2 instead"
        )
    assert isinstance(each, Perceptron)
    encoding = _encoding(each, tiles, what)
    layers = _layers(each, known)
    if tiles is None:
        rows = nn.utils.parameters_to_vector(network.parameters()).detach()[None]
        heads, grid = np.zeros((0, 4), dtype=np.float32), None
    else:
        rows, heads, grid = tiles.weights.detach(), _heads(tiles), _grid(tiles, what)
    size = 16 * (len(heads) + len(rows) * sum(layer.texels for layer in layers))
    if size > 16 * WIDTH * MOST_ROWS:
        raise ConfigError(
            f"{what} would hold {size_of(size)} of weights; {size_of(16 * WIDTH * MOST_ROWS)} is the most that every "
            "machine can hold; fit with fewer network.parameters, or export .onnx or .pt2"
        )
    return Plain(
        name=str(tiles.options.each.get("name", "siren")) if tiles is not None else name,
        dimensions=field.dimensions,
        channels=field.channels,
        encoding=encoding,
        layers=layers,
        grid=grid,
        texels=np.concatenate([heads, _texels(rows.cpu(), each, layers).reshape(-1, 4)]),
        transform=_transform(field, what),
        value_range=field.value_range,
        matrix=inverse_of(field),
        offset=np.asarray(field.affine, dtype=np.float64)[:, -1],
        bends=bends_of(field),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        networks=len(rows),
    )


_ACTIVATIONS: dict[type[nn.Module], str] = {
    Siren: "sine",
    Finer: "finer",
    FinerGauss: "finer-gauss",
    Gauss: "gauss",
    Positional: "relu",
    FourierFeatures: "relu",
}
"""The networks that are known, not those derived from them, whose activations may be others."""


def _layers(each: Perceptron, activation: str) -> list[Layer]:
    options: Any = each.options
    width, inputs = options.hidden_features, _inputs(each)
    omega = float(getattr(options, "hidden_omega", getattr(options, "omega", 1.0)))
    first = float(getattr(options, "first_omega", omega))
    scale = float(getattr(options, "scale", 1.0))
    hidden = [Layer(width, width, activation, omega, scale) for _ in range(options.hidden_layers)]
    return [Layer(inputs, width, activation, first, scale), *hidden, Layer(width, each.channels, "none")]


def _inputs(each: Perceptron) -> int:
    options: Any = each.options
    if isinstance(each, Positional):
        return each.dimensions * (1 + 2 * len(each.frequencies))
    return 2 * int(options.features) if isinstance(each, FourierFeatures) else each.dimensions


def _encoding(each: Perceptron, tiles: Tiles | None, what: str) -> Encoding | None:
    """The features that a network makes of its coordinates; None for these themselves."""
    if isinstance(each, Positional):
        frequencies = each.frequencies.cpu().numpy().astype(np.float64)
        along = np.kron(np.eye(each.dimensions), frequencies[:, None])
        kinds = ["itself"] * each.dimensions + ["sine"] * len(along) + ["cosine"] * len(along)
        phases = np.concatenate([np.eye(each.dimensions), along, along])
    elif isinstance(each, FourierFeatures):
        along = math.pi * each.frequencies.cpu().numpy().astype(np.float64).T
        kinds = ["sine"] * len(along) + ["cosine"] * len(along)
        phases = np.concatenate([along, along])
    else:
        return None
    if len(kinds) > _MOST_FEATURES:
        raise ConfigError(
            f"{what} holds encodings of at most {_MOST_FEATURES:,} numbers; this one has {len(kinds):,}; export .onnx "
            "or .pt2 instead"
        )
    return Encoding(kinds, phases)


def _heads(tiles: Tiles) -> np.ndarray:
    """(2T, 4) what is known of each tile."""
    slots, spreads, means = (tensor.cpu().numpy() for tensor in (tiles.slots, tiles.spreads, tiles.means))
    heads = np.zeros((len(slots), 2, 4), dtype=np.float32)
    heads[:, 0, 0], heads[:, 0, 1] = slots, spreads
    heads[:, 1, : means.shape[1]] = means
    return heads.reshape(-1, 4)


def _grid(tiles: Tiles, what: str) -> Grid:
    tiling = tiles.tiling
    if max(tiling.counts) > _MOST_TILES:
        raise ConfigError(
            f"{what} counts at most {_MOST_TILES:,} tiles along an axis; this field has {max(tiling.counts):,}; export "
            ".onnx or .pt2 instead"
        )
    return Grid(tiling.lattice, tiling.counts, tiling.sides, tiling.overlaps, tiling.scale)


def _texels(rows: Tensor, each: Perceptron, layers: list[Layer]) -> np.ndarray:
    """(U, stride, 4) float32 of (U, P) parameters in torch's order: for each layer its weights, then its biases."""
    parts = []
    at = 0
    for layer in layers:
        n, m = layer.inputs, layer.outputs
        weight = rows[:, at : at + n * m].reshape(-1, m, n)
        bias = rows[:, at + n * m : at + (n + 1) * m]
        at += (n + 1) * m
        blocks = torch.zeros(len(rows), 4 * -(-m // 4), 1 + layer.held)
        blocks[:, :m, 0], blocks[:, :m, 1 : n + 1] = bias, weight
        parts.append(blocks.unflatten(1, (-1, 4)).transpose(2, 3).flatten(1, 2))
    assert at == rows.shape[1], "a perceptron has no other parameters"
    texels: np.ndarray = torch.cat(parts, dim=1).numpy().astype(np.float32)
    return texels


def _transform(field: Field, what: str) -> dict[str, Any]:
    """How values are decoded, in plain numbers."""
    transform = field.transform
    if isinstance(transform, transforms.MinMax):
        return {"kind": "linear", "scale": transform.scale, "shift": transform.center}
    if isinstance(transform, transforms.ZScore):
        return {"kind": "linear", "scale": transform._scale, "shift": transform.mean}
    if isinstance(transform, transforms.Identity):
        return {"kind": "linear", "scale": 1.0, "shift": 0.0}
    if isinstance(transform, transforms.SymmetricPower):
        return {"kind": "power", "power": 1 / transform.power, "scale": transform._span, "shift": transform._start}
    if isinstance(transform, transforms.BoxCox):
        return {
            "kind": "boxcox",
            "exponent": transform.exponent,
            "stretch": transform._scale,
            "middle": transform._center,
            "scale": transform._range,
            "shift": transform._start - transforms._SHIFT * transform._range,
        }
    raise ConfigError(f"{what} knows no transform '{field.names['transform']}'; export .onnx or .pt2 instead")


def described(plain: Plain) -> dict[str, Any]:
    """All but the texels, for JSON."""
    held = {each.name: getattr(plain, each.name) for each in dataclasses.fields(plain) if each.name != "texels"}
    encoding = plain.encoding
    return {
        **held,
        "encoding": None if encoding is None else {"kinds": encoding.kinds, "phases": encoding.phases.tolist()},
        "layers": [{**dataclasses.asdict(layer), "held": layer.held} for layer in plain.layers],
        "grid": None if plain.grid is None else dataclasses.asdict(plain.grid),
        "matrix": plain.matrix.tolist(),
        "offset": plain.offset.tolist(),
        "bends": {str(axis): [even.tolist(), bent.tolist()] for axis, (even, bent) in plain.bends.items()},
        "first": plain.first,
        "stride": plain.stride,
    }
