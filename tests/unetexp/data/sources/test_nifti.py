"""Slices of NIfTI volumes against the arrays of nibabel, and mistakes in volumes."""

import gzip
import json

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import unetexp
from tests.support.data_sources import save_nifti, volume_pair, write_nifti
from tests.support.small_config import config_with
from unetexp.data import Nifti, open_dataset
from unetexp.data.volumes.intensity import WINDOWS, Scale, robust_range
from unetexp.data.volumes.slices import resampled_labels
from unetexp.errors import ConfigError, DataError

CASE = "lung_001"
LPS = np.diag([-0.7, -0.7, 2.0, 1.0])  # as CT is stored: left, posterior, superior


def listed_slices(root, **fields):
    """All samples by name and the reader of a source."""
    source = Nifti(root=str(root), **fields)
    reader = source.reader()
    return {sample.name: sample for sample in source.listing().samples()}, reader


def canonical(root, folder, case=CASE):
    path = root / folder / f"{case}.nii.gz"
    return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)


def planes(volume):
    """An axial, a coronal and a sagittal slice (H, W) as radiology shows them: the head up."""
    return {
        "axial": volume[:, :, 7].T[::-1],
        "coronal": volume[:, 7, :].T[::-1],
        "sagittal": volume[7, :, :].T[::-1],
    }


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("affine", [np.eye(4), LPS, np.eye(4)[[2, 0, 1, 3]]])
def test_slices_are_those_of_the_volume_in_ras(tmp_path, axis, affine):
    root = write_nifti(tmp_path, affine=affine)
    samples, reader = listed_slices(root, axis=axis, window="lung")
    sample = samples[f"{CASE}_{axis}_007"]
    assert sample.group == CASE
    np.testing.assert_array_equal(reader.mask(sample), planes(canonical(root, "labelsTr"))[axis])
    low, high = -1350, 150
    scaled = (planes(canonical(root, "imagesTr"))[axis].astype(np.float64) - low) / (high - low)
    image = reader.image(sample)
    assert (image.shape[0], image.dtype) == (1, np.uint8)
    np.testing.assert_allclose(image[0], 255 * scaled.clip(0, 1), atol=0.5001)


def test_a_window_is_two_numbers_or_a_name(tmp_path):
    root = write_nifti(tmp_path, cases=3)
    by_name = Nifti(root=str(root), window="bone")
    by_numbers = Nifti(root=str(root), window=[-500, 1300])
    assert by_name.reader().name == by_numbers.reader().name
    assert by_numbers.tree()["window"] == [-500, 1300]
    with pytest.raises(ConfigError, match=r"'lungs' is not a window. Did you mean 'lung'"):
        unetexp.decode_config({"data": {"kind": "nifti", "root": "x", "window": "lungs"}})
    with pytest.raises(ConfigError, match="the lower first"):
        unetexp.decode_config({"data": {"kind": "nifti", "root": "x", "window": [100, -100]}})


def test_ct_without_a_window_keeps_16_bits_and_is_told_of(tmp_path):
    root = write_nifti(tmp_path, cases=3)
    samples, reader = listed_slices(root)
    image = reader.image(samples[f"{CASE}_axial_007"])[0]
    stored = planes(canonical(root, "imagesTr"))["axial"].astype(np.float64)
    expected = 65535 * ((stored + 1000) / 2000).clip(0, 1)
    assert image.dtype == np.uint16
    np.testing.assert_allclose(image, expected, atol=0.51)
    notes = " ".join(Nifti(root=str(root)).listing().notes)
    assert "-1000 to 1000 Hounsfield units" in notes
    assert "in 16 bits" in notes
    assert "data.window=soft_tissue" in notes


def test_ct_is_also_known_by_its_air(tmp_path):
    root = write_nifti(tmp_path, cases=3)
    (root / "dataset.json").unlink()
    assert any("Hounsfield" in note for note in Nifti(root=str(root)).listing().notes)


