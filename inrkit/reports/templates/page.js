"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const view = (kind) => (data.views || []).find((each) => each.kind === kind);

// Libraries and arrays are stored compressed.
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
const libraries = {};
function library(name) {
  libraries[name] ??= unpacked($(`#library-${name}`).textContent).then((bytes) => {
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(bytes);
    document.head.append(script);
  });
  return libraries[name];
}
function failed(place, error) {
  const note = document.createElement("p");
  note.className = "note";
  note.textContent = `This cannot be drawn here: ${error.message || error}`;
  place.replaceChildren(note);
}

// Light and dark.
const themed = [];
{
  const button = $("#theme");
  const show = () => button.setAttribute("aria-pressed", String(document.documentElement.dataset.theme === "dark"));
  const change = (theme) => {
    document.documentElement.dataset.theme = theme;
    show();
    for (const redraw of themed) redraw();
  };
  show();
  button.addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("inrkit-theme", theme); } catch (_) { /* a page from disk may have no storage */ }
    change(theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => change(event.matches ? "dark" : "light"));
}

// Buttons of which one is pressed.
function choice(buttons, chosen) {
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      chosen(button);
    });
  }
}
for (const button of $$("[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = $("pre", button.parentElement).textContent;
    try { await navigator.clipboard.writeText(text); } catch (_) {
      const range = document.createRange();
      range.selectNodeContents($("pre", button.parentElement));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

// A picture: a slider between original and fit, and a zoom that moves both.
function comparePictures() {
  const box = $("[data-compare]");
  if (!box) return;
  const shown = view("picture");
  const base = $("[data-layer=base]", box), over = $("[data-layer=over]", box), cut = $("[data-cut]"), scale = $("[data-scale]");
  const names = { original: "The original picture", fit: "The fit", errors: "The error between original and fit: lighter is larger" };
  const show = (mode) => {
    box.dataset.mode = mode === "both" ? "both" : "one";
    const name = mode === "both" ? "original" : mode;
    base.src = shown[name];
    base.alt = names[name];
    if (over && mode === "both") over.src = shown.fit;
    if (cut) cut.disabled = mode !== "both";
    if (scale) scale.hidden = mode !== "errors";
  };
  const modes = $$("[data-mode]", $("[data-modes]"));
  choice(modes, (button) => show(button.dataset.mode));
  show(modes.find((button) => button.getAttribute("aria-pressed") === "true").dataset.mode);

  let at = 50, zoom = 1, x = 0, y = 0;
  const place = () => {
    const edge = box.clientWidth * (1 - zoom), foot = box.clientHeight * (1 - zoom);
    x = Math.min(0, Math.max(edge, x)); y = Math.min(0, Math.max(foot, y));
    for (const stage of $$(".stage", box)) stage.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
    box.toggleAttribute("data-zoomed", zoom > 1);
    $("[data-zoom-level]").textContent = `${+zoom.toPrecision(2)}×`;
    for (const image of [base, over]) if (image) image.style.imageRendering = zoom > 2 ? "pixelated" : "";
  };
  const move = (share) => {
    at = Math.min(100, Math.max(0, share));
    box.style.setProperty("--at", `${at}%`);
    if (cut) cut.value = at;
  };
  const magnify = (factor, left = box.clientWidth / 2, top = box.clientHeight / 2) => {
    const next = Math.min(32, Math.max(1, zoom * factor));
    x = left - (left - x) * next / zoom; y = top - (top - y) * next / zoom; zoom = next;
    place();
  };
  if (cut) cut.addEventListener("input", () => move(+cut.value));
  for (const button of $$("[data-zoom]")) {
    button.addEventListener("click", () => {
      if (button.dataset.zoom === "reset") { zoom = 1; x = y = 0; place(); } else magnify(button.dataset.zoom === "in" ? 2 : 0.5);
    });
  }
  box.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && zoom === 1) return;
    event.preventDefault();
    const frame = box.getBoundingClientRect();
    magnify(Math.exp(-event.deltaY / 300), event.clientX - frame.left, event.clientY - frame.top);
  }, { passive: false });
  let dragged = null;
  box.addEventListener("pointerdown", (event) => {
    const frame = box.getBoundingClientRect();
    const near = Math.abs(event.clientX - frame.left - frame.width * at / 100) < 30;
    dragged = { cut: box.dataset.mode === "both" && (zoom === 1 || near), x: event.clientX, y: event.clientY };
    box.setPointerCapture(event.pointerId);
    if (dragged.cut) move(100 * (event.clientX - frame.left) / frame.width);
  });
  box.addEventListener("pointermove", (event) => {
    if (!dragged) return;
    const frame = box.getBoundingClientRect();
    if (dragged.cut) { move(100 * (event.clientX - frame.left) / frame.width); return; }
    x += event.clientX - dragged.x; y += event.clientY - dragged.y;
    dragged.x = event.clientX; dragged.y = event.clientY;
    place();
  });
  for (const name of ["pointerup", "pointercancel"]) box.addEventListener(name, () => { dragged = null; });
  box.addEventListener("dblclick", (event) => {
    const frame = box.getBoundingClientRect();
    if (zoom > 1) { zoom = 1; x = y = 0; place(); } else magnify(4, event.clientX - frame.left, event.clientY - frame.top);
  });
  addEventListener("resize", place);
}

