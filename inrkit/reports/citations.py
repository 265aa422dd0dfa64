"""The literature that a run rests on, as BibTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata, resources

from inrkit.config import Config
from inrkit.networks import NETWORKS
from inrkit.networks.tiles import TilesOptions, each_network

_METHODS: dict[str, dict[str, tuple[str, ...]]] = {
    "network": {
        "siren": ("sitzmann2020siren",),
        "finer": ("liu2024finer",),
        "finer-gauss": ("zhu2024finerpp", "ramasinghe2022gauss"),
        "finer-wire": ("zhu2024finerpp", "saragadam2023wire"),
        "wire": ("saragadam2023wire",),
        "gauss": ("ramasinghe2022gauss",),
        "pe-mlp": ("mildenhall2020nerf",),
        "fourier-features": ("tancik2020fourier",),
        "mfn-fourier": ("fathony2021mfn",),
        "mfn-gabor": ("fathony2021mfn",),
        "bacon": ("lindell2022bacon",),
        "hash-grid": ("mueller2022instant",),
        "tiles": ("reiser2021kilonerf", "saragadam2022miner"),
    },
    "selector": {
        "evos": ("zhang2025evos",),
        "expansive": ("zhang2025expansive",),
        "soft-mining": ("kheradmand2024soft",),
        "int": ("zhang2024int",),
        "nint": ("zhang2026nint",),
        "egra": ("gai2023egra",),
    },
    "objective": {"cross-frequency": ("zhang2025evos",)},
    "transform": {"symmetric-power": ("zhang2025symmetric",), "boxcox": ("box1964transformations",)},
    "optimizer": {
        "adam": ("kingma2015adam",),
        "adamw": ("loshchilov2019adamw",),
        "soap": ("vyas2025soap",),
        "muon": ("jordan2024muon",),
        "lbfgs": ("liu1989lbfgs",),
    },
    "schedule": {
        "cosine": ("loshchilov2017sgdr",),
        "polynomial": ("chen2018deeplab",),
        "one-cycle": ("smith2018superconvergence",),
    },
    "modality": {"shape": ("lewiner2003cubes", "barill2018winding")},
}
"""Of each slot and plug-in, the keys of methods.bib. What is not listed rests on no paper."""

_METRICS = {
    "ssim": "wang2004ssim",
    "ms_ssim": "wang2003msssim",
    "si_sdr": "leroux2019sdr",
    "lsd": "gray1976distance",
    "stoi": "taal2010stoi",
    "pesq": "rix2001pesq",
}


def cited(config: Config) -> str:
    """The BibTeX of inrkit and of exactly the methods that a config names.

    A plug-in of another package may have a `bibtex` of its own.
    """
    known = entries()
    keys: list[str] = []
    more: list[str] = []
    for slot, plugins in config.choices.items():
        keys += _METHODS.get(slot, {}).get(plugins.name, ())
        more += [text.strip() for text in [getattr(plugins.plugin, "bibtex", "")] if text]
    options = config.network.options
    if isinstance(options, TilesOptions):  # the network of each tile too
        network, options = each_network(options)
        keys += _METHODS["network"].get(NETWORKS.name_of(network), ())
        more += [text.strip() for text in [getattr(network, "bibtex", "")] if text]
    if getattr(options, "weight_scale", 1.0) != 1.0:
        keys.append("yeom2025scaling")
    keys += [_METRICS[name] for name in config.general.metrics if name in _METRICS]
    own = f"@software{{inrkit,\n  title = {{inrkit}},\n  version = {{{metadata.version('inrkit')}}}\n}}"
    return "\n\n".join([own, *(known[key] for key in _once(keys)), *_once(more)]) + "\n"


def entries() -> dict[str, str]:
    """The entries of methods.bib, by key."""
    text = resources.files("inrkit.reports").joinpath("assets/methods.bib").read_text(encoding="utf-8")
    split = [entry.strip() for entry in text.split("\n\n") if entry.strip()]
    return {re.match(r"@\w+\{([^,]+),", entry)[1]: entry for entry in split}  # type: ignore[index]


def _once(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
