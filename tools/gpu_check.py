"""Check a GPU against the CPU and time fits on it: `python tools/gpu_check.py > gpu.json`.

Says on stderr how it goes and prints one JSON object: the device, and for each check whether it passed, its seconds
and what it found. Exits 1 if a check failed; without a GPU 0, with a device of null. All ends within --seconds, less
than eight minutes: checks of which there may be more or less, the pairs of `fits` and the methods of `table1`, tell
what they left out. `--device cpu` runs all of it on the CPU in place of the GPU, with small networks and few steps, as
`--tiny` does on a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

import inrkit
from inrkit import CoordinateDataset, Listener, Member, Progress, Residuals, Trainer
from inrkit.batch.reader import read_study
from inrkit.config import Config, resolve
from inrkit.device import choose_device, describe
from inrkit.evaluation.evaluate import default_chunk, evaluate
from inrkit.files import to_json
from inrkit.networks import Tiles
from inrkit.networks.products import float32_products
from inrkit.plugins.options import field_names
from inrkit.runs import build as building
from inrkit.runs.benchmark import benchmark
from inrkit.runs.build import build, read_signal
from inrkit.runs.execute import execute
from inrkit.runs.run import Run, versions
from inrkit.signals.signal import Signal
from inrkit.training.backends.base import Backend
from inrkit.training.backends.captured import Captured, CapturedTiles, CudaGraphs

CPU = torch.device("cpu")
SMALL = {"hidden_features": 16, "hidden_layers": 1, "features": 4, "octaves": 3, "table_bits": 8, "levels": 3}
"""What makes a network small, where it has such options."""
WITHOUT_CHANCE = (
    ("full", {}),
    ("int", {}),
    ("evos", {"mutation_start": 0.0, "mutation_end": 0.0}),
)
"""Selectors, and options of theirs, whose choice follows from the errors alone: the devices' generators differ."""


@dataclass(frozen=True)
class Bench:
    """What the checks are run on.

    Args:
        device: that is checked.
        folder: for the files of the checks.
        picture: the file that time is measured on.
        target: PSNR, in dB, that it is timed to.
        tiny: whether networks are small and steps are few.
        end: reading of `time.perf_counter` at which all is to be done.
    """

    device: torch.device
    folder: Path
    picture: Path
    target: float
    tiny: bool
    end: float

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.perf_counter()

    def network(self, name: str) -> dict[str, Any]:
        """A network as a config layer."""
        declared = field_names(inrkit.NETWORKS.get(name).Options)
        return {"name": name, **({key: value for key, value in SMALL.items() if key in declared} if self.tiny else {})}

    def fit(self, signal: Path, name: str, *, eager: bool = True, **options: Any) -> inrkit.Run:
        """A fit on the device, in the folder `name`, of a SIREN if `network` is not given, or None for the recipe's; if
        `eager`, of a network that is not compiled: that takes longer than a small fit."""
        layer = {"device": str(self.device), "network": self.network("siren"), **options}
        layer = {key: value for key, value in layer.items() if value is not None}
        if eager:
            layer["compile"] = "never"
        return inrkit.fit(signal, out=self.folder / name, **layer)

    def small_picture(self) -> Path:
        """A file of 64×64 pixels."""
        path = self.folder / "small.png"
        Image.open(self.picture).convert("RGB").resize((64, 64)).save(path)
        return path

    def config(self, signal: Path, network: str, objective: str = "mse") -> Config:
        """Of a training without chance on the default device."""
        return resolve(
            [
                {
                    "data": {"path": str(signal)},
                    "network": self.network(network),
                    "objective": objective,
                    "selector": "full",
                    "optimizer": {"name": "adam", "lr": 1e-4},
                    "schedule": "constant",
                    "train": {"steps": 5, "chunk": 1 << 13},
                }
            ]
        )


def require(holds: bool, otherwise: str) -> None:
    """Fail the present check, saying why, unless `holds`."""
    if not holds:
        raise AssertionError(otherwise)


