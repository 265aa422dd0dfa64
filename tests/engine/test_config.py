import dataclasses
import linecache

import pytest
import yaml

from inrkit import ConfigError
from inrkit.config import commented_yaml, compose, parse_overrides, presets, read_preset, read_yaml, resolve
from inrkit.config.schema import KINDS
from inrkit.plugins.options import docstrings, field_names, option, parse

PHOTO = {"data": {"path": "photo.png"}}


def resolved(*words: str, base: str | None = None):
    return resolve([{"base": base} if base else {}, PHOTO, parse_overrides(words)])


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_valid(name):
    assert resolve([{"base": name}, PHOTO]).modality.name == name.removesuffix("-paper").removesuffix("-single")


def test_the_recipe_suits_the_network_that_is_asked_for():
    assert resolved().network.name == "tiles"
    assert resolved("network.each.hidden_features=12", "network.parameters=5000").network.options.parameters == 5000
    for words in (["network=finer"], ["network.hidden_features=64"], ["network={name: siren, first_omega: 20}"]):
        single = resolved(*words)
        assert single.network.name in ("siren", "finer")
        assert single.optimizer == resolved(base="image-single").optimizer != resolved().optimizer
    assert resolved("network=siren", base="image").optimizer.name == "soap"


def test_a_misspelt_option_leaves_the_recipe_as_it_is():
    with pytest.raises(ConfigError, match=r"network\.parameter is not an option; did you mean 'parameters'"):
        resolved("network.parameter=5000")
    with pytest.raises(ConfigError, match=r"network\.each is 5; it must be a mapping, like \{name: value\}"):
        resolved("network.each=5")


def test_options_of_a_tiles_network_are_merged():
    each = resolved("network.each.hidden_layers=1").network.options.each
    assert each == {"name": "siren", "hidden_features": 24, "hidden_layers": 1}
    assert resolved("network.each.name=gauss").network.options.each == {"name": "gauss"}


def test_the_modality_comes_from_the_suffix():
    assert resolve([PHOTO]).modality.name == "image"


def test_no_modality_is_an_error_that_lists_them():
    with pytest.raises(ConfigError, match=r"no modality is named and song\.qqq.*image"):
        resolve([{"data": {"path": "song.qqq"}}])


def test_later_layers_win():
    assert resolved("selector.ratio=0.3", "selector.ratio=0.4").selector.options.ratio == 0.4


def test_the_default_preset_lies_below_and_a_named_base_replaces_it():
    assert resolved().optimizer.options.lr != 1e-4
    assert resolved(base="image-paper").optimizer.options.lr == 1e-4


def test_the_paper_preset_is_the_published_setting():
    config = resolved(base="image-paper").to_dict()
    assert config["network"] == {
        "name": "siren",
        "hidden_features": 256,
        "hidden_layers": 3,
        "first_omega": 30.0,
        "hidden_omega": 30.0,
        "weight_scale": 1.0,
        "axis_factors": [],
    }
    assert config["selector"] == {
        "name": "evos",
        "ratio": 0.5,
        "ratio_schedule": "constant",
        "least": 1,
        "interval": "linear",
        "interval_start": 100,
        "interval_end": 50,
        "crossover": "select",
        "mutation": "constant",
        "mutation_start": 0.5,
        "mutation_end": 0.5,
        "survival": "top",
        "high_frequency_weight": pytest.approx(1e-5 * 127.5**2),
        "draw": "random",
        "key_share": 0.1,
        "key_whole": 1 << 22,
        "most": 0,
    }
    assert config["objective"] == {
        "name": "cross-frequency",
        "weight": pytest.approx(1e-5 * 127.5**2),
        "until": 1500,
    }
    assert (config["optimizer"]["name"], config["optimizer"]["lr"]) == ("adam", 1e-4)
    assert (config["schedule"]["name"], config["schedule"]["warmup"]) == ("constant", 0.0)
    assert (config["train"]["steps"], config["train"]["precision"]) == (5000, "float32")
    assert config["transform"] == {"name": "minmax", "range": "full", "each_channel": False}
    assert config["operator"] == {"name": "laplacian", "clamp": True, "periodic": []}


