"""The same things from Python."""

import json

import numpy as np
import pytest
from PIL import Image

import inrkit


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


def test_the_result_holds_after_the_run(photo, tmp_path):
    run = inrkit.fit(photo, steps=2, out=tmp_path / "run")
    assert inrkit.Run(tmp_path / "run").result == run.result
    assert json.loads((tmp_path / "run" / "result.json").read_text())["coordinates"] == 480


def test_the_callers_random_state_is_left_alone(photo, tmp_path):
    import torch

    torch.manual_seed(1)
    before = torch.get_rng_state()
    inrkit.fit(photo, steps=2, out=tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


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