def check_fits(bench: Bench) -> dict[str, Any]:
    """Every modality's sample is fitted with every selector: each of both at least once, the other pairs as far as a
    fifth of the time goes."""
    modalities, selectors = inrkit.MODALITIES.names(), inrkit.SELECTORS.names()
    pairs = list(zip(itertools.cycle(modalities), selectors, strict=False))
    pairs += [(modality, selectors[0]) for modality in modalities[len(selectors) :]]
    needed, end = len(pairs), time.perf_counter() + bench.left / 5
    if not bench.tiny:
        pairs += [pair for pair in itertools.product(modalities, selectors) if pair not in pairs]
    found: dict[str, float] = {}
    for modality, selector in pairs:
        if len(found) >= needed and time.perf_counter() > end:
            break
        plugin = inrkit.MODALITIES.get(modality)
        sizes = {"resolution": 16, "export_resolution": 16} if bench.tiny else {}
        options = {key: value for key, value in sizes.items() if key in field_names(plugin.Options)}
        signal = bench.folder / f"{modality}{plugin.sample_suffix}"
        if not signal.exists():
            plugin(plugin.Options(**options)).sample(signal)
        name = f"{modality}-{selector}"
        run = bench.fit(
            signal,
            name,
            modality={"name": modality, **options},
            selector=selector,
            objective="mse",
            steps=4,
            log={"every": 4},
        )
        require(run.result["status"] == "done", f"{name} ended as {run.result['status']}")
        leading = run.metrics[plugin.metrics[0]]
        require(not math.isnan(leading), f"{name} has no {plugin.metrics[0]}")
        found[name] = leading
    return {"fits": found, "left_out": len(pairs) - len(found)}


def check_losses(bench: Bench) -> dict[str, Any]:
    """The first steps of every network and every objective lose as much on the device as on the CPU, in float32."""
    signal = bench.small_picture()
    cases = [(network, "mse") for network in inrkit.NETWORKS.names()]
    cases += [("siren", objective) for objective in inrkit.OBJECTIVES.names() if objective != "mse"]
    apart = {}
    for network, objective in cases:
        config = bench.config(signal, network, objective)
        read = read_signal(config)
        with float32_products("highest"):
            here, there = (_losses(config, read, device) for device in (CPU, bench.device))
        name = f"{network}, {objective}"
        apart[name] = max(abs(one - other) / one for one, other in zip(here, there, strict=True))
        require(apart[name] < 1e-4, f"{name}: losses {here} on the CPU and {there} on {bench.device}")
    return {"largest_relative_difference": apart}


def _losses(config: Config, read: Signal, device: torch.device, backend: Backend | None = None) -> list[float]:
    member = build(config, read, device, "float32")
    return [float(turn.errors.squared.mean()) for (turn,) in Trainer([member], backend)]


def check_selections(bench: Bench) -> dict[str, Any]:
    """Given the same errors, selectors without chance choose the same on both devices, the others alike on average."""
    dataset = CoordinateDataset(np.asarray(Image.open(bench.small_picture())))
    common, apart = {}, {}
    for name, options in WITHOUT_CHANCE:
        here, there = (_selections(name, options, dataset, device) for device in (CPU, bench.device))
        shared = [torch.isin(one, other).double().mean() for one, other in zip(here, there, strict=True)]
        common[name] = float(torch.stack(shared).min())
        # Where two errors are equal but for rounding, either may be chosen.
        require(common[name] > 0.999, f"{name} chooses only {common[name]:.2%} in common")
    for name in inrkit.SELECTORS.names():
        here, there = (_visits(_selections(name, {}, dataset, device)) for device in (CPU, bench.device))
        apart[name] = float((here - there).abs().max())
        require(apart[name] < 0.02, f"{name} visits {here.tolist()} on the CPU and {there.tolist()} on {bench.device}")
    return {"least_common_share": common, "largest_difference_of_visits": apart}


def _errors(indices: torch.Tensor, count: int) -> Residuals:
    """Residuals that follow from the coordinate alone, larger towards the end of the signal."""
    place = indices.cpu().double()
    residual = (torch.sin(1.7 * place) * (0.5 + place / count)).float().to(indices.device)
    return Residuals(residual.square(), residual, residual[:, None].expand(-1, 2), residual.abs())


def _selections(name: str, options: dict[str, Any], dataset: CoordinateDataset, device: torch.device) -> list[Any]:
    """The indices of 60 steps, on the CPU."""
    plugin, count, steps = inrkit.SELECTORS.get(name), len(dataset), 60
    operators = inrkit.OPERATORS.get("laplacian")
    selector = plugin(
        plugin.Options(**options), count, operators(operators.Options(), Signal(dataset.to(device))), 0, device
    )
    taken = []
    for step in range(1, steps + 1):
        progress = Progress(step, steps)
        survey = selector.survey(progress)
        if survey is not None:
            selector.learn(progress, survey, _errors(survey.indices, count))
        selection = selector.select(progress)
        indices = selection.indices
        selector.observe(progress, selection, _errors(indices, count))
        taken.append(indices.cpu())
    return taken