def test_choosing_another_plugin_keeps_the_options_it_shares_and_drops_the_others():
    config = resolved("selector=uniform", "objective=mse", base="image-paper")
    assert config.selector.name == "uniform"
    assert config.selector.options.ratio == 0.5
    assert not hasattr(config.selector.options, "crossover")


def test_an_option_that_a_plugin_calls_its_own_is_not_taken_over():
    config = resolved("network=wire", base="image-paper")
    assert (config.network.options.first_omega, config.network.options.hidden_omega) == (20, 20)
    assert config.network.options.hidden_layers == 3
    assert resolved("network=wire", "network.first_omega=25", base="image-paper").network.options.first_omega == 25


def test_an_option_given_for_the_wrong_plugin_is_an_error():
    with pytest.raises(ConfigError, match=r"selector\.crossover is not an option"):
        resolved("selector=uniform", "selector.crossover=add", "objective=mse")


def test_a_slot_may_be_a_name_or_a_mapping():
    assert resolve([PHOTO, {"selector": "full"}]).selector.name == "full"
    assert resolve([PHOTO, {"selector": {"name": "full"}}]).selector.name == "full"


def test_a_resolved_config_resolves_to_itself(tmp_path):
    config = resolved("selector=uniform", "selector.ratio=0.25", "seed=7", "optimizer=adamw")
    (tmp_path / "config.yaml").write_text(commented_yaml(config.to_dict()))
    again = resolve([read_yaml(tmp_path / "config.yaml")])
    expected = config.to_dict()
    expected["data"] = again.to_dict()["data"]
    assert again.to_dict() == expected


def test_every_option_of_every_plugin_is_explained():
    for kind in KINDS:
        for name in kind.registry.names():
            options = getattr(kind.registry.get(name), "Options", None)
            if kind.slot or options is not None:
                assert field_names(options) == set(docstrings(options)), f"{kind.name} {name}"


def test_the_written_yaml_explains_every_key():
    lines = commented_yaml(resolved().to_dict()).splitlines()
    keys = [number for number, line in enumerate(lines) if line.startswith("  ") and "# " not in line]
    assert keys
    assert all("# " in lines[number - 1] for number in keys if "  name:" not in lines[number])
    assert yaml.safe_load("\n".join(lines))["network"]["each"]["hidden_features"] == 24


@pytest.mark.parametrize("order", [1, -1])
def test_values_that_python_finds_equal_are_written_each_as_it_is(order):
    """In any order: what was written before is remembered."""
    cases = [("1", 1), ("true", True), ("1.0", 1.0), ("0", 0), ("false", False), ("0.0", 0.0), ("-0.0", -0.0)]
    cases += [("null", None), ("'1'", "1"), ("'null'", "null"), ("[1, true]", [1, True]), ("[1.0]", [1.0])]
    for text, value in cases[::order]:
        assert commented_yaml({"key": value}) == f"key: {text}\n"


def test_all_errors_are_listed_at_once():
    with pytest.raises(ConfigError) as error:
        resolved(
            "selector.ratoi=0.2",
            "train.steps=0",
            "network=sirne",
            "optimizer.lr=fast",
            "trian.steps=3",
            "metrics=[psnr,sism]",
        )
    assert sorted(str(error.value).splitlines()) == [
        "metric 'sism' is not known; did you mean 'ssim'?",
        "network 'sirne' is not known; did you mean 'siren'?",
        "optimizer.lr is 'fast'; it must be a number",
        "selector.ratoi is not an option; did you mean 'ratio'?",
        "train.steps is 0; it must be in [1, 1000000000]",
        "trian is not an option; did you mean 'train'?",
    ]


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("selector.ratio=1.5", r"selector.ratio is 1.5; it must be in \(0, 1\]"),
        ("selector.ratio=.nan", "selector.ratio is nan; it must be a finite number"),
        ("selector=evos selector.crossover=swap", "it must be one of: select, add, none"),
        ("train.steps=1.5", "train.steps is 1.5; it must be a whole number"),
        ("selector=3", "selector is 3; it must be a name, or a mapping"),
        ("train=5", "train is 5; it must be a mapping"),
        ("optimizer.beta1=1", r"in \[0, 1\)"),
        ("metrics=psnr", "metrics is 'psnr'; it must be a list"),
        ("base=imgae", "config 'imgae' is not known; did you mean 'image'"),
        (
            "selector=evos selector.mutation=exponential selector.mutation_end=0",
            "must be above 0 where mutation is exponential",
        ),
        ("objective=cross-frequency selector=uniform", "choose objective=mse"),
    ],
)
def test_a_wrong_value_says_what_is_right(word, complaint):
    with pytest.raises(ConfigError, match=complaint):
        resolved(*word.split())


