"""Pages of runs and studies: what they say, and that they hinder no fit."""

import json
import warnings

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import inrkit
from inrkit.cli import inrkit as command
from inrkit.config import resolve
from inrkit.errors import DataError
from inrkit.modalities.image import sample_picture
from inrkit.reports import trace
from inrkit.reports.citations import _METHODS, _METRICS, cited, entries
from inrkit.reports.run_page import run_page
from inrkit.reports.study_page import study_page
from inrkit.training.member import Listener

SMALL = {"network": {"hidden_features": 16, "hidden_layers": 1}, "every": 4, "quiet": True, "objective": "mse"}


class Counts(Listener):
    """Counts what was selected, one by one."""

    def __init__(self, count):
        self.counts = np.zeros(count)
        self.losses = []

    def on_selection(self, member, selection, loss):
        np.add.at(self.counts, selection.indices.numpy(), 1)
        self.losses.append(float(loss))


@pytest.mark.parametrize("selector", ["evos", "uniform", "full"])
def test_the_trace_counts_how_often_each_coordinate_was_selected(photo, tmp_path, selector):
    counts, options = Counts(32 * 32), selector if selector == "full" else {"name": selector, "least": 1}
    run = inrkit.fit(photo, out=tmp_path / "run", steps=20, selector=options, callbacks=[counts], **SMALL)
    kept = trace.read(run.folder / trace.FILE)
    assert np.array_equal(kept.counts.reshape(-1), counts.counts)
    np.testing.assert_allclose(kept.rows[:, 2], counts.losses, rtol=1e-6)
    assert kept.rows[:, 0].tolist() == list(range(1, 21))
    assert (selector == "full") == (not kept.moments)


def test_an_interrupted_trace_goes_on(photo, tmp_path):
    class Stop(Listener):
        def on_step(self, member, selected):
            if member.step == 8:
                member.stop()

    options = {**SMALL, "selector": {"name": "uniform", "least": 1}, "steps": 20}
    whole = inrkit.fit(photo, out=tmp_path / "whole", **options)
    inrkit.fit(photo, out=tmp_path / "parts", callbacks=[Stop()], **options)
    parts = inrkit.fit(photo, out=tmp_path / "parts", resume=True, **options)
    one, other = (trace.read(run.folder / trace.FILE) for run in (whole, parts))
    assert np.array_equal(one.counts, other.counts)
    assert one.rows[:, [0, 2, 3, 4]].tolist() == other.rows[:, [0, 2, 3, 4]].tolist()
    assert other.since == 0


def test_boxes_of_a_large_lattice_count_the_mean_of_their_coordinates(monkeypatch):
    from inrkit.reports.trace import _Boxes
    from inrkit.selectors import Selection

    monkeypatch.setattr(trace, "_CELLS", 12)
    boxes = _Boxes((5, 7), None)
    assert (boxes.side, boxes.shape) == (2, (3, 4))
    chosen = torch.tensor([0, 1, 7, 8, 34])  # the whole first box, and the last one, which is a single cell
    boxes.count(Selection(chosen))
    boxes.count(Selection(torch.arange(35), whole=True))
    expected = np.ones((3, 4))
    expected[0, 0] = expected[2, 3] = 2
    assert np.array_equal(boxes.counts, expected)


