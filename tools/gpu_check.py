"""Check a GPU against the CPU and time fits on it: `python tools/gpu_check.py > gpu.json`.

Says on stderr how it goes and prints one JSON object: the device, and for each check whether it passed, its seconds
and what it found. Exits 1 if a check failed; without a GPU 0, with a device of null. `--device cpu` runs all of it on
the CPU in place of the GPU, with small networks and few steps.
"""

from __future__ import annotations

import argparse
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

import numpy as np
import torch
from PIL import Image
from skimage.data import astronaut

import inrkit
from inrkit import CoordinateDataset, Listener, Member, Progress, Residuals, Trainer
from inrkit.config import Config, resolve
from inrkit.device import describe
from inrkit.evaluation.evaluate import default_chunk, evaluate
from inrkit.files import to_json
from inrkit.plugins.options import field_names
from inrkit.runs.benchmark import benchmark, float32_products
from inrkit.runs.build import build, read_signal
from inrkit.runs.run import versions
from inrkit.signals.signal import Signal

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
    """

    device: torch.device
    folder: Path
    picture: Path
    target: float

    @property
    def quick(self) -> bool:
        """Whether the device is the CPU, so that sizes are small."""
        return self.device.type == "cpu"

    def network(self, name: str) -> dict[str, Any]:
        """A network as a config layer; a small one on the CPU."""
        declared = field_names(inrkit.NETWORKS.get(name).Options)
        return {"name": name, **({key: value for key, value in SMALL.items() if key in declared} if self.quick else {})}

    def fit(self, signal: Path, name: str, *, eager: bool = True, **options: Any) -> inrkit.Run:
        """A fit on the device, in the folder `name`; if `eager`, of a network that is not compiled: that takes longer
        than a small fit."""
        layer = {"device": str(self.device), "network": self.network("siren"), **options}
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
    """Every modality's sample is fitted with every selector; on the CPU each of both at least once."""
    modalities, selectors = inrkit.MODALITIES.names(), inrkit.SELECTORS.names()
    pairs = list(itertools.product(modalities, selectors))
    if bench.quick:
        pairs = list(zip(itertools.cycle(modalities), selectors, strict=False))
        pairs += [(modality, selectors[0]) for modality in modalities[len(selectors) :]]
    found = {}
    for modality, selector in pairs:
        plugin = inrkit.MODALITIES.get(modality)
        sizes = {"resolution": 16, "export_resolution": 16} if bench.quick else {}
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
    return {"fits": found}


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


def _losses(config: Config, read: Signal, device: torch.device) -> list[float]:
    member = build(config, read, device, "float32")
    return [float(turn.errors.squared.mean()) for (turn,) in Trainer([member])]


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


def measure_steps(bench: Bench) -> dict[str, Any]:
    """The default image recipe's steps on the picture: by precision, as the network is and compiled."""
    precisions = [("float32", "highest"), ("bfloat16", "highest")]
    if not bench.quick:
        precisions.insert(1, ("float32", "high"))
    compiled = ["never"] if bench.quick else ["never", "always"]
    found = {}
    for (precision, products), compile_ in itertools.product(precisions, compiled):
        words = [f"train.precision={precision}", f"train.compile={compile_}"]
        if bench.quick:
            words += ["train.steps=8", *(f"network.{key}={SMALL[key]}" for key in ("hidden_features", "hidden_layers"))]
        with float32_products(products):
            report = benchmark(
                bench.picture, overrides=words, seconds=0.1 if bench.quick else 3.0, device=str(bench.device)
            )
        name = ", ".join([report["fit"]["precision"], *(["compiled"] if compile_ == "always" else [])])
        found[name] = report
        step = report["step"]
        say(f"  {name}: {1000 * step['seconds']:.3g} ms a step, {step['share_of_peak']:.0%} of the peak")
    return {"reports": found}


def measure_target(bench: Bench) -> dict[str, Any]:
    """Seconds of training in which the default image recipe comes to the target, and in which a second's does.

    A fit of a few steps beforehand takes the start-up and the compilation upon itself.
    """
    size = {"steps": 6} if bench.quick else {}
    every: dict[str, Any] = {"metrics": ["psnr"], "log": {"every": 2 if bench.quick else 10}}
    bench.fit(bench.picture, "warm-up", eager=False, steps=5, **every)
    found = {}
    for name, options in (("recipe", size), ("a second", {"seconds": 0.1 if bench.quick else 1.0})):
        run = bench.fit(bench.picture, f"timed {name}", eager=False, **every, **options)
        curve = [(row["seconds"], row["psnr"]) for row in run.history]
        reached = next((seconds for seconds, psnr in curve if psnr >= bench.target), None)
        found[name] = {
            "psnr": run.metrics["psnr"],
            "seconds": run.result["seconds"]["train"],
            "steps": run.result["steps"],
            "seconds_to_target": reached,
            "curve": curve,
        }
        say(f"  {name}: {run.metrics['psnr']:.2f} dB after {run.result['seconds']['train']:.3g} s")
        for seconds, psnr in curve:
            say(f"    {seconds:8.3f} s  {psnr:.2f} dB")
        said = f"reached in {reached:.3g} s" if reached is not None else "not reached"
        say(f"    {bench.target:g} dB {said}")
    return {"target": bench.target, **found}


CHECKS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "fits": check_fits,
    "losses": check_losses,
    "selections": check_selections,
    "resume": check_resume,
    "evaluation": check_evaluation,
    "portable": check_portable,
    "steps": measure_steps,
    "target": measure_target,
}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_checks(bench: Bench, names: list[str]) -> dict[str, dict[str, Any]]:
    """Each check's outcome: whether it passed, its seconds, and what it found or failed of."""
    outcomes = {}
    for name in names:
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
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu for a quick run without a GPU")
    parser.add_argument("--only", choices=CHECKS, action="append", help="one check; may be given several times")
    parser.add_argument("--image", type=Path, help="the picture to time; the astronaut of scikit-image if not given")
    parser.add_argument("--target", type=float, default=37.8, help="PSNR in dB to time a fit to")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        say("gpu_check: there is no GPU here; --device cpu runs the checks on the CPU")
        print(to_json({"device": None, "versions": versions(), "checks": {}}))
        return 0
    with tempfile.TemporaryDirectory() as name:
        picture = arguments.image
        if picture is None:
            picture = Path(name) / "astronaut.png"
            Image.fromarray(astronaut()[::8, ::8] if device.type == "cpu" else astronaut()).save(picture)
        outcomes = run_checks(Bench(device, Path(name), picture, arguments.target), arguments.only or list(CHECKS))
    print(to_json({"device": describe(device), "versions": versions(), "checks": outcomes}))
    return 0 if all(outcome["passed"] for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
