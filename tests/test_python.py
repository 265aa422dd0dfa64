"""The same things from Python."""

import json
import math
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import inrkit
from inrkit import CoordinateDataset
from inrkit.networks.siren import Siren
from inrkit.plugins.choice import Chosen
from inrkit.selectors import Evos, Uniform
from inrkit.signals.transforms import MinMax


def noise(*shape):
    return np.random.default_rng(0).random(shape)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray((np.mgrid[0:20, 0:24].sum(0) * 5).astype(np.uint8)).save(path)
    return path


def test_three_lines_fit_measure_and_render(photo, tmp_path):
    run = inrkit.fit(photo, selector="evos", steps=5, out=tmp_path / "run")
    assert run.metrics["psnr"] > 0
    assert run.field.render((40, 48)).shape == (40, 48, 1)
    assert inrkit.load(tmp_path / "run").render().shape == (20, 24, 1)


def test_options_are_the_config_keys(photo, tmp_path):
    run = inrkit.fit(
        photo,
        out=tmp_path / "run",
        network={"hidden_features": 12},
        selector="uniform",
        overrides=["selector.ratio=0.25"],
        train={"steps": 3},
        every=1,
        seed=5,
    )
    config = run.config
    assert config.network.options.hidden_features == 12
    assert (config.selector.name, config.selector.options.ratio) == ("uniform", 0.25)
    assert (config.train.steps, config.log.every, config.general.seed) == (3, 1, 5)
    assert [row["step"] for row in run.history] == [1, 2, 3]


def test_a_mistyped_option_suggests_the_nearest(photo):
    with pytest.raises(inrkit.ConfigError, match="did you mean 'steps'"):
        inrkit.fit(photo, stesp=3)


class Largest(inrkit.Metric):
    """Largest error."""

    def update(self, prediction, target, weights=None):
        self.largest = float((prediction - target).abs().max())

    def compute(self):
        return self.largest


def test_values_may_be_those_of_numpy_and_torch_and_metrics_classes():
    seen = []
    run = inrkit.fit(
        noise(6, 6),
        network={"name": "siren", "hidden_features": np.int64(8), "hidden_layers": 1},
        steps=np.int64(2),
        selector=Uniform(ratio=np.float64(0.25)),
        seed=np.uint8(3),
        device=torch.device("cpu"),
        metrics=("psnr", Largest),
        overrides="selector.least=2",
        callbacks=lambda member: seen.append(member.step),
    )
    assert seen == [1, 2] and run.config.general.seed == 3 and run.config.selector.options.ratio == 0.25
    assert run.metrics[f"{__name__}:Largest"] > 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"lr": 1e-3}, r"lr is not an option of fit; give it as optimizer=\{'lr'"),
        ({"epochs": 3}, "epochs is not an option of fit; choose one of"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1, requires_grad=True)])}, "an instance of SGD, made for other"),
        ({"network": torch.nn.Linear}, "network is the class Linear, which needs arguments"),
        ({"callbacks": [inrkit.Listener]}, "or instances of Listener"),
        ({"callbacks": [3]}, "a callback is 3; give functions of the member"),
    ],
)
def test_what_python_cannot_ask_for_is_told(options, told):
    with pytest.raises(inrkit.ConfigError, match=told):
        inrkit.fit(noise(6, 6), **options)


def test_slips_of_python_are_told():
    with pytest.raises(inrkit.ConfigError, match="Evos has no option 'rato'; did you mean 'ratio'"):
        Evos(rato=0.2)
    with pytest.raises(inrkit.ConfigError, match=r"out is for inrkit\.fit"):
        inrkit.trainer(noise(6, 6), out="run")
    with pytest.raises(inrkit.DataError, match="a field is loaded from a path, not from Run"):
        inrkit.load(inrkit.Run("run"))


def test_the_result_holds_after_the_run(photo, tmp_path):
    run = inrkit.fit(photo, steps=2, out=tmp_path / "run")
    assert inrkit.Run(tmp_path / "run").result == run.result
    assert json.loads((tmp_path / "run" / "result.json").read_text())["coordinates"] == 480


