"""How a run shows itself."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from inrkit import DataError, Run
from inrkit.runs.run import name_of

RESULT = {
    "status": "done",
    "modality": "image",
    "metrics": {"psnr": 38.2149, "ssim": 0.98765},
    "steps": 2000,
    "parameters": 198915,
    "seconds": {"total": 25.0, "train": 23.04},
    "device": "cpu",
}


def made(folder, result=RESULT):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("modality: image\n")
    (folder / "result.json").write_text(result if isinstance(result, str) else json.dumps(result))
    return Run(folder)


def picture_in(html):
    (encoded,) = re.findall(r'<img src="data:image/png;base64,([A-Za-z0-9+/=]+)"/>', html)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def test_a_run_says_its_status_first_metric_and_seconds(tmp_path, monkeypatch):
    made(tmp_path / "runs" / "photo")
    monkeypatch.chdir(tmp_path)
    assert repr(Run("runs/photo")) == "Run('runs/photo': done, PSNR 38.21 dB, 23 s)"


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({**RESULT, "metrics": {"psnr": None}}, "done, PSNR inf dB, 23 s"),
        ({**RESULT, "metrics": {"of a plug-in": 0.5}}, "done, of a plug-in 0.5000, 23 s"),
        ({**RESULT, "seconds": {"train": 7000.0}}, "done, PSNR 38.21 dB, 117 min"),
        ({"status": "failed", "metrics": {}, "seconds": {}, "error": "no more"}, "failed"),
        ({"status": "done", "metrics": ["psnr"], "seconds": 3}, "result.json is damaged"),
        ({"status": "done", "metrics": {"psnr": "high"}, "seconds": {"train": "long"}}, "result.json is damaged"),
        ({}, "unfinished"),
        ({"no": "status"}, "result.json is damaged"),
        ("[1]", "result.json is damaged"),
        ('{"status": "do', "result.json is damaged"),
        ("\ud800".encode("utf-16", "surrogatepass").decode("latin-1"), "result.json is damaged"),
    ],
)
def test_a_run_shows_itself_whatever_its_result_is(tmp_path, result, told):
    run = made(tmp_path / "run", result)
    assert repr(run) == f"Run({str(run.folder)!r}: {told})"
    assert told.partition(",")[0] in run._repr_html_()


@pytest.mark.parametrize("metrics", [["psnr"], {"psnr": "high"}, {"psnr": [1]}, {"psnr": 10**400}, 3])
def test_metrics_that_are_no_numbers_are_told_in_a_line(tmp_path, metrics):
    run = made(tmp_path / "run", {"status": "done", "metrics": metrics})
    with pytest.raises(DataError, match=r"result\.json is damaged; remove it and --resume the run"):
        _ = run.metrics


@pytest.mark.parametrize(
    "wrong",
    [
        *({"seconds": {"train": [1]}}, {"seconds": 3}, {"steps": "many"}, {"steps": -1}, {"steps": True}),
        *({"metrics": {"psnr": "high"}}, {"status": ["done"]}, {"parameters": 1 << 70}, {"coordinates": 1.5}),
        *({"notes": "x"}, {"versions": [0]}, {"regions": "4"}, {"signal": 3}),
    ],
)
def test_a_result_of_wrong_types_is_damaged(tmp_path, wrong):
    run = made(tmp_path / "run", {**RESULT, **wrong})
    with pytest.raises(DataError, match=r"result\.json is damaged; remove it and --resume the run"):
        _ = run.result


@pytest.mark.parametrize("size", ["null", "-1", '"x"', "1e999", "[1]"])
def test_compressed_files_of_no_size_are_told_in_a_line(tmp_path, size):
    run = made(tmp_path / "run")
    (run.folder / "compressed.jsonl").write_text(f'{{"file": "a.inr", "bytes": {size}}}\n')
    with pytest.raises(DataError, match=r"compressed\.jsonl is damaged; remove it and compress again"):
        _ = run.compressed


def test_a_folder_with_nothing_shows_itself(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        assert repr(Run(folder)) == f"Run({str(folder)!r}: no run)"
        assert "no run" in Run(folder)._repr_html_()
    (tmp_path / "result.json").mkdir()
    assert repr(Run(tmp_path)).endswith("result.json is damaged)")


def test_a_notebook_shows_the_picture_and_the_metrics(tmp_path):
    run = made(tmp_path / "run")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(run.folder / "reconstruction.png")
    html = run._repr_html_()
    assert np.array_equal(picture_in(html), pixels)
    for row in ("<th>PSNR</th><td>38.21 dB</td>", "<th>SSIM</th><td>0.9877</td>", "<th>steps</th><td>2,000</td>"):
        assert row in html


def test_a_large_picture_is_made_smaller(tmp_path):
    run = made(tmp_path / "run")
    Image.fromarray(np.full((600, 2048), 77, dtype=np.uint8)).save(run.folder / "reconstruction.png")
    shown = picture_in(run._repr_html_())
    assert shown.shape == (150, 512)
    assert (shown == 77).all()


@pytest.mark.parametrize(("dtype", "suffix"), [("uint16", ".png"), ("uint16", ".tif"), ("float32", ".tif")])
def test_numbers_of_any_range_are_shown_from_black_to_white(tmp_path, dtype, suffix):
    run = made(tmp_path / "run")
    values = np.linspace(100, 900, 24).reshape(4, 6).astype(dtype)
    Image.fromarray(values).save(run.folder / f"reconstruction{suffix}")
    shown = picture_in(run._repr_html_()).astype(float)
    np.testing.assert_allclose(shown, (values.astype(float) - 100) / 800 * 255, atol=1.0)


def test_what_is_no_still_picture_or_a_damaged_one_is_left_out(tmp_path):
    run = made(tmp_path / "run")
    still = Image.fromarray(np.zeros((4, 4), np.uint8))
    for name, write in {
        "reconstruction.wav": lambda path: path.write_bytes(b"RIFF"),
        "reconstruction.png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n damaged"),
        "reconstruction.tif": lambda path: still.save(path, save_all=True, append_images=[still]),
    }.items():
        write(run.folder / name)
        html = run._repr_html_()
        assert "<img" not in html
        assert "38.21 dB" in html
        (run.folder / name).unlink()


def test_names_are_text_and_no_markup(tmp_path):
    run = made(tmp_path / "<script>alert(1)<" / "script>", {**RESULT, "status": "<b>done", "metrics": {"<i>": 1.0}})
    html = run._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;" in html
    assert "<b>done" not in html
    assert "<i>" not in html


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("photos/cat.png", "cat"),
        ("scan.nii.gz", "scan"),
        ("Scan.NII.GZ", "Scan"),
        ("a.b.flac", "a.b"),
        ("frames", "frames"),
        ("table.gz", "table"),
        ("", "run"),
    ],
)
def test_a_run_is_called_after_its_signal(path, name):
    assert name_of(path) == name
