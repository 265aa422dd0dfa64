"""Config files of strangers: plain data, references to their own keys, and bounds."""

import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from inrkit import ConfigError
from inrkit.config import commented_yaml, parse_overrides, read_yaml, resolve
from inrkit.config.plain_yaml import PlainYamlError, read_plain, write_plain


def test_values_are_read_as_before():
    text = "a: 1e-3\nb: [1, 0x1f, 1_000, yes, null, .inf, -.5, '1']\nc: {d: 2020-01-01, 1: x}\ne: !!str 5\n"
    assert read_plain(text) == {
        "a": 0.001,
        "b": [1, 31, 1000, True, None, float("inf"), -0.5, "1"],
        "c": {"d": "2020-01-01", 1: "x"},
        "e": "5",
    }
    assert read_plain("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\nc: *x")["b"] == {"p": 1, "q": 3}


def test_a_reference_names_another_key_of_the_file():
    text = "a: {b: 3, c: '${.b}', d: '${..e}'}\ne: ${a.b}\nf: x${e}y\ng: ${h.1}\nh: [7, '${a.b}']\ni: ${a}\n"
    read = read_plain(text)
    assert read["a"] == {"b": 3, "c": 3, "d": 3}
    assert (read["e"], read["f"], read["g"], read["i"]) == (3, "x3y", 3, read["a"])


@pytest.mark.parametrize(
    "text",
    ["${oc.env:HOME}", "${env:HOME}", "a${oc.decode:'1'}", "${oc.${b}:HOME}", "${", "${a", "\\\\${oc.env:HOME}"],
)
def test_a_file_calls_nothing(text):
    with pytest.raises(PlainYamlError, match="names another of its keys"):
        read_plain(yaml.safe_dump({"a": text, "b": "env"}))


def test_a_reference_to_nothing_or_to_itself_is_refused():
    for text in ("a: ${b}", "a: ${b.c}\nb: 1", "a: ${b.3}\nb: [1]"):
        with pytest.raises(PlainYamlError, match="no such key"):
            read_plain(text)
    for text in ("a: ${a}", "a: ${b}\nb: ${a}", "a: {b: '${a}'}", "a: &x [*x]"):
        with pytest.raises(PlainYamlError, match=r"refers to itself|nested too deep"):
            read_plain(text)


def laughs(each: str, last: str) -> str:
    """A text of 40 lines, each of which stands for two of the line before: 2⁴⁰ of the first."""
    return "\n".join(["k0: " + last, *(f"k{n}: " + each.replace("@", f"k{n - 1}") for n in range(1, 40))])


@pytest.mark.parametrize(
    "text",
    [
        laughs("'${@}${@}'", "ha"),
        laughs("['${@}', '${@}']", "ha"),
        laughs("{a: '${@}', b: '${@}'}", "ha"),
        "\n".join(["k0: &k0 [ha]", *(f"k{n}: &k{n} [*k{n - 1}, *k{n - 1}]" for n in range(1, 40))]),
        "a: " + "[" * 100_000,
        "a: " + "{a: " * 100_000,
        "a: '" + "${a." * 100_000 + "'",
        "a: " + "9" * 5000,
        "a: " + "1:" * 5000 + "1",
        "a: " + "9" * 5000 + ".5",
        "a: " + "x" * (1 << 23),
    ],
)
def test_small_files_do_not_grow(text):
    with pytest.raises(PlainYamlError):  # without bounds it would never end
        read_plain(text)


def test_merges_do_not_grow():
    text = "\n".join(["k0: &k0 {a: 1}", *(f"k{n}: &k{n} {{<<: [*k{n - 1}, *k{n - 1}]}}" for n in range(1, 40))])
    try:
        assert read_plain(text)["k39"] == {"a": 1}
    except PlainYamlError as error:  # of a PyYAML that copies what is merged
        assert "merges too much" in str(error)


@pytest.mark.parametrize(
    "text", ["!!omap [a: 1]", "!!set {a}", "!!binary aGVsbG8=", "!!timestamp 2020-01-01", "!!python/name:os.system x"]
)
def test_only_plain_values_are_read(text):
    for place in (f"a: {text}", f"? {text}\n: 1"):
        with pytest.raises(PlainYamlError):
            read_plain(place)


def test_a_key_stands_once():
    with pytest.raises(PlainYamlError, match="at line 2: found duplicate key a"):
        read_plain("a: 1\na: 1")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["${a}", "\\${a}", "\\\\${a.b}", "${oc.env:HOME}", "${", "$", "\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_what_is_written_is_read_back_and_no_text_is_a_reference(value):
    assert read_plain(write_plain(value)) == value


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        read_plain(text)
    except PlainYamlError as error:
        assert str(error)


NAMES = ["${oc.env:HOME}.png", "\\${a}.png", "\\\\${a.b}.png", "${a}${b}.png"]


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_file_is_never_a_reference(name, tmp_path):
    config = resolve([{"data": {"path": name}}])
    assert config.data.path == name
    (tmp_path / "config.yaml").write_text(commented_yaml(config.to_dict()), encoding="utf-8")
    assert resolve([read_yaml(tmp_path / "config.yaml")]).data.path == str(tmp_path / name)
    assert parse_overrides([f"data.path={name}"]) == {"data": {"path": name}}


def test_a_pipe_is_no_config_file(tmp_path):
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="a pipe or a device"):
        read_yaml(tmp_path / "config.yaml")
