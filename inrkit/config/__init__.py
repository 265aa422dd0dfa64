"""Configuration: presets, YAML files and `key=value`, merged in this order and validated as a whole.

A *slot* is a key whose value chooses a plug-in and sets its options: `selector: {name: evos, ratio: 0.2}`, or
`selector: evos` for short. Choosing another plug-in in a later layer keeps the earlier options that it declares
too, and drops the others and those that the new one calls its own.
"""

from inrkit.config.layers import parse_overrides, preset_comment, presets, read_preset, read_yaml
from inrkit.config.resolve import compose, resolve
from inrkit.config.schema import Choice, Config
from inrkit.config.show import commented_yaml

__all__ = [
    "Choice",
    "Config",
    "commented_yaml",
    "compose",
    "parse_overrides",
    "preset_comment",
    "presets",
    "read_preset",
    "read_yaml",
    "resolve",
]
