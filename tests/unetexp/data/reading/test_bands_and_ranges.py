"""Sets of images with other than 8-bit grey and RGB: which bands are read and what is 1.0."""

import json
import re

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from unetexp.data import Folder, open_dataset
from unetexp.errors import DataError

SIDE = 32
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))


def mask_of(number):
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4 + number : 20, 6:22] = 1
    return mask


def write_set(root, image_of, count=6, **options):
    """ROOT/{images,masks} with TIFF images (H, W, C) of `image_of(number, mask)`."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    form = {"photometric": "minisblack", "planarconfig": "contig", **options}
    for number in range(count):
        mask = mask_of(number)
        image = image_of(number, mask)
        if image.ndim == 2:
            form.pop("planarconfig", None)
        tifffile.imwrite(root / "images" / f"{number}.tif", image, **form)
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root


def opened(root, **settings):
    return open_dataset(Folder(root=str(root), **settings))


def stored(root, name):
    return tifffile.imread(root / "images" / f"{name}.tif")


def noise(dtype, channels, high=200):
    return lambda number, mask: RNG.integers(0, high, (SIDE, SIDE, channels)).astype(dtype)


def test_an_unmarked_fourth_sample_is_a_band(tmp_path):
    root = write_set(
        tmp_path / "d", noise(np.uint8, 4), photometric="rgb", extrasamples=["unspecified"]
    )
    data = opened(root)
    assert data.channels == 4
    sample = data["train"][0]
    np.testing.assert_array_equal(sample.image, stored(root, sample.name).transpose(2, 0, 1))
    assert any("4 channels, all of which are read" in note for note in data.notes)


def test_a_marked_alpha_is_left_out_with_a_note_unless_it_is_named_as_a_band(tmp_path):
    root = write_set(
        tmp_path / "d", noise(np.uint8, 4), photometric="rgb", extrasamples=["unassalpha"]
    )
    data = opened(root)
    assert data.channels == 3
    assert any(
        "alpha" in n and "varying" in n and "data.bands=[0, 1, 2, 3]" in n for n in data.notes
    )
    named = opened(root, bands=[3, 1])
    sample = named["train"][0]
    expected = stored(root, sample.name).transpose(2, 0, 1)[[3, 1]]
    np.testing.assert_array_equal(sample.image, expected)
    assert named.fingerprint != data.fingerprint


def test_a_band_that_is_not_there_is_refused(tmp_path):
    root = write_set(tmp_path / "d", noise(np.uint8, 4))
    with pytest.raises(DataError, match=r"\.tif: data\.bands names band 4.*\[0, 1, 2, 3\]"):
        opened(root, bands=[0, 4])


def test_other_mixtures_of_channels_are_refused(tmp_path):
    root = write_set(
        tmp_path / "d", lambda number, mask: noise(np.uint8, 4 if number else 5)(number, mask)
    )
    with pytest.raises(DataError, match=r"4 channels and .* 5.*data\.bands=\[0, 1, 2, 3\]"):
        opened(root)


def hot(number, mask):
    image = RNG.integers(100, 4000, (SIDE, SIDE)).astype(np.uint16)
    if number < 4:
        image[0, number] = 65535
    return image


def test_a_hot_pixel_does_not_set_the_scale(tmp_path):
    root = write_set(tmp_path / "d", hot)
    data = opened(root)
    assert 3900 < data.image_max < 4000
    assert any(str(data.image_max) in n and "65535" in n and "%" in n for n in data.notes)
    for split in data.splits.values():
        for sample in split:
            expected = np.minimum(stored(root, sample.name), data.image_max)
            np.testing.assert_array_equal(sample.image[0], expected)
    unclipped = opened(root, value_range=[0, 65535])
    assert unclipped.image_max == 65535
    sample = unclipped["train"][0]
    np.testing.assert_array_equal(sample.image[0], stored(root, sample.name))


def test_without_a_hot_pixel_the_scale_is_the_train_maximum(tmp_path):
    values = iter(range(1000, 1600, 100))
    root = write_set(
        tmp_path / "d", lambda number, mask: np.full((SIDE, SIDE), next(values), np.uint16)
    )
    data = opened(root)
    assert data.image_max == max(int(s.image.int().max()) for s in data["train"])
    assert data.notes == ()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_within_0_and_1_stay_as_they_are(tmp_path, dtype):
    root = write_set(tmp_path / "d", lambda number, mask: RNG.random((SIDE, SIDE)).astype(dtype))
    data = opened(root)
    assert (data.image_max, data.form.ranges) == (65535, ((0.0, 1.0),))
    sample = data["val"][0]
    expected = stored(root, sample.name).astype(np.float64)
    assert np.abs(sample.image[0].numpy() / 65535 - expected).max() <= 0.5 / 65535 + 1e-9


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint32, np.int32])
def test_other_numbers_get_the_robust_range_of_the_train_images(tmp_path, dtype):
    def image(number, mask):
        values = RNG.uniform(50, 2000, (SIDE, SIDE)).astype(dtype)
        values[3, 3 + number] = 30_000  # one in 1024: beyond 99.9 %
        return values

    root = write_set(tmp_path / "d", image)
    data = opened(root)
    ((low, high),) = data.form.ranges
    assert low == 0
    assert 1900 < high <= 2000
    assert any("is 0 and" in note and f"{high:g}" in note for note in data.notes)
    assert any("lie outside: clipped" in note for note in data.notes)
    sample = data["val"][0]
    expected = np.rint(stored(root, sample.name).clip(0, high) / high * 65535)
    assert np.abs(sample.image[0].numpy().astype(np.float64) - expected).max() <= 1


def test_a_stated_range_is_0_and_1_and_the_rest_is_clipped(tmp_path):
    root = write_set(
        tmp_path / "d", lambda number, mask: RNG.uniform(-1, 3, (SIDE, SIDE)).astype(np.float32)
    )
    data = opened(root, value_range=[0, 2])
    sample = data["train"][0]
    expected = (stored(root, sample.name).astype(np.float64) / 2).clip(0, 1)
    np.testing.assert_allclose(sample.image[0].numpy() / 65535, expected, atol=1e-5)
    assert data.fingerprint != opened(root, value_range=[0, 1]).fingerprint


def test_what_is_no_number_and_gdals_nodata_are_0(tmp_path):
    def image(number, mask):
        values = RNG.uniform(10, 20, (SIDE, SIDE)).astype(np.float32)
        values[0, 0], values[1, 1] = np.nan, -9999
        return values

    root = write_set(tmp_path / "d", image, extratags=[(42113, "s", 0, "-9999", True)])
    data = opened(root)
    ((low, high),) = data.form.ranges
    assert 0 <= low < high <= 20
    assert data["train"][0].image[0, 0, 0] == data["train"][0].image[0, 1, 1] == 0
    assert any("-9999" in note and "GDAL" in note and "read as 0" in note for note in data.notes)


def test_bands_of_different_height_get_a_range_each(tmp_path):
    def image(number, mask):
        return np.dstack([RNG.random((SIDE, SIDE)), RNG.uniform(0, 3000, (SIDE, SIDE))]).astype(
            "f4"
        )

    data = opened(write_set(tmp_path / "d", image))
    (first, second) = data.form.ranges
    assert first == (0.0, 1.0)
    assert 2900 < second[1] <= 3000
    assert data["train"][0].image.float().amax(dim=(1, 2)).min() > 60_000


def test_floats_beside_bytes_have_no_common_scale(tmp_path):
    root = write_set(
        tmp_path / "d",
        lambda number, mask: RNG.random((SIDE, SIDE)).astype("f4" if number else "u1"),
    )
    with pytest.raises(DataError, match=r"no common scale.*data\.value_range"):
        opened(root)


def test_six_bands_keep_their_order_and_survive_the_trip_to_another_process(tmp_path):
    root = write_set(tmp_path / "d", noise(np.uint16, 6, 5000))
    data = opened(root, bands=[5, 0, 2, 4])
    again = type(data).of_tree(data.tree())
    assert again == data or again.form == data.form
    image, _ = again["train"].window(0, -2, 3, 8, 8)
    assert image.shape == (4, 8, 8)
    expected = stored(root, again["train"].names[0]).transpose(2, 0, 1)[[5, 0, 2, 4], :6, 3:11]
    np.testing.assert_array_equal(image[:, 2:].int(), expected)
    assert torch.equal(image[:, :2].int(), torch.zeros(4, 2, 8, dtype=torch.int32))


def test_a_cmyk_photograph_is_converted_with_a_note(tmp_path):
    root = write_set(tmp_path / "d", noise(np.uint8, 3), photometric="rgb")
    for path in sorted((root / "images").iterdir()):
        image = Image.open(path)
        path.unlink()
        image.convert("CMYK").save(path.with_suffix(".jpg"))
    data = opened(root)
    assert data.channels == 3
    assert any("CMYK is converted to RGB" in note and "6 images" in note for note in data.notes)


def with_fill(*fills):
    """Images of 0 to 24 in which the first columns hold values that mean no measurement."""

    def image(number, mask):
        values = RNG.uniform(0, 24, (SIDE, SIDE)).astype(np.float32)
        for place, fill in enumerate(fills):
            values[:, 3 * place : 3 * place + 3] = fill
        return values

    return image


@pytest.mark.parametrize(
    "fills", [(-9999,), (1e20,), (-3.4028235e38,), (-32768, -9999), (-9999, 1e20)]
)
def test_a_value_that_means_no_measurement_does_not_set_the_scale(tmp_path, fills):
    root = write_set(tmp_path / "d", with_fill(*fills))
    data = opened(root)
    ((low, high),) = data.form.ranges
    assert low == 0
    assert 23 < high <= 24
    sample = data["val"][0]
    values = stored(root, sample.name).astype(np.float64)
    known = ~np.isin(values, np.float32(fills))
    read = sample.image[0].numpy() / 65535
    assert np.abs(read - values.clip(0, high) / high)[known].max() < 1e-4
    assert (read[~known] == 0).all()
    (note,) = [note for note in data.notes if "no measurement" in note]
    assert f"{np.float32(fills[0]):g}" in note
    assert "9.4%" in note
    assert re.search(r"0\.0\d% of the values lie outside", " ".join(data.notes))


@pytest.mark.parametrize(
    ("dark", "bright", "special", "dtype"),
    [
        (0, 1000, 4095, np.float32),  # saturated highlights
        (400, 1500, 0, np.float32),  # black around the object
        (1000, 1500, 100, np.float32),  # a constant background
        (-200, 300, -1024, np.int16),  # air of CT
        (-1024, 3000, -3024, np.int16),  # outside the circle of CT
        (-1.0, 2.0, -5.0, np.float32),  # standardised, with a constant background
    ],
)
def test_a_usual_constant_area_keeps_its_range(tmp_path, dark, bright, special, dtype):
    def image(number, mask):
        values = RNG.uniform(dark, bright, (SIDE, SIDE)).astype(dtype)
        values[:, :9] = special
        return values

    data = opened(write_set(tmp_path / "d", image))
    ((low, high),) = data.form.ranges
    assert low <= special <= high
    assert not any("no measurement" in note for note in data.notes)


def test_images_of_few_levels_hold_no_fill_value(tmp_path):
    data = opened(write_set(tmp_path / "d", lambda number, mask: mask.astype(np.float32) * 5000))
    assert data.form.ranges == ((0.0, 5000.0),)


def test_each_channel_has_its_own_value_for_no_measurement(tmp_path):
    def image(number, mask):
        first, second = with_fill(-9999)(number, mask), RNG.uniform(-2e4, 2e4, (SIDE, SIDE))
        second[0, 0] = -9999
        return np.dstack([first, second]).astype(np.float32)

    root = write_set(tmp_path / "d", image)
    data = opened(root)
    assert data.form.ranges[0][0] == 0
    assert data["train"][0].image[1, 0, 0].item() > 10_000
    assert data["train"][0].image[0, 0, 0] == 0


def test_a_stated_range_goes_before_a_value_for_no_measurement(tmp_path):
    data = opened(write_set(tmp_path / "d", with_fill(-9999)), value_range=[-9999, 24])
    image = data["train"][0].image.numpy()
    assert image.min() == 0
    assert image[0, :, 3:].min() > 65_000
    assert not any("no measurement" in note for note in data.notes)


def test_a_model_reads_the_value_for_no_measurement_alike(tmp_path):
    from unetexp.data.reading.value_ranges import scaled

    root = write_set(tmp_path / "d", with_fill(1e20))
    data = opened(root)
    form = type(data.form).model_validate(data.form.tree())
    values = stored(root, "0")[np.newaxis]
    assert (scaled([values], form.of_channels())[0, :, :3] == 0).all()


def test_the_check_reports_a_value_for_no_measurement(tmp_path):
    from unetexp.data.checks.checked import check_source

    root = write_set(tmp_path / "d", with_fill(-9999))
    checked = check_source(Folder(root=str(root)))
    (finding,) = [each for each in checked.findings if each.code == "fill-values"]
    assert "-9999 (9.4% of the train pixels)" in finding.title
    assert "data.value_range=[LOW, HIGH]" in finding.mend
    plain = check_source(Folder(root=str(write_set(tmp_path / "e", with_fill()))))
    assert not [each for each in plain.findings if each.code == "fill-values"]


def test_a_set_that_was_decoded_without_regard_to_such_values_is_decoded_anew(tmp_path):
    root = write_set(tmp_path / "d", with_fill(-9999))
    data = opened(root)
    (index,) = (tmp_path / "cache").rglob("index.json")
    tree = json.loads(index.read_text())
    del tree["form"]["fills"], tree["seeks_fills"]
    tree["form"]["ranges"] = [[-9999.0, 24.0]]
    index.write_text(json.dumps(tree))
    assert opened(root).form == data.form


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int32])
def test_a_stated_value_for_no_measurement_is_0(tmp_path, dtype):
    def image(number, mask):
        values = RNG.uniform(100, 900, (SIDE, SIDE)).astype(dtype)
        values[:, :3] = 2000  # too near to be found
        return values

    root = write_set(tmp_path / "d", image)
    plain, data = opened(root), opened(root, no_data=[2000])
    assert plain.fingerprint != data.fingerprint
    assert data["val"][0].image[0, :, :3].numpy().max() == 0
    assert plain["val"][0].image[0, :, :3].numpy().min() > 1500
    top = data["val"][0].image.numpy().max() / data.image_max
    assert 0.98 < top <= 1


def test_stated_values_are_of_all_channels_or_of_each(tmp_path):
    def image(number, mask):
        values = RNG.uniform(100, 900, (SIDE, SIDE, 2)).astype(np.float32)
        values[:, :3] = 2000
        return values

    root = write_set(tmp_path / "d", image)
    sample = opened(root, no_data=[[2000], [7]])["val"][0].image.numpy()
    assert sample[0, :, :3].max() == 0
    assert sample[1, :, :3].min() == 65535
    assert opened(root, no_data=[2000])["val"][0].image.numpy()[:, :, :3].max() == 0
    with pytest.raises(DataError, match=r"data\.no_data has 3 lists and an image 2 channels"):
        opened(root, no_data=[[1], [2], [3]])
