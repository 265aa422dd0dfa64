"use strict";

/* The field itself: on the processor in double precision, and on the graphics card in float32. Both read the same
   texels, whose order inrkit/exports/plain.py tells. */

const about = JSON.parse(document.getElementById("about").textContent);
const source = document.getElementById("source").textContent;

function held(id, Kind) {
  const text = atob(document.getElementById(id).textContent.trim());
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Kind(bytes.buffer);
}

function interpolated(place, from, to) {
  let left = 0;
  while (left < from.length - 2 && place >= from[left + 1]) left++;
  return to[left] + (to[left + 1] - to[left]) / (from[left + 1] - from[left]) * (place - from[left]);
}

class Field {
  constructor(plain, texels) {
    this.plain = plain;
    this.texels = texels;
    const widths = plain.layers.flatMap((layer) => [layer.held, 4 * Math.ceil(layer.outputs / 4)]);
    this.features = [0, 1].map(() => new Float64Array(Math.max(4, ...widths)));
    this.reached = Array.from({ length: plain.dimensions }, () => ({ near: 0, other: 0, share: 0, position: 0 }));
    this.local = new Float64Array(plain.dimensions);
    this.sum = new Float64Array(4);
  }

  /* Even coordinates in [-1, 1] of physical ones, and the other way round. */
  even(x) {
    return this.plain.matrix.map((row) => row.reduce((sum, factor, j) => sum + factor * (x[j] - this.plain.offset[j]), 0));
  }
  physical(even) {
    return about.affine.map((row) => row.reduce((sum, factor, j) => sum + factor * (j < even.length ? even[j] : 1), 0));
  }

  /* The network's coordinates of even ones, and the other way round; they differ where frames are shown unequally long. */
  bent(even) {
    return even.map((place, axis) => (this.plain.bends[axis] ? interpolated(place, ...this.plain.bends[axis]) : place));
  }
  straight(unit) {
    return unit.map((place, axis) => {
      const knots = this.plain.bends[axis];
      return knots ? interpolated(place, knots[1], knots[0]) : place;
    });
  }

  /* Values at coordinates of the network, into `out` from `start` on. */
  at(unit, out, start = 0) {
    const sum = this.sum.fill(0);
    if (this.plain.grid) this.blend(unit, sum);
    else sum.set(this.network(unit, 0).subarray(0, this.plain.channels));
    for (let c = 0; c < this.plain.channels; c++) out[start + c] = this.decode(sum[c], c);
  }

  blend(unit, sum) {
    const { lattice, counts, sides, overlaps, scale } = this.plain.grid;
    const axes = unit.length, texels = this.texels;
    for (let axis = 0; axis < axes; axis++) {
      const cells = lattice[axis], count = counts[axis], overlap = overlaps[axis], found = this.reached[axis];
      const position = (unit[axis] + 1) * (cells / 2);
      const cell = Math.min(Math.max(Math.floor(position), 0), cells - 1);
      const near = Math.floor(((cell + 1) * count - 1) / cells);
      found.position = position;
      found.near = found.other = near;
      found.share = 0;
      if (count === 1 || overlap === 0) continue;
      const before = position - Math.floor(near * cells / count), after = Math.floor((near + 1) * cells / count) - position;
      const next = before < after ? near - 1 : near + 1;
      if (next < 0 || next >= count) continue;
      const reach = Math.min(Math.max(1 - Math.min(before, after) / overlap, 0), 1) / 2;
      found.other = next;
      found.share = reach * reach * reach * (reach * (reach * 6 - 15) + 10);
    }
    for (let choice = 0; choice < 1 << axes; choice++) {
      let weight = 1, tile = 0;
      for (let axis = 0; axis < axes; axis++) {
        const found = this.reached[axis], second = choice >> axis & 1, one = second ? found.other : found.near;
        weight *= second ? found.share : 1 - found.share;
        tile = tile * counts[axis] + one;
        this.local[axis] = (found.position - Math.floor(one * lattice[axis] / counts[axis]) - sides[axis] / 2) / scale;
      }
      if (weight <= 0) continue;
      const head = 8 * tile, row = texels[head], channels = this.plain.channels;
      const values = row < 0 ? null : this.network(this.local, this.plain.first + row * this.plain.stride);
      const spread = texels[head + 1];
      for (let c = 0; c < channels; c++) sum[c] += weight * (texels[head + 4 + c] + (values ? spread * values[c] : 0));
    }
  }

