"""GLSL: a field as the text of a function for shaders."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

from inrkit.errors import ConfigError
from inrkit.exports.base import Export
from inrkit.exports.plain import WIDTH, Encoding, Layer, Plain, plain
from inrkit.exports.portable import in_float32
from inrkit.exports.telling import kept, size_of, units_of
from inrkit.files import written_whole
from inrkit.runs.field import Field

_INLINE = 1024
"""Texels that are written into the text; more are a texture, because compilers choke on long arrays."""
_MOST_KNOTS = 256
"""Knots of a bend that are written out."""


class Glsl(Export):
    """The function as text for shaders (GLSL ES 3.00 and up), with a texture beside it where there are many weights."""

    def write(self, field: Field, aside: Path, path: Path) -> str:
        with in_float32(field):
            numbers = plain(field, "GLSL")
        most = max((len(even) for even, _ in numbers.bends.values()), default=0)
        if most > _MOST_KNOTS:
            raise ConfigError(
                f"GLSL would spell out {most:,} frames that are shown unequally long, at most {_MOST_KNOTS}; export "
                ".html, .onnx or .pt2 instead"
            )
        weights = path.with_suffix(".weights.f32")
        inline = len(numbers.texels) <= _INLINE
        text = _header(field, numbers, None if inline else weights.name) + source(numbers, inline) + _physical(numbers)
        aside.write_text(text, encoding="utf-8", newline="\n")
        told = f"{path}: {size_of(len(text.encode()))}, {signature(numbers)}; {kept(field)}"
        if inline:
            return told
        with written_whole(weights) as beside:
            beside.write_bytes(numbers.texture.astype("<f4").tobytes())
        return f"{told}; its weights are the texture {weights}, {size_of(weights.stat().st_size)}"


def signature(plain: Plain) -> str:
    """The function that a text defines."""
    return f"{_vector(plain.channels)} field({_vector(plain.dimensions)} x)"


def _vector(count: int) -> str:
    return "float" if count == 1 else f"vec{count}"


def _number(value: float) -> str:
    """A literal of float32."""
    text = f"{np.float32(value):.9g}"
    return text if any(mark in text for mark in ".e") else f"{text}.0"


def _numbers(values: list[float] | np.ndarray | tuple[float, ...]) -> str:
    """A literal of a float or a vector."""
    parts = [_number(float(value)) for value in values]
    return parts[0] if len(parts) == 1 else f"vec{len(parts)}({', '.join(parts)})"


def _header(field: Field, plain: Plain, weights: str | None) -> str:
    units = units_of(field) or "of the signal's own units"
    lines = [
        "A field that inrkit fitted, as a function for shaders: GLSL ES 3.00 (WebGL2), GLSL 3.30 and later.",
        "",
        f"{signature(plain)}: stored values, not rounded, at physical coordinates ({units}).",
        f"{_vector(plain.channels)} field_unit({_vector(plain.dimensions)} u): the same at coordinates in [-1, 1].",
        "",
        "Coordinates are float32: what is far from 0, such as metres on a map, loses digits before it gets here.",
    ]
    if weights is not None:
        rows = len(plain.texture)
        lines += [
            "",
            f"The weights are the file {weights}: {WIDTH} x {rows} texels of four float32, little-endian, row by row,",
            "the first row first. Make them a texture RGBA32F without mipmaps or filtering (NEAREST) and bind it to",
            "inr_weights. WebGL2:",
            "  gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA32F, " + f"{WIDTH}, {rows});",
            "  gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, "
            + f"{WIDTH}, {rows}, gl.RGBA, gl.FLOAT, new Float32Array(bytes));",
        ]
    lines += ["", "Put it after #version and `precision highp float; precision highp int;`."]
    return "".join(f"// {line}".rstrip() + "\n" for line in lines) + "\n"


def source(plain: Plain, inline: bool = False) -> str:
    """The function's text, without physical units: `vec4 inr_place(ivec cell, vec within)`.

    With tiles a place is `cell + within`, in cells of the tiles' lattice; two parts, because float32 has not enough
    digits for a place deep inside a large signal. With one network it is `within` alone, in [−1, 1]^D.

    Args:
        plain: the field.
        inline: whether the weights are in the text, not in the texture `inr_weights`.
    """
    parts = [_table(plain) if inline else _TEXTURE, _SINE]
    activations = {layer.activation for layer in plain.layers}
    parts += [text for name, text in _ACTIVATIONS.items() if name in activations]
    parts += [_network(plain), _decode(plain), _tiles(plain) if plain.grid else _single(plain)]
    return "\n".join(parts)


_TEXTURE = f"""\
uniform highp sampler2D inr_weights;

