"""Metrics in words."""

from inrkit.errors import ConfigError
from inrkit.evaluation.metrics import METRICS
from inrkit.runs.wording import metric_in_words


def test_a_metric_whose_plug_in_is_broken_is_told_by_its_name(monkeypatch):
    def broken(name):
        raise ConfigError(f"{name} cannot be loaded")

    monkeypatch.setattr(METRICS, "find", broken)
    assert metric_in_words("sharpness", 0.25) == ("sharpness", "0.2500")