def process():
    """What belongs to the caller's process, and a library call must leave as it is."""
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor

    return {
        "torch's generator": torch.get_rng_state().tolist(),
        "torch's seed": torch.initial_seed(),
        "numpy's generator": str(np.random.get_state(legacy=False)),
        "python's generator": random.getstate(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "products": torch.get_float32_matmul_precision(),
        "compiler": (dynamo.recompile_limit, dynamo.accumulated_recompile_limit, inductor.cpp.vec_isa_ok),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    }


@pytest.mark.parametrize("compile", ["never", pytest.param("always", marks=pytest.mark.slow)])
def test_the_callers_process_is_left_alone(photo, tmp_path, compile):
    class Watch(inrkit.Listener):
        def on_step(self, member, selected):
            assert process()["signals"] == before["signals"]

    torch.manual_seed(1)
    before = process()
    options = {"network": {"hidden_features": 32, "hidden_layers": 1}, "compile": compile, "callbacks": [Watch()]}
    run = inrkit.fit(photo, steps=2, out=tmp_path / "run", **options)
    assert process() == before
    for _ in inrkit.trainer(photo, steps=3, **options):
        assert process() == before
    inrkit.load(run.folder).render()
    assert process() == before


def test_the_allocator_is_left_to_the_caller(photo, tmp_path, monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("a library call reached for the C library"))
    inrkit.fit(photo, steps=2, out=tmp_path / "run")


def test_listeners_hear_of_every_step(photo, tmp_path):
    class Count(inrkit.Listener):
        steps = 0

        def on_step(self, member, selected):
            self.steps += 1

    count = Count()
    inrkit.fit(photo, steps=4, out=tmp_path / "run", callbacks=[count])
    assert count.steps == 4


def test_a_listener_that_raises_leaves_a_failed_run_that_says_why(photo, tmp_path):
    class Fail(inrkit.Listener):
        def on_step(self, member, selected):
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        inrkit.fit(photo, steps=4, out=tmp_path / "run", callbacks=[Fail()])
    result = inrkit.Run(tmp_path / "run").result
    assert (result["status"], result["error"]) == ("failed", "no more")


def test_of_two_fits_that_begin_at_once_one_gets_the_folder(photo, tmp_path):
    run = inrkit.Run(tmp_path / "run")
    config = inrkit.fit(photo, steps=2, out=tmp_path / "first").config
    run.create(config)
    before = (run.folder / "config.yaml").read_bytes()
    with pytest.raises(inrkit.ConfigError, match="already holds a run"):
        run.create(config)
    assert (run.folder / "config.yaml").read_bytes() == before


QUICK = {"steps": 2, "network": {"hidden_features": 8, "hidden_layers": 1}, "compile": "never"}


@pytest.mark.parametrize(
    ("signal", "modality", "shape"),
    [
        (noise(500), "audio", (500, 1)),
        (torch.rand(500, dtype=torch.float32).bfloat16(), "audio", (500, 1)),
        (noise(12, 10), "image", (12, 10, 1)),
        ((noise(12, 10, 3) * 255).astype(np.uint8), "image", (12, 10, 3)),
        (Image.fromarray((noise(12, 10, 3) * 255).astype(np.uint8)), "image", (12, 10, 3)),
        (Image.fromarray((noise(12, 10, 3) * 255).astype(np.uint8)).convert("P"), "image", (12, 10, 3)),
        (np.exp(1j * noise(12, 10)), "image", (12, 10, 2)),
        (noise(6, 7, 8), "volume", (6, 7, 8, 1)),
        ((noise(4, 7, 8, 3) * 255).astype(np.uint8), "video", (4, 7, 8, 3)),
        (CoordinateDataset(noise(5, 6, 7, 2)), "array", (5, 6, 7, 2)),
    ],
)
def test_what_python_holds_is_fitted_in_memory(signal, modality, shape, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = inrkit.fit(signal, **QUICK)
    assert run.field.render().shape == shape
    assert run.config.modality.name == modality
    assert run.result["status"] == "done" and run.history and run.metrics["psnr"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("offset", "scale", "dtype"),
    [(1.7e9, 1.0, "f8"), (1 << 53, 1000.0, "i8"), (300.0, 1e-3, "f4"), (0.0, 1e25, "f4"), (0.0, 1e-25, "f8")],
)
def test_metrics_are_those_of_the_rendered_values_however_far_or_large_they_are(offset, scale, dtype):
    wave = np.sin(np.arange(24)[:, None] / 5 + np.arange(20) / 3) * scale
    values = wave.astype(dtype) + np.array(offset, dtype)
    run = inrkit.fit(values, modality="volume", metrics=["psnr", "between"], steps=60, quiet=True)
    missed = (run.field.render()[..., 0] - values).astype(np.float64) / float(np.ptp(values))
    assert run.metrics["psnr"] == pytest.approx(-10 * np.log10(np.mean(missed**2)), abs=2)  # rounded as the file is
    assert run.metrics["psnr"] > 25
    assert run.metrics["between"] > 25


def test_a_fit_without_error_has_an_infinite_psnr_in_memory_too():
    run = inrkit.fit(np.full((8, 8), 30_000, np.int16), modality="volume", steps=20, quiet=True)
    assert run.metrics["psnr"] == run.history[-1]["psnr"] == math.inf


def test_a_modality_says_what_an_array_is():
    run = inrkit.fit(noise(500, 2), modality="audio", **QUICK)
    assert run.field.render().shape == (500, 2)
    assert run.field([[0.25 / 44_100]], physical=True).shape == (1, 2)
    with pytest.raises(inrkit.ConfigError, match="Shape takes no array"):
        inrkit.fit(noise(5, 5, 5), modality="shape")


def test_an_array_ends_as_its_file_does(photo, tmp_path):
    named = inrkit.fit(photo, out=tmp_path / "run", **QUICK)
    held = inrkit.fit(np.asarray(Image.open(photo)), **QUICK)
    assert held.metrics == named.metrics
    assert np.array_equal(held.field.render(), named.field.render())


def test_an_array_with_a_folder_leaves_the_files_of_a_run(tmp_path):
    run = inrkit.fit(noise(12, 10), out=tmp_path / "run", **QUICK)
    assert {"config.yaml", "field.safetensors", "metrics.jsonl", "result.json"} <= {
        path.name for path in run.folder.iterdir()
    }
    assert np.array_equal(inrkit.load(tmp_path / "run").render(), run.field.render())
    with pytest.raises(inrkit.DataError, match="was a Python object; give it again"):
        inrkit.fit(tmp_path / "run" / "config.yaml", out=tmp_path / "again")


def test_scattered_samples_are_fitted_in_their_own_units():
    places = np.random.default_rng(0).uniform([0, 50], [10, 90], (400, 2))
    values = np.sin(places[:, 0] / 3) + places[:, 1] / 40
    run = inrkit.fit(points=places, values=values, steps=150, network={"hidden_features": 32})
    assert run.field.grid_shape is None
    probes = np.random.default_rng(1).uniform([1, 54], [9, 86], (200, 2))
    found = run.field(probes, physical=True)[:, 0]
    expected = np.sin(probes[:, 0] / 3) + probes[:, 1] / 40
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.05 * np.ptp(values)


@pytest.mark.parametrize(
    ("points", "values", "told"),
    [
        (noise(5, 2), None, "give both"),
        (noise(5, 2), noise(4), "expected"),
        (np.full((3, 2), np.nan), noise(3), "each of the 3 samples has a NaN"),
        (np.full((3, 2), np.inf), noise(3), "point 0 is infinite"),
        (np.arange(3).astype("datetime64[s]"), noise(3), "seconds in place of dates"),
        (np.array([["a", 1]], dtype=object), noise(1), "dtype object; expected real numbers"),
        (noise(3, 2) * 1j, noise(3), "dtype complex128; expected real numbers"),
    ],
)
def test_scattered_samples_that_do_not_fit_are_told(points, values, told):
    with pytest.raises(inrkit.DataError, match=told):
        inrkit.fit(points=points, values=values)


@pytest.mark.parametrize("signal", [None, object(), np.array("text"), 3])
def test_what_is_no_signal_is_told(signal):
    with pytest.raises(inrkit.DataError, match="give a file's path, an array"):
        inrkit.fit(signal)


def test_what_is_a_signal_of_another_form_is_told():
    class Table:  # as of pandas and polars
        columns = ("x", "y", "value")

        def __array__(self, dtype=None, copy=None):
            return noise(5, 3)

    with pytest.raises(inrkit.DataError, match="columns x, y, value; give points="):
        inrkit.fit(Table())
    with pytest.raises(inrkit.DataError, match="may be a picture with its channels first"):
        inrkit.fit(torch.rand(3, 8, 9))
    with pytest.raises(inrkit.DataError, match="sparse_coo; give a dense one"):
        inrkit.fit(torch.eye(3).to_sparse())


class Tanh(torch.nn.Module):
    def __init__(self, dimensions=2, channels=1):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(dimensions, 16), torch.nn.Tanh(), torch.nn.Linear(16, channels)
        )

    def forward(self, coordinates):
        return self.layers(coordinates)


def test_any_module_of_the_right_shape_is_a_network(tmp_path):
    module = Tanh()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    run = inrkit.fit(noise(12, 10), network=module, steps=3, out=tmp_path / "run")
    assert any(not torch.equal(*pair) for pair in zip(before, module.parameters(), strict=True))
    again = inrkit.load(tmp_path / "run", network=Tanh())
    assert np.array_equal(again.render(), run.field.render())
    with pytest.raises(inrkit.ConfigError, match=r"give it: inrkit\.load"):
        inrkit.load(tmp_path / "run")
    assert inrkit.fit(noise(12, 10), network=Tanh, steps=1).result["status"] == "done"


def test_a_module_of_another_shape_is_told():
    with pytest.raises(inrkit.ConfigError, match=r"it must give \(2, 1\)"):
        inrkit.fit(noise(12, 10), network=Tanh(2, 3), steps=1)
    with pytest.raises(inrkit.ConfigError, match=r"cannot take \(2, 2\)"):
        inrkit.fit(noise(12, 10), network=Tanh(3), steps=1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("uniform", ("uniform", None)),
        ({"name": "evos", "ratio": 0.2}, ("evos", 0.2)),
        (Evos, ("evos", None)),
        (Evos(ratio=0.2), ("evos", 0.2)),
        (Uniform(ratio=0.3), ("uniform", 0.3)),
    ],
)
def test_a_plug_in_is_a_name_a_class_or_one_with_options(given, expected):
    config = inrkit.fit(noise(12, 10), selector=given, **QUICK).config
    name, ratio = expected
    assert config.selector.name == name
    assert ratio is None or config.selector.options.ratio == ratio