@pytest.mark.parametrize("word", ["ratio", "=3", "a.b"])
def test_a_word_without_a_key_or_value_is_refused(word):
    with pytest.raises(ConfigError, match="not of the form key=value"):
        parse_overrides([word])


def test_a_path_in_a_config_file_is_relative_to_it(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "my.yaml").write_text("data: {path: photo.png}")
    assert resolve([read_yaml(tmp_path / "sub" / "my.yaml")]).data.path == str(tmp_path / "sub" / "photo.png")


def test_compose_leaves_its_layers_alone():
    layer = {"selector": {"name": "uniform", "ratio": 0.1}, **PHOTO}
    before = repr(layer)
    compose([layer, {"selector": {"ratio": 0.2}}])
    assert repr(layer) == before


@pytest.mark.parametrize("path", ["a${b}.png", "a\\${b}.png", "${oc.env:HOME}.png", "\\"])
def test_a_file_name_is_taken_as_it_is(path):
    assert resolve([{"modality": "image", "data": {"path": path}}]).data.path == path


@pytest.mark.parametrize(
    ("key", "place"), [("steps", "train.steps"), ("ratio", "selector.ratio"), ("lr", "optimizer.lr")]
)
def test_a_key_without_its_section_is_told_where_it_belongs(key, place):
    with pytest.raises(ConfigError, match=f"{key} is not an option; did you mean '{place}'"):
        resolved(f"{key}=3")


@pytest.mark.parametrize(
    ("key", "place"), [("data.mask", "modality.mask"), ("train.every", "log.every"), ("log.weights", "data.weights")]
)
def test_a_key_in_another_section_than_its_own_is_told_where_it_belongs(key, place):
    with pytest.raises(ConfigError, match=f"{key} is not an option; did you mean '{place}'"):
        resolved(f"{key}=3")


@dataclasses.dataclass
class Typed:
    whole: int = option(3)
    number: float = option(3.0)
    flag: bool = option(False)
    text: str = option("")
    many: list = option([])


@pytest.mark.parametrize("order", [1, -1])
def test_values_that_python_finds_equal_keep_their_types(order):
    cases = [
        ("whole", 1, 1),
        ("whole", True, None),
        ("whole", 1.0, None),
        ("number", 1, 1.0),
        ("number", True, None),
        ("flag", 1, True),
        ("flag", True, True),
        ("flag", 1.0, None),
        ("text", 1, "1"),
        ("text", True, "True"),
        ("text", 1.0, "1.0"),
    ]
    for key, given, right in cases[::order]:
        instance, errors = parse(Typed, {key: given}, "")
        found = None if instance is None else getattr(instance, key)
        assert (type(found), found) == (type(right), right)
        assert (len(errors) == 1) == (right is None)


def test_what_was_read_once_is_not_changed_by_who_got_it_first():
    first = parse(Typed, {"many": [1]}, "")[0]
    first.many.append(2)
    assert parse(Typed, {"many": [1]}, "")[0].many == [1]
    assert parse(Typed, {}, "")[0].many == []
    for name in presets():
        read_preset(name)["network"]["name"] = "other"
        assert read_preset(name)["network"]["name"] != "other"


def test_options_of_a_notebooks_cell_have_their_docstrings(monkeypatch):
    source = (
        'from dataclasses import dataclass\n\n\n@dataclass\nclass Cell:\n    share: float = 0.5\n    """A share."""\n'
    )
    name = "/tmp/ipykernel_1/2.py"  # as ipykernel calls cells; no such file exists
    monkeypatch.setitem(linecache.cache, name, (len(source), None, source.splitlines(True), name))
    names = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), names)
    assert docstrings(names["Cell"]) == {"share": "A share."}
