"""Temperatures on the globe: a table whose rows go from north to south and whose columns go round eastwards."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from inrkit import ConfigError, CoordinateDataset, DataError, Modality, option


@dataclass
class GlobeOptions:
    west: float = option(-180.0, at_least=-360, at_most=360)
    """Longitude of the western edge of the first column, in degrees."""


class Globe(Modality):
    """Temperatures on a grid of latitudes and longitudes."""

    Options = GlobeOptions
    operator = {"name": "laplacian", "periodic": [1]}
    embedding = {"name": "periodic", "axes": [1]}
    metrics = ("psnr",)
    sample_suffix = ".csv"

    def read(self, path):
        try:
            table = np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float32)
        except ValueError as error:
            raise DataError(f"{path} is not a table of numbers with commas between them ({error})") from error
        latitudes = np.radians(90 - 180 * (np.arange(len(table)) + 0.5) / len(table))
        return CoordinateDataset(
            table[:, :, None],
            affine=np.array([[-90, 0, 0], [0, 180, self.options.west + 180]]),
            weights=np.cos(latitudes)[:, None],
        )

    def write(self, path, values, metadata):
        table = values[:, :, 0]
        if path.suffix == ".csv":
            np.savetxt(path, table, delimiter=",", fmt="%.9g")
        elif path.suffix == ".png":
            warmth = (table - table.min()) / (np.ptp(table) or 1)
            colours = [np.interp(warmth, [0, 0.5, 1], ends) for ends in [(40, 245, 190), (80, 245, 30), (180, 240, 45)]]
            Image.fromarray(np.stack(colours, axis=-1).round().astype(np.uint8)).save(path)
        else:
            raise ConfigError(f"a globe is not written as '{path.suffix}'; choose .csv or .png")

    def reconstruction_suffix(self, metadata, dtype):
        return ".csv"

    def sample(self, path):
        latitude, longitude = np.radians(np.mgrid[88.75:-90:-2.5, -178.75:180:2.5])
        land = np.sin(3 * longitude + 2 * np.sin(4 * latitude)) + np.cos(5 * latitude - longitude)
        celsius = 30 * np.cos(latitude) ** 2 - 12 + 4 * np.tanh(4 * land) * np.cos(latitude)
        self.write(path, celsius.astype(np.float32)[:, :, None], {})