def test_a_class_called_with_options_is_a_choice_and_with_what_it_needs_an_instance():
    assert isinstance(Evos(ratio=0.2), Chosen) and repr(Evos(ratio=0.2)) == "Evos(ratio=0.2)"
    assert isinstance(Siren(Siren.Options(hidden_features=4), 2, 1), torch.nn.Module)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, lambda parameters: torch.optim.SGD(parameters, lr=0.1)])
def test_an_optimizer_is_a_class_of_torchs_or_a_function(optimizer):
    seen = []
    run = inrkit.fit(noise(12, 10), optimizer=optimizer, callbacks=[seen.append], **QUICK)
    assert isinstance(seen[0].optimizer, torch.optim.Adam if isinstance(optimizer, type) else torch.optim.SGD)
    assert len(seen) == 2 and run.result["steps"] == 2


def test_a_transform_may_have_its_constants():
    run = inrkit.fit(noise(12, 10), transform=MinMax(-1.0, 3.0), **QUICK)
    assert (run.field.transform.low, run.field.transform.high) == (-1.0, 3.0)


@pytest.mark.parametrize("slot", ["selector", "network", "schedule", "objective"])
def test_what_is_no_plug_in_is_told(slot):
    with pytest.raises(inrkit.ConfigError, match=f"{slot} is 3; give a name"):
        inrkit.fit(noise(12, 10), **{slot: 3})