vec4 inr_at(int k) {{ return texelFetch(inr_weights, ivec2(k & {WIDTH - 1}, k >> {WIDTH.bit_length() - 1}), 0); }}
"""

_SINE = """\
// Sines of any argument to 2e-7; those of shaders may be as coarse as 1e-3.
vec4 inr_turned(vec4 r, vec4 turns) {
  vec4 s = r * r;
  vec4 p = r + r * s * (-0.166666620 + s * (0.00833312338 + s * (-0.000198134997 + s * 2.61386415e-6)));
  return p * (1.0 - 2.0 * (turns - 2.0 * floor(0.5 * turns)));
}
vec4 inr_sine(vec4 x) {
  vec4 n = floor(x * 0.318309886 + 0.5);
  return inr_turned((x - n * 3.140625) - n * 9.67653590e-4, n);
}
vec4 inr_cosine(vec4 x) {
  vec4 n = floor(x * 0.318309886) + 0.5;
  return inr_turned((x - n * 3.140625) - n * 9.67653590e-4, n + 0.5);
}
"""

_ACTIVATIONS = {
    "sine": "vec4 inr_active(vec4 z, float omega, float s) { return inr_sine(omega * z); }\n",
    "finer": "vec4 inr_active(vec4 z, float omega, float s) { return inr_sine(omega * ((abs(z) + 1.0) * z)); }\n",
    "gauss": "vec4 inr_active(vec4 z, float omega, float s) { vec4 a = s * z; return exp(-a * a); }\n",
    "finer-gauss": """\
