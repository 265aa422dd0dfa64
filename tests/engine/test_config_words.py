"""Words of the command line, whatever they are: a config, or an error in a few readable lines."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from inrkit.config import parse_overrides, resolve
from inrkit.errors import InrkitError


def paths(tree, above=()):
    for name, value in tree.items():
        yield ".".join((*above, name))
        if isinstance(value, dict):
            yield from paths(value, (*above, name))


BELOW = {"modality": "image", "data": {"path": "photo.png"}}
KNOWN = sorted(paths(resolve([BELOW]).to_dict()))
ODD = ["", "null", "~", "{}", "[]", "[[]]", ".nan", "-.inf", "1e999", "9" * 5000, "${oc.env:HOME}", "${seed}", "tiles"]
ODD += [
    "!!omap []",
    "&a [*a]",
    "{name: null}",
    "{a: 1}",
    "{1: 2}",
    "0x",
    "\x1b[2J",
    "- 1",
    "yes",
    "2026-01-01",
    "'",
    "{",
]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
keys = (
    st.sampled_from(KNOWN)
    | st.builds("{}.{}".format, st.sampled_from(KNOWN), st.text(max_size=6))
    | st.text(max_size=12)
)
words = st.builds("{}={}".format, keys, st.sampled_from(ODD) | values.map(json.dumps) | st.text(max_size=12))


@settings(max_examples=200, deadline=None)
@given(st.lists(words, min_size=1, max_size=3))
def test_any_words_make_a_config_or_an_error_of_readable_lines(given_words):
    try:
        resolve([BELOW, parse_overrides(given_words)])
    except InrkitError as error:
        lines = str(error).split("\n")
        assert len(lines) <= 60
        assert all(line and line.isprintable() and len(line) < 1300 for line in lines)
