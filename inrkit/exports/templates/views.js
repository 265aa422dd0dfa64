/* What people look at: planes of pictures, videos and volumes, surfaces, and lines of sounds. */

const find = (selector) => document.querySelector(selector);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const thousands = (number) => Math.round(number).toLocaleString("en");
const ratio = () => Math.min(devicePixelRatio || 1, 2);

/* Painters draw coarsely first and finely when there is time, a strip at a time, so that the page never hangs. */
const waiting = new Set();
let beating = false;

function beat() {
  beating = false;
  const start = performance.now();
  while (waiting.size && performance.now() - start < 24) for (const painter of [...waiting]) painter.step();
  if (waiting.size) awake();
}
function awake() {
  if (!beating) requestAnimationFrame(beat);
  beating = true;
}

class Painter {
  /* scene: { name, uniforms(): of the shader, point(): (x, y in pixels, out) to the rgba of a pixel }. */
  constructor(canvas, scene) {
    Object.assign(this, { canvas, scene, context: canvas.getContext("2d"), cost: gpu ? 3e-6 : 1e-5, timed: false });
    this.scratch = document.createElement("canvas");
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  resize() {
    const box = this.canvas.getBoundingClientRect();
    const width = Math.max(1, Math.round(box.width * ratio())), height = Math.max(1, Math.round(box.height * ratio()));
    if (this.canvas.width === width && this.canvas.height === height) return;
    this.canvas.width = width;
    this.canvas.height = height;
    if (this.scene.resized) this.scene.resized();
    this.refresh();
  }

  refresh() {
    if (gpu && gpu.lost) fallBack("the graphics card gave up");
    const pixels = this.canvas.width * this.canvas.height;
    this.level = 1;
    while (this.level < 16 && pixels * this.cost > 30e-3 * this.level ** 2) this.level *= 2;
    this.row = this.passes = 0;
    waiting.add(this);
    awake();
  }

  step() {
    const width = Math.ceil(this.canvas.width / this.level), height = Math.ceil(this.canvas.height / this.level);
    const rows = clamp(Math.floor(12e-3 / (this.cost * width)), 1, height - this.row);
    const bottom = this.row + rows;
    let start = performance.now();
    try {
      if (gpu && !this.timed) {  // a first pixel, so that compiling is not taken for drawing
        gpu.strip(this.scene.name, this.scene.uniforms(this.level, width, height), 1, 1, 0, 1);
        start = performance.now();
      }
      this.strip(width, height, this.row, bottom);
    } catch (error) {
      if (!gpu) throw error;
      fallBack(error.message);
      return;
    }
    const cost = Math.max((performance.now() - start) / 1000 / (rows * width), 1e-10);
    this.cost = this.timed ? 0.5 * (this.cost + cost) : cost;
    this.timed = true;
    this.row = bottom;
    if (this.row < height) return;
    this.row = 0;
    this.passes++;
    // All at once, if that takes no time that anybody sees.
    if (this.level === 1) waiting.delete(this);
    else this.level = this.canvas.width * this.canvas.height * this.cost < 0.2 ? 1 : this.level / 2;
    if (!waiting.has(this)) tellSpeed(1 / this.cost, about.kind === "surface" ? "pixels of the surface" : "coordinates");
  }

  strip(width, height, top, bottom) {
    const rows = bottom - top, level = this.level, scratch = this.scratch;
    // What is coarse is shown when it is whole, since strips that are stretched one by one would not join.
    const into = level > 1 ? scratch : this.canvas, context = level > 1 ? scratch.getContext("2d") : this.context;
    if (level > 1 && (scratch.width !== width || scratch.height !== height)) {
      scratch.width = width;
      scratch.height = height;
    }
    context.clearRect(0, top, width, rows);
    if (gpu) {
      gpu.strip(this.scene.name, this.scene.uniforms(level, width, height), width, height, top, bottom);
      context.drawImage(gpu.canvas, 0, gpu.canvas.height - height + top, width, rows, 0, top, width, rows);
    } else {
      const image = new ImageData(width, rows), point = this.scene.point(level, width, height), pixel = [0, 0, 0, 0];
      for (let y = 0; y < rows; y++) {
        for (let x = 0; x < width; x++) {
          point(x + 0.5, top + y + 0.5, pixel);
          for (let c = 0; c < 4; c++) image.data[4 * (y * width + x) + c] = 255 * pixel[c] + 0.5;
        }
      }
      context.putImageData(image, 0, top);
    }
    if (level > 1) {
      if (bottom < height) return;
      this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      this.context.drawImage(into, 0, 0, width, height, 0, 0, width * level, height * level);
      if (this.scene.over) this.scene.over(this.context, 0, this.canvas.height);
    } else if (this.scene.over) this.scene.over(context, top, bottom);
  }
}

const painters = [];

function tellSpeed(rate, what) {
  find("#speed").textContent = `On this device it computes about ${thousands(Number(rate.toPrecision(2)))} ${what} a second.`;
}

function fallBack(reason) {
  gpu = null;
  lacking = reason;
  for (const painter of painters) {
    painter.timed = false;
    painter.cost = 1e-5;
    painter.refresh();
  }
  tell();
}

/* Drag, pinch and wheel on an element: moved(dx, dy, keys), zoomed(factor, x, y), tapped(x, y), in CSS pixels. */
function gestures(element, { moved, zoomed, tapped, hovered, reset }) {
  const fingers = new Map();
  let far = 0;
  const place = (event) => {
    const box = element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const spread = () => {
    const [[a, b], [c, d]] = [...fingers.values()];
    return { gap: Math.hypot(a - c, b - d), x: (a + c) / 2, y: (b + d) / 2 };
  };
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    far = 0;
  });
  element.addEventListener("pointermove", (event) => {
    const now = place(event), was = fingers.get(event.pointerId);
    if (!was) return hovered && hovered(...now);
    const before = fingers.size === 2 ? spread() : null;
    fingers.set(event.pointerId, now);
    far += Math.hypot(now[0] - was[0], now[1] - was[1]);
    if (before) {
      const after = spread();
      zoomed(after.gap / Math.max(before.gap, 1), after.x, after.y);
      moved(after.x - before.x, after.y - before.y, event);
    } else if (fingers.size === 1) moved(now[0] - was[0], now[1] - was[1], event);
  });
  const ended = (event) => {
    if (fingers.delete(event.pointerId) && far < 4 && event.type === "pointerup" && tapped) tapped(...place(event));
  };
  element.addEventListener("pointerup", ended);
  element.addEventListener("pointercancel", ended);
  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    zoomed(Math.exp(-clamp(event.deltaY * lines, -120, 120) / 400), ...place(event));
  }, { passive: false });
  if (reset) element.addEventListener("dblclick", reset);
  element.addEventListener("keydown", (event) => {
    const box = element.getBoundingClientRect(), step = 40;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) moved(...moves[event.key], event);
    else if (event.key === "+" || event.key === "=") zoomed(1.25, box.width / 2, box.height / 2);
    else if (event.key === "-") zoomed(0.8, box.width / 2, box.height / 2);
    else if (event.key === "0" && reset) reset();
    else return;
    event.preventDefault();
  });
}

