"""`unetexp data show`: a page that stands alone, with the classes, shares and augmented views."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.support.data_folders import write_folder_dataset
from unetexp.cli.main import app


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    place = tmp_path_factory.mktemp("set") / "a & b"
    names = ["background", "cell wall", "nucleus"]
    splits = {"train": 3, "val": 2}
    return write_folder_dataset(place, splits, (60, 80), 3, class_names=names, void=0.1)


def run(*arguments):
    return CliRunner().invoke(app, ["data", "show", *map(str, arguments)])


def test_the_page_holds_images_masks_and_the_legend(root, tmp_path):
    out = tmp_path / "new" / "page.html"
    result = run(root, "--augment", "medium", "--out", out, "--set", "augment.crop_px=48")
    assert result.exit_code == 0, result.output
    assert str(out) in result.output
    page = out.read_text()
    assert not re.search(r"(src|href)=.(https?:|//)", page)
    images = re.findall(r'"data:image/jpeg;base64,([^"]+)"', page)
    masks = re.findall(r'"data:image/png;base64,([^"]+)"', page)
    assert len(images) == len(masks) == 3 * (1 + 5)
    first, view = (Image.open(io.BytesIO(base64.b64decode(text))) for text in images[:2])
    assert (first.size, view.size) == ((80, 60), (48, 48))
    layer = np.array(Image.open(io.BytesIO(base64.b64decode(masks[0]))))
    stored = np.array(Image.open(root / "train" / "masks" / "000.png"))
    assert ((layer[..., 3] == 0) == (stored == 0)).all()
    assert "cell wall" in page and "a &amp; b" in page and "medium" in page
    share = np.stack([np.array(Image.open(p)) for p in (root / "train/masks").glob("*")]) == 2
    assert f"{100 * share.mean():.1f} %" in page


@pytest.mark.parametrize("preset", ["none", "strong", "medical"])
def test_presets_show_different_views_and_the_same_again(preset, root, tmp_path):
    pages = []
    for name in ("a.html", "b.html"):
        settings = ["--augment", preset, "--count", 1, "--views", 2, "--out", tmp_path / name]
        assert run(root, *settings, "--set", "augment.crop_px=48").exit_code == 0
        pages.append((tmp_path / name).read_text())
    assert pages[0] == pages[1]
    images = re.findall(r'"data:image/jpeg;base64,([^"]+)"', pages[0])
    assert len(set(images)) == 3


def test_a_crop_larger_than_the_images_is_said(root, tmp_path):
    result = run(root, "--out", tmp_path / "page.html", "--count", 1)
    assert result.exit_code == 0
    assert "--set augment.crop_px=32" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--augment", "strnog"], "strong"),
        (["--set", "loss.kind=dice"], r"loss\.kind: here data\.\*, augment\.\*"),
        (["--set", "augment.rotation=3"], "rotation_deg"),
    ],
)
def test_mistakes_are_explained(arguments, message, root, tmp_path):
    result = run(root, "--out", tmp_path / "page.html", *arguments)
    assert result.exit_code == 2
    assert re.search(message, result.output)
    assert not (tmp_path / "page.html").exists()
