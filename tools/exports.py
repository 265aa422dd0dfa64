"""Sizes and speeds of a run's exports: python tools/exports.py RUN … (docs/export.md).

Speeds are thousands of coordinates a second, the best of several: of Python's field, of onnxruntime and of the program
of torch, each by the time that one thread was at work; of the page in JavaScript, and by WebGL2 in software, of which a
graphics card does many times more. The page needs selenium and chromedriver.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import inrkit
from inrkit.exports.portable import sampled

ROWS = 1 << 13
IN_JAVASCRIPT = """
let best = Infinity;
for (let i = 0; i < 100; i++) {
  const start = performance.now();
  inrkit.values(arguments[0]);
  best = Math.min(best, performance.now() - start);
}
return arguments[0].length / best * 1000;"""
IN_WEBGL2 = """
const { view } = inrkit, gpu = inrkit.gpu();
let best = Infinity;
if (view.name === "plane") view.zoomAt(8, view.canvas.clientWidth / 2, view.canvas.clientHeight / 2);
const begin = performance.now();
while (gpu && view.painter && performance.now() - begin < 5000) {
  const start = performance.now();
  gpu.strip(view.name, view.uniforms(1, 128, 96), 128, 96, 0, 96);
  best = Math.min(best, performance.now() - start);
}
return 128 * 96 / best * 1000;"""


def main(runs: list[str]) -> None:
    torch.set_num_threads(1)
    print(
        "| run | html | onnx | pt2 | glsl | Python | onnxruntime | pt2 | page, JavaScript | page, WebGL2 in software |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for run in runs:
        with tempfile.TemporaryDirectory() as folder:
            print(f"| {Path(run).name} | {' | '.join(measured(run, Path(folder)))} |", flush=True)


def measured(run: str, folder: Path) -> list[str]:
    """Sizes in MB, and speeds in thousands a second."""
    field = inrkit.load(run)
    files = {suffix: folder / f"field.{suffix}" for suffix in ("html", "onnx", "pt2", "glsl")}
    for path in files.values():
        inrkit.export(field, path)
    sizes = [sum(each.stat().st_size for each in folder.glob(f"*.{name}")) for name in ("html", "onnx", "pt2")]
    sizes.append(sum(each.stat().st_size for each in folder.glob("field.*") if each.suffix in (".glsl", ".f32")))
    places = sampled(field, ROWS)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(files["onnx"].read_bytes(), options, providers=["CPUExecutionProvider"])
    program = torch.export.load(files["pt2"]).module()
    rates = [
        best(lambda: field(places, physical=True)),
        best(lambda: session.run(None, {"coordinates": places})),
        best(lambda: program(torch.from_numpy(places))),
        *drawn(files["html"], places),
    ]
    return [f"{size / 1e6:.2f} MB" for size in sizes] + [f"{rate / 1000:,.0f}" if rate else "" for rate in rates]


def best(call: Callable[[], Any]) -> float:
    """Coordinates a second."""
    taken = []
    with torch.inference_mode():
        for _ in range(4):
            start = time.process_time()
            call()
            taken.append(time.process_time() - start)
    return ROWS / min(taken[1:])


def drawn(page: Path, places: np.ndarray) -> list[float]:
    """Coordinates a second in JavaScript, and drawn by WebGL2, of a surface pixels."""
    with browser() as driver:
        if driver is None:
            return [0.0, 0.0]
        driver.get(page.as_uri())
        while not driver.execute_script("return 'ready' in document.documentElement.dataset"):
            time.sleep(0.1)
        return [driver.execute_script(IN_JAVASCRIPT, places[:256].tolist()), driver.execute_script(IN_WEBGL2)]


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A driver of Chromium; None without one."""
    program = shutil.which("chromedriver")
    try:
        from selenium import webdriver
    except ImportError:
        program = None
    if program is None:
        yield None
        return
    options = webdriver.ChromeOptions()
    for flag in ("headless=new", "no-sandbox", "use-angle=swiftshader", "enable-unsafe-swiftshader"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(program))
    try:
        yield driver
    finally:
        driver.quit()


if __name__ == "__main__":
    main(sys.argv[1:])