// Sound: only one player at a time.
function playOne() {
  const players = $$("audio");
  for (const player of players) player.addEventListener("play", () => players.forEach((other) => other !== player && other.pause()));
}

function playFrames() {
  const box = $("[data-frames]");
  if (!box) return;
  const shown = view("frames"), slider = $("[data-at]", box), play = $("[data-play]", box), time = $("[data-time]", box);
  const images = $$("[data-frame]", box);
  const show = (number) => {
    slider.value = number;
    time.textContent = `${shown.at[number]} s`;
    for (const image of images) image.src = shown[image.dataset.frame][number];
  };
  let timer = null;
  const pause = () => { clearInterval(timer); timer = null; play.textContent = "▶ Play"; play.setAttribute("aria-pressed", "false"); };
  slider.addEventListener("input", () => { pause(); show(+slider.value); });
  play.addEventListener("click", () => {
    if (timer) { pause(); return; }
    play.textContent = "❚❚ Pause"; play.setAttribute("aria-pressed", "true");
    const wait = Math.max(30, 1000 * shown.seconds / shown.at.length);
    timer = setInterval(() => show((+slider.value + 1) % shown.at.length), wait);
  });
}

// A volume: niivue shows three planes; the second view follows the first.
async function showSlices() {
  const box = $("[data-slices]");
  if (!box) return;
  try {
    await library("niivue");
    const shown = view("slices");
    const volume = async (name) => ({ bytes: await unpacked(shown[name]), name });
    const make = async (canvas, first) => {
      const viewer = new niivue.Niivue({
        backColor: [0, 0, 0, 1], crosshairColor: [0.47, 0.7, 1, 0.9], crosshairWidthUnit: "voxels", crosshairWidth: 0.15, show3Dcrosshair: false,
        isOrientCube: false, isColorbar: false, loadingText: "", dragAndDropEnabled: false, isNearestInterpolation: true,
        multiplanarShowRender: 0, textHeight: 0, isSliceMM: false, logLevel: "silent", isResizeCanvas: true,
      });
      await viewer.attachToCanvas(canvas, false);
      viewer.setSliceType(viewer.sliceTypeMultiplanar);
      await put(viewer, first);
      return viewer;
    };
    const put = async (viewer, name) => {
      const { bytes } = await volume(name);
      while (viewer.volumes.length) viewer.removeVolume(viewer.volumes[0]);
      const image = await niivue.NVImage.new(bytes, `${name}.nii`, name === "errors" ? "inferno" : "gray", 1, null, 0, 255);
      image.cal_min = 0; image.cal_max = 255;
      viewer.addVolume(image);
      viewer.updateGLVolume();
    };
    const fit = await make($("#slices-fit"), shown.fit ? "fit" : "original");
    const original = $("#slices-original") ? await make($("#slices-original"), "original") : null;
    const viewers = original ? [original, fit] : [fit];
    const sliders = $$("[data-axis]", box);
    const follow = (viewer) => {
      const place = viewer.scene.crosshairPos;
      sliders.forEach((slider, axis) => {
        slider.value = Math.round(place[axis] * shown.shape[axis] - 0.5);
        $(`[data-axis-value="${axis}"]`, box).textContent = `${+slider.value + 1} of ${shown.shape[axis]}`;
      });
    };
    const put_place = () => {
      for (const viewer of viewers) {
        viewer.scene.crosshairPos = sliders.map((slider, axis) => (+slider.value + 0.5) / shown.shape[axis]);
        viewer.drawScene();
      }
      follow(viewers[0]);
    };
    for (const slider of sliders) slider.addEventListener("input", put_place);
    for (const viewer of viewers) {
      viewer.onLocationChange = () => {
        for (const other of viewers) {
          if (other === viewer) continue;
          other.scene.crosshairPos = [...viewer.scene.crosshairPos];
          other.drawScene();
        }
        follow(viewer);
      };
    }
    choice($$("[data-slice]", box), async (button) => {
      await put(fit, button.dataset.slice);
      $("[data-slice-name]", box).textContent = button.textContent.toLowerCase();
      const scale = $("[data-scale]", box);
      if (scale) scale.hidden = button.dataset.slice !== "errors";
      put_place();
    });
    put_place();
    box.dataset.ready = "";
    window.viewers = viewers;
  } catch (error) { failed($(".stack", box), error); }
}

