"""Masks that were drawn on the frame as stored, beside images with orientation tags."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from unetexp.data import Folder, open_dataset
from unetexp.data.reading.orientation_check import edge_fit, orientation_fit
from unetexp.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))


def scene(seed, size, contrast=90):
    """A photograph-like image and its mask: an off-centre shape on smooth, noisy ground."""
    rng = np.random.default_rng(seed)
    height, width = size
    mask = np.zeros(size, np.uint8)
    top, left = rng.integers(3, height // 3), rng.integers(3, width // 3)
    mask[top : top + height // 3, left : left + width // 4] = 1
    ground = rng.normal(0, 30, size)
    image = Image.fromarray((110 + ground + mask * contrast).clip(0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1))), mask


def write_set(root, orientation, drawn_on, size=(64, 64), count=5, contrast=90):
    """Images whose stored frame is turned by `orientation`; masks on the stored or upright one."""
    from unetexp.data.reading.orientation import upright

    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        image, mask = scene(number, size, contrast)  # the frame as stored
        exif = Image.Exif()
        exif[274] = orientation
        colour = Image.fromarray(np.stack([image] * 3, axis=2))
        colour.save(root / f"images/{number}.jpg", exif=exif, quality=95)
        shown = mask if drawn_on == "stored" else upright(mask, orientation)
        Image.fromarray(np.ascontiguousarray(shown)).save(root / f"masks/{number}.png")
    return root


@pytest.mark.parametrize("orientation", [2, 3, 4, 6, 7, 8])
def test_masks_drawn_on_the_stored_frame_are_refused_with_both_figures(tmp_path, orientation):
    root = write_set(tmp_path / "d", orientation, "stored")
    with pytest.raises(DataError, match=r"fit the images as stored better") as error:
        open_dataset(Folder(root=str(root)))
    assert "--set data.exif=none" in str(error.value)
    assert str(error.value).count(" times") == 2
    assert list((tmp_path / "cache").glob("*/index.json")) == []
    for exif, turned in (("none", False), ("both", True)):
        data = open_dataset(Folder(root=str(root), exif=exif))
        sample = data["train"][0]
        mask = scene(int(sample.name), (64, 64))[1]
        assert (sample.mask.numpy() == mask).all() != turned
        inside = sample.image[0].float()[sample.mask == 1].mean()
        assert inside > sample.image[0].float()[sample.mask == 0].mean() + 60


@pytest.mark.parametrize("orientation", [3, 6])
def test_masks_drawn_on_the_upright_image_are_confirmed_in_a_note(tmp_path, orientation):
    data = open_dataset(Folder(root=str(write_set(tmp_path / "d", orientation, "upright"))))
    assert any("is confirmed by their edges" in note for note in data.notes)


def test_faint_masks_cannot_be_told_and_are_noted(tmp_path):
    root = write_set(tmp_path / "d", 3, "stored", contrast=0)
    assert any("cannot be told" in note for note in open_dataset(Folder(root=str(root))).notes)


def test_without_a_tag_nothing_is_said(tmp_path):
    assert open_dataset(Folder(root=str(write_set(tmp_path / "d", 1, "stored")))).notes == ()


def test_where_only_the_tag_makes_the_sizes_disagree_the_stored_reading_is_offered(tmp_path):
    root = write_set(tmp_path / "d", 6, "stored", size=(64, 48))
    with pytest.raises(DataError, match=r"64 x 48.*48 x 64.*--set data\.exif=none"):
        open_dataset(Folder(root=str(root)))
    assert open_dataset(Folder(root=str(root), exif="none"))["train"].shapes[0] == (64, 48)
    assert open_dataset(Folder(root=str(root), exif="both"))["train"].shapes[0] == (48, 64)


def test_the_fit_is_by_edges_and_not_by_brightness():
    image, mask = scene(0, (64, 64))
    fit = edge_fit(image[None], mask, 3)
    assert fit.as_read > 1.3 * fit.stored
    assert orientation_fit([fit]).verdict == "as read"
    inverted = edge_fit(255 - image[None], mask, 3)
    assert inverted.as_read == pytest.approx(fit.as_read)
    assert edge_fit(image[None, :40], mask[:40], 6) is None
    assert edge_fit(image[None], mask * 0, 3) is None
    assert orientation_fit([]).verdict == "cannot tell"


def test_large_photographs_are_averaged_down():
    image, mask = scene(0, (1100, 1300))
    fit = edge_fit(np.stack([image] * 3), mask, 3)
    assert fit.as_read > 1.3 * fit.stored


def test_single_images_that_fit_as_stored_are_named(tmp_path):
    root = write_set(tmp_path / "d", 3, "upright")
    Image.fromarray(scene(2, (64, 64))[1]).save(root / "masks/2.png")
    notes = open_dataset(Folder(root=str(root))).notes
    assert any("1 image (2) fit their masks better as stored" in note for note in notes)