def _visits(selections: list[torch.Tensor]) -> torch.Tensor:
    """(8,) how the visits are shared by eighths of the signal."""
    visited = torch.cat(selections)
    return torch.histc(visited.float(), bins=8, min=0, max=64 * 64) / len(visited)


class Stop(Listener):
    """Interrupts a training after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, member: Member, selected: int) -> None:
        if member.step == self.step:
            member.stop()


def check_resume(bench: Bench) -> dict[str, Any]:
    """A fit that was interrupted and resumed ends as one that was not: exactly, or at the same PSNR."""
    signal = bench.small_picture()
    options: dict[str, Any] = {
        "steps": 40,
        "metrics": ["psnr"],
        "selector": {"name": "evos", "interval_start": 8, "least": 1},
    }
    whole = bench.fit(signal, "whole", **options)
    stopped = bench.fit(signal, "stopped", callbacks=[Stop(21)], **options)
    require(stopped.result["status"] == "interrupted", f"the fit to be stopped ended as {stopped.result['status']}")
    resumed = inrkit.fit(stopped.folder, resume=True)
    weights, others = (run.field.network.state_dict() for run in (whole, resumed))
    apart = max(float((weights[name] - others[name]).abs().max()) for name in weights)
    psnr = abs(whole.metrics["psnr"] - resumed.metrics["psnr"])
    require(psnr < 0.1, f"PSNR is {psnr:.3f} dB apart")
    return {"exact": apart == 0, "largest_difference_of_weights": apart, "psnr_difference": psnr}


def check_move(bench: Bench) -> dict[str, Any]:
    """A fit that was begun on the device goes on on the CPU, and about as well."""
    signal = bench.small_picture()
    options: dict[str, Any] = {"steps": 40, "metrics": ["psnr"], "selector": "uniform"}
    found = {}
    for name, network in (("tiles", {"network": "tiles", "optimizer": "adam"}), ("siren", {})):
        whole = bench.fit(signal, f"move-whole-{name}", **options, **network)
        begun = bench.fit(signal, f"move-{name}", callbacks=[Stop(21)], **options, **network)
        moved = inrkit.fit(begun.folder, resume=True, device="cpu")
        require(moved.result["status"] == "done", f"the fit of {name} that moved ended as {moved.result['status']}")
        found[name] = abs(whole.metrics["psnr"] - moved.metrics["psnr"])
        require(found[name] < 1, f"{name}: PSNR is {found[name]:.3f} dB apart")
    return {"psnr_difference": found}


def check_deterministic(bench: Bench) -> dict[str, Any]:
    """With train.deterministic, two fits of the same end as the same, to the bit, whatever selects."""
    signal, found = bench.small_picture(), {}
    cases = [({"network": "tiles", "optimizer": "adam"}, "evos"), *(({}, name) for name in inrkit.SELECTORS.names())]
    for number, (network, selector) in enumerate(cases):
        states = []
        for again in range(2):
            options: dict[str, Any] = {"steps": 12, "deterministic": True, "metrics": ["psnr"], **network}
            run = bench.fit(signal, f"same-{number}-{again}", selector=selector, **options)
            states.append(run.field.network.state_dict())
        name = f"{network.get('network', 'siren')}, {selector}"
        found[name] = all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    require(all(found.values()), f"not the same twice: {[name for name, same in found.items() if not same]}")
    return {"the_same": list(found)}


def check_main_memory(bench: Bench) -> dict[str, Any]:
    """Fits whose values stay in main memory have the bits of others; and how much longer they take."""
    found, steps = {}, 12 if bench.tiny else 200
    cases: dict[str, dict[str, Any]] = {
        "tiles": {"network": "tiles", "optimizer": "adam"},
        "siren": {"selector": {"name": "uniform", "ratio": 0.25, "draw": "quasi-random"}},
    }
    for name, options in cases.items():
        states, seconds = [], []
        for free in (building.FREE, 1 << 50):
            with patch.object(building, "FREE", free):
                run = bench.fit(bench.picture, f"{name}-{free}", steps=steps, deterministic=True, **options)
            states.append(run.field.network.state_dict())
            seconds.append(run.result["seconds"]["train"])
        require(all(torch.equal(value, states[1][key]) for key, value in states[0].items()), f"{name} has other bits")
        found[name] = {"seconds": seconds[0], "seconds_from_main_memory": seconds[1]}
    return found


def check_evaluation(bench: Bench) -> dict[str, Any]:
    """A field that is read back on the device has the metrics that its fit told."""
    run = bench.fit(bench.small_picture(), "evaluated", steps=20, selector="uniform")
    field = inrkit.load(run.folder, device=bench.device)
    read = Signal(read_signal(run.config).dataset, field.transform, field.embedding)
    names = run.config.general.metrics
    found = evaluate(field.network, read.to(bench.device), names, default_chunk(bench.device))
    apart = {name: abs(value - run.metrics[name]) for name, value in found.items()}
    require(max(apart.values()) < 1e-3, f"the fit told {run.metrics}, and an evaluation {found}")
    return {"difference": apart}


def check_portable(bench: Bench) -> dict[str, Any]:
    """A field that was fitted on the device renders the same picture on the CPU, to one level of 255."""
    with float32_products("highest"):
        run = bench.fit(bench.small_picture(), "portable", steps=20, precision="float32")
        here, there = (
            inrkit.load(run.folder, device=device).render((96, 80)).astype(int) for device in (CPU, bench.device)
        )
    apart = int(np.abs(here - there).max())
    require(apart <= 1, f"a pixel is {apart} levels apart")
    return {"largest_difference_of_levels": apart}


def check_waits(bench: Bench) -> dict[str, Any]:
    """Between key steps no step of any selector makes the processor wait for the GPU: torch raises where one does."""
    signal = bench.small_picture()
    cases = [(name, "siren") for name in inrkit.SELECTORS.names()]
    cases += [(name, "tiles") for name in inrkit.SELECTORS.names() if inrkit.SELECTORS.get(name).of_tiles is not None]
    for selector, network in cases:
        layer = {
            "data": {"path": str(signal)},
            "network": bench.network(network),
            "selector": {"name": selector, **({"least": 1} if selector != "full" else {})},
            "objective": "mse",
            "optimizer": {"name": "adam", "lr": 1e-4},
            "train": {"steps": 100},
        }
        config = resolve([layer])
        member = build(config, read_signal(config), bench.device, "float32")
        trainer = Trainer([member])
        for number in range(6):
            if number == 3 and bench.device.type == "cuda":
                torch.cuda.set_sync_debug_mode("error")
            try:
                trainer.step([member])
            finally:
                if bench.device.type == "cuda":
                    torch.cuda.set_sync_debug_mode("default")
            if member.failure is not None:
                raise AssertionError(f"{selector} of {network}: {member.failure}") from member.failure
    return {"cases": [" of ".join(case) for case in cases]}


def check_captured(bench: Bench) -> dict[str, Any]:
    """Captured steps lose as much as others, with every optimizer and of tiles; and how much faster they are.

    Where nothing can be captured, what would have been is called again.
    """
    signal, apart, recordings = bench.small_picture(), {}, {}
    cases = [("siren", name) for name in inrkit.OPTIMIZERS.names() if not inrkit.OPTIMIZERS.get(name).reevaluates]
    for network, optimizer in [*cases, ("tiles", "adam"), ("tiles", "adamw")]:
        layer = {**bench.config(signal, network).to_dict(), "optimizer": {"name": optimizer, "lr": 1e-4}}
        layer["train"]["steps"], layer["schedule"] = 40 if network == "tiles" else 12, "cosine"
        config = resolve([layer])
        read, recorder = read_signal(config), Recorder(bench.device)
        backend = CapturedTiles(recorder) if network == "tiles" else Captured(recorder)
        with float32_products("highest"):
            plain, captured = (_losses(config, read, bench.device, each) for each in (None, backend))
        name = f"{network}, {optimizer}"
        apart[name] = max(abs(one - other) / one for one, other in zip(plain, captured, strict=True))
        recordings[name] = recorder.count
        require(1 <= recorder.count <= 8, f"{name}: {recorder.count} recordings")
        require(apart[name] < 1e-4, f"{name}: losses {plain}, captured {captured}")
    paces = {}
    captures = ("never", "always") if bench.device.type == "cuda" else ("never",)
    for preset, capture in itertools.product(("image-single",) if bench.tiny else ("image-single", "image"), captures):
        words = [f"base={preset}", f"train.capture={capture}", "train.compile=never"]
        if bench.tiny:
            words += ["train.steps=8", *(f"network.{key}={SMALL[key]}" for key in ("hidden_features", "hidden_layers"))]
        seconds = 0.1 if bench.tiny else 2.0
        report = benchmark(bench.picture, overrides=words, seconds=seconds, device=str(bench.device))
        paces[f"{preset}, {capture}"] = report["step"]["seconds"]
        say(f"  {preset}, capture {capture}: {1000 * report['step']['seconds']:.3g} ms a step")
    return {"largest_relative_difference": apart, "recordings": recordings, "seconds_a_step": paces}


class Recorder:
    """Captures CUDA graphs and counts them; on a CPU, to replay is to call again."""

    def __init__(self, device: torch.device) -> None:
        self.count = 0
        self._record = CudaGraphs(device) if device.type == "cuda" else None

    def __call__(self, function: Callable[[], None], rehearsal: Callable[[], None]) -> Callable[[], None]:
        self.count += 1
        return function if self._record is None else self._record(function, rehearsal)


def measure_steps(bench: Bench) -> dict[str, Any]:
    """The steps of the recipe for one network on the picture: by precision, as the network is and compiled; and which
    share of the device's peak they reach."""
    precisions = ["float32", "bfloat16", *(["tf32", "bfloat16-features"] if bench.device.type == "cuda" else [])]
    compiled = ["never"] if bench.tiny else ["never", "always"]
    found = {}
    for precision, compile_ in itertools.product(precisions, compiled):
        if compile_ == "always" and precision in ("tf32", "bfloat16-features"):
            continue
        words = ["base=image-single", f"train.precision={precision}", f"train.compile={compile_}"]
        if bench.tiny:
            words += ["train.steps=8", *(f"network.{key}={SMALL[key]}" for key in ("hidden_features", "hidden_layers"))]
        seconds = 0.1 if bench.tiny else 2.0
        report = benchmark(bench.picture, overrides=words, seconds=seconds, device=str(bench.device))
        name = ", ".join([precision, *(["compiled"] if compile_ == "always" else [])])
        found[name] = report
        step = report["step"]
        say(f"  {name}: {1000 * step['seconds']:.3g} ms a step, {step['share_of_peak']:.0%} of the peak")
    return {"reports": found}