// Meshes: three.js draws both, and one camera looks at both.
async function showSurfaces() {
  const shown = view("surface");
  if (!shown) return;
  const canvases = ["original", "fit"].map((name) => $(`#surface-${name}`));
  try {
    await library("three");
    const camera = new three.PerspectiveCamera(32, 4 / 3, 0.05, 50);
    let reach = 1;  // of the farthest place from the middle
    const stages = [];
    for (const name of ["original", "fit"]) {
      const mesh = shown[name], canvas = $(`#surface-${name}`);
      const renderer = new three.WebGLRenderer({ canvas, antialias: true, alpha: true, preserveDrawingBuffer: true });
      renderer.setPixelRatio(Math.min(2, devicePixelRatio));
      const scene = new three.Scene();
      const geometry = new three.BufferGeometry(), places = new Float32Array(await unpacked(mesh.vertices));
      for (let i = 0; i < places.length; i += 3) reach = Math.max(reach, Math.hypot(places[i], places[i + 1], places[i + 2]));
      geometry.setAttribute("position", new three.BufferAttribute(places, 3));
      const bytes = new Uint8Array(await unpacked(mesh.colours)), paint = new Float32Array(bytes.length), one = new three.Color();
      for (let i = 0; i < bytes.length; i += 3) {
        one.setRGB(bytes[i] / 255, bytes[i + 1] / 255, bytes[i + 2] / 255, "srgb");
        one.toArray(paint, i);
      }
      geometry.setAttribute("color", new three.BufferAttribute(paint, 3));
      if (mesh.counts[1]) {
        geometry.setIndex(new three.BufferAttribute(new Uint32Array(await unpacked(mesh.faces)), 1));
        geometry.computeVertexNormals();
        const material = new three.MeshStandardMaterial({ vertexColors: true, roughness: 0.62, metalness: 0.02, side: three.DoubleSide });
        scene.add(new three.Mesh(geometry, material));
      } else {
        scene.add(new three.Points(geometry, new three.PointsMaterial({ size: 0.014, vertexColors: true })));
      }
      scene.add(new three.HemisphereLight(0xffffff, 0x8a92a0, 2.3));
      const lamp = new three.DirectionalLight(0xffffff, 2.2);
      scene.add(lamp);
      stages.push({ renderer, scene, lamp, canvas });
    }
    const draw = () => {
      for (const { renderer, scene, lamp, canvas } of stages) {
        const { clientWidth: width, clientHeight: height } = canvas.parentElement;
        renderer.setSize(width, height, false);
        camera.aspect = width / height;
        camera.updateProjectionMatrix();
        lamp.position.copy(camera.position).add({ x: 0.6, y: 1.4, z: 0 });
        renderer.render(scene, camera);
      }
    };
    for (const { canvas } of stages) {
      const controls = new three.OrbitControls(camera, canvas);
      controls.enablePan = false;
      controls.minDistance = 1.2; controls.maxDistance = 12;
      controls.addEventListener("change", draw);
      canvas.addEventListener("keydown", (event) => {
        const turns = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
        const nearer = { "+": 0.87, "=": 0.87, "-": 1.15 }[event.key];
        if (!turns && !nearer) return;
        event.preventDefault();
        const p = camera.position, radius = p.length() * (nearer || 1);
        const around = Math.atan2(p.x, p.z) + (turns ? turns[0] : 0);
        const down = Math.min(3.0, Math.max(0.14, Math.acos(p.y / p.length()) + (turns ? turns[1] : 0)));
        p.set(radius * Math.sin(down) * Math.sin(around), radius * Math.cos(down), radius * Math.sin(down) * Math.cos(around));
        camera.lookAt(0, 0, 0);
        draw();
      });
    }
    camera.position.set(2.3, 1.7, 3.0).setLength(1.02 * reach / Math.sin(camera.fov * Math.PI / 360));
    camera.lookAt(0, 0, 0);
    new ResizeObserver(draw).observe(stages[0].canvas.parentElement);
    draw();
    for (const canvas of canvases) canvas.dataset.ready = "";
  } catch (error) { for (const canvas of canvases) failed(canvas.parentElement, error); }
}

