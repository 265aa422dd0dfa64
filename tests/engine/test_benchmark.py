import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from inrkit import ConfigError, CoordinateDataset, DataError
from inrkit.cli import main
from inrkit.networks.wire import complex_width
from inrkit.runs.benchmark import COORDINATES, LEAST_STEPS, PARTS, WARM_UP, benchmark, repeated

SMALL = ("network.hidden_features=16", "network.hidden_layers=1", "train.steps=12", "device=cpu")
QUICK = (*SMALL, "train.precision=float32", "selector.ratio=0.01", "selector.least=1")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "small.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def report(picture):
    return benchmark(picture, overrides=QUICK, seconds=0.2)


def test_the_numbers_of_a_step_agree_with_each_other(report):
    step, fit = report["step"], report["fit"]
    assert step["coordinates_per_second"] == pytest.approx(step["coordinates"] / step["seconds"])
    operations = 6 * fit["matrix_parameters"] * step["coordinates_per_second"]
    assert step["teraflops"] == pytest.approx(operations / 1e12)
    assert step["share_of_peak"] == pytest.approx(step["teraflops"] / max(report["peaks"]["float32"].values()))
    assert 1 <= step["steps"] <= fit["steps"] - WARM_UP - 2


def test_the_parts_of_a_step_sum_to_the_whole(report):
    assert tuple(report["shares"]) == PARTS
    assert all(0 <= share <= 1 for share in report["shares"].values())
    assert sum(report["shares"].values()) == pytest.approx(1)
    assert all(report["shares"][part] > 0 for part in PARTS)


def test_the_first_step_is_told_apart_and_part_of_the_warm_up(report):
    assert report["first_step"]["coordinates"] == round(0.01 * 24 * 30)
    assert 0 < report["first_step"]["seconds"] < report["warm_up"]["seconds"]
    assert report["warm_up"]["steps"] == WARM_UP


def test_matrix_parameters_are_those_of_the_layers(report):
    assert report["fit"]["matrix_parameters"] == 2 * 16 + 16 * 16 + 16 * 3
    assert report["fit"]["parameters"] == report["fit"]["matrix_parameters"] + 16 + 16 + 3


def test_a_complex_layer_counts_as_the_four_real_ones_that_it_is(picture):
    words = [*SMALL, "network=wire", f"train.steps={LEAST_STEPS}"]
    fit = benchmark(picture, overrides=words, seconds=0.01)["fit"]
    width = complex_width(16)
    assert fit["matrix_parameters"] == 2 * width + 4 * width * width + 2 * width * 3


def test_config_words_are_honoured(picture):
    words = ["selector=full", "optimizer=adam", "train.precision=bfloat16", "network.hidden_layers=2", *SMALL[:1]]
    found = benchmark(picture, overrides=[*words, "train.steps=9", "device=cpu"], seconds=0.05)
    fit = found["fit"]
    assert (fit["selector"], fit["optimizer"], fit["precision"], fit["steps"]) == ("full", "adam", "bfloat16", 9)
    assert fit["matrix_parameters"] == 2 * 16 + 2 * 16 * 16 + 16 * 3
    assert found["step"]["coordinates"] == 24 * 30
    assert set(found["peaks"]) == {"float32", "bfloat16"}


def test_a_training_ends_before_its_own_steps_do(picture):
    found = benchmark(picture, overrides=[*QUICK, f"train.steps={LEAST_STEPS}"], seconds=60)
    assert found["step"]["steps"] == 1
    with pytest.raises(ConfigError, match=r"train.steps is 5; a benchmark needs at least 6"):
        benchmark(picture, overrides=[*QUICK, f"train.steps={LEAST_STEPS - 1}"])


def test_a_selection_that_surveys_counts_as_selection_as_a_whole(picture):
    found = benchmark(picture, overrides=[*SMALL, "selector=int", "selector.mining=dense"], seconds=0.2)
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["shares"]["selection"] > found["shares"]["gathering"]


@pytest.mark.parametrize("name", ["image", "audio"])
def test_a_config_without_a_signal_meets_a_sample_worth_its_steps(name):
    found = benchmark(name, overrides=[*QUICK, "train.chunk=65536", "train.steps=6"], seconds=0.01)
    assert found["signal"]["source"] == "sample"
    assert COORDINATES <= found["signal"]["coordinates"] < 2 * COORDINATES


def test_a_config_file_s_signal_is_its_own(picture, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"base: image\ndata: {{path: {picture}}}\nselector: full\n")
    found = benchmark(tmp_path / "mine.yaml", overrides=SMALL, seconds=0.05)
    assert found["signal"]["source"] == str(picture)
    assert found["signal"]["shape"] == [24, 30]


def test_a_repeated_signal_holds_the_same_values_in_the_same_order():
    values = np.arange(2 * 3 * 2, dtype=np.uint16).reshape(2, 3, 2)
    larger = repeated(CoordinateDataset(values), 20)
    assert larger.grid_shape == (4, 6)
    assert np.array_equal(larger.stored(slice(0, 24)).numpy().reshape(4, 6, 2), np.tile(values, (2, 2, 1)))
    points = CoordinateDataset(np.zeros((5, 1)), points=np.zeros((5, 2)))
    assert repeated(points, 20) is points


def test_a_signal_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"does not exist"):
        benchmark(tmp_path / "none.png")


@pytest.fixture
def inrkit(monkeypatch, tmp_path, capsys):
    """Runs the command in an empty folder; gives its exit code and what it prints to stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["inrkit", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_the_command_prints_a_table_or_json_and_leaves_no_files(picture, inrkit, tmp_path):
    code, out, _ = inrkit("benchmark", picture, *QUICK, "--seconds", "0.1", "--json")
    told = json.loads(out)
    assert code == 0
    assert set(told) == {
        "device",
        "threads",
        "versions",
        "signal",
        "fit",
        "peaks",
        "first_step",
        "warm_up",
        "step",
        "shares",
        "peak_memory",
    }
    assert told["device"].startswith("cpu")
    assert told["peak_memory"] > 2**20
    code, table, _ = inrkit("benchmark", picture, *QUICK, "--seconds", "0.1")
    assert code == 0
    for words in ("FLOP/s", "first step", "coordinates a second", "of the float32 peak", "peak memory", "selection"):
        assert words in table
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["imagee"], "did you mean 'image'?"),
        (["image", "train.stepps=3"], "train.stepps is not an option"),
        (["image", "--seconds", "0"], "--seconds"),
        (["image", "device=tpu"], "device is 'tpu'"),
        (["train.steps=2"], "at least 6"),
    ],
)
def test_a_wrong_request_is_a_line_and_exit_code_2(words, said, inrkit):
    code, _, refused = inrkit("benchmark", *words)
    assert code == 2
    assert said in refused
    assert refused.count("\n") == 1


def test_the_settings_of_float32_products_are_left_as_they_were(report):
    assert torch.get_float32_matmul_precision() == "highest"