  network(x, first) {
    const texels = this.texels, encoding = this.plain.encoding;
    let [h, g] = this.features, k = 4 * first;
    if (encoding) {
      for (let f = 0; f < encoding.kinds.length; f++) {
        let phase = 0;
        for (let axis = 0; axis < x.length; axis++) phase += encoding.phases[f][axis] * x[axis];
        const kind = encoding.kinds[f];
        h[f] = kind === "sine" ? Math.sin(phase) : kind === "cosine" ? Math.cos(phase) : phase;
      }
    } else h.set(x);
    for (const layer of this.plain.layers) {
      const { outputs, held, activation, omega, scale } = layer;
      for (let o = 0; o < outputs; o += 4) {
        let a = texels[k], b = texels[k + 1], c = texels[k + 2], d = texels[k + 3];
        k += 4;
        for (let i = 0; i < held; i++, k += 4) {
          const v = h[i];
          a += texels[k] * v;
          b += texels[k + 1] * v;
          c += texels[k + 2] * v;
          d += texels[k + 3] * v;
        }
        g[o] = active(a, activation, omega, scale);
        g[o + 1] = active(b, activation, omega, scale);
        g[o + 2] = active(c, activation, omega, scale);
        g[o + 3] = active(d, activation, omega, scale);
      }
      [h, g] = [g, h];
    }
    return h;
  }

  decode(y, channel) {
    const transform = this.plain.transform, range = this.plain.value_range;
    const of = (constant) => (Array.isArray(constant) ? constant[channel] : constant);
    if (transform.kind === "power") y = ((Math.min(Math.max(y, -1), 1) + 1) / 2) ** transform.power;
    if (transform.kind === "boxcox") {
      y = Math.min(Math.max(y, -1), 1) * transform.stretch + transform.middle;
      y = Math.exp(transform.exponent ? Math.log1p(transform.exponent * y) / transform.exponent : y);
    }
    y = y * of(transform.scale) + of(transform.shift);
    return range ? Math.min(Math.max(y, range[0]), range[1]) : y;
  }

  /* (n · C) values at (n · D) physical coordinates. */
  values(places) {
    const { dimensions, channels } = this.plain, count = places.length / dimensions;
    const out = new Float32Array(count * channels);
    for (let i = 0; i < count; i++) {
      this.at(this.bent(this.even(places.slice(i * dimensions, (i + 1) * dimensions))), out, i * channels);
    }
    return out;
  }
}

function active(z, activation, omega, scale) {
  if (activation === "sine") return Math.sin(omega * z);
  if (activation === "none") return z;
  if (activation === "relu") return Math.max(z, 0);
  if (activation === "gauss") return Math.exp(-((scale * z) ** 2));
  const sine = Math.sin(omega * (Math.abs(z) + 1) * z);
  return activation === "finer" ? sine : Math.exp(-((scale * sine) ** 2));
}

/* The same on the graphics card. It draws into one canvas, which views copy from. */
class Gpu {
  constructor(field) {
    this.field = field;
    this.canvas = document.createElement("canvas");
    const gl = this.canvas.getContext("webgl2", {
      antialias: false, depth: false, preserveDrawingBuffer: true, premultipliedAlpha: false,
    });
    if (!gl) throw new Error("this browser has no WebGL2");
    this.gl = gl;
    const rows = field.texels.length / (4 * about.width);
    if (Math.max(rows, about.width) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) throw new Error("the network is too large");
    this.weights = this.texture(gl.RGBA32F, about.width, rows, gl.RGBA, gl.FLOAT, field.texels);
    this.known = about.known && this.knownTexture();
    this.floats = gl.getExtension("EXT_color_buffer_float");
    this.programs = {};
    this.lost = false;
    this.canvas.addEventListener("webglcontextlost", () => { this.lost = true; });
  }