vec4 inr_active(vec4 z, float omega, float s) {
  vec4 a = s * inr_sine(omega * ((abs(z) + 1.0) * z));
  return exp(-a * a);
}
""",
    "relu": "vec4 inr_active(vec4 z, float omega, float s) { return max(z, 0.0); }\n",
}


def _table(plain: Plain) -> str:
    rows = ",\n".join(f"  {_numbers(texel)}" for texel in plain.texels)
    count = len(plain.texels)
    return (
        f"const vec4 inr_table[{count}] = vec4[{count}](\n{rows}\n);\n\nvec4 inr_at(int k) {{ return inr_table[k]; }}\n"
    )


def _network(plain: Plain) -> str:
    """`vec4 inr_network(vec x, int k)`: the outputs of the network whose weights begin at texel k."""
    width = max(-(-layer.outputs // 4) for layer in plain.layers)
    features = 0 if plain.encoding is None else -(-len(plain.encoding.kinds) // 4)
    lines = [f"vec4 h[{max(width, features)}];", f"vec4 g[{width}];"]
    if plain.encoding is not None:
        lines += _encoded(plain.encoding, plain.dimensions)
    first, *hidden, last = plain.layers
    lines += _first(first, plain.dimensions) if plain.encoding is None else _hidden([first])
    lines += _hidden(hidden) if hidden else []
    lines += ["vec4 y = inr_at(k);", "k += 1;", *_products(last, "y"), "return y;"]
    body = textwrap.indent("\n".join(lines), "  ")
    return f"vec4 inr_network({_vector(plain.dimensions)} x, int k) {{\n{body}\n}}\n"


def _encoded(encoding: Encoding, dimensions: int) -> list[str]:
    made = []
    for block in range(0, len(encoding.kinds), 4):
        kinds = encoding.kinds[block : block + 4]
        phases = [
            _number(row[0]) + " * x" if dimensions == 1 else f"dot({_numbers(row)}, x)"
            for row in encoding.phases[block : block + 4]
        ]
        gap = ["0.0"] * (4 - len(kinds))
        argument = f"vec4({', '.join(phases + gap)})"
        names = sorted(set(kinds))
        if len(names) == 1:
            made.append(f"h[{block // 4}] = {_wave(names[0], argument)};")
            continue
        parts = [f"{_wave(kind, argument)}.{'xyzw'[place]}" for place, kind in enumerate(kinds)]
        made.append(f"h[{block // 4}] = vec4({', '.join(parts + gap)});")
    return made


def _wave(kind: str, argument: str) -> str:
    return argument if kind == "itself" else f"inr_{kind}({argument})"


def _first(layer: Layer, dimensions: int) -> list[str]:
    parts = [f"x.{'xyz'[axis]}" if dimensions > 1 else "x" for axis in range(dimensions)]
    total = " + ".join(f"inr_at(k + {axis + 1}) * {part}" for axis, part in enumerate(parts))
    return [
        f"for (int o = 0; o < {-(-layer.outputs // 4)}; o++) {{",
        f"  h[o] = {_active(layer, f'inr_at(k) + {total}')};",
        f"  k += {1 + layer.held};",
        "}",
    ]


def _hidden(layers: list[Layer]) -> list[str]:
    layer = layers[0]
    outputs = -(-layer.outputs // 4)
    lines = [
        f"for (int o = 0; o < {outputs}; o++) {{",
        "  vec4 a = inr_at(k);",
        "  k += 1;",
        *(f"  {line}" for line in _products(layer, "a")),
        f"  g[o] = {_active(layer, 'a')};",
        "}",
        f"for (int o = 0; o < {outputs}; o++) h[o] = g[o];",
    ]
    if len(layers) == 1:
        return lines
    return [f"for (int layer = 0; layer < {len(layers)}; layer++) {{", *(f"  {line}" for line in lines), "}"]


def _products(layer: Layer, total: str) -> list[str]:
    """Add the products of all inputs to a sum."""
    if layer.held % 4:
        parts = [f"inr_at(k + {place}) * h[0].{'xyzw'[place]}" for place in range(layer.held)]
        return [f"{total} += {' + '.join(parts)};", f"k += {layer.held};"]
    return [
        f"for (int i = 0; i < {layer.held // 4}; i++) {{",
        "  vec4 v = h[i];",
        f"  {total} += inr_at(k) * v.x + inr_at(k + 1) * v.y + inr_at(k + 2) * v.z + inr_at(k + 3) * v.w;",
        "  k += 4;",
        "}",
    ]


def _active(layer: Layer, argument: str) -> str:
    return f"inr_active({argument}, {_number(layer.omega)}, {_number(layer.scale)})"


def _decode(plain: Plain) -> str:
    """`vec4 inr_decode(vec4 y)`: stored values of what a network gives."""
    transform = plain.transform
    scale, shift = (_of_channels(transform[name]) for name in ("scale", "shift"))
    if transform["kind"] == "linear":
        lines = [f"y = y * {scale} + {shift};"]
    elif transform["kind"] == "power":
        lines = [
            f"y = pow((clamp(y, -1.0, 1.0) + 1.0) * 0.5, vec4({_number(transform['power'])})) * {scale} + {shift};"
        ]
    else:
        exponent = transform["exponent"]
        lines = [f"y = clamp(y, -1.0, 1.0) * {_number(transform['stretch'])} + {_number(transform['middle'])};"]
        if exponent:
            lines.append(f"y = log(1.0 + {_number(exponent)} * y) / {_number(exponent)};")
        lines.append(f"y = exp(y) * {scale} + {shift};")
    clip = plain.value_range
    if clip is not None:
        lines.append(f"y = clamp(y, {_number(clip[0])}, {_number(clip[1])});")
    body = "\n".join(f"  {line}" for line in [*lines, "return y;"])
    return f"vec4 inr_decode(vec4 y) {{\n{body}\n}}\n"


def _of_channels(constant: float | list[float]) -> str:
    """A literal of a number for all channels, or of a vector of four that begins with theirs."""
    return _numbers([*constant, 0.0, 0.0, 0.0][:4]) if isinstance(constant, list) else _number(constant)


def _single(plain: Plain) -> str:
    vector, integers = _vector(plain.dimensions), _integers(plain.dimensions)
    return (
        f"vec4 inr_place({integers} cell, {vector} within) {{ return inr_decode(inr_network(within, 0)); }}\n\n"
        f"vec4 inr_unit({vector} u) {{ return inr_place({integers}(0), u); }}\n"
    )


def _integers(count: int) -> str:
    return "int" if count == 1 else f"ivec{count}"


def _tiles(plain: Plain) -> str:
    """The tiles that reach a place, and their blending; see `Tiling`."""
    grid = plain.grid
    assert grid is not None
    axes = range(plain.dimensions)
    vector, integers = _vector(plain.dimensions), _integers(plain.dimensions)

    def part(name: str, axis: int) -> str:
        return f"{name}.{'xyz'[axis]}" if plain.dimensions > 1 else name

    calls = "".join(
        f"  inr_along({part('cell', axis)}, {part('within', axis)}, {grid.lattice[axis]}, {grid.counts[axis]}, "
        f"{_number(grid.overlaps[axis])}, near[{axis}], other[{axis}], share[{axis}]);\n"
        for axis in axes
    )
    lattice = ", ".join(str(length) for length in grid.lattice)
    counts = ", ".join(str(count) for count in grid.counts)
    middle = ", ".join(_number(side / 2) for side in grid.sides)
    cells = ", ".join(f"cell{'.' + 'xyz'[axis] if plain.dimensions > 1 else ''}" for axis in axes)
    places = ", ".join(part("within", axis) for axis in axes)
    local = f"{vector}({', '.join(f'at[{axis}]' for axis in axes)})" if plain.dimensions > 1 else "at[0]"
    count = plain.dimensions
    return f"""\
