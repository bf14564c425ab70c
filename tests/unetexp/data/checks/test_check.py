"""Each planted fault is found, told and mended."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.support.textured import write_textured
from unetexp.cli.main import app
from unetexp.data import Folder
from unetexp.data.checks.checked import check_source
from unetexp.data.checks.finding import exit_code


def found(root, **settings):
    return {f.code: f for f in check_source(Folder(root=str(root), **settings)).findings}


def image(root, split="train", number=0):
    return sorted((root / split / "images").iterdir())[number]


def mask(root, split="train", number=0):
    return sorted((root / split / "masks").iterdir())[number]


def copied(root, change, to="val", name="planted", suffix=".png", **options):
    """Train's first pair once more in another split, changed in the same way."""
    for path, folder in ((image(root), "images"), (mask(root), "masks")):
        pixels = np.ascontiguousarray(change(np.asarray(Image.open(path)), folder))
        ending, extra = (suffix, options) if folder == "images" else (".png", {})
        Image.fromarray(pixels).save(root / to / folder / f"{name}{ending}", **extra)


def cut(root):
    path = image(root)
    path.write_bytes(path.read_bytes()[:-200])


def no_image(root):
    image(root).write_bytes(b"this is no image")


def unpaired(root):
    mask(root).unlink()


def narrower(root):
    Image.open(mask(root)).crop((0, 0, 60, 64)).save(mask(root))


def same_twice(root):
    copied(root, lambda pixels, _: pixels)


def same_twice_within(root):
    copied(root, lambda pixels, _: pixels, to="train")


def other_mask(root):
    copied(root, lambda pixels, kind: pixels if kind == "images" else np.roll(pixels, 9, 0))


def jpeg(root):
    copied(root, lambda pixels, _: pixels, suffix=".jpg", quality=60)


def flipped(root):
    copied(root, lambda pixels, _: pixels[:, ::-1])


def upside_down(root):
    copied(root, lambda pixels, _: pixels[::-1])


def quarter_turn(root):
    copied(root, lambda pixels, _: np.rot90(pixels))


def cropped(root):
    copied(root, lambda pixels, _: pixels[3:61, 5:63])


def brighter(root):
    change = lambda pixels, kind: (  # noqa: E731
        (pixels * 1.15 + 10).clip(0, 255).astype(np.uint8) if kind == "images" else pixels
    )
    copied(root, change)


def turned_within(root):
    copied(root, lambda pixels, _: np.rot90(pixels), to="train")


def stray_value(root):
    pixels = np.array(Image.open(mask(root)))
    pixels[30:36, 30:36] = 77
    Image.fromarray(pixels).save(mask(root))


def all_void(root):
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(mask(root))


def one_class_less(root):
    for path in (root / "val/masks").iterdir():
        pixels = np.array(Image.open(path))
        pixels[pixels == 2] = 1
        Image.fromarray(pixels).save(path)


def specks(root):
    for folder in ("train", "val", "test"):
        for path in (root / folder / "masks").iterdir():
            pixels = np.array(Image.open(path))
            pixels[pixels == 2] = 1
            pixels[5::12, 5::12] = 2
            pixels[6::12, 5::12] = 2
            Image.fromarray(pixels).save(path)


def few_pixels(root):
    pixels = np.zeros((64, 64), np.uint8)
    pixels[9, 9] = 1
    Image.fromarray(pixels).save(mask(root))


def empty(root):
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(mask(root))


def tagged(root):
    picture = Image.open(image(root))
    exif = picture.getexif()
    exif[0x0112] = 3
    picture.save(image(root), exif=exif)


def hot_pixel(root):
    for number, path in enumerate((root / "train/images").iterdir()):
        pixels = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 4
        if number == 0:
            pixels[3, 3] = 65535
        Image.fromarray(pixels).save(path)


def grey(root):
    Image.open(image(root)).convert("L").convert("RGB").save(image(root))


def constant(root):
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(image(root))


