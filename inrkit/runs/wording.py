"""Metrics and durations in words."""

from __future__ import annotations

from inrkit.errors import InrkitError
from inrkit.evaluation.metrics import METRICS


def measured(metrics: dict[str, float]) -> str:
    """The metrics of an evaluation in one line."""
    return "  ".join(
        " ".join(metric_in_words(name, value)) for name, value in metrics.items() if name not in ("step", "seconds")
    )


def metric_in_words(name: str, value: float) -> tuple[str, str]:
    """A metric's title, and its value with its unit: ("PSNR", "38.21 dB")."""
    try:
        metric = METRICS.find(name)
    except InrkitError:  # the plug-in that knows its title is broken
        metric = None
    title, unit = (metric.title, metric.unit) if metric is not None else ("", "")
    return title or name, f"{value:.2f} {unit}" if unit else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def storage(size: int) -> str:
    """Bytes in words."""
    return f"{size / 2**20:.0f} MiB" if size < 1 << 30 else f"{size / 2**30:.1f} GiB"
