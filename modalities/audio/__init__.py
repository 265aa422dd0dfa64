"""Audio: everything that libsndfile reads, in the file's own sample precision.

Time is the only axis and the channels are the values; coordinates map to seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.errors import DataError
from inrkit.modalities.audio.files import Sound, read_sound, takes_rate, write_sound
from inrkit.modalities.known import as_mask, known_of, partly_known, read_mask, share_unknown
from inrkit.plugins.options import option
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.lattice import Region, cell_affine
from inrkit.signals.modality import MODALITIES, Modality

_RATE = 44_100
"""Samples a second of an array, which names no rate."""


@dataclass
class AudioOptions:
    offset: float = option(0.0, at_least=0)
    """Seconds to leave out at the start."""
    duration: float | None = option(None, above=0)
    """Seconds to read from there; null reads to the end."""
    mask: str = option("")
    """A .npy of as many numbers as the file has samples, 0 where they are not known: those are not trained on."""


@MODALITIES.register("audio")
class Audio(Modality):
    """Sound on a 1-D lattice: (T, C) samples."""

    Options = AudioOptions
    operator = "laplacian"
    metrics = ("psnr", "snr", "si_sdr", "lsd")
    sample_suffix = ".wav"
    looks = "sound"

    def read(self, path: Path) -> CoordinateDataset:
        return self._dataset(read_sound(path, self.options.offset, self.options.duration))

    def from_array(self, values: np.ndarray) -> CoordinateDataset:
        """The sound in an array: (T,) or (T, C) samples, which count as 44,100 a second."""
        samples = values[:, None] if values.ndim == 1 else values
        if samples.ndim != 2 or samples.size == 0 or samples.dtype.kind not in "if":
            raise DataError(f"the array has shape {values.shape} and dtype {values.dtype}; a sound is (T,) or (T, C)")
        subtype = "FLOAT" if samples.dtype.kind == "f" else "PCM_16" if samples.dtype.itemsize < 4 else "PCM_32"
        return self._dataset(Sound(samples, _RATE, 0, len(samples), "WAV", subtype, 0))

    def _dataset(self, sound: Sound) -> CoordinateDataset:
        count = len(sound.values)
        affine = cell_affine((count,)) / sound.rate
        affine[0, -1] += sound.first / sound.rate
        mask = None
        if self.options.mask:
            mask = as_mask(Path(self.options.mask), read_mask(Path(self.options.mask)), (sound.total,))
            mask = mask[sound.first : sound.first + count] if len(mask) > 1 else mask
        known = known_of(sound.values, mask)
        notes = []
        if known is not None:
            notes = [f"{share_unknown(known)} of the samples are not known; the field fills them in"]
        return partly_known(
            sound.values,
            known,
            affine=affine,
            metadata={
                "rate": sound.rate,
                "samples": count,
                "format": sound.format,
                "subtype": sound.subtype,
                "speakers": sound.speakers,
                "notes": notes,
            },
        )

    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        """Write (T, C) samples over the extent that was read, at the rate that follows from their number.

        The rate is rounded to whole samples a second. Integers keep their bits where the format has them, and
        become 24 bits in FLAC at most; samples beyond full scale saturate, except in a float format, which has no
        such limit.
        """
        rate = max(1, round(metadata["rate"] * len(values) / metadata["samples"]))
        write_sound(path, values, rate, metadata["subtype"], metadata.get("speakers", 0))

    def memory(self, dataset: CoordinateDataset) -> int:
        return 24 * len(dataset) * dataset.channels  # the samples, the fit and their error, as they are drawn

    def units(self, metadata: dict[str, Any], dimensions: int) -> tuple[str, ...]:
        return ("s",)

    def cropped(self, metadata: dict[str, Any], region: Region) -> dict[str, Any]:
        return {**metadata, "samples": metadata["samples"] * region.shares[0]}

    def reconstruction_suffix(self, metadata: dict[str, Any], dtype: np.dtype) -> str:
        suffix = {"FLAC": ".flac", "AIFF": ".aiff"}.get(metadata["format"], ".wav")
        return suffix if takes_rate(suffix, metadata["rate"]) else ".wav"

    def sample(self, path: Path) -> None:
        melody = sample_melody()
        self.write(path, melody, {"rate": SAMPLE_RATE, "samples": len(melody), "subtype": "PCM_16"})


SAMPLE_RATE = 8000
"""Samples a second of `sample_melody`."""


def sample_melody() -> np.ndarray:
    """A second of a plucked string, six notes (Karplus and Strong 1983): (8000, 1) int16, always the same."""
    random = np.random.default_rng(7)
    sound = np.zeros(SAMPLE_RATE)
    for beat, frequency in enumerate((220.0, 277.2, 329.6, 440.0, 329.6, 277.2)):
        start = beat * SAMPLE_RATE // 6
        string = random.uniform(-1, 1, round(SAMPLE_RATE / frequency))
        for index in range(start, len(sound)):
            place = (index - start) % len(string)
            sound[index] += string[place]
            string[place] = 0.498 * (string[place] + string[(place + 1) % len(string)])
    return np.rint(sound / np.abs(sound).max() * 0.8 * 32767).astype(np.int16)[:, None]