def test_a_fit_ends_the_same_with_and_without_a_page(photo, tmp_path):
    runs = [
        inrkit.fit(photo, out=tmp_path / str(report), steps=10, selector="evos", log={"report": report}, **SMALL)
        for report in (True, False)
    ]
    weights = [run.field.network.state_dict() for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert [(run.folder / "report.html").exists() for run in runs] == [True, False]


def test_a_page_that_fails_ends_no_fit(photo, tmp_path, monkeypatch):
    def broken(*arguments):
        raise MemoryError("no room")

    monkeypatch.setattr("inrkit.reports.writer.write_run_page", broken)
    with pytest.warns(UserWarning, match="log.report gave up: MemoryError: no room"):
        run = inrkit.fit(photo, out=tmp_path / "run", steps=4, **SMALL)
    assert run.result["status"] == "done"


def test_what_cannot_be_drawn_is_said_on_the_page(photo, tmp_path, monkeypatch):
    def broken(*arguments):
        raise ValueError("no colours <here>")

    monkeypatch.setattr("inrkit.reports.views.picture_view", broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = inrkit.fit(photo, out=tmp_path / "run", steps=4, **SMALL)
    assert "the signal cannot be drawn: ValueError: no colours &lt;here&gt;" in (run.folder / "report.html").read_text()


def test_a_page_is_written_again_even_if_the_signal_is_gone(photo, tmp_path):
    run = inrkit.fit(photo, out=tmp_path / "run", steps=4, **SMALL)
    page = run.folder / "report.html"
    page.unlink()
    photo.unlink()
    done = CliRunner().invoke(command, ["report", str(run.folder)])
    assert done.exit_code == 0, done.output
    assert "cannot be read again, so the fit stands alone" in page.read_text()


def test_a_page_lists_the_small_files_of_a_run(photo, tmp_path):
    run = inrkit.fit(photo, out=tmp_path / "run", steps=4, **SMALL)
    assert "In a small file" not in run_page(run)
    done = inrkit.compress(run, tmp_path / "a<b.inr", size=2000, steps=1)
    page = run_page(run)
    for words in ("In a small file", "a&lt;b.inr", f"{done.size:,}", f"{done.bits_per_value:.3g}"):
        assert words in page
    assert f"{done.after['psnr']:.2f}" in page
    (run.folder / "compressed.jsonl").write_text("{}\n")
    assert "In a small file" not in run_page(run)


def test_the_names_of_files_are_text(tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    Image.fromarray(sample_picture(16)).save(path)
    run = inrkit.fit(path, out=tmp_path / "run", steps=2, **SMALL)
    text = (run.folder / "report.html").read_text()
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


def test_cite_prints_exactly_the_methods_of_a_run(photo, tmp_path):
    run = inrkit.fit(
        photo, out=tmp_path / "run", steps=2, selector="evos", optimizer="adam", schedule="constant", **SMALL
    )
    done = CliRunner().invoke(command, ["cite", str(run.folder)])
    keys = [line.partition("{")[2].rstrip(",") for line in done.output.splitlines() if line.startswith("@")]
    assert set(keys) - {"yeom2025scaling"} == {
        "inrkit",
        "sitzmann2020siren",
        "zhang2025evos",
        "kingma2015adam",
        "wang2004ssim",
        "wang2003msssim",
    }


@pytest.mark.parametrize(("each", "own"), [({}, "sitzmann2020siren"), ({"name": "gauss"}, "ramasinghe2022gauss")])
def test_cite_names_tiles_and_their_networks(each, own):
    keys = cited(resolve([{"data": {"path": "a.png"}, "network": {"name": "tiles", "each": each}}]))
    for key in ("reiser2021kilonerf", "saragadam2022miner", own, "zhang2025evos"):
        assert f"{{{key}," in keys


def test_a_page_shows_which_tiles_trained(photo, tmp_path):
    run = inrkit.fit(
        photo, out=tmp_path / "run", steps=6, network={"name": "tiles", "counts": [3, 4]}, selector={"least": 1}
    )
    found = trace.read(run.folder / trace.FILE)
    assert found.counts.shape == (3, 4)
    assert found.counts.sum() == 6 * 3  # a quarter of the tiles at each step
    assert "How often each tile trained" in (run.folder / "report.html").read_text()


def test_every_network_rests_on_a_paper():
    assert set(_METHODS["network"]) == set(inrkit.NETWORKS.names())


def test_every_method_that_is_cited_has_an_entry():
    named = {key for plugins in _METHODS.values() for keys in plugins.values() for key in keys} | set(_METRICS.values())
    assert named | {"yeom2025scaling"} == set(entries())


def test_a_large_photo_makes_a_page_of_bounded_size(tmp_path):
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((4000, 3000), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "large.png", compress_level=1)
    run = inrkit.fit(
        tmp_path / "large.png",
        out=tmp_path / "run",
        steps=1,
        metrics=["psnr"],
        log={"reconstruction": 0, "evaluated": 1 << 16},
        selector={"name": "uniform", "ratio": 0.001},
        **{**SMALL, "every": 1},
    )
    assert (run.folder / "report.html").stat().st_size < 15e6


def test_a_study_has_a_page(photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(
        "base: image\nset: {data.path: photo.png, objective: mse, network: {hidden_features: 8, hidden_layers: 1}, "
        "train: {steps: 4}, log: {every: 2}}\nmatrix:\n  selector: [full, uniform]\n"
    )
    done = CliRunner().invoke(command, ["batch", "study.yaml", "--out", "out", "--quiet"])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "report.html").read_text()
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert all(f'href="{row["folder"]}/report.html"' in text for row in rows)


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            {"rows": np.float64(3)},
            {"rows": np.zeros((4, 2))},
            {"rows": np.full((4, 5), np.nan)},
            {"rows": np.array("x")},
        ),
        *({"counts": np.zeros((2, 2, 2, 2))}, {"counts": np.array(["a"])}, {"moments": np.zeros(3, np.uint8)}),
        *({"key_steps": np.array([[1]])}, {"about": np.array('{"since": "x"}')}, {"rows": np.array("x")}),
    ],
)
def test_a_trace_of_wrong_shapes_is_as_none(photo, tmp_path, wrong):
    run = inrkit.fit(photo, out=tmp_path / "run", steps=4, **SMALL)
    with np.load(run.folder / "trace.npz") as held:
        parts = dict(held)
    assert trace.read(run.folder / "trace.npz") is not None
    np.savez(run.folder / "trace.npz", **{**parts, **wrong})
    assert trace.read(run.folder / "trace.npz") is None