/* A plane through the signal: two of its axes on the screen, the others at places that sliders set. */
class Plane {
  constructor(canvas, { horizontal, vertical, flipped = [false, false], fixed, changed }) {
    Object.assign(this, { canvas, axes: [horizontal, vertical], flipped, fixed, changed, name: "plane" });
    const sizes = this.axes.map((axis) => about.cell[axis]);
    this.stretch = sizes.map((size) => size / Math.min(...sizes));
    this.lengths = this.axes.map((axis) => about.shape[axis]);
    this.middle = [0, 0];  // of what is seen, in [-1, 1]
    this.painter = new Painter(canvas, this);
    painters.push(this.painter);
    gestures(canvas, {
      moved: (dx, dy) => this.move(dx, dy),
      zoomed: (factor, x, y) => this.zoomAt(factor, x, y),
      reset: () => this.reset(),
      hovered: (x, y) => this.tell && this.tell(this.under(x, y)),
      tapped: (x, y) => this.tapped && this.tapped(this.under(x, y)),
    });
    canvas.addEventListener("pointerleave", () => this.tell && this.tell(null));
  }

  get whole() {
    const [width, height] = [this.canvas.width, this.canvas.height], [a, b] = this.stretch;
    return Math.min(width / (this.lengths[0] * a), height / (this.lengths[1] * b));
  }
  resized() {
    const fitted = !this.zoom || this.zoom === this.last;
    this.last = this.whole * (about.kind === "slices" ? 0.96 : 1);
    if (fitted || this.zoom < this.last) this.zoom = this.last;
    this.report();
  }
  reset() {
    this.zoom = this.last;
    this.middle = [0, 0];
    this.refresh();
  }
  report() {
    if (this.changed) this.changed(this.zoom);
  }
  refresh() {
    this.report();
    this.painter.refresh();
  }

