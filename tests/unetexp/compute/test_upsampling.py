"""Logits brought back to the size of the image, against torch's interpolation of the whole."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fake_cuda import CUDA, NoWaiting, fake_cuda
from unetexp.compute import upsampling
from unetexp.compute.upsampling import upsampled, upsampled_labels

sides = st.integers(1, 40)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), sides, sides, sides, sides)
def test_blocks_make_up_the_whole(classes, h, w, height, width):
    logits = torch.randn(classes, h, w, generator=torch.Generator().manual_seed(h * w))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upsampling, "_BLOCK_BYTES", 3 * 4 * classes * width)
        blocks = list(upsampled(logits, (height, width)))
    assert len(blocks) == -(-height // 3)
    expected = F.interpolate(
        logits[None], size=(height, width), mode="bilinear", align_corners=False
    )
    found = torch.cat([block for _, block in blocks], dim=1)
    torch.testing.assert_close(found, expected[0], rtol=1e-4, atol=1e-5)
    assert [rows.start for rows, _ in blocks] == list(range(0, height, 3))


def test_labels_of_many_classes_need_the_memory_of_some_rows():
    """20 classes of 12 megapixels would take 1 GB."""
    assert upsampling.block_rows(20, 4000) * 20 * 4000 * 4 <= 2**25
    assert upsampling.block_rows(250, 10**6) == 1


def test_the_host_does_not_wait():
    with fake_cuda(), NoWaiting():
        labels = upsampled_labels(torch.zeros(3, 8, 8, device=CUDA), (20, 30))
        assert labels.device == CUDA and labels.shape == (20, 30)