def dim(root):
    for path in root.glob("*/images/*"):
        Image.fromarray(np.asarray(Image.open(path)) // 6).save(path)


def patients(root):
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            for number, path in enumerate(sorted((root / split / folder).iterdir())):
                shutil.move(path, path.with_name(f"patient{number % 3}_slice{split}{number}.png"))


FAULTS = [
    (cut, "truncated", 2),
    (no_image, "unreadable", 2),
    (unpaired, "unpaired", 2),
    (narrower, "size-mismatch", 2),
    (same_twice, "duplicates-across-splits", 2),
    (same_twice_within, "duplicates", 1),
    (other_mask, "conflicting-duplicates", 2),
    (jpeg, "near-duplicates-across-splits", 2),
    (flipped, "near-duplicates-across-splits", 2),
    (upside_down, "near-duplicates-across-splits", 2),
    (quarter_turn, "near-duplicates-across-splits", 2),
    (cropped, "near-duplicates-across-splits", 2),
    (brighter, "near-duplicates-across-splits", 2),
    (turned_within, "near-duplicates", 1),
    (stray_value, "wrong-labels", 2),
    (all_void, "void-masks", 1),
    (one_class_less, "class-missing", 2),
    (specks, "small-objects", 1),
    (few_pixels, "near-empty-masks", 1),
    (empty, "empty-masks", 1),
    (tagged, "exif-orientation", 1),
    (hot_pixel, "hot-pixels", 1),
    (grey, "grey-as-colour", 0),
    (constant, "constant-images", 1),
    (dim, "unused-range", 1),
    (patients, "suspected-group-leak", 1),
]


@pytest.mark.parametrize(("plant", "code", "exits"), FAULTS, ids=[f[0].__name__ for f in FAULTS])
def test_a_planted_fault_is_found(tmp_path, plant, code, exits):
    root = write_textured(tmp_path / "set")
    plant(root)

    findings = found(root)

    assert code in findings
    assert exit_code(list(findings.values())) >= exits
    if code.startswith("near-duplicates"):
        assert set(findings) == {code}
        assert len(findings[code].files) == 2
        assert image(root).name in " ".join(findings[code].files)


def test_a_fault_does_not_hide_another(tmp_path):
    root = write_textured(tmp_path / "set")
    cut(root)
    mask(root, number=3).unlink()
    constant(root / ".")
    same_twice_within(root)
    Image.open(image(root, number=5)).save(root / "test/images/copy.png")
    Image.open(mask(root, number=5)).save(root / "test/masks/copy.png")

    assert {"unpaired", "duplicates-across-splits"} <= set(found(root))


def test_a_split_that_is_drawn_is_checked_for_leaks(tmp_path):
    root = write_textured(tmp_path / "set", splits={"": 12})
    for path in sorted((root / "images").iterdir()):
        shutil.copy(path, path.with_name(f"again_{path.name}"))
        twin = root / "masks" / path.name
        shutil.copy(twin, twin.with_name(f"again_{path.name}"))

    assert "duplicates-across-splits" in found(root)


def test_a_group_that_spans_splits_is_told(tmp_path):
    root = write_textured(tmp_path / "set", splits={"train": 8, "val": 4})
    patients(root)

    findings = found(root, group_pattern=r"^(patient\d)_")

    assert findings["group-leak"].numbers["groups"] == 3


def test_json_is_all_that_is_printed(tmp_path):
    root = write_textured(tmp_path / "set")
    same_twice(root)

    result = CliRunner().invoke(app, ["data", "check", str(root), "--json"])

    tree = json.loads(result.stdout)
    assert result.exit_code == 2
    assert tree["pairs"] == 21
    (finding,) = tree["findings"]
    assert finding["code"] == "duplicates-across-splits"
    assert finding["severity"] == "error"
    assert finding["why"] and finding["mend"] and len(finding["files"]) == 2


def test_the_page_holds_pictures_of_the_offenders(tmp_path):
    root, page = write_textured(tmp_path / "set"), tmp_path / "page.html"
    jpeg(root)

    result = CliRunner().invoke(app, ["data", "check", str(root), "--html", str(page)])

    assert result.exit_code == 2
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 2
    assert "http" not in text.replace("http-equiv", "")


def test_the_repaired_copy_is_clean_and_the_original_unchanged(tmp_path):
    root, fixed = write_textured(tmp_path / "set"), tmp_path / "fixed"
    same_twice(root)
    cut(root / ".")
    tagged_path = image(root, number=4)
    picture = Image.open(tagged_path)
    exif = picture.getexif()
    exif[0x0112] = 6
    upright = np.asarray(picture)
    picture.rotate(90, expand=True).save(tagged_path, exif=exif)
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}

    result = CliRunner().invoke(app, ["data", "check", str(root), "--fix", str(fixed)])

    assert "left out" in result.stdout
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before
    assert found(fixed) == {}
    stored = np.asarray(Image.open(fixed / "train/images" / f"{tagged_path.stem}.png"))
    np.testing.assert_array_equal(stored, upright)


@pytest.mark.parametrize("place", ["set/fixed", "full"])
def test_a_repaired_copy_goes_into_a_new_folder_elsewhere(tmp_path, place):
    root = write_textured(tmp_path / "set")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")

    result = CliRunner().invoke(app, ["data", "check", str(root), "--fix", str(tmp_path / place)])

    assert result.exit_code == 2
    assert "--fix" in result.stderr
    assert not (root / "fixed").exists()