FUSED: dict[str, dict[str, Any] | None] = {
    "torch": None,
    "float32": {},
    "tf32x3": {"precision": "tf32x3", "warps": 4},
    "tf32": {"precision": "tf32", "block": 64, "warps": 4},
}
"""Ways to train tiles: torch, or the kernel in Triton with options of its own."""


def measure_fused(bench: Bench) -> dict[str, Any]:
    """A step of all tiles by the kernel in Triton, beside torch: how far the weights are apart after ten steps, and how
    long a step takes."""
    if bench.device.type not in ("cuda", "xpu"):
        return {"left_out": "a kernel in Triton needs a GPU"}
    found: dict[str, Any] = {}
    weights: dict[str, torch.Tensor] = {}
    for name, options in FUSED.items():
        training = inrkit.trainer(
            bench.picture, base="image", selector="full", device=str(bench.device), steps=1000, every=1000
        )
        member, network, start = training.member, training.member.network, 0.0
        assert isinstance(network, Tiles)
        network.fused = options is not None
        kernel = network.trained_by
        require(network.fused == (kernel is not None), "there is no Triton")
        kernel = None if kernel is None else dataclasses.replace(kernel, **(options or {}))
        with patch.object(Tiles, "trained_by", kernel):
            for step in training:
                if step.number == 10:
                    weights[name], start = network.weights.detach().clone(), member.now()
                if step.number == (12 if bench.tiny else 60):
                    break
        seconds = (member.now() - start) / (member.step - 10)
        apart = float((weights[name] - weights["torch"]).abs().max())
        points = network.networks * network.options.points
        found[name] = {"seconds": seconds, "points_per_second": points / seconds, "weights_apart": apart}
        say(f"  {name}: {1000 * seconds:.3g} ms a step, weights {apart:.2g} apart from torch's")
        require(name.startswith("tf") or apart < 1e-3, f"{name}: weights are {apart:.2g} apart from torch's")
    return {"a_step": found}