  /* Units of [-1, 1] that a canvas's pixel spans. */
  span(axis) {
    return 2 / (this.lengths[axis] * this.stretch[axis] * this.zoom) * (this.flipped[axis] ? -1 : 1);
  }
  move(dx, dy) {
    const before = [...this.middle];
    [dx, dy].forEach((delta, axis) => {
      this.middle[axis] = clamp(this.middle[axis] - delta * ratio() * this.span(axis), -1, 1);
    });
    this.carry(1, 0, 0, before);
    this.refresh();
  }
  zoomAt(factor, x, y) {
    const before = this.zoom, most = 4000 * ratio();
    this.zoom = clamp(this.zoom * factor, 0.5 * this.last, most);
    factor = this.zoom / before;
    const place = [x * ratio() - this.canvas.width / 2, y * ratio() - this.canvas.height / 2];
    const middle = [...this.middle];
    place.forEach((offset, axis) => {
      this.middle[axis] = clamp(middle[axis] + offset * (factor - 1) * this.span(axis), -1, 1);
    });
    this.carry(factor, ...place, middle);
    this.refresh();
  }
  /* Until the network has been asked again, what is on the screen moves along. */
  carry(factor, x, y, before) {
    const { canvas, painter } = this, copy = this.copy || (this.copy = document.createElement("canvas"));
    copy.width = canvas.width;
    copy.height = canvas.height;
    copy.getContext("2d").drawImage(canvas, 0, 0);
    const shift = before.map((was, axis) => (was - this.middle[axis]) / this.span(axis));
    const { width, height } = canvas;
    painter.context.clearRect(0, 0, width, height);
    painter.context.imageSmoothingEnabled = true;
    const left = width / 2 * (1 - factor) + shift[0], top = height / 2 * (1 - factor) + shift[1];
    painter.context.drawImage(copy, left, top, width * factor, height * factor);
  }

  /* Even coordinates of the signal at a place on the screen, in CSS pixels; null outside. */
  under(x, y) {
    const even = [...this.fixed];
    [x * ratio() - this.canvas.width / 2, y * ratio() - this.canvas.height / 2].forEach((offset, axis) => {
      even[this.axes[axis]] = this.middle[axis] + offset * this.span(axis);
    });
    return even.some((place) => Math.abs(place) > 1) ? null : even;
  }

  corner(level, width, height) {
    const unit = field.bent(this.fixed), centre = [...unit];
    [width, height].forEach((length, axis) => {
      centre[this.axes[axis]] = this.middle[axis];
      unit[this.axes[axis]] = this.middle[axis] - this.canvas[axis ? "height" : "width"] / 2 * this.span(axis);
    });
    return [unit, centre];
  }

  uniforms(level, width, height) {
    const plain = field.plain, [unit, centre] = this.corner(level, width, height);
    const [cell, within] = apart(plain, unit, centre);
    const steps = unit.map((_, axis) => (plain.grid ? plain.grid.lattice[axis] / 2 : 1));
    const along = [0, 1].map((side) => unit.map((_, axis) => (
      axis === this.axes[side] ? this.span(side) * level * steps[axis] : 0
    )));
    const low = unit.map((_, axis) => (plain.grid ? 0 : -1) - cell[axis]);
    const high = unit.map((_, axis) => (plain.grid ? plain.grid.lattice[axis] : 1) - cell[axis]);
    return {
      cell, within, across: along[0], down: along[1], low_end: low, high_end: high, extent: about.extent,
      channels: plain.channels, alpha: about.alpha ? 1 : 0, masked: known ? 1 : 0, lattice: about.shape,
      per_cell: about.shape.map((length, axis) => length / (high[axis] - low[axis])),
    };
  }

  point(level, width, height) {
    const [corner] = this.corner(level, width, height), unit = [...corner], values = new Float64Array(4);
    const steps = [0, 1].map((axis) => this.span(axis) * level), [low, high] = about.extent;
    return (x, y, pixel) => {
      pixel.fill(0);
      [x, y].forEach((offset, axis) => { unit[this.axes[axis]] = corner[this.axes[axis]] + offset * steps[axis]; });
      if (unit.some((place) => Math.abs(place) > 1) || !isKnown(unit)) return;
      field.at(unit, values);
      for (let c = 0; c < 4; c++) {
        const from = field.plain.channels < 3 ? 0 : c;
        pixel[c] = c === 3 && !about.alpha ? 1 : clamp((values[from] - low) / (high - low), 0, 1);
      }
    };
  }

