"""Sizes and speeds of a run's exports: python tools/exports.py RUN … (docs/export.md).

Speeds are thousands of coordinates a second, the best of three: of Python's field, of onnxruntime and of the program of
torch; and of the page in Chromium, on the processor and by WebGL2, if selenium and chromedriver are there.
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

ROWS = 1 << 13
PIXELS = 480, 360


def main(runs: list[str]) -> None:
    print("| run | html | onnx | pt2 | glsl | Python | onnxruntime | pt2 | page, JavaScript | page, WebGL2 |")
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
    even = np.random.default_rng(0).uniform(-1, 1, (ROWS, field.dimensions))
    places = even @ field.affine[:, :-1].T + field.affine[:, -1]
    session = onnxruntime.InferenceSession(files["onnx"].read_bytes(), providers=["CPUExecutionProvider"])
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
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return ROWS / min(taken[1:])


def drawn(page: Path, places: np.ndarray) -> list[float]:
    """Coordinates a second in JavaScript, and drawn by WebGL2, of a surface pixels."""
    script = "const start = performance.now(); inrkit.values(arguments[0]); return (performance.now() - start) / 1000;"
    with browser() as driver:
        if driver is None:
            return [0.0, 0.0]
        driver.get(page.as_uri())
        while not driver.execute_script("return 'ready' in document.documentElement.dataset"):
            time.sleep(0.1)
        given = places.tolist()
        seconds = min(driver.execute_script(script, given) for _ in range(3))
        end = time.monotonic() + 60
        while not driver.execute_script("return inrkit.idle()") and time.monotonic() < end:
            time.sleep(0.2)
        cost = driver.execute_script("return inrkit.view.painter ? inrkit.view.painter.cost : 0")
        return [ROWS / seconds, 1 / cost if cost else 0.0]


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
    options.add_argument("--window-size={},{}".format(*PIXELS))
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(program))
    try:
        yield driver
    finally:
        driver.quit()


if __name__ == "__main__":
    main(sys.argv[1:])
