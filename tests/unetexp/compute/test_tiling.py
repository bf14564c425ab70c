"""Tiles and their seams, on scores that need no model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetexp.compute.tiling import (
    blended,
    cheapest_spans,
    computed_pixels,
    largest_tile,
    spans,
)


@st.composite
def layouts(draw):
    tile = 32 * draw(st.integers(1, 4))
    overlap = 32 * draw(st.integers(0, tile // 32 - 1))
    seam = 2 * draw(st.integers(0, min(overlap, tile - overlap) // 2))
    return draw(st.integers(1, 300)), draw(st.integers(1, 300)), tile, overlap, seam


@settings(max_examples=60, deadline=None)
@given(layouts())
def test_scores_that_do_not_depend_on_the_tile_come_out_as_they_are(layout):
    height, width, tile, overlap, seam = layout
    scores = np.random.default_rng(height).normal(size=(2, height, width)).astype(np.float32)
    rows, columns = (spans(size, tile, overlap, seam) for size in (height, width))
    result, times = np.zeros_like(scores), np.zeros((height, width))
    for block in blended(rows, columns, lambda r, c: scores[:, r, c]):
        result[:, block.rows, block.columns] = block.scores
        times[block.rows, block.columns] += 1
    assert (times == 1).all()
    np.testing.assert_allclose(result, scores, rtol=1e-5, atol=1e-6)


@given(layouts())
def test_tiles_start_on_the_grid_and_keep_their_distance_from_cuts(layout):
    size, _, tile, overlap, seam = layout
    along = spans(size, tile, overlap, seam)
    margin = (overlap - seam) // 2
    assert (along[0].tile.start, along[-1].tile.stop) == (0, size)
    for span in along:
        assert span.tile.start % 32 == 0
        assert span.tile.stop - span.tile.start <= tile
        assert span.core.start - span.tile.start == (margin if span.tile.start else 0)
        assert span.tile.stop - span.core.stop == (margin if span.tile.stop < size else 0)


def test_neighbours_fade_into_each_other():
    along = spans(96, tile=64, overlap=32, seam=8)
    blocks = blended(spans(1, 64, 32, 8), along, lambda r, c: np.full((1, 1, 64), float(c.start)))
    line = np.concatenate([block.scores for block in blocks], axis=2).flatten() / 32
    assert (line[:44] == 0).all()
    assert (line[52:] == 1).all()
    np.testing.assert_allclose(line[44:52], (np.arange(8) + 0.5) / 8, rtol=1e-6)


def test_no_more_than_a_tile_and_a_seam_is_held():
    """The first block is there after one tile, and a thousand tiles need no more than two."""
    asked = []

    def score(rows, columns):
        asked.append((rows.start, columns.start))
        return np.zeros((1, rows.stop - rows.start, columns.stop - columns.start))

    along = spans(32 * 101, tile=64, overlap=32, seam=8)
    blocks = blended(along, along, score)
    first = next(blocks)
    assert asked == [(0, 0)]
    assert first.scores.shape == (1, 44, 44)


@pytest.mark.parametrize(("size", "count"), [(64, 1), (65, 2), (96, 2), (97, 3), (1, 1)])
def test_as_many_tiles_as_are_needed(size, count):
    assert len(spans(size, tile=64, overlap=32, seam=8)) == count


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 400), st.integers(1, 400), st.sampled_from([64, 128]), st.integers(1, 300 * 300)
)
def test_the_cheapest_tiles_are_exact_and_within_the_pixels(height, width, overlap, most):
    rows, columns = cheapest_spans(height, width, overlap, most, 32)
    for size, along in ((height, rows), (width, columns)):
        assert (along[0].core.start, along[-1].core.stop) == (0, size)
        for one, other in itertools.pairwise(along):
            assert one.core.stop == other.core.start
            assert other.tile.start % 32 == 0
            assert other.core.start - other.tile.start == overlap // 2
            assert one.tile.stop - one.core.stop == overlap // 2
    smallest = min(height, overlap + 32) * min(width, overlap + 32)
    assert largest_tile(rows, columns) <= max(most, smallest)
    if height * width <= most:
        assert computed_pixels(rows, columns) == height * width


def test_the_cheapest_tiles_of_a_photograph():
    rows, columns = cheapest_spans(3008, 4000, 640, 2**21, 32)
    assert largest_tile(rows, columns) <= 2**21
    assert computed_pixels(rows, columns) < 2.5 * 3008 * 4000