def write_mri(root, cases=3):
    """images/ and masks/ of volumes with air of 0 and one hot voxel. Returns `root`."""
    rng = np.random.default_rng(0)
    for number in range(cases):
        scan, label = volume_pair(rng, base=300.0)
        scan[:3] = 0
        scan[10, 10, 5] = 1e6
        save_nifti(root / "images" / f"head{number}.nii.gz", scan)
        save_nifti(root / "masks" / f"head{number}.nii.gz", label)
    return root


def test_mri_is_scaled_by_percentiles_of_its_volume(tmp_path):
    root = write_mri(tmp_path)
    samples, reader = listed_slices(root)
    stored = canonical(root, "images", "head1")
    low, high = np.percentile(stored[stored != 0], [0.5, 99.5])
    expected = 255 * ((planes(stored)["axial"] - low) / (high - low)).clip(0, 1)
    image = reader.image(samples["head1_axial_007"])[0]
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image, expected, atol=0.51)
    assert any("percentiles 0.5 to 99.5" in note for note in Nifti(root=str(root)).listing().notes)


def test_no_number_and_constant_volumes_become_zeros():
    scale = Scale(None, 8)
    assert not scale.pixels(scale.unit(np.full((4, 4, 4), np.nan, np.float32))).any()
    assert not scale.unit(np.full((4, 4, 4), 7, np.float32)).any()
    assert robust_range(np.zeros((2, 2, 2), np.float32)) == (0.0, 1.0)


def test_slices_are_resampled_to_square_pixels_with_labels_kept(tmp_path):
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    root = write_nifti(tmp_path, affine=affine)
    assert any("3 x 1 mm" in note for note in Nifti(root=str(root), axis="coronal").listing().notes)
    samples, reader = listed_slices(root, axis="coronal", spacing_mm=1, window="lung")
    sample = samples[f"{CASE}_coronal_007"]
    image, mask = reader.image(sample), reader.mask(sample)
    assert image.shape == (1, 30, 20)
    stored = planes(canonical(root, "labelsTr"))["coronal"]
    np.testing.assert_array_equal(mask, stored.repeat(3, axis=0))
    scan = (planes(canonical(root, "imagesTr"))["coronal"] + 1350) / 1500
    np.testing.assert_allclose(image[0, 1::3], 255 * scan.clip(0, 1), atol=1)


@pytest.mark.parametrize(
    ("fields", "pixel"),
    [
        ({"axis": "axial"}, (0.7, 0.8)),
        ({"axis": "coronal"}, (2.0, 0.8)),
        ({"axis": "sagittal", "resize": 16}, (2.0, 0.7)),
        ({"axis": "coronal", "spacing_mm": 1.5}, (10 * 2 / 13, 20 * 0.8 / 11)),
    ],
)
def test_the_size_of_pixels_is_that_of_the_header(tmp_path, fields, pixel):
    root = write_nifti(tmp_path, cases=2, affine=np.diag([-0.8, -0.7, 2.0, 1.0]))
    source = Nifti(root=str(root), **fields)
    names = [sample.name for sample in source.listing().samples()]
    found = source.spacings_mm(names)
    assert list(found) == names
    assert all(each == pytest.approx(pixel) for each in found.values())


@settings(max_examples=40, deadline=None)
@given(
    old=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    new=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    seed=st.integers(0, 9),
)
def test_resampled_labels_are_those_of_the_nearest_pixel(old, new, seed):
    labels = np.random.default_rng(seed).integers(0, 255, (2, *old)).astype(np.uint8)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(labels)[None].double(), new, mode="nearest-exact"
    )[0]
    np.testing.assert_array_equal(resampled_labels(labels, new), expected.numpy())


def test_no_volume_is_in_two_splits(tmp_path):
    data = open_dataset(Nifti(root=str(write_nifti(tmp_path, cases=8)), test_fraction=0.2))
    cases = {name: {each[:8] for each in split.names} for name, split in data.splits.items()}
    assert set(cases) == {"train", "val", "test"}
    assert sum(len(each) for each in cases.values()) == 8
    assert all(cases.values())