THROUGHPUT = {
    "tiles": ["base=image"],
    "siren 3x256": ["base=image-single"],
    "siren 2x64": ["base=image-single", "network.hidden_features=64", "network.hidden_layers=2"],
    "hash grid, 2x64": ["base=image-single", "network=hash-grid", "optimizer=adam", "schedule=constant"],
}
"""What coordinates a second are measured of."""
TINY_CUDA_NN = 2e8
"""Coordinates a second in training by tiny-cuda-nn: its README has 1000 steps of 2¹⁸ coordinates in a bit over a
second, on an RTX 4090, for the network of the last line."""


def measure_throughput(bench: Bench) -> dict[str, Any]:
    """Coordinates a second, in training, where a step takes all of the picture, and in rendering it."""
    found = {}
    for name, words in THROUGHPUT.items():
        words = [*words, "selector=full", "objective=mse", "train.compile=never"]
        if bench.tiny:
            words += ["train.steps=8"]
        report = benchmark(bench.picture, overrides=words, seconds=0.1 if bench.tiny else 2.0, device=str(bench.device))
        network = bench.fit(bench.picture, f"rendered {name}", overrides=[*words, "train.steps=1"], network=None)
        field = inrkit.load(network.folder, device=bench.device)
        field.render()
        start = time.perf_counter()
        rendered = field.render()
        seconds = time.perf_counter() - start
        trained = report["step"]["coordinates_per_second"]
        found[name] = {
            "training": trained,
            "of_tiny_cuda_nn": trained / TINY_CUDA_NN,
            "rendering": rendered.size / rendered.shape[-1] / seconds,
            "parameters": report["fit"]["parameters"],
        }
        say(f"  {name}: {trained:.3g} coordinates a second in training, {found[name]['rendering']:.3g} in rendering")
    return {"published": TINY_CUDA_NN, "coordinates_per_second": found}


