"""Presets: the YAML files of this folder."""
