"""TIFFs of several pages, and samples whose channels are in several files."""

from typing import Literal

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetexp.data import Folder, open_dataset
from unetexp.data.cache.opening import open_collection
from unetexp.data.files.file_sample import FileSample, Listing
from unetexp.data.reading.image_decoding import read_image
from unetexp.data.sources.file_source import FileSource
from unetexp.errors import DataError

SIDE = 40
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))


def labels():
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[5 : RNG.integers(10, 30), 8:20] = 1
    return mask


def stack(pages):
    return RNG.integers(0, 256, (pages, SIDE, SIDE)).astype(np.uint8)


def write_stacks(root, counts, mask_pages=None):
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number, count in enumerate(counts):
        tifffile.imwrite(root / f"images/{number}.tif", stack(count), photometric="minisblack")
        masks = np.stack([labels() for _ in range(mask_pages or count)])
        tifffile.imwrite(root / f"masks/{number}.tif", masks, photometric="minisblack")
    return root


def test_several_pages_are_refused_showing_both_readings(tmp_path):
    root = write_stacks(tmp_path / "d", [3, 3, 3])
    with pytest.raises(DataError, match=r"3 pages.*data\.pages=samples.*data\.pages=channels"):
        open_dataset(Folder(root=str(root)))


def test_pages_as_samples(tmp_path):
    root = write_stacks(tmp_path / "d", [4, 1, 3])
    data = open_dataset(Folder(root=str(root), pages="samples"))
    names = sorted(name for split in data.splits.values() for name in split.names)
    assert names == ["0_p000", "0_p001", "0_p002", "0_p003", "1", "2_p000", "2_p001", "2_p002"]
    for split in data.splits.values():
        for sample in split:
            stem, _, page = sample.name.partition("_p")
            for folder, got in (("images", sample.image[0]), ("masks", sample.mask)):
                written = tifffile.imread(root / folder / f"{stem}.tif")
                expected = written[int(page)] if page else written.reshape(SIDE, SIDE)
                np.testing.assert_array_equal(got, expected)
    assert any("pages are samples" in note for note in data.notes)


def test_pages_without_a_page_of_the_mask_are_refused(tmp_path):
    root = write_stacks(tmp_path / "d", [4, 4], mask_pages=3)
    with pytest.raises(DataError, match=r"images/0\.tif holds 4 pages and .*masks/0\.tif 3"):
        open_dataset(Folder(root=str(root), pages="samples"))


def test_pages_as_channels(tmp_path):
    root = write_stacks(tmp_path / "d", [5, 5, 5], mask_pages=1)
    data = open_dataset(Folder(root=str(root), pages="channels", bands=[4, 1]))
    sample = data["train"][0]
    expected = tifffile.imread(root / f"images/{sample.name}.tif")[[4, 1]]
    np.testing.assert_array_equal(sample.image, expected)


@pytest.mark.parametrize(("pages", "image_pages"), [("channels", 1), ("channels", 2), (None, 1)])
def test_a_mask_with_a_page_for_each_class_is_told_what_to_do(tmp_path, pages, image_pages):
    root = write_stacks(tmp_path / "d", [image_pages] * 4, mask_pages=2)
    with pytest.raises(
        DataError, match=r"masks/\d.tif: this mask holds 2 pages.*its class"
    ) as error:
        open_dataset(Folder(root=str(root), pages=pages))
    assert "data.pages=channels" not in str(error.value)
    assert ("data.pages=samples" in str(error.value)) == (image_pages == 2)


@pytest.mark.parametrize("marked", ["flag", "sub_ifds", "size"])
def test_overviews_are_no_pages(tmp_path, marked):
    full = RNG.integers(0, 256, (64, 48, 3)).astype(np.uint8)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        tile = {"tile": (16, 16), "photometric": "rgb", "metadata": None}
        file.write(full, **tile, **({"subifds": 2} if marked == "sub_ifds" else {}))
        for step in (2, 4):
            kind = {} if marked == "size" else {"subfiletype": 1}
            file.write(full[::step, ::step].copy(), **tile, **kind)
    np.testing.assert_array_equal(read_image(path), full.transpose(2, 0, 1))