  /* Lines where the other planes lie, in some rows of the canvas. */
  over(context, first, last) {
    if (!this.crossing) return;
    const { width, height } = this.canvas, lines = this.axes.map((axis, side) => (
      (this.fixed[axis] - this.middle[side]) / this.span(side) + (side ? height : width) / 2
    ));
    context.fillStyle = "rgb(110 180 255 / .55)";
    context.fillRect(Math.round(lines[0]), first, ratio(), last - first);
    const top = Math.max(Math.round(lines[1]), first), bottom = Math.min(Math.round(lines[1]) + ratio(), last);
    if (bottom > top) context.fillRect(0, top, width, bottom - top);
  }
}

function isKnown(unit) {
  if (!known) return true;
  const cell = unit.reduce((flat, place, axis) => {
    const length = about.shape[axis];
    return flat * length + clamp(Math.floor((place + 1) * length / 2), 0, length - 1);
  }, 0);
  return known[cell] > 0;
}

function cellText(even) {
  const place = field.physical(even), out = new Float32Array(field.plain.channels);
  field.at(field.bent(even), out);
  const digits = about.cell.map((size) => clamp(2 - Math.floor(Math.log10(size || 1)), 0, 9));
  const units = new Set(about.units), unit = units.size === 1 ? [...units][0] : "";
  const named = { pixel: "pixel ", cell: "cell ", own: "" }[unit];
  const words = place.map((number, axis) => number.toFixed(digits[axis]) + (unit ? "" : ` ${about.units[axis] || ""}`));
  const where = (named ?? "") + words.join(", ") + (unit && named === undefined ? ` ${unit}` : "");
  const shown = isKnown(field.bent(even)) ? [...out].map((value) => Number(value.toPrecision(4))).join(" ") : "not known";
  return `${where}  →  ${shown}`;
}

function pictureView() {
  find("#stage").innerHTML = `<canvas class="full" tabindex="0" role="img" aria-label="The picture; drag to move, wheel or pinch to zoom"></canvas>`;
  const plane = new Plane(find("canvas.full"), {
    horizontal: 1, vertical: 0, fixed: [0, 0],
    changed: (zoom) => { find("#zoom").textContent = zoomText(zoom); },
  });
  plane.tell = (even) => { find("#told").textContent = even ? cellText(even) : about.hint; };
  zoomButtons(plane);
  return plane;
}

function zoomText(zoom) {
  const times = zoom / ratio();
  return times < 10 ? `${times.toFixed(2)}×` : `${Math.round(times)}×`;
}

/* Add a control before the last one, which tells about the page. */
function control(text) {
  find("#about-this").insertAdjacentHTML("beforebegin", text);
}

function zoomButtons(view) {
  const middle = () => [view.canvas.clientWidth / 2, view.canvas.clientHeight / 2];
  control(`<span class="group">
    <button type="button" data-zoom="out" aria-label="Zoom out">−</button><output id="zoom">1×</output>
    <button type="button" data-zoom="in" aria-label="Zoom in">+</button><button type="button" data-zoom="reset">Whole</button>
    </span>`);
  find("[data-zoom=in]").onclick = () => view.zoomAt(1.6, ...middle());
  find("[data-zoom=out]").onclick = () => view.zoomAt(1 / 1.6, ...middle());
  find("[data-zoom=reset]").onclick = () => view.reset();
}

function slider(name, label, value) {
  return `<label class="slide"><span>${label}</span><input type="range" min="0" max="1" step="any" value="${value}" data-${name}>
    <output></output></label>`;
}

function framesView() {
  find("#stage").innerHTML = `<canvas class="full" tabindex="0" role="img" aria-label="The video; drag to move, wheel or pinch to zoom"></canvas>`;
  control(`<button type="button" id="play" aria-label="Play">▶</button>${slider("time", "time", 0)}`);
  const plane = new Plane(find("canvas.full"), {
    horizontal: 2, vertical: 1, fixed: [-1, 0, 0],
    changed: (zoom) => { find("#zoom").textContent = zoomText(zoom); },
  });
  zoomButtons(plane);
  plane.tell = (even) => { find("#told").textContent = even ? cellText(even) : about.hint; };
  const input = find("[data-time]"), output = input.nextElementSibling;
  const seconds = field.physical([1, 0, 0])[0] - field.physical([-1, 0, 0])[0];
  const at = (share) => {
    input.value = share;
    plane.fixed[0] = 2 * share - 1;
    output.textContent = `${field.physical(plane.fixed)[0].toFixed(2)} s`;
    plane.refresh();
  };
  let playing = false, before = 0;
  const turn = (now) => {
    if (!playing) return;
    if (plane.painter.passes > 0) {  // this moment has been seen, however coarsely
      at((Number(input.value) + (now - before) / 1000 / seconds) % 1);
      before = now;
    }
    requestAnimationFrame(turn);
  };
  find("#play").onclick = () => {
    playing = !playing;
    find("#play").textContent = playing ? "❚❚" : "▶";
    find("#play").setAttribute("aria-label", playing ? "Pause" : "Play");
    before = performance.now();
    if (playing) requestAnimationFrame(turn);
  };
  input.oninput = () => at(Number(input.value));
  at(0);
  return plane;
}

