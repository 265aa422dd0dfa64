"""Configuration: presets, YAML files and `key=value`, merged in this order and validated as a whole.

A *slot* is a key whose value chooses a plug-in and sets its options: `selector: {name: evos, ratio: 0.2}`, or
`selector: evos` for short. If a later layer chooses another plug-in, earlier options that the new plug-in declares too
are kept. The others are dropped, and so are those that the new plug-in marks as its own.
"""

from inrkit.config.layers import parse_overrides, preset_comment, presets, read_preset, read_yaml
from inrkit.config.resolve import compose, key_of, resolve
from inrkit.config.schema import Choice, Config
from inrkit.config.show import commented_yaml

__all__ = [
    "Choice",
    "Config",
    "commented_yaml",
    "compose",
    "key_of",
    "parse_overrides",
    "preset_comment",
    "presets",
    "read_preset",
    "read_yaml",
    "resolve",
]