def test_the_loop_is_in_the_callers_hand(photo):
    whole = inrkit.fit(np.asarray(Image.open(photo)), **{**QUICK, "steps": 6})
    training = inrkit.trainer(photo, **{**QUICK, "steps": 6})
    assert len(training) == 6
    seen = []
    for step in training:
        seen.append(step)
        torch.rand(3)  # what the caller draws is no part of the training
        if step.number == 4:
            early = training.field
            break
    rendered = early.render()
    seen += list(training)
    assert [step.number for step in seen] == [1, 2, 3, 4, 5, 6]
    assert all(step.loss > 0 for step in seen)
    assert np.array_equal(training.field.render(), whole.field.render())
    assert np.array_equal(early.render(), rendered)
    assert training.evaluate() == whole.metrics


def test_a_training_that_was_stopped_may_go_on(photo):
    training = inrkit.trainer(photo, **{**QUICK, "steps": 5})
    for step in training:
        if step.number == 2:
            training.stop()
    assert training.member.step == 2
    assert [step.number for step in training] == [3, 4, 5]


def test_more_steps_may_be_asked_for_when_a_run_is_resumed(photo, tmp_path):
    inrkit.fit(photo, out=tmp_path / "run", **QUICK)
    more = inrkit.fit(tmp_path / "run", resume=True, steps=5)
    assert more.result["steps"] == 5 and more.result["status"] == "done"
    assert more.config.train.steps == 5
    assert [row["step"] for row in more.history][-1] == 5
    with pytest.raises(inrkit.ConfigError, match=r"train.steps is 3"):
        inrkit.fit(tmp_path / "run", resume=True, steps=3)


