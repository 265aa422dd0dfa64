"""A disk that is full at any write of a fit: what is computed is kept, and a line says what could not be written."""

import errno
import json
import os
import warnings

import numpy as np
import pytest
from PIL import Image

import inrkit

KEYS = [
    "base=image-single",
    "network.hidden_features=8",
    "network.hidden_layers=1",
    "optimizer=adam",
    "train={steps: 4, compile: never, precision: float32}",
    "log={every: 2, report: false}",
    "checkpoint.seconds=0",
]
WRITES = 20
"""Times that such a fit waits for the disk."""


class Disk:
    """Counts the times that something is brought to the disk; from a certain one on it is full."""

    def __init__(self, monkeypatch):
        self.count, self.full = 0, range(0)
        fsync = os.fsync

        def wait(number):
            self.count += 1
            if self.count in self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(number)

        monkeypatch.setattr("inrkit.files.os.fsync", wait)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).save(path)
    return path


def fit(picture, folder, **more):
    return inrkit.fit(picture, out=folder, overrides=KEYS, **more)


def content(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".safetensors", ".png")}
    return sorted(path.name for path in folder.iterdir()), files, [{**row, "seconds": 0} for row in rows]


def check(picture, tmp_path, disk, full):
    """Fit on a disk that is full at some of the writes, then go on with space: the files are those of a fit without."""
    whole, folder = tmp_path / "whole", tmp_path / "run"
    fit(picture, whole)
    disk.count, disk.full = 0, full
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            fit(picture, folder)
        except (inrkit.RunError, inrkit.ConfigError) as error:
            told.append(error)
    disk.full = range(0)
    for each in told:
        message = str(getattr(each, "message", each))
        assert "No space left on device" in message and "\n" not in message
    if not (folder / "config.yaml").exists():
        fit(picture, folder)
    elif not (folder / "result.json").exists() or inrkit.Run(folder).result["status"] != "done":
        inrkit.fit(folder, resume=True)
    assert inrkit.Run(folder).result["status"] == "done"
    assert content(folder) == content(whole)


def test_the_writes_are_all_of_a_fit(tmp_path, disk, picture):
    fit(picture, tmp_path / "run")
    assert disk.count == WRITES


def test_row_that_cannot_be_written_is_written_with_the_next(tmp_path, disk, picture):
    check(picture, tmp_path, disk, range(5, 9))


def test_rows_stand_once_in_the_file_after_one_of_them_could_not_be_written(tmp_path, picture, monkeypatch):
    append, failed = inrkit.Run.append_history, []

    def appended(run, row):
        append(run, row)
        if row["step"] == 2:  # written, but not known to be on the disk
            failed.append(row)
            raise inrkit.errors.WriteError("cannot write metrics.jsonl: no space")

    monkeypatch.setattr(inrkit.Run, "append_history", appended)
    with pytest.warns(UserWarning, match="no space"):
        fit(picture, tmp_path / "run", steps=6, checkpoint={"seconds": 1000})
    assert len(failed) == 1
    assert [row["step"] for row in inrkit.Run(tmp_path / "run").history] == [2, 4, 6]


def test_rows_are_on_the_disk_before_the_checkpoint_that_counts_on_them(tmp_path, picture, monkeypatch):
    done = []
    for name in ("append_history", "settle_history", "write_checkpoint"):
        original = getattr(inrkit.Run, name)

        def noted(run, *words, name=name, original=original):
            done.append(name)
            original(run, *words)

        monkeypatch.setattr(inrkit.Run, name, noted)
    fit(picture, tmp_path / "run", steps=6, checkpoint={"seconds": 1000})
    assert done == ["append_history"] * 3 + ["settle_history", "write_checkpoint"]


def test_fit_without_space_at_its_end_goes_on_from_its_checkpoint(tmp_path, disk, picture):
    check(picture, tmp_path, disk, range(WRITES - 5, 1000))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, WRITES + 1))
@pytest.mark.parametrize("for_good", [False, True])
def test_disk_that_is_full_at_any_write_loses_nothing(tmp_path, disk, picture, first, for_good):
    check(picture, tmp_path, disk, range(first, 1000 if for_good else first + 1))
