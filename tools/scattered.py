"""Scattered samples between the samples: `python tools/scattered.py [key=value …]`, against scipy's interpolation.

Thirteen functions of one to five dimensions are sampled with noise; a fit of 80 % of the samples, with the preset
`array` and the given keys on top, is rated on the other 20 %, beside the nearest sample, linear interpolation on
Delaunay simplices and thin-plate splines through the 50 nearest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.interpolate import LinearNDInterpolator, RBFInterpolator, interp1d
from scipy.spatial import KDTree

import inrkit
from inrkit.signals.scattered import split

Sampled = tuple[np.ndarray, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", help="of the config")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--alone", action="store_true", help="without scipy's methods")
    arguments = parser.parse_args()
    print("| samples | noise | nearest | linear | thin plate | inrkit | s |\n|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.only:
        count, noise, make = CASES[name]
        points, clean = make(np.random.default_rng(1), count)
        values = clean + noise * np.random.default_rng(2).normal(size=count)
        kept, left = split(count, 0.2)
        others = {} if arguments.alone else classical(points[kept], values[kept], points[left])
        begin = time.perf_counter()
        run = inrkit.fit(points=points[kept], values=values[kept].astype(np.float32), overrides=arguments.keys)
        seconds = time.perf_counter() - begin
        others["inrkit"] = run.field(points[left], physical=True)[:, 0]
        told = {method: rmse(found, values[left]) for method, found in others.items()}
        cells = [f"{told[method]:.4g}" if method in told else "" for method in METHODS]
        print("|", " | ".join([name, f"{noise:g}", *cells, f"{seconds:.0f}"]), "|", flush=True)


METHODS = ("nearest", "linear", "thin plate", "inrkit")


def classical(points: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """What scipy's methods find at the wanted places, in the box of the points: nearest outside the triangles."""
    low, high = points.min(axis=0), points.max(axis=0)
    points, wanted = (points - low) / (high - low), (wanted - low) / (high - low)
    near = values[KDTree(points).query(wanted)[1]]
    if points.shape[1] == 1:
        linear = interp1d(points[:, 0], values, bounds_error=False)(wanted[:, 0])
    else:
        linear = LinearNDInterpolator(points, values)(wanted)
    linear = np.where(np.isnan(linear), near, linear)
    plate = RBFInterpolator(points, values, neighbors=50)(wanted)
    return {"nearest": near, "linear": linear, "thin plate": plate}


def rmse(found: np.ndarray, values: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - values) ** 2)))


def tide(random: np.random.Generator, count: int) -> Sampled:
    hours = random.uniform(0, 96, (count, 1))
    return hours, (np.sin(hours * 2 * np.pi / 12.4) + 0.4 * np.sin(hours * 2 * np.pi / 24 + 1) + hours / 100)[:, 0]


def franke(random: np.random.Generator, count: int) -> Sampled:
    places = random.uniform(0, 1, (count, 2))
    x, y = 9 * places.T
    first = 0.75 * np.exp(-((x - 2) ** 2 + (y - 2) ** 2) / 4) + 0.75 * np.exp(-((x + 1) ** 2) / 49 - (y + 1) / 10)
    more = 0.5 * np.exp(-((x - 7) ** 2 + (y - 3) ** 2) / 4) - 0.2 * np.exp(-((x - 4) ** 2) - (y - 7) ** 2)
    return places, first + more


def temperatures(random: np.random.Generator, count: int) -> Sampled:
    lon, lat = random.uniform(-180, 180, count), np.degrees(np.arcsin(random.uniform(-1, 1, count)))
    east, north = np.radians([lon, lat])
    land = np.sin(3 * east + 2 * np.sin(4 * north)) + np.cos(5 * north - east)
    return np.stack([lon, lat], axis=1), 30 * np.cos(north) ** 2 - 12 + 4 * np.tanh(4 * land) * np.cos(north)


def terrain(random: np.random.Generator, count: int) -> Sampled:
    places = random.uniform(0, 10_000, (count, 2))
    waves = np.random.default_rng(3)
    lengths = 4000 * 0.9 ** np.arange(30)
    angles, phases = waves.uniform(0, 2 * np.pi, (2, 30))
    along = places @ np.stack([np.cos(angles), np.sin(angles)]) * 2 * np.pi / lengths + phases
    return places, (np.sin(along) * lengths / 50).sum(axis=1)


def waves(dimensions: int, number: int) -> Callable[[np.random.Generator, int], Sampled]:
    """A sum of plane waves of up to `number` half turns across the box, in so many dimensions."""

    def make(random: np.random.Generator, count: int) -> Sampled:
        places = random.uniform(0, 1, (count, dimensions))
        fixed = np.random.default_rng(4)
        directions = fixed.normal(size=(dimensions, 6))
        directions *= np.pi * fixed.uniform(0.5, number, 6) / np.linalg.norm(directions, axis=0)
        return places, np.sin(places @ directions + fixed.uniform(0, 6, 6)).sum(axis=1)

    return make


def peaks(random: np.random.Generator, count: int) -> Sampled:
    places = random.uniform(-3, 3, (count, 2))
    x, y = places.T
    first = 3 * (1 - x) ** 2 * np.exp(-(x**2) - (y + 1) ** 2) - np.exp(-((x + 1) ** 2) - y**2) / 3
    return places, first - 10 * (x / 5 - x**3 - y**5) * np.exp(-(x**2) - y**2)


def ripple(random: np.random.Generator, count: int) -> Sampled:
    places = random.uniform(-1, 1, (count, 2))
    away = np.hypot(places[:, 0] - 0.2, places[:, 1] + 0.3)
    return places, np.cos(25 * away) / (1 + 2 * away)


def blobs(random: np.random.Generator, count: int) -> Sampled:
    places = random.uniform(0, 1, (count, 3))
    fixed = np.random.default_rng(9)
    middles, heights = fixed.uniform(0, 1, (12, 3)), fixed.normal(size=12)
    return places, (np.exp(-((places[:, None] - middles) ** 2).sum(axis=-1) / 0.02) * heights).sum(axis=1)


def chirp(random: np.random.Generator, count: int) -> Sampled:
    places = random.uniform(0, 1, (count, 1))
    return places, np.sin(2 * np.pi * (2 + 10 * places[:, 0]) * places[:, 0])


def front(random: np.random.Generator, count: int) -> Sampled:
    places = random.uniform(0, 1, (count, 2))
    return places, np.tanh(30 * (places[:, 1] - 0.5 - 0.2 * np.sin(5 * places[:, 0])))


CASES: dict[str, tuple[int, float, Callable[[np.random.Generator, int], Sampled]]] = {
    "1-D tide, 300": (300, 0.02, tide),
    "2-D Franke, 1,000": (1000, 0.005, franke),
    "2-D globe, 2,000": (2000, 0.3, temperatures),
    "2-D terrain, 20,000": (20_000, 0.5, terrain),
    "2-D terrain, 200,000": (200_000, 0.5, terrain),
    "3-D waves, 10,000": (10_000, 0.02, waves(3, 4)),
    "4-D waves, 4,000": (4000, 0.02, waves(4, 3)),
    "5-D waves, 3,000": (3000, 0.02, waves(5, 2)),
    "2-D peaks, 3,000": (3000, 0.1, peaks),
    "2-D ripple, 6,000": (6000, 0.03, ripple),
    "3-D blobs, 6,000": (6000, 0.02, blobs),
    "1-D chirp, 400": (400, 0.05, chirp),
    "2-D front, 3,000": (3000, 0.05, front),
}


if __name__ == "__main__":
    main()