  texture(inside, width, height, format, type, data) {
    const gl = this.gl, texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texStorage2D(gl.TEXTURE_2D, 1, inside, width, height);
    if (data) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, format, type, data);
    for (const name of ["TEXTURE_MIN_FILTER", "TEXTURE_MAG_FILTER"]) gl.texParameteri(gl.TEXTURE_2D, gl[name], gl.NEAREST);
    return texture;
  }

  knownTexture() {
    const gl = this.gl, rows = Math.ceil(known.length / about.width), bytes = new Uint8Array(rows * about.width);
    bytes.set(known);
    return this.texture(gl.R8, about.width, rows, gl.RED, gl.UNSIGNED_BYTE, bytes);
  }

  program(name) {
    if (this.programs[name]) return this.programs[name];
    const gl = this.gl, program = gl.createProgram();
    const vertex = "#version 300 es\nvoid main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0); }";
    const types = ["float", "vec2", "vec3"], whole = ["int", "ivec2", "ivec3"], axes = this.field.plain.dimensions - 1;
    const main = document.getElementById(`shader-${name}`).textContent
      .replaceAll("VECTOR", types[axes]).replaceAll("CELL", whole[axes]);
    const fragment = "#version 300 es\nprecision highp float;\nprecision highp int;\n" + source + main;
    for (const [type, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost()) {
        throw new Error(gl.getShaderInfoLog(shader));
      }
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program) || "lost");
    const places = {};
    for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
      const { name: uniform, type } = gl.getActiveUniform(program, i);
      places[uniform] = [gl.getUniformLocation(program, uniform), type];
    }
    return this.programs[name] = { program, places };
  }

  use(name, uniforms) {
    const gl = this.gl, { program, places } = this.program(name);
    gl.useProgram(program);
    let unit = 0;
    for (const [uniform, value] of Object.entries({ inr_weights: this.weights, known: this.known, ...uniforms })) {
      if (!places[uniform]) continue;
      const [place, type] = places[uniform];
      if (type === gl.SAMPLER_2D) {
        gl.activeTexture(gl.TEXTURE0 + unit);
        gl.bindTexture(gl.TEXTURE_2D, value || this.weights);
        gl.uniform1i(place, unit++);
      } else if (type === gl.FLOAT_MAT3) gl.uniformMatrix3fv(place, true, value.flat());
      else {
        const list = [value].flat(), whole = [gl.INT, gl.INT_VEC2, gl.INT_VEC3].includes(type);
        gl[`uniform${list.length}${whole ? "i" : "f"}v`](place, list);
      }
    }
  }

  /* Draw rows `top` to `bottom` of a picture of width × height pixels, which lies in the lower left of the canvas. */
  strip(name, uniforms, width, height, top, bottom) {
    const gl = this.gl, canvas = this.canvas;
    if (canvas.width < width) canvas.width = width;
    if (canvas.height < height) canvas.height = height;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, width, height);
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(0, height - bottom, width, bottom - top);
    this.use(name, { size: [width, height], ...uniforms });
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));  // wait, so that the time can be measured
  }

  /* Values as `Field.values` gives them; null where the card cannot give floats. */
  values(places) {
    if (!this.floats || this.lost) return null;
    const gl = this.gl, { dimensions, channels } = this.field.plain, count = places.length / dimensions;
    const width = Math.min(512, count), height = Math.ceil(count / width);
    const cells = new Float32Array(4 * width * height), within = new Float32Array(4 * width * height);
    for (let i = 0; i < count; i++) {
      const unit = this.field.bent(this.field.even(places.slice(i * dimensions, (i + 1) * dimensions)));
      const [cell, rest] = apart(this.field.plain, unit);
      cells.set(cell, 4 * i);
      within.set(rest, 4 * i);
    }
    const made = [cells, within].map((data) => this.texture(gl.RGBA32F, width, height, gl.RGBA, gl.FLOAT, data));
    made.push(this.texture(gl.RGBA32F, width, height));
    const buffer = gl.createFramebuffer(), out = new Float32Array(4 * width * height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, buffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, made[2], 0);
    gl.viewport(0, 0, width, height);
    gl.disable(gl.SCISSOR_TEST);
    this.use("values", { cells: made[0], rests: made[1] });
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.FLOAT, out);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.deleteFramebuffer(buffer);
    for (const texture of made) gl.deleteTexture(texture);
    const values = new Float32Array(count * channels);
    for (let i = 0; i < count; i++) values.set(out.subarray(4 * i, 4 * i + channels), i * channels);
    return values;
  }
}

/* A place as the shader takes it: whole cells, and what is left, which may have other origins than its own cell. */
function apart(plain, unit, from = unit) {
  if (!plain.grid) return [unit.map(() => 0), unit];
  const { lattice } = plain.grid;
  const cell = from.map((place, axis) => Math.floor((place + 1) * lattice[axis] / 2));
  return [cell, unit.map((place, axis) => (place + 1) * lattice[axis] / 2 - cell[axis])];
}

/* Cells of a lattice as 255 where the signal is known and 0 elsewhere; null for everywhere. */
function unpacked() {
  if (!about.known) return null;
  const bits = held("known", Uint8Array), cells = new Uint8Array(about.shape.reduce((a, b) => a * b));
  for (let i = 0; i < cells.length; i++) cells[i] = bits[i >> 3] >> (7 - (i & 7)) & 1 ? 255 : 0;
  return cells;
}

const known = unpacked();
const field = new Field(about.plain, held("weights", Float32Array));
let gpu = null, lacking = "";
try {
  if (new URLSearchParams(location.search).has("cpu")) throw new Error("the address says cpu");
  gpu = new Gpu(field);
} catch (error) {
  lacking = error.message;
}

/* The largest difference from Python at random coordinates, as a share of the range of values. */
function difference(values) {
  const expected = held("expected", Float32Array);
  let most = 0;
  for (let i = 0; i < expected.length; i++) {
    const apart = Math.abs(values[i] - expected[i]);
    if (!(apart <= most)) most = apart;
  }
  return most / about.span;
}