function slicesView() {
  const up = about.upright, fixed = [0, 0, 0];
  const planes = [0, 1, 2].map((axis) => {
    const others = [0, 1, 2].filter((other) => other !== axis);
    others.sort((a, b) => (up ? about.turnedTo[a] - about.turnedTo[b] : b - a));
    const [horizontal, vertical] = others;
    return { axis, horizontal, vertical, flipped: up ? [about.turned[horizontal], !about.turned[vertical]] : [false, false] };
  }).reverse();
  find("#stage").innerHTML = `<div class="slices">${planes.map(({ axis }) => `
    <figure><div><canvas tabindex="0" role="img" aria-label="A slice across ${about.axes[axis]}"></canvas></div>
    ${slider(`axis="${axis}"`, about.axes[axis], 0.5)}</figure>`).join("")}</div>`;
  document.body.classList.add("scrolls");
  const canvases = document.querySelectorAll(".slices canvas");
  const views = planes.map((plane, number) => new Plane(canvases[number], { ...plane, fixed, changed: () => {} }));
  const shown = (axis) => {
    const input = find(`[data-axis="${axis}"]`);
    input.value = (fixed[axis] + 1) / 2;
    input.nextElementSibling.textContent = sliceText(axis, fixed);
    for (const view of views) view.refresh();
  };
  views.forEach((view) => {
    view.crossing = true;
    view.tell = (even) => { find("#told").textContent = even ? cellText(even) : about.hint; };
    view.tapped = (even) => {
      if (!even) return;
      for (const axis of view.axes) {
        fixed[axis] = even[axis];
        shown(axis);
      }
    };
  });
  for (const axis of [0, 1, 2]) {
    find(`[data-axis="${axis}"]`).oninput = (event) => { fixed[axis] = 2 * event.target.value - 1; shown(axis); };
    shown(axis);
  }
  return views[0];
}

function sliceText(axis, even) {
  const unit = about.units[axis], plainUnit = ["cell", "pixel", "own"].includes(unit) ? "" : unit || "";
  const from = [...even], place = field.physical(from)[about.turnedTo[axis]];
  return `${place.toFixed(1)} ${plainUnit}`;
}

const FAR = 2.7;

/* A surface, sphere-traced: distances in the field are steps that cannot leap over it. */
class Surface {
  constructor(canvas) {
    Object.assign(this, { canvas, name: "surface", turn: 0.6, tilt: 0.35, far: FAR, shift: [0, 0] });
    this.scale = about.scale;
    this.into = field.plain.matrix.map((row) => row.map((value) => value * this.scale));
    this.painter = new Painter(canvas, this);
    painters.push(this.painter);
    gestures(canvas, {
      moved: (dx, dy, event) => {
        if (event.shiftKey) {
          const side = Math.min(canvas.clientWidth, canvas.clientHeight) / 2;
          this.shift = [this.shift[0] + dx / side, this.shift[1] - dy / side];
        } else {
          this.turn -= dx / 160;
          this.tilt = clamp(this.tilt + dy / 160, -1.55, 1.55);
        }
        this.painter.refresh();
      },
      zoomed: (factor) => this.zoomAt(factor),
      reset: () => this.reset(),
    });
  }
  reset() {
    Object.assign(this, { turn: 0.6, tilt: 0.35, far: FAR, shift: [0, 0] });
    this.painter.refresh();
  }
  zoomAt(factor) {
    this.far = clamp(this.far / factor, 0.05, 12);
    find("#zoom").textContent = `${(FAR / this.far).toFixed(2)}×`;
    this.painter.refresh();
  }

  /* The camera, in physical units from the middle, of which the longest half side is 1; y is up. */
  get camera() {
    const [sa, ca, sb, cb] = [Math.sin(this.turn), Math.cos(this.turn), Math.sin(this.tilt), Math.cos(this.tilt)];
    const back = [sa * cb, sb, ca * cb], right = [ca, 0, -sa], up = [-sa * sb, cb, -ca * sb];
    const light = [0, 1, 2].map((axis) => 0.55 * back[axis] + 0.65 * up[axis] - 0.45 * right[axis]);
    const length = Math.hypot(...light);
    // Nearer than the box, a longer focus takes over: the eye stays outside.
    const away = Math.max(this.far, 2.2), focal = 1.9 * away / this.far;
    return {
      eye: back.map((value) => value * away), right, up, ahead: back.map((value) => -value), focal,
      light: light.map((value) => value / length), detail: clamp(0.0012 * this.far / FAR, 1e-4, 2e-3),
    };
  }
  uniforms() {
    return { ...this.camera, into: this.into, shift: this.shift, level: about.level, per: 1 / this.scale };
  }

