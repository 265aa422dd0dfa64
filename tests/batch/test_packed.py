"""The weights of a study as one data set: to the bit those of its fields, and a damaged file is told in a line."""

import json
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import inrkit
import inrkit.cli
from inrkit import ConfigError, DataError, RunError, Weights
from inrkit.batch import LAUNCHERS, Launcher, Outcome, Started, pack, read_study, run_study
from inrkit.batch.job import perform

SIREN = {"name": "siren", "hidden_features": 8, "hidden_layers": 1}


@dataclass
class HereOptions:
    pass


class Here(Launcher):
    """In this process, which takes less time than to start others."""

    Options = HereOptions
    workers = 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, tasks):
        for task in tasks:
            yield Started(task)
            yield Outcome(task, **perform(asdict(task)))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of four thumbnails that trained together, and of a file that is no picture."""
    folder = tmp_path_factory.mktemp("thumbnails")
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    told = {
        "base": "image-single",
        "set": {"network": SIREN, "train.steps": 3, "log.report": False},
        "matrix": {"data.path": "*.png", "seed": [3]},
        "variants": {"method": {"plain": {"selector": "full"}}},
        "batch": {"together": 4},
        "launcher": "here",
    }
    (folder / "study.yaml").write_text(json.dumps(told))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LAUNCHERS._registered, "here", Here)
        assert run_study(read_study(str(folder / "study.yaml"), []), folder / "out", quiet=True) == 1
    return folder / "out"


@pytest.fixture(scope="module")
def packed(study):
    path = study.parent / "weights.safetensors"
    done = pack(study, path)
    assert (done.runs, done.weights, done.left_out) == (4, (2 * 8 + 8) + (8 * 8 + 8) + (8 * 3 + 3), 1)
    return path


def test_each_row_is_the_weights_of_its_run_to_the_bit(study, packed):
    weights = Weights(packed)
    assert len(weights) == 4 and not list(study.parent.glob(".*weights*"))
    assert sorted(Path(weights.info(index)["signal"]).name for index in range(4)) == [f"{n}.png" for n in range(4)]
    for index, (row, info) in enumerate(weights):
        run = inrkit.Run(study / "runs" / info["run"])
        held = load_file(run.folder / "field.safetensors")
        assert list(weights.shapes) == sorted(held)
        assert torch.equal(row, torch.cat([held[name].flatten() for name in weights.shapes]))
        again = weights.state_dict(index)
        assert again.keys() == held.keys() and all(torch.equal(again[name], held[name]) for name in held)
        assert info["metrics"] == run.metrics and info["steps"] == 3 and info["seed"] == 3
        assert info["axes"] == {"data.path": Path(info["signal"]).name, "seed": 3, "method": "plain"}
        assert info["config"] == {"data.path": info["signal"]}
        np.testing.assert_array_equal(weights.field(index).render(), run.field.render())
    assert weights.config["train.steps"] == 3 and weights.config["network.name"] == "siren"


def test_it_is_a_torch_dataset_that_reads_only_the_rows_asked_for(packed):
    weights = Weights(packed, label=lambda info: info["metrics"]["psnr"])
    assert "4 runs of 123 weights" in repr(weights)
    rows, labels = next(iter(torch.utils.data.DataLoader(weights, batch_size=4)))
    assert torch.equal(rows, weights.rows) and labels.shape == (4,)
    row, _ = weights[-1]
    row.zero_()  # its own memory
    assert weights[3][0].any()
    assert len(pickle.dumps(Weights(packed))) < 1000
    with pytest.raises(IndexError):
        weights[4]
    mixed = weights.field(0, weights.rows.mean(0))
    assert mixed.render().shape == (8, 8, 3)
    with pytest.raises(DataError, match=r"shape \(7,\); expected \(123,\)"):
        weights.state_dict(torch.zeros(7))


def test_anyone_reads_the_file_with_safetensors_alone(packed):
    tensors = load_file(packed)
    assert tensors["weights"].shape == (4, 123)
    infos = [json.loads(line) for line in tensors["infos"].numpy().tobytes().decode().splitlines()]
    assert [info["run"] for info in infos] == [Weights(packed).info(index)["run"] for index in range(4)]
    with safe_open(packed, "pt") as file:
        assert json.loads(file.metadata()["inrkit.weights"])["shapes"]["last.bias"] == [3]


def test_the_table_holds_the_same(study, packed, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pack([study], tmp_path / "weights.parquet")
    table = parquet.read_table(tmp_path / "weights.parquet")
    weights = Weights(packed)
    found = np.stack(table["weights"].to_numpy())
    assert found.dtype == np.float32 and np.array_equal(found, weights.rows.numpy())
    assert table["metrics.psnr"].to_pylist() == [weights.info(index)["metrics"]["psnr"] for index in range(4)]
    assert json.loads(table["config"][0].as_py()) == weights.info(0)["config"]
    with pytest.raises(DataError, match="not a data set of weights"):
        Weights(tmp_path / "weights.parquet")


def test_tensors_of_other_types_keep_their_type_and_layers_their_order(tmp_path):
    from inrkit.runs.weights import Layout, write_weights

    several = [
        {
            "10.weight": torch.full((2, 2), float(number)),
            "2.weight": torch.arange(3.0) + number,
            "steps": torch.tensor(number),
            "half": torch.full((3,), number, dtype=torch.bfloat16),
            "mask": torch.tensor([True, number > 0, False]),
        }
        for number in range(3)
    ]
    layout = Layout.of(several[0])
    infos = [{"run": str(number), "metrics": {"psnr": float("inf")}} for number in range(3)]
    write_weights(tmp_path / "mixed.safetensors", layout, iter(several), infos, {"config": {}, "field": {}})
    weights = Weights(tmp_path / "mixed.safetensors")
    assert weights.rows[2].tolist() == [2, 3, 4, 2, 2, 2, 2]
    assert weights.info(1)["metrics"] == {"psnr": float("inf")}
    for index, given in enumerate(several):
        again = weights.state_dict(index)
        assert all(again[name].dtype == given[name].dtype and torch.equal(again[name], given[name]) for name in given)


def call(*words, capsys):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr("sys.argv", ["inrkit", *map(str, words)])
        inrkit.cli.main()
    return left.value.code or 0, *capsys.readouterr()


def test_the_command_packs_runs_and_names_the_first_that_differs(study, packed, tmp_path, capsys):
    code, said, noted = call("pack", study, tmp_path / "a.safetensors", capsys=capsys)
    assert code == 0 and "4 runs of 123 weights each" in said and "1 of 5 runs are not done" in noted
    runs = sorted(path for path in (study / "runs").iterdir() if (path / "field.safetensors").exists())
    assert call("pack", *runs[:2], tmp_path / "a.safetensors", capsys=capsys)[0] == 0
    assert len(Weights(tmp_path / "a.safetensors")) == 2
    call("pack", study / "runs", tmp_path / "a.safetensors", capsys=capsys)
    assert torch.equal(Weights(tmp_path / "a.safetensors").rows, Weights(packed).rows)
    wide = inrkit.fit(study.parent / "0.png", base="image-single", network=SIREN | {"hidden_features": 9}, steps=1,
                      out=tmp_path / "wide", overrides=["log.report=false"])  # fmt: skip
    code, said, told = call("pack", *runs, wide.folder, tmp_path / "b.safetensors", capsys=capsys)
    assert code == 2 and len(told.splitlines()) == 1 and not said
    assert f"{wide.folder} cannot be packed with {runs[0]}: its network.hidden_features is 9, not 8" in told
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere", "a.safetensors"], "nowhere is not a folder"),
        (["empty", "a.safetensors"], "holds no runs"),
        (["unfinished", "a.safetensors"], "is not done"),
        (["empty", "a.zip"], "must end in .safetensors or .parquet"),
        (["empty", "missing/a.safetensors"], "missing is not a folder"),
        (["damaged", "a.safetensors"], "results.jsonl is damaged at line 1"),
        (["unfinished", "unfinished/field.safetensors"], "is the name of a run's own field"),
        (["a.safetensors"], "Missing argument"),
    ],
)
def test_what_cannot_be_packed_is_told_in_a_line(words, told, study, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "unfinished", "damaged"):
        (tmp_path / name).mkdir()
    shutil.copy(next((study / "runs").glob("0-*")) / "config.yaml", "unfinished")
    Path("damaged", "results.jsonl").write_text('{"phase": "main", "status": "done"}\n')
    code, said, error = call("pack", *words, capsys=capsys)
    assert code == 2 and told in error and len(error.splitlines()) == 1 and not said


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, said: tensors.pop("infos"),
        lambda tensors, said: tensors.update(infos=torch.zeros(9, dtype=torch.uint8)),
        lambda tensors, said: tensors.update(weights=torch.zeros(4, 5)),
        lambda tensors, said: tensors.update(weights=torch.zeros(4, 123, dtype=torch.int32)),
        lambda tensors, said: said.update(shapes={"a": [-1, -123]}),
        lambda tensors, said: said.update(shapes={"a": [1 << 62, 1 << 62]}),
        lambda tensors, said: said.update(shapes=[3]),
        lambda tensors, said: said.update(format=9),
        lambda tensors, said: said.pop("config"),
        lambda tensors, said: tensors.update({"beside.a": torch.zeros(3)}),
    ],
)
def test_a_file_that_is_not_what_it_says_is_a_line(packed, tmp_path, change):
    tensors = load_file(packed)
    with safe_open(packed, "pt") as file:
        said = json.loads(file.metadata()["inrkit.weights"])
    change(tensors, said)
    save_file(tensors, tmp_path / "bad.safetensors", {"inrkit.weights": json.dumps(said)})
    with pytest.raises(DataError) as told:
        Weights(tmp_path / "bad.safetensors")
    assert len(str(told.value).splitlines()) == 1


def test_damaged_bytes_are_a_line(packed, tmp_path):
    whole = packed.read_bytes()
    (tmp_path / "a").mkdir()
    for content in (b"", whole[:7], whole[:-5], b"\xff" * 64, whole[:8] + b"[" * (len(whole) - 8)):
        (tmp_path / "cut.safetensors").write_bytes(content)
        with pytest.raises(DataError, match="not a data set of weights, or is damaged"):
            Weights(tmp_path / "cut.safetensors")
    for path in (tmp_path / "none.safetensors", tmp_path / "a"):
        with pytest.raises(DataError):
            Weights(path)
    at = whole.rindex(b'"metrics"')
    (tmp_path / "info.safetensors").write_bytes(whole[:at] + b"'metrics'" + whole[at + 9 :])
    with pytest.raises(DataError, match="what it says of run 3"):
        Weights(tmp_path / "info.safetensors")[3]
    with pytest.raises(DataError, match="not a field"):
        inrkit.load(packed)


def test_a_full_disk_leaves_what_was_there(study, packed, tmp_path, monkeypatch):
    path = tmp_path / "kept.safetensors"
    path.write_text("kept")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inrkit.runs.weights.Layout.row", full)
    with pytest.raises(RunError, match="No space left"):
        pack(study, path)
    assert path.read_text() == "kept" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ConfigError, match="is a folder"):
        (tmp_path / "folder.safetensors").mkdir()
        pack(study, tmp_path / "folder.safetensors")