AIM = 1.0
"""Seconds of training within which the target is to be reached, once all is warmed up."""


def measure_target(bench: Bench) -> dict[str, Any]:
    """Seconds of training in which the recipes for tiles and for the published network come to the target, and in
    which a second's does, with captured steps too.

    A fit of a few steps beforehand takes the start-up and the compilation upon itself.
    """
    size = {"steps": 6} if bench.tiny else {}
    every: dict[str, Any] = {"metrics": ["psnr"], "log": {"every": 2 if bench.tiny else 10, "report": False}}
    recipes: dict[str, dict[str, Any]] = {
        "tiles": {"base": "image", "network": None},
        "published network": {"base": "image-single"},
    }
    if bench.device.type == "cuda":
        recipes |= {f"{name}, captured": {**recipe, "capture": "always"} for name, recipe in recipes.items()}
    found: dict[str, Any] = {}
    for name, recipe in recipes.items():
        bench.fit(bench.picture, f"warm-up {name}", eager=False, steps=5, **every, **recipe)
        whole = [] if "capture" in recipe else [(name, size)]
        for words, options in [*whole, (f"{name}, a second", {"seconds": 0.1 if bench.tiny else AIM})]:
            run = bench.fit(bench.picture, f"timed {words}", eager=False, **every, **options, **recipe)
            curve = [(row["seconds"], row["psnr"]) for row in run.history]
            reached = next((seconds for seconds, psnr in curve if psnr >= bench.target), None)
            found[words] = {
                "psnr": run.metrics["psnr"],
                "seconds": run.result["seconds"]["train"],
                "steps": run.result["steps"],
                "seconds_to_target": reached,
                "aim_met": reached is not None and reached <= AIM,
                "curve": curve,
            }
            said = f"reached in {reached:.3g} s" if reached is not None else "not reached"
            say(
                f"  {words}: {run.metrics['psnr']:.2f} dB after {run.result['seconds']['train']:.3g} s; "
                f"{bench.target:g} dB {said}"
            )
    return {"target": bench.target, "aim": AIM, **found}