def test_no_row_is_lost_when_the_interval_of_evaluations_changes(photo, tmp_path):
    class StopAt(inrkit.Listener):
        def __init__(self, step):
            self.step = step

        def on_step(self, member, selected):
            if member.step == self.step:
                member.stop()

    options = {**QUICK, "steps": 60}
    inrkit.fit(photo, out=tmp_path / "run", every=7, callbacks=[StopAt(30)], **options)
    inrkit.fit(tmp_path / "run", resume=True, every=10, callbacks=[StopAt(45)])
    run = inrkit.fit(tmp_path / "run", resume=True, every=10)
    assert [row["step"] for row in run.history] == [7, 14, 21, 28, 40, 50, 60]


def test_two_fits_that_begin_at_once_take_folders_of_their_own(photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    second = []

    def meanwhile(member):
        if not second:
            second.append(None)
            second.append(inrkit.fit(photo, **QUICK))

    from inrkit.config import parse_overrides
    from inrkit.runs.execute import execute
    from inrkit.runs.request import prepare

    asked = [prepare(photo, layers=[parse_overrides(["train.steps=2"])]) for _ in range(2)]
    assert asked[0][1].folder == asked[1][1].folder
    ran = [execute(config, run) for config, run in asked]
    assert [run.folder.name for run in ran] == ["photo", "photo-2"]


class Dropped(Siren):
    """A SIREN half of whose outputs are dropped in training."""

    def forward(self, coordinates):
        return torch.nn.functional.dropout(super().forward(coordinates), 0.5, self.training)


def test_a_network_that_drops_out_is_measured_and_kept_as_it_is_used(photo, tmp_path):
    run = inrkit.fit(photo, network=Dropped, out=tmp_path / "run", steps=4, every=2)
    loaded = inrkit.load(tmp_path / "run", trust=True)
    values = np.asarray(Image.open(photo)).astype(float)[..., None]
    found = loaded.render(dtype=np.float64).clip(0, 255)
    psnr = 10 * np.log10(255**2 / np.mean((found - values) ** 2))
    assert run.metrics["psnr"] == pytest.approx(psnr, abs=0.01)
    assert np.array_equal(np.asarray(Image.open(run.reconstruction)), loaded.render()[..., 0])


class Counting(Siren):
    """A SIREN that counts its calls in a buffer."""

    def __init__(self, options, dimensions, channels):
        super().__init__(options, dimensions, channels)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, coordinates):
        if self.training:
            self.calls += 1
        return super().forward(coordinates) + 1e-3 * self.calls


def test_a_fit_that_tells_of_itself_ends_as_one_that_is_quiet(photo, tmp_path):
    quiet, loud = (
        inrkit.fit(photo, network=Counting, out=tmp_path / str(quiet), steps=3, quiet=quiet) for quiet in (True, False)
    )
    assert quiet.metrics == loud.metrics


def test_the_readme_shows_python_that_runs(tmp_path):
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    code = "\n".join(blocks)
    prelude = """
import numpy as np, torch
from PIL import Image
Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)).save("photo.png")
"""
    quick = re.sub(r"steps=\d+", "steps=3", code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", prelude + quick],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