// Plots.
const hidden = "rgba(0,0,0,0)";
function layout(more = {}) {
  const axis = { gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line"), automargin: true, tickfont: { size: 12 }, title: { font: { size: 12 }, standoff: 8 } };
  const { xaxis = {}, yaxis = {}, ...rest } = more;
  return {
    paper_bgcolor: hidden, plot_bgcolor: hidden, font: { family: "system-ui, sans-serif", color: colour("soft"), size: 13 },
    margin: { l: 48, r: 12, t: 8, b: 40 }, hovermode: "x unified", showlegend: false, autosize: true,
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
    legend: { orientation: "h", y: 1.12, x: 0 },
    xaxis: { ...axis, ...xaxis, title: { ...axis.title, ...(xaxis.title || {}) } },
    yaxis: { ...axis, ...yaxis, title: { ...axis.title, ...(yaxis.title || {}) } }, ...rest,
    ...(rest.yaxis2 ? { yaxis2: { ...axis, ...rest.yaxis2 } } : {}),
  };
}
const config = { responsive: true, displayModeBar: false, displaylogo: false };
function plot(place, make) {
  if (!place) return;
  const draw = () => { const { traces, more } = make(); return Plotly.react(place, traces, layout(more), config); };
  draw();
  themed.push(draw);
  return draw;
}
const line = (x, y, name, series, more = {}) => ({ type: "scatter", mode: "lines", x, y, name, line: { color: colour(`series-${series}`), width: 2 }, ...more });
const dim = (name, share) => { const [r, g, b] = colour(name).match(/\w\w/g).map((digits) => parseInt(digits, 16)); return `rgba(${r},${g},${b},${share})`; };

// Ticks of a logarithmic axis, in words: 1, 2 and 5 of each decade, or every few decades alone.
function ticks(curve) {
  const values = curve.lines[0].y.filter((value) => value > 0), low = Math.log10(Math.min(...values)), high = Math.log10(Math.max(...values));
  const digits = high - low > 2.5 ? [1] : high - low > 1.2 ? [1, 3] : [1, 2, 5], every = Math.max(1, Math.ceil((high - low) / 6));
  const tickvals = [];
  for (let decade = Math.floor(low) - 1; decade <= Math.ceil(high); decade += 1) {
    for (const digit of digits) if (decade % every === 0) tickvals.push(digit * 10 ** decade);
  }
  if (tickvals.filter((value) => value >= 10 ** low && value <= 10 ** high).length < 2) {
    tickvals.splice(0, tickvals.length, ...[low, (low + high) / 2, high].map((power) => +(10 ** power).toPrecision(2)));
  }
  const told = (value) => (value >= 0.001 && value < 10000 ? String(+value.toPrecision(2)) : value.toExponential(0));
  return { tickmode: "array", tickvals, ticktext: tickvals.map(told) };
}

let over = "steps";
function drawCurves() {
  const curves = data.curves || [];
  const draws = curves.map((curve) => plot($(`[data-curve="${curve.name}"]`), () => {
    const traces = curve.lines.map((each, number) => line(each[over], each.y, each.name, number + 1, each.y.length < 40 ? { mode: "lines+markers", marker: { size: 5 } } : {}));
    const key = data.key_steps && data.key_steps[over];
    if (curve.marks && key && key.length) {
      traces.push({ type: "scatter", mode: "markers", x: key, y: key.map(() => curve.floor), name: "key step", hoverinfo: "x", marker: { symbol: "line-ns-open", size: 9, color: colour("soft"), line: { width: 1 } } });
    }
    return { traces, more: { showlegend: curve.lines.length > 1, xaxis: { rangemode: "tozero", title: { text: over === "steps" ? "step" : "seconds of training" } }, yaxis: { type: curve.log ? "log" : "linear", exponentformat: "e", ...(curve.share ? { range: [0, 1.08 * Math.max(...curve.lines[0].y)], tickformat: ".3~%" } : {}), title: { text: curve.unit }, ...(curve.log ? ticks(curve) : {}) } } };
  }));
  choice($$("[data-over]"), (button) => { over = button.dataset.over; for (const draw of draws) draw(); });
}

function band(each, name, series) {
  const closed = { x: [...each.x, ...[...each.x].reverse()], y: [...each.high, ...[...each.low].reverse()] };
  return [{ type: "scatter", mode: "lines", ...closed, name, fill: "toself", fillcolor: dim(`series-${series}`, 0.45), line: { color: colour(`series-${series}`), width: 1 }, hoverinfo: "name" }];
}
function drawLines() {
  const shown = view("sound") || view("line");
  if (!shown) return;
  const unit = { title: { text: shown.unit === "s" ? "seconds" : shown.unit } };
  const apart = shown.kind === "sound" && shown.original && shown.fit;  // many waves over each other would be a blot
  plot($("[data-plot=line]"), () => {
    const traces = [...(shown.original ? band(shown.original, "original", 1) : []), ...(shown.fit ? band(shown.fit, "fit", 2) : [])];
    if (!apart) return { traces, more: { showlegend: true, hovermode: "closest", xaxis: unit } };
    traces[1].yaxis = "y2";
    return { traces, more: { hovermode: "closest", xaxis: { ...unit, anchor: "y2" }, yaxis: { domain: [0.53, 1], title: { text: "original" } }, yaxis2: { domain: [0, 0.47], matches: "y", title: { text: "fit", font: { size: 12 }, standoff: 8 } } } };
  });
  if (shown.errors) plot($("[data-plot=line-errors]"), () => ({ traces: [line(shown.errors.x, shown.errors.high, "largest error", 5, { line: { color: colour("series-5"), width: 1.2 } })], more: { xaxis: unit } }));
}
function drawPoints() {
  const shown = view("points");
  if (!shown) return;
  const axes = shown.names.length > 1 ? shown.names : ["first axis", "second axis"];
  const errors = shown.fit.map((value, i) => Math.abs(value - shown.original[i]));
  const dots = (x, y, more = {}) => ({ type: "scatter", mode: "markers", x, y, marker: { size: 5, opacity: 0.8, color: colour("series-1") }, ...more });
  plot($("[data-plot=places]"), () => shown.places.length === 1
    ? { traces: [dots(shown.places[0], shown.original, { name: "given" }), line(shown.places[0], shown.fit, "fit", 2)], more: { showlegend: true } }
    : { traces: [dots(shown.places[0], shown.places[1], { name: "error", text: errors.map((each) => each.toPrecision(3)), hoverinfo: "x+y+text", marker: { size: 5, color: errors, colorscale: [[0, colour("line")], [0.35, "rgb(240,176,106)"], [0.7, "rgb(226,116,62)"], [1, "rgb(186,52,48)"]], showscale: true, colorbar: { thickness: 10, outlinewidth: 0, title: { text: "error", font: { size: 12 } }, tickfont: { size: 12 } } } })], more: { hovermode: "closest", xaxis: { title: { text: axes[0] } }, yaxis: { title: { text: axes[1] } } } });
  if (shown.plane) {
    const [[left, right], [foot, head]] = shown.ends;
    plot($("[data-plot=plane]"), () => ({
      traces: [dots(shown.places[0], shown.places[1], { name: "point", text: shown.original.map((each) => each.toPrecision(4)), hoverinfo: "x+y+text", marker: { size: 4, opacity: 0.28, color: "#ffffff" } })],
      more: {
        hovermode: "closest", images: [{ source: shown.plane, xref: "x", yref: "y", x: left, y: head, sizex: right - left, sizey: head - foot, sizing: "stretch", layer: "below" }],
        xaxis: { title: { text: axes[0] }, range: [left, right], showgrid: false, zeroline: false }, yaxis: { title: { text: axes[1] }, range: [foot, head], showgrid: false, zeroline: false },
      },
    }));
  }
  const all = [...shown.original, ...shown.fit], ends = [Math.min(...all), Math.max(...all)];
  plot($("[data-plot=parity]"), () => ({ traces: [line(ends, ends, "equal", 2, { line: { color: colour("soft"), width: 1, dash: "dot" } }), dots(shown.original, shown.fit, { name: "point" })], more: { hovermode: "closest", xaxis: { title: { text: shown.value || "value" } }, yaxis: { title: { text: "fit" } } } }));
}
function drawSelection() {
  const shown = view("selection");
  if (!shown || !shown.line) return;
  const along = (values) => values.map((_, i) => (i + 0.5) / values.length);
  plot($("[data-plot=selection]"), () => ({
    traces: [line(along(shown.line), shown.line, "times", 1, { fill: "tozeroy", fillcolor: dim("series-1", 0.25), line: { color: colour("series-1"), width: 1 } })],
    more: { xaxis: { title: { text: "share of the axis" } }, yaxis: { title: { text: "times selected" } } },
  }));
}

// A study: curves of groups, and a table to sort and filter.
function drawGroups() {
  const groups = data.groups || [];
  if (!groups.length) return;
  const draw = plot($("[data-plot=groups]"), () => {
    const traces = groups.flatMap((group, number) => {
      const series = (number % 5) + 1, x = group[over].x, each = group[over];
      const dash = ["solid", "dash", "dot", "dashdot"][Math.floor(number / 5) % 4];
      const spread = { type: "scatter", mode: "lines", x: [...x, ...[...x].reverse()], y: [...each.high, ...[...each.low].reverse()], fill: "toself", fillcolor: dim(`series-${series}`, 0.14), line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: group.name };
      return [...(group.count > 1 ? [spread] : []), line(x, each.median, group.name, series, { ...(x.length === 1 ? { mode: "markers", marker: { size: 9 } } : {}), legendgroup: group.name, line: { color: colour(`series-${series}`), width: 2, dash } })];
    });
    return { traces, more: { showlegend: groups.length > 1, legend: { orientation: "h", y: -0.2, x: 0, yanchor: "top" }, xaxis: { rangemode: "tozero", title: { text: over === "steps" ? "step" : "seconds of training" } }, yaxis: { title: { text: data.metric } } } };
  });
  choice($$("[data-over]"), (button) => { over = button.dataset.over; draw(); });
}
function sortAndFilter() {
  const table = $("table.sortable");
  if (!table) return;
  // A table of thousands of rows takes seconds to lay out, so the page holds most of them aside, and shows some.
  const aside = $("[data-more-rows]"), more = $("[data-more]"), page = 200;
  const body = $("tbody", table), heads = $$("th", table);
  const rows = [...$$("tr", body), ...(aside ? $$("tr", aside.content) : [])].map((row) => ({ row, text: row.textContent.toLowerCase() }));
  const words = $("[data-filter]"), status = $("[data-status]"), count = $("[data-count]");
  let wanted = rows, most = page;
  const show = () => {
    const shown = wanted.slice(0, most);
    body.replaceChildren(...shown.map((each) => each.row));
    count.textContent = `${wanted.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")}${shown.length < wanted.length ? `, the first ${shown.length.toLocaleString("en")} below` : ""}`;
    if (more) more.hidden = shown.length === wanted.length;
  };
  const filter = () => {
    const parts = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    wanted = rows.filter(({ row, text }) => parts.every((part) => text.includes(part)) && (!status.value || row.dataset.status === status.value));
    most = page;
    show();
  };
  const value = (row, column) => {
    const cell = row.children[column], text = cell.dataset.value ?? cell.textContent.trim();
    return text !== "" && !Number.isNaN(Number(text)) ? parseFloat(text) : text.toLowerCase();
  };
  heads.forEach((head, column) => $("button", head)?.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && head.dataset.first === "down");
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    for (const each of rows) each.key = value(each.row, column);
    rows.sort(({ key: one }, { key: two }) => {
      if (one === "" || two === "") return (one === "") - (two === "");
      if (typeof one !== typeof two) return typeof one === "number" ? -1 : 1;
      return (one < two ? -1 : one > two ? 1 : 0) * (down ? -1 : 1);
    });
    filter();
  }));
  more?.addEventListener("click", () => { most *= 4; show(); });
  words.addEventListener("input", filter);
  status.addEventListener("change", filter);
  filter();
}