def test_one_volume_is_refused_with_what_helps(tmp_path):
    root = write_nifti(tmp_path, cases=1)
    with pytest.raises(DataError, match=r"one volume cannot be split: add labelled") as error:
        open_dataset(Nifti(root=str(root)))
    assert "group_pattern" not in str(error.value)


def test_nnunets_files_are_channels(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        scan, label = volume_pair(rng, base=200.0)
        for channel in range(2):
            path = tmp_path / "imagesTr" / f"brats_{number}_{channel:04d}.nii.gz"
            save_nifti(path, scan * (channel + 1))
        save_nifti(tmp_path / "labelsTr" / f"brats_{number}.nii.gz", np.where(label == 2, 3, label))
    content = {
        "channel_names": {"0": "FLAIR", "1": "T1"},
        "labels": {"background": 0, "edema": 1, "core": 2, "ignore": 3},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    source = Nifti(root=str(tmp_path))
    listing, reader = source.listing(), source.reader()
    sample = next(each for each in listing.unsplit if each.name == "brats_1_axial_005")
    assert [path.name for path in sample.images] == ["brats_1_0000.nii.gz", "brats_1_0001.nii.gz"]
    assert reader.image(sample).shape[0] == 2
    assert set(np.unique(reader.mask(sample))) <= {0, 1, 255}
    assert listing.class_names == ("background", "edema", "core")
    assert any(note.startswith("FLAIR: each volume's percentiles") for note in listing.notes)


def test_a_fourth_axis_that_dataset_json_names_is_channels(tmp_path):
    root = write_nifti(tmp_path, cases=3)
    for path in (root / "imagesTr").iterdir():
        scan = np.asarray(nibabel.load(path).dataobj)
        save_nifti(path, np.stack([scan, -scan], axis=3))
    (root / "dataset.json").write_text(json.dumps({"modality": {"0": "T1", "1": "T2"}}))
    samples, reader = listed_slices(root)
    assert reader.image(samples[f"{CASE}_axial_003"]).shape == (2, 24, 20)
    (root / "dataset.json").unlink()
    with pytest.raises(
        DataError, match=r"lung_000.nii.gz: this volume has 4 axes \(20 x 24 x 10 x 2\)"
    ):
        open_dataset(Nifti(root=str(root)))


@pytest.mark.parametrize("place", ["", "a"])
def test_labels_beside_their_volumes_are_found(tmp_path, place):
    rng = np.random.default_rng(0)
    for number in range(3):
        scan, label = volume_pair(rng)
        folder = tmp_path / (f"{place}{number}" if place else "")
        save_nifti(folder / f"x{number}.nii.gz", scan)
        save_nifti(folder / f"x{number}_seg.nii.gz", label)
    assert Nifti.looks_like(tmp_path)
    names = {sample.group for sample in Nifti(root=str(tmp_path)).listing().unsplit}
    assert names == {"x0", "x1", "x2"}


def test_a_folder_each_case_opens_and_what_is_left_out_is_said(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        scan, label = volume_pair(rng, base=200.0)
        folder = tmp_path / f"case_{number}"
        for name, array in (("t1", scan), ("t2", -scan), ("segmentation", label)):
            save_nifti(folder / f"{name}.nii.gz", array)
        save_nifti(folder / "old_seg.nii.gz", label)
    data = open_dataset(Nifti(root=str(tmp_path)))
    assert (data.channels, sum(map(len, data.splits.values()))) == (2, 30)
    assert any(note.startswith("t2: each volume's percentiles") for note in data.notes)
    assert any("3 NIfTI files belong to no" in note for note in data.notes)


def two_channels(root, name, lacking):
    rng = np.random.default_rng(0)
    for number in range(5):
        scan, label = volume_pair(rng, base=200.0)
        for channel in range(2):
            if (number, channel) != lacking:
                save_nifti(root / name.format(n=number, c=channel), scan * (channel + 1))
        save_nifti(root / f"labelsTr/c{number}.nii.gz", label)


@pytest.mark.parametrize("lacking", [(2, 1), (0, 1), (0, 0)])
def test_zeros_stand_for_a_missing_channel_where_they_are_asked_for(tmp_path, lacking):
    two_channels(tmp_path, "imagesTr/c{n}_{c:04d}.nii.gz", lacking)
    case, channel = lacking
    with pytest.raises(DataError, match=rf"but c{case} 1 \(.*--set data\.missing=zeros"):
        open_dataset(Nifti(root=str(tmp_path)))
    source = Nifti(root=str(tmp_path), missing="zeros")
    data = open_dataset(source)
    assert data.channels == 2
    assert any(f"c{case} lacks {channel:04d}" in note for note in data.notes)
    samples, reader = listed_slices(tmp_path, missing="zeros")
    for name, sample in samples.items():
        image = reader.image(sample)
        zero = [not plane.any() for plane in image]
        assert zero == [name.startswith(f"c{case}_") and c == channel for c in range(2)]
    there = reader.image(samples[f"c{case}_axial_007"])[1 - channel]
    stored = planes(canonical(tmp_path, "imagesTr", f"c{case}_{1 - channel:04d}"))
    assert np.corrcoef(there.ravel(), stored["axial"].ravel())[0, 1] > 0.9


def test_zeros_stand_for_a_missing_volume_of_a_case_s_folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(4):
        scan, label = volume_pair(rng, base=200.0)
        for name, array in (("t1", scan), ("t2", -scan), ("segmentation", label)):
            if (number, name) != (1, "t1"):
                save_nifti(tmp_path / f"case_{number}" / f"{name}.nii.gz", array)
    with pytest.raises(DataError, match=r"but case_1 1 \(t2.nii.gz\).*data\.missing=zeros"):
        Nifti(root=str(tmp_path)).listing()
    samples, reader = listed_slices(tmp_path, missing="zeros")
    image = reader.image(samples["case_1_axial_005"])
    assert not image[0].any()
    assert image[1].any()


def test_volumes_of_other_names_are_no_missing_channels(tmp_path):
    two_channels(tmp_path, "imagesTr/c{n}_{c:04d}.nii.gz", (2, 1))
    (tmp_path / "imagesTr/c2_0000.nii.gz").rename(tmp_path / "imagesTr/c2.nii.gz")
    with pytest.raises(DataError, match=r"but c2 1 \(c2.nii.gz\).*name them alike") as error:
        open_dataset(Nifti(root=str(tmp_path), missing="zeros"))
    assert "data.missing" not in str(error.value)


def test_slices_without_foreground_can_be_left_out(tmp_path):
    root = write_nifti(tmp_path, cases=4)
    filled = canonical(root, "labelsTr").any(axis=(0, 1))
    assert 0 < filled.sum() < 10

    def kept(**fields):
        listing = Nifti(root=str(root), **fields).listing()
        return [int(s.name[-3:]) for s in listing.unsplit if s.group == CASE], listing.notes

    indices, notes = kept(keep_empty=0)
    assert indices == np.flatnonzero(filled).tolist()
    assert any("slices are left out" in note for note in notes)
    assert len(kept(keep_empty=0.5)[0]) == filled.sum() + (10 - filled.sum()) // 2
    share = (canonical(root, "labelsTr") > 0).mean(axis=(0, 1))
    assert kept(min_foreground=0.3)[0] == np.flatnonzero(share >= 0.3).tolist()
    assert len(kept()[0]) == 10
    with pytest.raises(DataError, match=r"no slice is left.*data.min_foreground"):
        kept(min_foreground=0.99)


def test_split_folders_are_the_splits(tmp_path):
    for split, cases in (("train", 2), ("val", 1)):
        write_mri(tmp_path / split, cases)
    listing = Nifti(root=str(tmp_path)).listing()
    assert {name: len(each) for name, each in listing.splits.items()} == {"train": 20, "val": 10}


def mistake(root, folder, change, case=CASE):
    path = root / folder / f"{case}.nii.gz"
    volume = nibabel.load(path)
    array, affine = change(np.asarray(volume.dataobj), volume.affine.copy())
    save_nifti(path, array, affine)


def moved(affine, millimetres):
    affine[0, 3] += millimetres
    return affine


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        ("labelsTr", lambda a, f: (a[:, :-1], f), r"has 20 x 23 x 10 voxels, .* 20 x 24 x 10"),
        ("labelsTr", lambda a, f: (a, moved(f, 5)), r"up to 5.0 mm away .*data.affines=ignore"),
        ("labelsTr", lambda a, f: (a, np.diag([-1.0, 1, 1, 1])), r"up to 19.0 mm away"),
        ("labelsTr", lambda a, f: (a * 0.5, f), r"holds 0.5, which is no whole number"),
        ("labelsTr", lambda a, f: (a.astype(np.int16) - 1, f), r"the label holds -1"),
        ("labelsTr", lambda a, f: (a.astype(np.int16) * 500, f), r"the label holds 1000"),
        ("imagesTr", lambda a, f: (a[..., None].repeat(3, 3), f), r"4 axes .*channel_names"),
        ("imagesTr", lambda a, f: (a[:, :, 0], f), r"2 axes \(20 x 24\)"),
    ],
)  # fmt: skip
def test_volumes_that_do_not_fit_are_named(tmp_path, folder, change, message):
    root = write_nifti(tmp_path, cases=3)
    mistake(root, folder, change)
    with pytest.raises(DataError, match=message) as error:
        open_dataset(Nifti(root=str(root), window="lung"))
    assert CASE in str(error.value)


def test_a_wrong_header_can_be_ignored(tmp_path):
    root = write_nifti(tmp_path, cases=3)
    mistake(root, "labelsTr", lambda a, f: (a, moved(f, 5)))
    samples, reader = listed_slices(root, affines="ignore")
    stored = planes(canonical(root, "labelsTr"))["axial"]
    np.testing.assert_array_equal(reader.mask(samples[f"{CASE}_axial_007"]), stored)


ORIENTATIONS = ["LAS", "RPI", "PIR", "SLA"]


def restored(array, affine, codes):
    """The same voxels in the same places, stored with axes in other directions."""
    image = nibabel.Nifti1Image(array, affine)
    wanted = nibabel.orientations.axcodes2ornt(codes)
    turn = nibabel.orientations.ornt_transform(nibabel.orientations.io_orientation(affine), wanted)
    turned = image.as_reoriented(turn)
    return np.asarray(turned.dataobj), turned.affine


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("folder", ["labelsTr", "imagesTr"])
def test_a_label_with_other_directions_of_its_axes_lies_where_it_is(tmp_path, folder, codes):
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    affine[:3, 3] = (-7, 3, 11)
    root = write_nifti(tmp_path, cases=3, affine=affine)
    expected = planes(canonical(root, "labelsTr"))["axial"]
    assert (expected != expected[:, ::-1]).any()
    for number in range(3):
        mistake(root, folder, lambda a, f: restored(a, f, codes), f"lung_{number:03d}")
    samples, reader = listed_slices(root)
    sample = samples[f"{CASE}_axial_007"]
    np.testing.assert_array_equal(reader.mask(sample), expected)
    open_dataset(Nifti(root=str(root)))


def test_known_voxels_keep_their_places(tmp_path):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    mirrored = np.diag([-1.0, 1.0, 2.0, 1.0])
    mirrored[0, 3] = 23
    scan, label = np.zeros((24, 20, 6), np.float32), np.zeros((24, 20, 6), np.uint8)
    scan[2, 5, 3], label[2, 5, 3] = 300, 1
    for number in range(3):
        save_nifti(tmp_path / f"imagesTr/c{number}.nii.gz", scan, affine)
        save_nifti(tmp_path / f"labelsTr/c{number}.nii.gz", label[::-1].copy(), mirrored)
    samples, reader = listed_slices(tmp_path, window="soft_tissue")
    sample = samples["c1_axial_003"]
    assert [*map(tuple, np.argwhere(reader.mask(sample)))] == [(20 - 1 - 5, 2)]
    image = reader.image(sample)[0]
    assert [*map(tuple, np.argwhere(image == image.max()))] == [(20 - 1 - 5, 2)]
    _, as_stored = listed_slices(tmp_path, affines="ignore")
    assert [*map(tuple, np.argwhere(as_stored.mask(sample)))] == [(20 - 1 - 5, 24 - 1 - 2)]


def test_a_label_that_is_turned_and_moved_is_refused(tmp_path):
    root = write_nifti(tmp_path, cases=3)

    def change(array, affine):
        turned, stored = restored(array, affine, "PIR")
        return turned, moved(stored, 4)

    mistake(root, "labelsTr", change)
    with pytest.raises(DataError, match=r"up to 4.0 mm away from its volume lung_001"):
        open_dataset(Nifti(root=str(root), window="lung"))


def test_a_volume_that_was_cut_off_is_named(tmp_path):
    root = write_nifti(tmp_path, cases=3)
    path = root / "imagesTr" / f"{CASE}.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=rf"{CASE}.nii.gz: .*truncated or damaged"):
        open_dataset(Nifti(root=str(root), window="lung"))
    path.write_bytes(gzip.compress(b"no volume"))
    with pytest.raises(DataError, match=rf"{CASE}.nii.gz: this file is no NIfTI volume"):
        open_dataset(Nifti(root=str(root), window="lung"))


def test_volumes_without_a_partner_are_named(tmp_path):
    root = write_nifti(tmp_path, cases=3)
    (root / "labelsTr/lung_001.nii.gz").unlink()
    with pytest.raises(DataError, match=r"1 of the 3 volumes .* no label in .*: lung_001"):
        Nifti(root=str(root)).listing()
    (root / "labelsTr/lung_002.nii.gz").rename(root / "labelsTr/lnug_002.nii.gz")
    with pytest.raises(DataError, match=r"no volume in .*: lnug_002. Did you mean 'lung_002'"):
        Nifti(root=str(root)).listing()


def test_a_folder_without_volumes_says_what_is_wanted(tmp_path):
    assert not Nifti.looks_like(tmp_path)
    with pytest.raises(DataError, match="no pairs of NIfTI volumes"):
        Nifti(root=str(tmp_path)).listing()
    with pytest.raises(DataError, match="does not exist"):
        Nifti(root=str(tmp_path / "nowhere")).listing()


def test_a_damaged_dataset_json_is_named(tmp_path):
    root = write_nifti(tmp_path, cases=3)
    (root / "dataset.json").write_text('{"labels": ["a"]}')
    with pytest.raises(DataError, match=r"dataset.json: this file is damaged or of another form"):
        Nifti(root=str(root)).listing()


def test_it_trains(tmp_path):
    root = write_nifti(tmp_path, cases=3, shape=(40, 40, 6))
    tree = {"kind": "nifti", "root": str(root), "window": "lung"}
    config = config_with(data=tree, epochs=1)
    data = open_dataset(config.data)
    assert data.class_names == ("background", "lung", "tumour")
    assert data.channels == 1
    state = unetexp.TrainState(config, data, torch.device("cpu"))
    (report,) = unetexp.fit(config, data, state)
    assert 0 <= report.metrics["val/miou"] <= 1


def test_presets_are_centres_and_widths():
    centres = {name: ((low + high) / 2, high - low) for name, (low, high) in WINDOWS.items()}
    assert centres["lung"] == (-600, 1500)
    assert centres["soft_tissue"] == (40, 400)
    assert centres["bone"] == (400, 1800)
