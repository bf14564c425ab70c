"""Bands that a file marks as alpha, and transparency."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.support.textured import write_textured
from unetexp.data import Folder
from unetexp.data.checks.checked import check_source
from unetexp.data.checks.finding import exit_code


def found(root, **settings):
    return {f.code: f for f in check_source(Folder(root=str(root), **settings)).findings}


def with_fourth(root, fourth):
    """The images as TIFFs with a fourth sample that is marked as alpha."""
    for path in sorted(root.glob("*/images/*")):
        picture = np.asarray(Image.open(path))
        sample = fourth(picture[..., 0]).astype(np.uint8)
        tifffile.imwrite(
            path.with_suffix(".tif"),
            np.dstack([picture, sample]),
            photometric="rgb",
            extrasamples=["unassalpha"],
        )
        path.unlink()
    return root


def test_a_band_that_is_marked_as_alpha_is_told_with_its_setting(tmp_path):
    root = with_fourth(write_textured(tmp_path / "set"), lambda grey: 255 - grey // 2)

    (finding,) = found(root).values()

    assert (finding.code, exit_code([finding])) == ("band-marked-as-alpha", 1)
    assert "left out" in finding.why
    assert "--set 'data.bands=[0, 1, 2, 3]'" in finding.mend
    assert len(finding.files) == 20
    for bands in ([0, 1, 2, 3], [0, 1, 2]):  # both answers settle it
        assert found(root, bands=bands) == {}


def opaque(grey):
    return np.full_like(grey, 255)


def cut_out(grey):
    """Opaque but for a corner, with a soft edge."""
    alpha = np.full_like(grey, 255)
    alpha[:20, :20] = 0
    alpha[20, :20] = 128
    return alpha


@pytest.mark.parametrize("fourth", [opaque, cut_out])
def test_transparency_is_no_band(tmp_path, fourth):
    assert found(with_fourth(write_textured(tmp_path / "set"), fourth)) == {}