// A training under way: its state is fetched every second, until it is over.
async function watch() {
  if (!data.watch) return;
  const told = $("[data-watch-stats]"), image = $("[data-watch-picture]"), status = $("[data-watch-status]");
  let state = null;
  const draw = plot($("[data-plot=watch]"), () => {
    const rows = state?.rows || [];
    return { traces: [line(rows.map((row) => row.step), rows.map((row) => row[data.metric]), data.metric, 1, { mode: "lines+markers" })], more: { xaxis: { rangemode: "tozero", title: { text: "step" } } } };
  });
  const drawLoss = plot($("[data-plot=watch-loss]"), () => {
    const losses = state?.losses || [], curve = { lines: [{ y: losses.map((each) => each[1]) }] };
    return { traces: [line(losses.map((each) => each[0]), curve.lines[0].y, "loss", 2)], more: { xaxis: { rangemode: "tozero", title: { text: "step" } }, yaxis: { type: "log", ...(losses.length ? ticks(curve) : {}) } } };
  });
  const show = () => {
    const facts = [...(state.words || []), ["step", state.step.toLocaleString("en")], ["training", `${(state.seconds || 0).toFixed(1)} s`]];
    told.replaceChildren(...facts.map(([name, value]) => {
      const box = document.createElement("div"), title = document.createElement("dt"), text = document.createElement("dd");
      const [number, unit] = value.split(" ");
      title.textContent = name === "between" ? "between samples" : name; text.textContent = number;
      if (unit) { const small = document.createElement("small"); small.textContent = ` ${unit}`; text.append(small); }
      box.append(title, text);
      return box;
    }));
    $("[data-watch-share]").value = state.share || 0;
    status.textContent = state.status;
    status.className = `badge ${state.status}`;
    if (state.picture && image.src !== state.picture) { image.hidden = false; image.src = state.picture; }
    const evaluated = (state.rows || []).length > 0;
    const place = $("[data-plot=watch]"), appears = evaluated && place.hidden;
    $("[data-watch-none]").hidden = evaluated; place.hidden = !evaluated;
    draw();
    if (appears) Plotly.Plots.resize(place);
    drawLoss();
  };
  image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth <= 160));
  const ask = async () => {
    try {
      state = await (await fetch("state.json", { cache: "no-store" })).json();
      show();
      if (state.status === "training") setTimeout(ask, 1000);
    } catch (error) {
      status.textContent = "ended";
      status.className = "badge interrupted";
    }
  };
  await ask();
}

// Films play by themselves, but not for those who want things to stay still.
if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
  for (const film of $$("details.plain")) film.open = false;
  for (const film of $$("video.film")) { film.autoplay = false; film.pause(); }
}

comparePictures();
playOne();
playFrames();
sortAndFilter();
(async () => {
  await showSurfaces();
  await showSlices();
  if ($("#library-plotly")) {
    try {
      await library("plotly");
      drawLines(); drawPoints(); drawSelection(); drawCurves(); drawGroups(); await watch();
    } catch (error) { for (const place of $$(".plot")) failed(place, error); }
  }
  document.documentElement.dataset.ready = "";
})();
