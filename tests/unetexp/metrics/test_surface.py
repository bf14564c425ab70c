"""Distances between outlines: MONAI's and surface-distance's values, formulas, empty masks."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.outlines import clouds, ellipses
from unetexp.errors import DataError
from unetexp.metrics import boundary_iou, cl_dice, hausdorff95, normalized_surface_dice

# Of MONAI 1.6.1 (`compute_hausdorff_distance`, `compute_surface_dice`, the latter also with
# use_subvoxels) and surface-distance 0.1, for `ellipses()`: spacing, tolerance -> HD95 and NSD of
# outermost pixels, HD95 and NSD of contours.
REFERENCE = {
    ((1.0, 1.0), 1.0): (15.578801155, 0.340579718, 15.556349186, 0.358151510),
    ((1.0, 1.0), 2.0): (15.578801155, 0.507246375, 15.556349186, 0.514657298),
    ((0.8, 1.5), 1.0): (16.707157136, 0.333333343, 16.114899938, 0.376227898),
    ((0.8, 1.5), 2.0): (16.707157136, 0.420289844, 16.114899938, 0.470039293),
}
EMPTY = np.zeros((30, 40), bool)


def figures(truth, prediction, tolerance, spacing):
    return [
        value
        for outline in ("pixels", "contours")
        for value in (
            hausdorff95(truth, prediction, spacing, outline=outline),
            normalized_surface_dice(truth, prediction, tolerance, spacing, outline=outline),
        )
    ]


@pytest.mark.parametrize(("spacing", "tolerance"), REFERENCE)
def test_the_values_are_those_of_monai_and_surface_distance(spacing, tolerance):
    found = figures(*ellipses(), tolerance, spacing)
    assert found == pytest.approx(REFERENCE[spacing, tolerance], rel=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_monai_agrees_where_it_is_installed(seed):
    metrics = pytest.importorskip("monai.metrics")
    import torch

    truth, prediction = clouds(seed)
    spacing = (0.7, 1.3) if seed % 2 else (1.0, 1.0)
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
    options = {"include_background": True, "spacing": list(spacing)}
    distance = metrics.compute_hausdorff_distance(*pair, percentile=95, **options).item()
    shares = [
        metrics.compute_surface_dice(*pair, [1.5], use_subvoxels=fine, **options).item()
        for fine in (False, True)
    ]
    found = figures(truth, prediction, 1.5, spacing)
    assert [found[0], found[1], found[3]] == pytest.approx([distance, *shares], rel=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_surface_distance_agrees_where_it_is_installed(seed):
    package = pytest.importorskip("surface_distance")
    truth, prediction = clouds(seed)
    spacing = (0.7, 1.3) if seed % 2 else (1.0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distances = package.compute_surface_distances(truth, prediction, spacing)
    expected = [
        package.compute_robust_hausdorff(distances, 95),
        package.compute_surface_dice_at_tolerance(distances, 1.5),
    ]
    assert figures(truth, prediction, 1.5, spacing)[2:] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_the_formula_by_all_pairs_of_pixels(seed):
    truth, prediction = clouds(seed)
    spacing = np.array([1.5, 0.6])
    points = [outermost(mask) * spacing for mask in (truth, prediction)]
    table = np.sqrt(((points[0][:, None] - points[1][None]) ** 2).sum(axis=-1))
    nearest = table.min(axis=1), table.min(axis=0)
    expected = max(np.percentile(distances, 95) for distances in nearest)
    assert hausdorff95(truth, prediction, tuple(spacing)) == pytest.approx(expected)
    near = sum(np.count_nonzero(distances <= 2) for distances in nearest)
    share = near / sum(map(len, points))
    found = normalized_surface_dice(truth, prediction, 2.0, tuple(spacing))
    assert found == pytest.approx(share)


def outermost(mask):
    """Coordinates of the pixels with a neighbour outside, one by one."""
    padded = np.pad(mask, 1)
    return np.array(
        [
            (row, column)
            for row, column in np.argwhere(mask)
            if not all(
                padded[row + 1 + down, column + 1 + right]
                for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1))
            )
        ]
    )


def test_a_square_moved_by_some_pixels_is_so_far_away_in_either_form():
    truth, prediction = EMPTY.copy(), EMPTY.copy()
    truth[5:15, 5:15] = True
    prediction[5:15, 9:19] = True
    for outline in ("pixels", "contours"):
        assert hausdorff95(truth, prediction, outline=outline) == 4
        assert hausdorff95(truth, prediction, (3.0, 0.5), outline=outline) == 2
        exact = normalized_surface_dice(truth, prediction, 4.0, outline=outline)
        assert exact == 1
        assert normalized_surface_dice(truth, prediction, 3.9, outline=outline) < 1


def test_three_pixels_of_a_tenth_are_within_three_tenths():
    truth, prediction = EMPTY.copy(), EMPTY.copy()
    truth[10:20, 10] = True
    prediction[10:20, 13] = True
    assert normalized_surface_dice(truth, prediction, 0.3, (0.1, 0.1)) == 1


@pytest.mark.parametrize("outline", ["pixels", "contours"])
def test_empty_masks(outline):
    some = EMPTY.copy()
    some[3:5, 3:5] = True
    assert math.isnan(hausdorff95(EMPTY, EMPTY, outline=outline))
    assert math.isnan(normalized_surface_dice(EMPTY, EMPTY, 1.0, outline=outline))
    for pair in ((some, EMPTY), (EMPTY, some)):
        assert hausdorff95(*pair, outline=outline) == 50
        assert hausdorff95(*pair, (2.0, 2.0), outline=outline) == 100
        assert normalized_surface_dice(*pair, 9.0, outline=outline) == 0


def test_no_distance_is_longer_than_that_of_a_missed_object():
    corners = EMPTY.copy(), EMPTY.copy()
    corners[0][0, 0] = corners[1][-1, -1] = True
    assert hausdorff95(*corners) < hausdorff95(corners[0], EMPTY)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.2, 5))
def test_properties_of_distances(seed, factor):
    truth, prediction = clouds(seed)
    for outline in ("pixels", "contours"):
        found = hausdorff95(truth, prediction, outline=outline)
        assert hausdorff95(prediction, truth, outline=outline) == pytest.approx(found)
        scaled = hausdorff95(truth, prediction, (factor, factor), outline=outline)
        assert scaled == pytest.approx(factor * found)
        assert 0 <= found <= math.hypot(*truth.shape)
        if truth.any():
            assert hausdorff95(truth, truth, outline=outline) == 0
            assert normalized_surface_dice(truth, truth, 0.1, outline=outline) == 1
        shares = [
            normalized_surface_dice(truth, prediction, tolerance, outline=outline)
            for tolerance in (0.5, 1, 3, 9)
        ]
        assert shares == sorted(shares)
        moved = [np.pad(mask, ((3, 0), (0, 5))) for mask in (truth, prediction)]
        if truth.any() and prediction.any():
            assert hausdorff95(*moved, outline=outline) == pytest.approx(found)


@pytest.mark.parametrize("figure", [hausdorff95, boundary_iou, cl_dice])
def test_masks_of_other_shapes_are_refused(figure):
    with pytest.raises(DataError, match=r"\(30, 40\).*\(40, 30\)"):
        figure(EMPTY, EMPTY.T)