@pytest.mark.parametrize(
    "wrong",
    [{"seconds": "long"}, {"steps": [4]}, {"psnr": "high"}, {"folder": 3}, {"error": {}}, {"status": None, "id": None}],
)
def test_results_of_wrong_types_are_damaged_in_a_line(tmp_path, wrong):
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    (run / "result.json").write_text('{"status": "done", "metrics": {"psnr": 30.5}}')
    rows = [{"id": "a", "status": "done", "psnr": 30.5, "seconds": 1.5, "steps": 4, "error": None, "folder": "runs/a"}]
    rows.append({**rows[0], "id": "b", "": 2.5, **wrong})
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if wrong.get("id", "b") is None:  # a row that has not begun
        assert "30.5" in study_page(tmp_path)
    else:
        with pytest.raises(DataError, match=r"results\.jsonl is damaged at line 2"):
            study_page(tmp_path)
    path.write_bytes(b'{"status": "\xff\xfe", "id": "a", "": 1.5}\n')
    assert "1 runs" in study_page(tmp_path)


def many_rows(folder, count):
    """results.jsonl of a study with so many jobs, the half of them failed."""
    folder.mkdir()
    rows = [
        {"id": f"{number}", "status": "done" if number % 2 else "failed", "phase": "main", "data.path": f"{number}.png"}
        | {"seconds": 1.0, "steps": 9, "error": None if number % 2 else f"error {number}", "folder": f"runs/r-{number}"}
        for number in range(count)
    ]
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "study.yaml").write_text("matrix: {data.path: [" + ", ".join(row["data.path"] for row in rows) + "]}")
    return folder


def test_a_page_of_many_jobs_holds_most_of_them_aside_and_is_of_bounded_parts(tmp_path):
    text = study_page(many_rows(tmp_path / "study", 3000))
    first, aside = text.split("<template data-more-rows>")
    assert first.count("<tr data-status=") == 200
    assert aside.split("</template>")[0].count("<tr data-status=") == 2800
    assert aside.split("</template>")[1].count("<tr data-status=") == 0
    assert "error 198<" in first and "error 200<" not in first and "and 1400 more" in first
    assert "2999.png" in aside and len(text) < 3000 * 500 + 250_000
    few = study_page(many_rows(tmp_path / "few", 200))
    assert few.count("<tr data-status=") == 200 and "data-more-rows>" not in few


def test_a_page_changes_nothing_of_what_a_job_is(photo, tmp_path):
    from inrkit.batch.identity import identity
    from inrkit.config import resolve

    one, other = (
        identity(
            resolve([{"data": {"path": str(photo)}, "modality": "image", "log": {"report": report}}]).to_dict(), ""
        )
        for report in (True, False)
    )
    assert one == other