  point(level, width, height) {
    const { eye, right, up, ahead, focal, light, detail } = this.camera, into = this.into, out = [0];
    const axes = [0, 1, 2], unit = [0, 0, 0], dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    const away = (q) => {
      for (const axis of axes) unit[axis] = dot(into[axis], q);
      field.at(unit, out);
      return (out[0] - about.level) / this.scale;
    };
    const least = Math.min(width, height);
    return (x, y, pixel) => {
      pixel.fill(0);
      const px = (2 * x - width) / least - this.shift[0], py = (height - 2 * y) / least - this.shift[1];
      let ray = axes.map((axis) => focal * ahead[axis] + px * right[axis] + py * up[axis]);
      const size = Math.hypot(...ray);
      ray = ray.map((value) => value / size);
      const from = axes.map((axis) => dot(into[axis], eye)), along = axes.map((axis) => dot(into[axis], ray));
      const nearer = axes.map((axis) => Math.min((-1 - from[axis]) / along[axis], (1 - from[axis]) / along[axis]));
      const farther = axes.map((axis) => Math.max((-1 - from[axis]) / along[axis], (1 - from[axis]) / along[axis]));
      let t = Math.max(...nearer, 0), before = t, d = 1, hit = false;
      const begin = t, end = Math.min(...farther), at = (reach) => axes.map((axis) => eye[axis] + reach * ray[axis]);
      for (let i = 0; i < 200 && t < end; i++) {
        d = away(at(t));
        if (d < detail) { hit = true; break; }
        before = t;
        t += Math.max(0.9 * d, detail);
      }
      if (!hit) return;
      let normal;
      if (t === begin) normal = axes.map((axis) => (nearer[axis] === t ? -Math.sign(ray[axis]) : 0));
      else {
        for (let i = 0; i < 8 && d < 0; i++) {
          const middle = (before + t) / 2;
          if (away(at(middle)) < 0) t = middle;
          else before = middle;
        }
        const q = at(t), e = 2 * detail;
        normal = [0, 0, 0];
        for (const sign of [[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]]) {
          const value = away(axes.map((axis) => q[axis] + sign[axis] * e));
          for (const axis of axes) normal[axis] += sign[axis] * value;
        }
        const length = Math.hypot(...normal) || 1;
        normal = normal.map((value) => value / length);
      }
      const q = at(t), open = clamp(0.35 + 0.65 * away(axes.map((axis) => q[axis] + 0.035 * normal[axis])) / 0.035, 0, 1);
      const lit = Math.max(dot(normal, light), 0), sky = 0.5 + 0.5 * dot(normal, up);
      let half = axes.map((axis) => light[axis] - ray[axis]);
      const length = Math.hypot(...half);
      half = half.map((value) => value / length);
      const shine = Math.max(dot(normal, half), 0) ** 40, rim = (1 - Math.max(-dot(normal, ray), 0)) ** 3;
      const clay = [0.80, 0.75, 0.69], sun = [0.62, 0.59, 0.54], ground = [0.05, 0.05, 0.06], above = [0.17, 0.20, 0.25];
      for (const c of axes) {
        const shade = clay[c] * (lit * sun[c] + open * (ground[c] + (above[c] - ground[c]) * sky));
        pixel[c] = clamp((shade + 0.10 * shine + 0.06 * rim * open) ** 0.4545, 0, 1);
      }
      pixel[3] = 1;
    };
  }
}

function surfaceView() {
  find("#stage").innerHTML = `<canvas class="full" tabindex="0" role="img" aria-label="The surface; drag to turn, wheel or pinch to zoom"></canvas>`;
  const surface = new Surface(find("canvas.full"));
  zoomButtons(surface);
  find("#zoom").textContent = "1.00×";
  return surface;
}