int inr_start(int tile, int cells, int count) {{ return tile * (cells / count) + tile * (cells % count) / count; }}

// Along an axis: the tile of a place, another one near it, and the other's weight.
void inr_along(
  int cell, float within, int cells, int count, float overlap, out int near, out int other, out float share
) {{
  int own = clamp(cell + int(floor(within)), 0, cells - 1);
  near = clamp(int(float(own) * (float(count) / float(cells))), 0, count - 1);
  if (inr_start(near, cells, count) > own) near--;
  if (near + 1 < count && inr_start(near + 1, cells, count) <= own) near++;
  other = near;
  share = 0.0;
  if (count == 1 || overlap == 0.0) return;
  float before = float(cell - inr_start(near, cells, count)) + within;
  float after = float(inr_start(near + 1, cells, count) - cell) - within;
  int next = before < after ? near - 1 : near + 1;
  if (next < 0 || next >= count) return;
  other = next;
  float reach = clamp(1.0 - min(before, after) / overlap, 0.0, 1.0) / 2.0;
  share = reach * reach * reach * (reach * (reach * 6.0 - 15.0) + 10.0);
}}

vec4 inr_place({integers} cell, {vector} within) {{
  int near[{count}], other[{count}];
  int lengths[{count}] = int[{count}]({lattice}), counts[{count}] = int[{count}]({counts});
  int cells[{count}] = int[{count}]({cells});
  float share[{count}], middle[{count}] = float[{count}]({middle}), places[{count}] = float[{count}]({places});
{calls}\
  vec4 sum = vec4(0.0);
  for (int choice = 0; choice < {2**count}; choice++) {{
    float weight = 1.0, at[{count}];
    int tile = 0;
    for (int axis = 0; axis < {count}; axis++) {{
      bool second = (choice >> axis & 1) == 1;
      int one = second ? other[axis] : near[axis];
      weight *= second ? share[axis] : 1.0 - share[axis];
      tile = tile * counts[axis] + one;
      at[axis] = (float(cells[axis] - inr_start(one, lengths[axis], counts[axis])) + places[axis] - middle[axis])
        / {_number(grid.scale)};
    }}
    if (weight <= 0.0) continue;
    vec4 head = inr_at(2 * tile), value = inr_at(2 * tile + 1);
    if (head.x >= 0.0) value += head.y * inr_network({local}, {plain.first} + int(head.x) * {plain.stride});
    sum += weight * value;
  }}
  return inr_decode(sum);
}}

vec4 inr_unit({vector} u) {{
  {vector} place = (u + 1.0) * (0.5 * {_numbers(grid.lattice)});
  {vector} cell = floor(place);
  return inr_place({integers}(cell), place - cell);
}}
"""


def _physical(plain: Plain) -> str:
    """`field_unit` and `field`."""
    vector, returns = _vector(plain.dimensions), _vector(plain.channels)
    swizzle = ".x" if plain.channels == 1 else f".{'xyzw'[: plain.channels]}"
    if plain.dimensions == 1:
        unit = f"(x - {_number(plain.offset[0])}) * {_number(plain.matrix[0, 0])}"
    else:
        columns = ", ".join(_number(value) for value in plain.matrix.T.reshape(-1))
        unit = f"mat{plain.dimensions}({columns}) * (x - {_numbers(plain.offset)})"
    lines = [
        f"{vector} u = {unit};",
        *(line for axis in plain.bends for line in _bend(plain, axis)),
        "return field_unit(u);",
    ]
    body = "\n".join(f"  {line}" for line in lines)
    return (
        f"\n{returns} field_unit({vector} u) {{ return inr_unit(u){swizzle}; }}\n\n"
        f"{returns} field({vector} x) {{\n{body}\n}}\n"
    )


def _bend(plain: Plain, axis: int) -> list[str]:
    """Lead a coordinate that even times give to that of the network, as a sum of ramps; see `Bends`."""
    even, bent = plain.bends[axis]
    part = f"u.{'xyz'[axis]}" if plain.dimensions > 1 else "u"
    slopes = np.diff(bent) / np.diff(even)
    ramps = [
        f"  + {_number(turn)} * max(t - {_number(knot)}, 0.0)"
        for knot, turn in zip(even[1:-1], np.diff(slopes), strict=True)
        if turn
    ]
    first = f"{part} = {_number(bent[0])} + {_number(slopes[0])} * (t - {_number(even[0])})"
    return [f"float t = {part};", "\n  ".join([first, *ramps]) + ";"]