def test_overviews_are_noted(tmp_path):
    root = write_stacks(tmp_path / "d", [1, 1, 1])
    for path in (root / "images").iterdir():
        image = tifffile.imread(path).reshape(SIDE, SIDE)
        with tifffile.TiffWriter(path) as file:
            file.write(image, metadata=None)
            file.write(image[::2, ::2].copy(), subfiletype=1, metadata=None)
    data = open_dataset(Folder(root=str(root)))
    assert any("overviews" in note for note in data.notes)
    assert data["train"].shapes[0] == (SIDE, SIDE)


def test_an_array_of_bands_last_that_was_written_as_pages_is_put_together(tmp_path):
    cube = RNG.random((48, 40, 6)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", cube)  # 48 pages of 40 x 6
    from unetexp.data.reading.input_form import InputForm

    image = read_image(tmp_path / "a.tif", InputForm(ranges=((0, 1),)))
    np.testing.assert_allclose(image / 65535, cube.transpose(2, 0, 1), atol=1e-5)


class TwoFiles(FileSource):
    """Samples ROOT/{ct,mri,masks}/NNN.tif, for these tests."""

    kind: Literal["two_files"] = "two_files"
    root: str

    def listing(self, on_progress=None):
        from pathlib import Path

        root = Path(self.root)

        def there(path):
            return path if path.exists() else None

        samples = [
            FileSample(m.stem, tuple(there(root / k / m.name) for k in ("ct", "mri")), m)
            for m in sorted((root / "masks").iterdir())
        ]
        return Listing(root, {"train": samples[:3], "val": samples[3:]})


def write_two(root, ct, mri, count=5):
    for folder in ("ct", "mri", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        name = f"{number:03d}.tif"
        tifffile.imwrite(root / "ct" / name, ct(number), photometric="minisblack")
        tifffile.imwrite(root / "mri" / name, mri(number), photometric="minisblack")
        tifffile.imwrite(root / "masks" / name, labels(), photometric="minisblack")
    return root


def grey8(number):
    return RNG.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)


def grey12(number):
    return RNG.integers(0, 4000, (SIDE, SIDE)).astype(np.uint16)


def hounsfield(number):
    return RNG.uniform(-1000, 3000, (SIDE, SIDE)).astype(np.float32)


def opened(root, **settings):
    return open_collection(TwoFiles(root=str(root), **settings).collect())


def test_two_files_of_bytes_are_two_channels_as_stored(tmp_path):
    root = write_two(tmp_path / "d", grey8, grey8)
    data = opened(root)
    assert (data.channels, data.image_max) == (2, 255)
    for sample in data["train"]:
        expected = [tifffile.imread(root / k / f"{sample.name}.tif") for k in ("ct", "mri")]
        np.testing.assert_array_equal(sample.image, np.stack(expected))
    swapped = opened(root, bands=[1, 0])["train"][0].image
    np.testing.assert_array_equal(swapped, data["train"][0].image.flip(0))


@pytest.mark.parametrize("ct", [grey12, hounsfield])
def test_files_of_different_depth_get_a_scale_each_with_a_note(tmp_path, ct):
    root = write_two(tmp_path / "d", ct, grey8)
    data = opened(root)
    assert data.image_max == 65535
    sample = data["train"][0]
    np.testing.assert_array_equal(
        sample.image[1].int(), tifffile.imread(root / f"mri/{sample.name}.tif").astype(int) * 257
    )
    assert sample.image[0].int().max() > 60_000
    assert sum("of each sample" in note for note in data.notes) == 2


def test_files_of_different_size_are_refused_by_name(tmp_path):
    root = write_two(tmp_path / "d", grey8, lambda number: grey8(number)[:-1])
    with pytest.raises(DataError, match=r"mri/000\.tif is 39 x 40.*ct/000\.tif 40 x 40"):
        opened(root)


def test_a_missing_file_is_an_error_or_zeros_as_chosen(tmp_path):
    root = write_two(tmp_path / "d", grey8, hounsfield)
    (root / "mri/001.tif").unlink()
    with pytest.raises(DataError, match=r"001 lacks file 2 of 2.*data\.missing=zeros"):
        opened(root)
    data = opened(root, missing="zeros")
    assert data.channels == 2
    assert data["train"][1].image[1].int().max() == 0
    assert data["train"][1].image[0].int().max() > 0
    assert data["train"][0].image[1].int().max() > 0
    (root / "ct/004.tif").unlink()
    data = opened(root, missing="zeros", value_range=[0, 255])
    assert data["val"][1].image[0].int().max() == 0
    Image.fromarray(grey8(0)).save(root / "ct/004.tif")