/* One axis: a sound, or any signal along a line. */
class Line {
  constructor(canvas) {
    Object.assign(this, { canvas, context: canvas.getContext("2d"), from: 0, to: 1, cursor: 0, samples: null, done: 0, spent: 0 });
    this.whole = document.createElement("canvas");
    this.count = about.shape[0];
    this.channels = field.plain.channels;
    new ResizeObserver(() => this.draw()).observe(canvas);
    gestures(canvas, {
      moved: (dx) => this.move(-dx / canvas.clientWidth * (this.to - this.from)),
      zoomed: (factor, x) => this.zoomAt(factor, x),
      tapped: (x) => this.seek(this.from + (this.to - this.from) * x / canvas.clientWidth),
      hovered: (x) => {
        find("#told").textContent = cellText([2 * (this.from + (this.to - this.from) * x / canvas.clientWidth) - 1]);
      },
      reset: () => this.reset(),
    });
    canvas.addEventListener("pointerleave", () => { find("#told").textContent = about.hint; });
    this.compute();
  }
  reset() { this.from = 0; this.to = 1; this.draw(); }
  move(by) {
    by = clamp(by, -this.from, 1 - this.to);
    this.from += by;
    this.to += by;
    this.draw();
  }
  zoomAt(factor, x = this.canvas.clientWidth / 2) {
    const share = x / this.canvas.clientWidth, width = clamp((this.to - this.from) / factor, 4 / this.count, 1);
    const middle = this.from + share * (this.to - this.from);
    this.from = clamp(middle - share * width, 0, 1 - width);
    this.to = this.from + width;
    this.draw();
  }
  seek(share) {
    this.cursor = share;
    if (this.source) this.start();
    this.draw();
  }

  /* All samples, some at a time. */
  compute() {
    const block = 1 << 14, samples = this.samples = new Float32Array(this.count * this.channels);
    const part = () => {
      const start = performance.now();
      while (this.done < this.count && performance.now() - start < 20) {
        const last = Math.min(this.count, this.done + (gpu ? block : 512)), places = [];
        for (let i = this.done; i < last; i++) places.push(field.physical(field.straight([(2 * i + 1) / this.count - 1]))[0]);
        samples.set((gpu && gpu.values(places)) || field.values(places), this.done * this.channels);
        this.done = last;
      }
      this.spent += (performance.now() - start) / 1000;
      this.draw();
      if (this.done < this.count) return setTimeout(part);
      tellSpeed(this.count / Math.max(this.spent, 1e-3), "samples");
      if (find("#play")) find("#play").disabled = false;
    };
    part();
  }

  start() {
    this.stop();
    const sound = this.audio || (this.audio = new AudioContext());
    const length = Math.floor(this.count), rate = clamp(Math.round(about.rate), 8000, 96000);
    if (!this.buffer) {
      this.buffer = sound.createBuffer(this.channels, Math.max(1, Math.round(length * rate / about.rate)), rate);
      for (let c = 0; c < this.channels; c++) {
        const into = this.buffer.getChannelData(c);
        for (let i = 0; i < into.length; i++) {
          const at = Math.min(length - 1, Math.round(i * about.rate / rate));
          into[i] = this.samples[at * this.channels + c] / about.peak;
        }
      }
    }
    if (this.cursor >= 1) this.cursor = 0;
    this.source = sound.createBufferSource();
    this.source.buffer = this.buffer;
    this.source.connect(sound.destination);
    this.source.onended = () => { this.stop(); this.draw(); };
    this.source.start(0, this.cursor * this.buffer.duration);
    sound.resume();
    this.began = sound.currentTime - this.cursor * this.buffer.duration;
    const follow = () => {
      if (!this.source) return;
      this.cursor = clamp((sound.currentTime - this.began) / this.buffer.duration, 0, 1);
      this.draw();
      requestAnimationFrame(follow);
    };
    follow();
    find("#play").textContent = "❚❚";
  }
  stop() {
    if (!this.source) return;
    this.source.onended = null;
    this.source.stop();
    this.source = null;
    find("#play").textContent = "▶";
  }

  draw() {
    const { canvas } = this, box = canvas.getBoundingClientRect(), whole = this.whole;
    const width = Math.max(1, Math.round(box.width * ratio())), height = Math.max(1, Math.round(box.height * ratio()));
    const drawn = [width, height, this.from, this.to, this.done].join();
    if (this.drawn !== drawn) {
      whole.width = width;
      whole.height = height;
      this.curve(whole.getContext("2d"), width, height);
      this.drawn = drawn;
    }
    canvas.width = width;
    canvas.height = height;
    this.context.drawImage(whole, 0, 0);
    this.context.fillStyle = getComputedStyle(document.body).getPropertyValue("--ink");
    this.context.fillRect((this.cursor - this.from) / (this.to - this.from) * width, 0, ratio(), height);
  }

