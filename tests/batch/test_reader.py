"""What a study file asks for: expansion, exclusion, variants, overrides, and what is refused."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import yaml

from inrkit import ConfigError
from inrkit.batch import Study, read_study, studies


def cells(study: Study) -> list[tuple]:
    return [tuple(job.cell.values()) for job in study.main_jobs()]


def complaint(study, words=(), **keys) -> str:
    """The error of a study that cannot be read."""
    with pytest.raises(ConfigError) as error:
        study(words, **keys)
    return str(error.value)


def test_a_matrix_is_every_combination_of_files_and_values(photos, study):
    asked = study(matrix={"data.path": ["photos/*.png"], "selector": ["evos", "uniform"], "seed": [0, 1]})
    assert cells(asked) == [
        (f"photos/{name}.png", selector, seed) for name in "ab" for selector in ("evos", "uniform") for seed in (0, 1)
    ]
    first = asked.main_jobs()[0]
    assert first.config["selector"]["name"] == "evos"
    assert first.config["train"]["steps"] == 4
    assert first.config["data"]["path"] == str(photos / "photos" / "a.png")


def test_a_recursive_glob_takes_files_of_all_depths_and_each_once(study):
    asked = study(matrix={"data.path": ["photos/**", "photos/a.png"]})
    assert [cell[0] for cell in cells(asked)] == ["photos/a.png", "photos/b.png", "photos/more/c.png"]


def test_a_recursive_glob_follows_no_link_to_a_folder(photos, study, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copy("photos/a.png", elsewhere / "d.png")
    for name, target in {"out": elsewhere, "round": photos / "photos"}.items():
        (photos / "photos" / "more" / name).symlink_to(target)
    (photos / "photos" / "e.png").symlink_to(elsewhere / "d.png")
    asked = study(matrix={"data.path": "photos/**/*.png"})
    found = ["photos/a.png", "photos/b.png", "photos/e.png", "photos/more/c.png"]
    assert [cell[0] for cell in cells(asked)] == found


def test_files_are_relative_to_the_study_and_not_to_the_present_folder(photos, study, monkeypatch):
    expected = [job.config["data"]["path"] for job in study().main_jobs()]
    monkeypatch.chdir(photos / "photos")
    assert [job.config["data"]["path"] for job in read_study("../study.yaml").main_jobs()] == expected


def test_results_are_no_input(photos, study):
    shutil.copytree("photos", "out/runs")
    study(matrix={"data.path": "**/*.png"})
    assert len(read_study("study.yaml", out=photos / "out").points) == 3
    assert len(read_study("study.yaml", out=photos / "elsewhere").points) == 6


def test_a_value_may_be_a_mapping_that_sets_options(study):
    asked = study(matrix={"data.path": "photos/a.png", "selector": ["full", {"name": "uniform", "ratio": 0.3}]})
    assert cells(asked) == [("photos/a.png", "full"), ("photos/a.png", "uniform ratio=0.3")]
    assert asked.main_jobs()[1].config["selector"]["ratio"] == 0.3


def test_variants_are_axes_whose_values_have_names(study):
    asked = study(
        variants={
            "method": {"full": {"selector": "full"}, "half": {"selector": {"name": "uniform", "ratio": 0.5}}},
            "budget": {"short": {"train.steps": 3}, "long": {"train": {"steps": 9}}},
        }
    )
    assert asked.columns == ["data.path", "method", "budget"]
    last = asked.main_jobs()[-1]
    assert last.cell == {"data.path": "photos/b.png", "method": "half", "budget": "long"}
    assert (last.config["selector"]["ratio"], last.config["train"]["steps"]) == (0.5, 9)


def test_exclude_leaves_out_what_matches_all_keys_of_an_entry(study):
    matrix = {"data.path": "photos/*.png", "selector": ["evos", {"name": "uniform", "ratio": 0.5}], "seed": [0, 1]}
    asked = study(matrix=matrix, exclude=[{"selector": "uniform", "seed": 1}, {"data.path": "*/b.png", "seed": [0, 1]}])
    assert [cell[1:] for cell in cells(asked)] == [("evos", 0), ("evos", 1), ("uniform ratio=0.5", 0)]


def test_include_adds_jobs_and_their_keys_become_columns(study):
    asked = study(include=[{"data.path": "photos/more/c.png", "selector": "full", "seed": [7, 8]}])
    assert asked.columns == ["data.path", "selector", "seed"]
    assert cells(asked) == [
        ("photos/a.png", "uniform", 0),
        ("photos/b.png", "uniform", 0),
        ("photos/more/c.png", "full", 7),
        ("photos/more/c.png", "full", 8),
    ]


def test_a_base_may_be_a_file_and_an_axis(photos, study):
    (photos / "mine.yaml").write_text("base: image\noptimizer: {name: adam, lr: 0.5}\n")
    asked = study(base="mine.yaml")
    assert asked.main_jobs()[0].config["optimizer"]["lr"] == 0.5
    asked = study(matrix={"data.path": "photos/a.png", "base": ["image", "image-paper"]})
    assert [job.config["optimizer"]["name"] for job in asked.main_jobs()] == ["soap", "adam"]
    assert {job.config["train"]["steps"] for job in asked.main_jobs()} == {4}


def test_words_replace_an_axis_add_one_or_go_on_top(study):
    matrix = {"data.path": "photos/*.png", "selector": ["evos", "full"]}
    variants = {"budget": {"short": {"train.steps": 3}, "long": {"train.steps": 9}}}
    words = ["data.path=photos/more/*.png", "selector=uniform", "seed=[0,1]", "budget=long", "train.steps=5"]
    asked = study([*words, "job.limit=7", "launcher.workers=3"], matrix=matrix, variants=variants)
    assert cells(asked) == [("photos/more/c.png", "uniform", seed, "long") for seed in (0, 1)]
    assert {job.config["train"]["steps"] for job in asked.main_jobs()} == {5}
    assert (asked.job.limit, asked.launcher.options.workers) == (7, 3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"matrix": {4: [0]}, "exclude": [{"sead": 1}]}, "sead"),
        ({"exclude": [{0: 1}]}, "exclude names '0', which is not an axis"),
        ({"matrx": {}}, "matrx is not a key of a study; did you mean 'matrix'?"),
        ({"set": {"trian.steps": 3}}, "trian is not an option; did you mean 'train'?"),
        ({"base": "imag"}, "config 'imag' is not known; did you mean 'image'?"),
        ({"base": "mine.yaml"}, "mine.yaml does not exist"),
        ({"matrix": {"data.path": "photo/*.png"}}, "data.path 'photo/*.png' matches no file in"),
        ({"matrix": {"data.path": "photos/z.png"}}, "data.path 'photos/z.png' does not exist in"),
        ({"matrix": {"selector": ["evos"]}}, "no job has a data.path"),
        ({"matrix": {}, "set": {"data": 5}}, "no job has a data.path"),
        (
            {"matrix": {}, "set": {"data.path": ["photos/a.png"]}},
            "data.path is ['photos/a.png']; name one file",
        ),
        ({"matrix": {"data.path": "photos/a.png", "seed": []}}, "matrix.seed is empty"),
        ({"matrix": {"data.path": "photos/a.png", "seed": [-1]}}, "seed is -1; it must be in"),
        ({"matrix": 3}, "matrix is 3; it must be a mapping"),
        ({"exclude": [{"sed": 1}]}, "exclude names 'sed', which is not an axis"),
        ({"exclude": [{"data.path": "*"}]}, "exclude leaves no job"),
        ({"exclude": {"seed": 1}}, "exclude is {'seed': 1}; it must be a list"),
        ({"variants": {"method": ["full"]}}, "variants.method is ['full']; it must be a mapping"),
        ({"variants": {"data.path": {"x": {}}}}, "variants.data.path is also a key of the matrix"),
        ({"table": {"rows": "metod"}}, "table.rows is 'metod', which is not an axis"),
        ({"table": {"metric": ["psnr"]}}, "table.metric is not an option; did you mean 'metrics'?"),
        ({"job": {"limits": 3}}, "job.limits is not an option; did you mean 'limit'?"),
        ({"job": {"retries": -1}}, "job.retries is -1; it must be at least 0"),
        ({"tune": {"key": "optimizer.lr"}}, "tune.values is missing"),
        ({"tune": {"key": "optimizer.lt", "values": [1], "on": {}}}, "optimizer.lt is not an option"),
        ({"tune": {"key": "data.path", "values": [1], "on": {}}}, "tune.key is 'data.path', which is an axis"),
        (
            {"tune": {"key": "optimizer.lr", "values": [1], "on": {"seed": []}}},
            "tune.on.seed is empty; give at least one value",
        ),
        ({"launcher": "lokal"}, "launcher 'lokal' is not known; did you mean 'local'?"),
        ({"launcher": {"name": "local", "worker": 3}}, "launcher.worker is not an option; did you mean 'workers'?"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(study, keys, message):
    told = complaint(study, **keys)
    assert message in told
    assert "Traceback" not in told


def test_all_that_is_wrong_is_told_at_once_and_each_error_once(study):
    told = complaint(study, matrix={"data.path": "photos/*.png", "selector": ["evo", "unifrm"]}, set={"train.stps": 3})
    assert len(told.splitlines()) == 3
    for word in ("'evo'", "'unifrm'", "train.stps"):
        assert word in told


def test_a_study_extends_another_key_by_key(study):
    study(matrix={"data.path": "photos/a.png", "seed": [0, 1]}, variants={"method": {"full": {"selector": "full"}}})
    above = {
        "extends": "study.yaml",
        "set": {"train.steps": 7},
        "matrix": {"seed": [5]},
        "variants": {"method": {"uniform": {"selector": "uniform"}}},
    }
    Path("above.yaml").write_text(yaml.safe_dump(above))
    jobs = read_study("above.yaml").main_jobs()
    assert [tuple(job.cell.values()) for job in jobs] == [
        ("photos/a.png", 5, "full"),
        ("photos/a.png", 5, "uniform"),
    ]
    assert {job.config["train"]["steps"] for job in jobs} == {7}
    assert {job.config["network"]["hidden_features"] for job in jobs} == {8}


def test_a_study_that_extends_itself_is_refused(photos):
    Path("one.yaml").write_text("extends: two.yaml")
    Path("two.yaml").write_text("extends: one.yaml")
    with pytest.raises(ConfigError, match="extends itself"):
        read_study("one.yaml")


def test_every_shipped_study_is_valid(photos):
    for name in studies():
        asked = read_study(name, ["data.path=photos/*.png"])
        assert {job.cell["data.path"] for job in asked.main_jobs()} == {"photos/a.png", "photos/b.png"}


def test_the_study_that_is_left_behind_asks_for_the_same_jobs(photos, study):
    (photos / "mine.yaml").write_text("base: image-paper\n")
    asked = study(
        ["seed=[0,1]", "train.steps=7"], base="mine.yaml", variants={"method": {"full": {"selector": "full"}}}
    )
    (photos / "left").mkdir()
    (photos / "left" / "study.yaml").write_text(asked.text)
    again = read_study(str(photos / "left" / "study.yaml"))
    assert [job.id for job in again.main_jobs()] == [job.id for job in asked.main_jobs()]
    assert dataclasses.asdict(again.table) == dataclasses.asdict(asked.table)


def test_a_word_for_the_tuned_key_is_what_tuning_tries(study):
    tune = {"key": "optimizer.lr", "values": [0.001, 0.01], "on": {"data.path": None}}
    assert study(["optimizer.lr=[0.5,0.6,0.7]"], tune=tune).tune.values == [0.5, 0.6, 0.7]
    assert study(["optimizer.lr=0.5"], tune=tune).tune.values == [0.5]
    assert "which is to be tuned" in complaint(study, tune=tune, overrides={"optimizer.lr": 0.5})


def test_a_section_with_nothing_in_it_is_as_good_as_none(study):
    assert study(["job.retries=1"], job=None, exclude=None).job.retries == 1


def test_a_study_that_nobody_can_mean_is_refused_before_its_jobs_are_listed(study):
    axes = {"seed": list(range(2000)), "train.steps": list(range(1, 3001))}
    assert "matrix has 6,000,000 combinations, 1 data.path" in complaint(
        study, matrix={"data.path": "photos/a.png", **axes}
    )
    assert "include has 6,000,000 combinations" in complaint(study, include=[{"data.path": "photos/a.png", **axes}])


def test_a_pattern_that_walks_the_whole_disk_is_refused(study, monkeypatch):
    monkeypatch.setattr("inrkit.batch.reader._MOST_ENTRIES", 2)
    assert "looks through more than 2 files and folders" in complaint(study, matrix={"data.path": "**/*.png"})
    assert len(study(matrix={"data.path": "photos/*.png"}).points) == 2
