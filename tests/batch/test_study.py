"""The jobs of a study: which fits are the same, and which are made for tuning."""

import os
import shutil
from pathlib import Path

import numpy as np

from inrkit import ConfigError
from inrkit.batch.identity import digest, identity


def test_an_equal_fit_of_two_variants_is_made_once(study):
    variants = {"method": {"one": {"selector": "full"}, "other": {"selector": {"name": "full"}}}}
    one, other = study(matrix={"data.path": "photos/a.png"}, variants=variants).main_jobs()
    assert one.id == other.id
    assert one.cell != other.cell


def test_identity_follows_config_and_content_and_not_where_a_fit_runs(photos, study):
    (job,) = study(matrix={"data.path": "photos/a.png"}).main_jobs()
    content = digest(photos / "photos" / "a.png")
    assert identity(job.config, content) == job.id
    for same in ({"device": "cuda:3"}, {"checkpoint": {"seconds": 1.0}}, {"data": {"path": "/elsewhere/a.png"}}):
        assert identity(job.config | same, content) == job.id
    for other in ({"seed": 1}, {"data": {"path": "/elsewhere/b.png"}}, {"train": {**job.config["train"], "steps": 5}}):
        assert identity(job.config | other, content) != job.id
    assert identity(job.config, digest(photos / "photos" / "b.png")) != job.id


def test_identity_follows_the_weights_by_their_content(photos, study):
    ids = []
    for weights in (None, 1.0, 2.0):
        if weights is not None:
            np.save("weights.npy", np.full((1, 1), weights))
        more = {} if weights is None else {"data.weights": "weights.npy"}
        (job,) = study(matrix={"data.path": "photos/a.png"} | more).main_jobs()
        assert job.config["data"].get("weights") == (str(Path("weights.npy").resolve()) if more else "")
        ids.append(job.id)
    assert len(set(ids)) == 3


def test_the_digest_of_a_folder_follows_names_and_contents(photos):
    before = digest(photos / "photos")
    os.utime("photos/a.png")
    assert digest(photos / "photos") == before
    Path("photos/b.png").rename("photos/d.png")
    renamed = digest(photos / "photos")
    shutil.copy("photos/a.png", "photos/d.png")
    assert len({before, renamed, digest(photos / "photos")}) == 3
    assert digest(photos / "missing") == "unreadable"


def test_tuning_jobs_are_every_group_with_every_value_on_the_named_files(study):
    asked = study(
        matrix={"data.path": "photos/*.png", "selector": ["evos", "uniform"], "seed": [0, 1]},
        tune={"key": "optimizer.lr", "values": [0.001, 0.01], "on": {"data.path": "photos/more/c.png", "seed": 100}},
    )
    tuning = asked.tuning_jobs()
    assert [tuple(job.cell.values()) for job in tuning] == [
        ("photos/more/c.png", selector, 100, rate) for selector in ("evos", "uniform") for rate in (0.001, 0.01)
    ]
    assert {job.cell["optimizer.lr"] for job in asked.main_jobs()} == {""}
    assert not any(job.id for job in asked.main_jobs())
    evos, uniform = (asked.group(tuning[number].cell) for number in (0, 2))
    jobs = asked.main_jobs({evos: 0.01, uniform: ConfigError("each failed")})
    assert {(job.cell["selector"], job.cell["optimizer.lr"], job.error) for job in jobs} == {
        ("evos", 0.01, None),
        ("uniform", "", "each failed"),
    }
    assert {job.config["optimizer"]["lr"] for job in jobs if job.id} == {0.01}
    assert len(jobs) == 8


def test_an_axis_without_a_value_stands_in_for_tuning_with_its_first(study):
    asked = study(
        matrix={"data.path": "photos/*.png", "selector": ["uniform", "full"]},
        tune={"key": "optimizer.lr", "values": [0.001, 0.01], "on": {"data.path": None, "seed": 100}},
    )
    assert {job.cell["data.path"] for job in asked.tuning_jobs()} == {"photos/a.png"}
    assert len(asked.tuning_jobs()) == 4


def test_an_included_axis_leaves_the_groups_of_tuning_as_they_are(study):
    asked = study(
        matrix={"data.path": "photos/*.png", "selector": ["uniform", "full"]},
        include=[{"data.path": "photos/a.png", "selector": "full", "seed": 7}],
        tune={"key": "optimizer.lr", "values": [0.001, 0.01], "on": {"data.path": "photos/a.png"}},
    )
    chosen = {asked.group(job.cell): 0.001 for job in asked.tuning_jobs()}
    assert all(job.id for job in asked.main_jobs(chosen))
