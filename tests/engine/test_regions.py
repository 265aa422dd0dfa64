"""Regions: boxes of a signal in physical units, at a resolution of their own."""

import numpy as np
import pytest
import torch

from inrkit import ConfigError, Modality
from inrkit.signals.lattice import Region, cell_affine, lattice_coordinates, region_of

SHAPE = (12, 9)
PIXELS = cell_affine(SHAPE)
"""Pixel (i, j), its centre, lies at (i, j)."""
SCANNER = np.array([[0, 0, -30, 5], [20, 0, 0, -7], [0, 45, 0, 11.5]])
"""Axes in another order, one of them backwards."""


def places(region, affine):
    """(*shape, D) physical places of a region's values."""
    inside = region.coordinates(torch.arange(np.prod(region.shape))).numpy().astype(float)
    return (inside @ affine[:, :-1].T + affine[:, -1]).reshape(*region.shape, -1)


def test_values_lie_where_arange_has_them():
    region = region_of(PIXELS, SHAPE, (1.25, 2), (9, 4), (0.5, 0.75))
    expected = np.meshgrid(np.arange(1.25, 9, 0.5), np.arange(2, 4, 0.75), indexing="ij")
    np.testing.assert_allclose(places(region, PIXELS), np.stack(expected, axis=-1), atol=1e-5)


@pytest.mark.parametrize("length", [9, 64, 1000, 4097])
def test_a_region_at_the_signals_own_step_has_the_signals_own_coordinates(length):
    shape = (length, 7)
    region = region_of(cell_affine(shape) * 0.1, shape, (0.3, None), (0.1 * length - 0.2, None), 0.1)
    whole = lattice_coordinates(torch.arange(length * 7), shape).view(*shape, 2)
    assert region.shape == (length - 5, 7)
    assert torch.equal(region.coordinates(torch.arange((length - 5) * 7)).view(*region.shape, 2), whole[3 : length - 2])


@pytest.mark.parametrize("affine", [PIXELS, PIXELS * [[0.1], [-0.3]] + [[0, 0, 4.4e6], [0, 0, 1e3]]])
def test_all_of_a_signal_at_its_own_step_is_its_own_lattice(affine):
    steps = np.abs(affine[:, :-1] @ np.divide(2, SHAPE))
    first = affine @ [*(1 / np.array(SHAPE) - 1), 1]
    beyond = affine @ [*(1 + 1 / np.array(SHAPE)), 1]
    for ends in ((None, None, None), (None, None, steps), (first, None, None), (first, beyond, steps)):
        assert region_of(affine, SHAPE, *ends) == Region.whole(SHAPE)
    assert region_of(affine, SHAPE, step=steps / 2) == Region.whole((24, 18))


def test_axes_are_those_of_the_physical_units():
    shape = (10, 20, 30)
    region = region_of(SCANNER, shape, (30, -20, -20), (-10, 10, 20), (4, 3, 5))
    assert region.shape == (10, 8, 10)
    found = places(region, SCANNER)
    np.testing.assert_allclose(found[0, 0, 0], [30, -20, -20], atol=1e-4)
    np.testing.assert_allclose(found[1, 2, 3], [30 - 3 * 4, -20 + 3, -20 + 2 * 5], atol=1e-4)


def test_a_regions_affine_is_that_of_its_own_box():
    region = region_of(SCANNER, (10, 20, 30), (30, -20, -20), (-10, 10, 20), (4, 3, 5))
    inside = lattice_coordinates(torch.arange(800), region.shape).numpy().astype(float)
    own = region.affine(SCANNER)
    np.testing.assert_allclose(
        (inside @ own[:, :-1].T + own[:, -1]).reshape(10, 8, 10, 3), places(region, SCANNER), atol=1e-4
    )


def test_what_lies_outside_is_made_up_and_refused_unless_asked_for():
    with pytest.raises(ConfigError, match=r"from -3 to 4 on axis 1 of 2, and the signal lies from -0\.5 to 11\.5"):
        region_of(PIXELS, SHAPE, (-3, None), (5, None))
    region = region_of(PIXELS, SHAPE, (-3, None), (5, None), extrapolate=True)
    np.testing.assert_allclose(places(region, PIXELS)[:, 0, 0], np.arange(-3, 5), atol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (((5, 5), (2, 8), None), "from 5 to 2 on axis 1 of 2, and the signal from -0.5 to 11.5; give from and to in"),
        (((5,), None, None), "from has 1 numbers; expected 2"),
        ((None, None, 0), "step is 0 on axis 1 of 2"),
        ((None, None, -1), "step is -1 on axis 1 of 2"),
        ((None, float("nan"), None), "to is nan"),
        ((None, None, 1e-300), "too small"),
    ],
)
def test_impossible_regions_are_told_in_a_line(given, said):
    with pytest.raises(ConfigError) as error:
        region_of(PIXELS, SHAPE, *given)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_signal_that_lies_obliquely_has_no_boxes():
    turned = np.array([[3.0, 1.0, 0.0], [-1.0, 3.0, 0.0]])
    with pytest.raises(ConfigError, match=r"oblique .* field\(points, physical=True\)"):
        region_of(turned, SHAPE, (0, 0), step=1)
    # Sides of 2√10 by 2√10, in steps along themselves.
    region = region_of(turned, SHAPE, step=(np.sqrt(10) / 4, np.sqrt(10) / 5))
    assert region == Region.whole((8, 10))


def test_free_points_have_no_step_to_fall_back_on():
    box = np.array([[5.0, 0.0, 5.0], [0.0, 2.0, 0.0]])
    with pytest.raises(ConfigError, match="no step"):
        region_of(box, None, (0, 0))
    region = region_of(box, None, (0, 0), (10, 1), (2.5, 0.5))
    np.testing.assert_allclose(places(region, box)[:, 0, 0], [0, 2.5, 5, 7.5], atol=1e-5)


def test_a_modality_that_knows_of_no_regions_writes_none_that_would_be_misplaced():
    class Plain(Modality):
        Options = type("Options", (), {})

        def read(self, path):
            raise NotImplementedError

        def write(self, path, values, metadata):
            raise NotImplementedError

        def reconstruction_suffix(self, metadata, dtype):
            raise NotImplementedError

    region = region_of(PIXELS, SHAPE, (1, 1), (5, 5))
    assert Plain(None).cropped({"notes": ["a"]}, region) == {"notes": ["a"]}
    with pytest.raises(ConfigError, match=r"Plain does not say how a region is written .* field\.render\(region=…\)"):
        Plain(None).cropped({"rate": 5}, region)
    assert Plain(None).units({}, 2) == ()
