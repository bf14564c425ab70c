"""Repaired copies of sets of several files a sample, of volumes, and what is left to a person."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from tests.support.data_sources import save_nifti, write_coco, write_manifest
from tests.support.textured import textured
from unetexp.cli.main import app
from unetexp.cli.open_data import source_of
from unetexp.data import Mni152, open_dataset
from unetexp.training.config import parse_assignments

IMAGES = "data.images={ct: ct, pet: pet}"


def check(place, *flags, settings=()):
    flags = [*flags, *(part for setting in settings for part in ("--set", setting))]
    result = CliRunner().invoke(app, ["data", "check", str(place), *map(str, flags)])
    return result.exit_code, " ".join(result.stdout.split()), " ".join(result.stderr.split())


def modalities(root, split=("train", "val"), count=6):
    """ct, pet and masks, each with the folders of splits."""
    rng = np.random.default_rng(0)
    for name in split:
        for number in range(count):
            pixels, mask = textured(rng)
            for folder, array in (("ct", pixels[..., 0]), ("pet", pixels[..., 1]), ("masks", mask)):
                path = root / folder / name / f"{name}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return root


def test_several_files_a_sample_are_mended_as_one(tmp_path):
    root, fixed = modalities(tmp_path / "set"), tmp_path / "fixed"
    for folder in ("ct", "pet", "masks"):  # train's first sample once more in val
        shutil.copy(root / folder / "train/train0.png", root / folder / "val/again.png")
    cut = root / "pet/train/train3.png"
    cut.write_bytes(cut.read_bytes()[:-100])

    _, said, _ = check(root, "--fix", fixed, settings=[IMAGES])

    assert "11 of 13" in said
    assert IMAGES in said
    code, said, _ = check(fixed, settings=[IMAGES])
    assert code == 0, said
    data = open_dataset(source_of(str(fixed), Mni152(), parse_assignments([IMAGES])))
    assert (data.channels, len(data["train"]), len(data["val"])) == (2, 5, 6)
    sample = next(s for s in data["val"] if s.name == "val2")
    np.testing.assert_array_equal(
        sample.image[1], np.asarray(Image.open(root / "pet/val/val2.png"))
    )


def test_where_some_lack_a_file_it_is_said_what_to_do(tmp_path):
    root = modalities(tmp_path / "set")
    (root / "pet/train/train1.png").unlink()
    cut = root / "ct/train/train3.png"
    cut.write_bytes(cut.read_bytes()[:-100])

    settings = [IMAGES, "data.missing=zeros"]
    code, _, refused = check(root, "--fix", tmp_path / "fixed", settings=settings)

    assert code == 2
    assert "lack a file" in refused
    assert str(cut) in refused


def volumes(root, count=4):
    rng = np.random.default_rng(0)
    for number in range(count):
        label = np.zeros((32, 36, 6), np.uint8)
        label[8:20, 6:24, 1:5] = 1
        scan = 300.0 * label + rng.normal(100, 30, label.shape).astype(np.float32)
        save_nifti(root / f"case_{number}/imaging.nii.gz", scan)
        save_nifti(root / f"case_{number}/segmentation.nii.gz", label)
    return root


def test_a_volume_that_is_there_twice_is_left_out_whole(tmp_path):
    root, fixed = volumes(tmp_path / "set"), tmp_path / "fixed"
    shutil.copytree(root / "case_0", root / "case_9")

    _, said, _ = check(root, "--fix", fixed)

    assert "4 of 5 volumes were copied" in said
    kept = sorted(path.name for path in fixed.iterdir())
    assert kept in (
        ["case_0", *(f"case_{n}" for n in (1, 2, 3))],
        [f"case_{n}" for n in (1, 2, 3, 9)],
    )
    assert "duplicates" not in check(fixed, "--json")[1]


def test_single_slices_of_a_volume_stay_and_this_is_said(tmp_path):
    root, fixed = volumes(tmp_path / "set"), tmp_path / "fixed"
    scan = np.zeros((32, 36, 6), np.float32)
    scan[..., 2:] = np.random.default_rng(9).normal(100, 30, (32, 36, 4))
    save_nifti(root / "case_1/imaging.nii.gz", scan)

    _, said, _ = check(root, "--fix", fixed)

    assert "4 of 4 volumes were copied" in said
    assert "2 slices" in said and "data.keep_empty" in said


@pytest.mark.parametrize("kind", ["pages", "coco"])
def test_what_cannot_be_copied_apart_is_told(tmp_path, kind):
    if kind == "coco":
        root, settings = write_coco(tmp_path / "set"), []
    else:
        root, settings = tmp_path / "set", ["data.pages=samples"]
        rng = np.random.default_rng(0)
        pairs = [textured(rng) for _ in range(4)]
        for folder, place in (("images", 0), ("masks", 1)):
            (root / folder).mkdir(parents=True)
            stack = np.stack([pair[place][..., 0] if place == 0 else pair[1] for pair in pairs])
            for number in range(3):
                tifffile.imwrite(root / folder / f"{number}.tif", stack, photometric="minisblack")

    code, _, refused = check(root, "--fix", tmp_path / "fixed", settings=settings)

    assert code == 2
    words = {"pages": "each page as a file", "coco": "annotation file"}
    assert "--fix" in refused and words[kind] in refused
    assert "by hand" in refused.lower()
    assert not (tmp_path / "fixed").exists()


def test_a_table_is_mended_into_folders(tmp_path):
    table = write_manifest(tmp_path / "set", rows=9)
    _, said, _ = check(table, "--fix", tmp_path / "fixed")
    assert "pairs were copied" in said
    assert (tmp_path / "fixed/train/images").is_dir()


def test_one_damaged_file_of_several_is_named_alone(tmp_path):
    root = modalities(tmp_path / "set")
    cut = root / "pet/train/train3.png"
    cut.write_bytes(cut.read_bytes()[:-100])

    _, said, _ = check(root, "--json", settings=[IMAGES])

    [finding] = json.loads(said)["findings"]
    assert (finding["code"], finding["files"]) == ("truncated", [str(cut)])


def turned_photographs(root, orientation):
    """Bright rectangles, with an EXIF tag, and masks that were drawn on the stored frame."""
    rng = np.random.default_rng(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for number in range(8):
        mask = np.zeros((48, 64), np.uint8)
        mask[4:20, 6:30] = mask[30:36, 3:9] = 1
        pixels = (rng.integers(0, 40, (48, 64, 3)) + mask[..., None] * 170).astype(np.uint8)
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / f"images/{number}.jpg", exif=exif, quality=95)
        Image.fromarray(mask).save(root / f"masks/{number}.png")
    return root


def read(root, *settings):
    data = open_dataset(source_of(str(root), Mni152(), parse_assignments(settings)))
    return {sample.name: sample for split in ("train", "val") for sample in data[split]}


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("exif", ["both", "none"])
def test_a_copy_is_read_as_the_original_with_its_settings(tmp_path, orientation, exif):
    root, fixed = turned_photographs(tmp_path / "set", orientation), tmp_path / "fixed"
    setting = f"data.exif={exif}"
    _, said, _ = check(root, "--fix", fixed, settings=[setting])
    assert "8 of 8" in said
    before, after = read(root, setting), read(fixed)
    assert before.keys() == after.keys()
    for name, sample in before.items():
        np.testing.assert_array_equal(sample.mask, after[name].mask)
        np.testing.assert_array_equal(sample.image, after[name].image)
        assert after[name].image[:, after[name].mask == 1].float().mean() > 150


def test_images_and_masks_are_not_copied_turned_apart(tmp_path):
    root, fixed = turned_photographs(tmp_path / "set", 3), tmp_path / "fixed"
    code, _, refused = check(root, "--fix", fixed)
    assert code == 2
    assert "data.exif=both" in refused
    assert not fixed.exists()


def test_names_that_become_one_stay_apart(tmp_path):
    rng = np.random.default_rng(0)
    root, fixed = tmp_path / "set", tmp_path / "fixed"
    for number in range(4):
        for name in (f"a_b/c{number}", f"a/b_c{number}"):
            pixels, mask = textured(rng)
            for folder, array in (("images", pixels), ("masks", mask)):
                path = root / folder / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    _, said, _ = check(root, "--fix", fixed)
    assert "8 of 8" in said
    assert len([*fixed.rglob("images/*.png")]) == len([*fixed.rglob("masks/*.png")]) == 8


@pytest.mark.parametrize("what", ["a table that names a missing file", "an unknown layout"])
def test_json_is_one_document_where_a_set_cannot_be_opened(tmp_path, what):
    root = tmp_path / "set"
    if what == "an unknown layout":
        (root / "somewhere").mkdir(parents=True)
        (root / "somewhere/notes.txt").write_text("no image")
    else:
        root = modalities(root) / "table.csv"
        root.write_text("image,mask\nct/train/gone.png,masks/train/train0.png\n")
    code, said, _ = check(root, "--json")
    assert code == 2
    tree = json.loads(said)
    assert (tree["pairs"], tree["exit_code"]) == (0, 2)
    (finding,) = tree["findings"]
    assert (finding["code"], finding["severity"]) == ("not-opened", "error")
    assert "gone.png" in finding["title"] or str(root) in finding["title"]