  curve(context, width, height) {
    const channels = this.channels, [low, high] = about.extent, lane = height / channels;
    const shown = (this.to - this.from) * this.count, fine = shown < 2 * width;
    if (find("#zoom")) find("#zoom").textContent = `${(1 / (this.to - this.from)).toFixed(1)}×`;
    const values = fine ? this.between(width) : null;
    for (let c = 0; c < channels; c++) {
      const y = (value) => lane * (c + 0.5) - (value - (low + high) / 2) / (high - low || 1) * lane * 0.88;
      context.strokeStyle = context.fillStyle = getComputedStyle(document.body).getPropertyValue("--accent");
      context.globalAlpha = 0.25;
      context.fillRect(0, y(clamp(0, low, high)), width, 1);
      context.globalAlpha = 1;
      if (!fine) {
        for (let x = 0; x < width; x++) {
          const first = Math.floor((this.from + (this.to - this.from) * x / width) * this.count);
          const last = Math.min(this.done, Math.max(first + 1, Math.ceil(first + shown / width)));
          let least = Infinity, most = -Infinity;
          for (let i = first; i < last; i++) {
            const value = this.samples[i * channels + c];
            if (value < least) least = value;
            if (value > most) most = value;
          }
          if (most >= least) context.fillRect(x, y(most), 1, Math.max(1, y(least) - y(most)));
        }
        continue;
      }
      context.lineWidth = 1.6 * ratio();
      context.lineJoin = "round";
      context.beginPath();
      for (let x = 0; x <= width; x++) context.lineTo(x, y(values[x * channels + c]));
      context.stroke();
      if (shown > width / 6) continue;
      for (let i = Math.floor(this.from * this.count); i < Math.min(this.done, this.to * this.count); i++) {
        context.beginPath();
        context.arc(((i + 0.5) / this.count - this.from) / (this.to - this.from) * width, y(this.samples[i * channels + c]), 3 * ratio(), 0, 7);
        context.fill();
      }
    }
  }

  /* The network asked at each column of the screen, between the samples too. */
  between(width) {
    const values = new Float32Array((width + 1) * this.channels);
    for (let x = 0; x <= width; x++) {
      field.at([2 * (this.from + (this.to - this.from) * x / width) - 1], values, x * this.channels);
    }
    return values;
  }
}

function lineView() {
  find("#stage").innerHTML = `<canvas class="full line" tabindex="0" role="img" aria-label="The signal along its axis; wheel or pinch to zoom, tap to go there"></canvas>`;
  if (about.kind === "sound") {
    control(`<button type="button" id="play" class="large" aria-label="Play" disabled>▶</button>`);
  }
  const line = new Line(find("canvas.line"));
  zoomButtons(line);
  if (find("#play")) find("#play").onclick = () => (line.source ? (line.stop(), line.draw()) : line.start());
  return line;
}

/* What the page says of itself. */
function shared(share) {
  return share === 0 ? "0" : share.toExponential(0).replace("e-", " · 10⁻").replace(/\d+$/, (digits) => (
    [...digits].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("")
  ));
}

function tell() {
  const places = [...held("places", Float64Array)], direct = difference(field.values(places));
  let card = null;
  try {
    const values = gpu && gpu.values(places);
    card = values && difference(values);
  } catch (error) {
    lacking = error.message;
    gpu = null;
  }
  const most = card === null ? direct : card;
  const where = gpu ? "on the graphics card (WebGL2)" : "on the processor (JavaScript)";
  find("#where").textContent = `The network runs ${where}${gpu ? "" : `, because ${lacking}`}.`;
  find("#equal").textContent = `At ${thousands(places.length / field.plain.dimensions)} random coordinates it differs from `
    + `Python's field by ${shared(most)} of the range of values at most${card === null ? "" : `; on the processor by ${shared(direct)}`}.`
    + (gpu && card === null ? " That was on the processor, because this graphics card does not give its numbers back." : "");
  find("#badge").textContent = most < 1e-3 ? `equal to Python within ${shared(most)}` : `differs from Python by ${shared(most)}`;
  find("#badge").classList.toggle("wrong", !(most < 1e-3));
  return { direct, card };
}

const view = { picture: pictureView, frames: framesView, slices: slicesView, surface: surfaceView, sound: lineView, line: lineView }[about.kind]();
find("#told").textContent = about.hint;
find("#about-this").onclick = () => find("#facts").showModal();
const differences = tell();
window.inrkit = {
  field, differences, view, gpu: () => gpu, idle: () => waiting.size === 0,
  values: (places) => field.values(places.flat()),
};
document.documentElement.dataset.ready = "";