def measure_table1(bench: Bench) -> dict[str, Any]:
    """The study `table1` at equal steps, with the published learning rate, on the picture: one method after the other,
    as far as the time goes."""
    words = [f"data.path={bench.picture}", "seed=[0]", f"budget=[{_STEPS}]", f"optimizer.lr=[{_RATE}]"]
    if bench.tiny:
        words += ["train.steps=6", "log.every=2", "network.hidden_features=16", "network.hidden_layers=1"]
    study = read_study("table1", words)
    chosen = {study.group(job.cell): _RATE for job in study.tuning_jobs()}
    rows: dict[str, Any] = {}
    left_out, slowest = [], 0.0
    for job in study.main_jobs(chosen):
        method = job.cell["method"]
        if 1.2 * slowest > bench.left - _SPARE:
            left_out.append(method)
            continue
        start = time.perf_counter()
        config = resolve([job.config or {}, {"device": str(bench.device), "log": {"report": False}}])
        run = execute(config, Run(bench.folder / job.folder_name))
        slowest = max(slowest, time.perf_counter() - start)
        rows[method] = {
            **{f"psnr@{row['step']}": row["psnr"] for row in run.history},
            **run.metrics,
            "seconds": run.result["seconds"]["train"],
            "published": study.table.published.get(method, {}).get(_STEPS, {}),
        }
        say(f"  {method}: {run.metrics['psnr']:.2f} dB in {rows[method]['seconds']:.3g} s")
    return {"rows": rows, "left_out": left_out}


_STEPS, _RATE = "equal steps", 1e-4
_SPARE = 5.0
"""Seconds that are kept for the end."""

CHECKS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "losses": check_losses,
    "selections": check_selections,
    "resume": check_resume,
    "move": check_move,
    "deterministic": check_deterministic,
    "main_memory": check_main_memory,
    "evaluation": check_evaluation,
    "portable": check_portable,
    "waits": check_waits,
    "captured": check_captured,
    "target": measure_target,
    "steps": measure_steps,
    "fused": measure_fused,
    "throughput": measure_throughput,
    "fits": check_fits,
    "table1": measure_table1,
}
"""In the order in which they run: what may take all the time that is left comes last."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_checks(bench: Bench, names: list[str]) -> dict[str, dict[str, Any]]:
    """Each check's outcome: whether it passed, its seconds, and what it found or failed of."""
    outcomes: dict[str, dict[str, Any]] = {}
    for name in names:
        if bench.left < _SPARE:
            outcomes[name] = {"passed": True, "seconds": 0.0, "left_out": "no time was left"}
            say(f"{name}: no time was left")
            continue
        start = time.perf_counter()
        try:
            outcome = {"passed": True, **CHECKS[name](bench)}
        except Exception as error:  # what fails on a GPU may be anything, and the other checks are to be heard too
            traceback.print_exc()
            outcome = {"passed": False, "error": f"{type(error).__name__}: {error}"}
        outcomes[name] = {"seconds": time.perf_counter() - start, **outcome}
        say(f"{name}: {'passed' if outcome['passed'] else 'FAILED'} in {outcomes[name]['seconds']:.1f} s")
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, xpu, mps, or cpu for a tiny run without a GPU")
    parser.add_argument("--only", choices=CHECKS, action="append", help="one check; may be given several times")
    parser.add_argument("--image", type=Path, help="the picture to time; the astronaut of scikit-image if not given")
    parser.add_argument("--target", type=float, default=37.8, help="PSNR in dB to time a fit to")
    parser.add_argument("--seconds", type=float, default=450.0, help="how long all may take")
    parser.add_argument("--tiny", action="store_true", help="small networks and few steps, to try the checks")
    arguments = parser.parse_args()
    end = time.perf_counter() + arguments.seconds
    try:
        device = choose_device(arguments.device)
    except inrkit.ConfigError as error:
        say(f"gpu_check: {error}")
        return 2
    if device.type == "cpu" and arguments.device == "auto":
        say("gpu_check: there is no GPU here; --device cpu runs the checks on the CPU")
        print(to_json({"device": None, "versions": versions(), "checks": {}}))
        return 0
    tiny = arguments.tiny or device.type == "cpu"
    with tempfile.TemporaryDirectory() as name:
        picture = arguments.image
        if picture is None:
            from skimage.data import astronaut  # not needed where a picture is given

            picture = Path(name) / "astronaut.png"
            Image.fromarray(astronaut()[::8, ::8] if tiny else astronaut()).save(picture)
        bench = Bench(device, Path(name), picture, arguments.target, tiny, end)
        outcomes = run_checks(bench, arguments.only or list(CHECKS))
    print(to_json({"device": describe(device), "versions": versions(), "checks": outcomes}))
    return 0 if all(outcome["passed"] for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
