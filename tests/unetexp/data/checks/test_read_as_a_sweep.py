"""The check reads masks as a sweep does, with the same settings."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

from tests.support.textured import write_textured
from unetexp.cli.main import app
from unetexp.data import Folder, open_dataset

NONZERO = "data.label_map={0: 0, nonzero: 1}"
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)


def check(place, *settings):
    """The exit code and the findings as JSON, with the findings by their code."""
    flags = [part for setting in settings for part in ("--set", setting)]
    result = CliRunner().invoke(app, ["data", "check", str(place), "--json", *flags])
    assert result.stdout, result.stderr
    tree = json.loads(result.stdout)
    return result.exit_code, tree, {f["code"]: f for f in tree["findings"]}


def with_masks(root, change, suffix=".png"):
    """A textured set whose masks are changed; returns its folder."""
    for path in sorted(write_textured(root).glob("*/masks/*")):
        stored = change(np.asarray(Image.open(path)))
        path.unlink()
        Image.fromarray(stored).save(path.with_suffix(suffix))
    return root


def colours(mask):
    return COLOURS[mask]


def wide(mask):
    return mask.astype(np.uint16) * np.uint16(700)


def black_and_white(mask):
    return ((mask > 0) * 255).astype(np.uint8)


def from_one(mask):
    """Classes 1 to 3, and 0 in three rows."""
    stored = (mask + 1).astype(np.uint8)
    stored[:3] = 0
    return stored


SETS = {
    "colours": (colours, ".png", (), ["000000", "00ff00", "ff0000"]),
    "colours merged": (
        *(colours, ".png"),
        ("data.label_map={'#000000': 0, '#ff0000': 1, '#00ff00': 1}",),
        ["0", "1"],
    ),
    "one colour ignored": (colours, ".png", ("data.ignore='#00ff00'",), ["000000", "ff0000"]),
    "16 bits": (wide, ".png", (NONZERO,), ["0", "1"]),
    "JPEG": (black_and_white, ".jpg", (), ["0", "1"]),
    "ignored": (from_one, ".png", ("data.ignore=0",), ["0", "1", "2"]),
}


@pytest.mark.parametrize("name", SETS)
def test_classes_and_shares_are_those_of_the_data_set(tmp_path, monkeypatch, name):
    change, suffix, settings, names = SETS[name]
    root = with_masks(tmp_path / "set", change, suffix)
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))

    code, tree, findings = check(root, *settings)

    assert (code, findings) == (0, {})
    assert list(tree["classes"]) == names
    given = {s.split("=", 1)[0].removeprefix("data."): s.split("=", 1)[1] for s in settings}
    data = open_dataset(Folder(root=str(root), **given))
    pixels = sum(split.class_pixels for split in data.splits.values())
    np.testing.assert_allclose(list(tree["classes"].values()), pixels / pixels.sum())
    assert set(data.notes) <= set(tree["notes"])


@pytest.mark.parametrize(("change", "suffix"), [(wide, ".png"), (colours, ".jpg")])
def test_what_a_sweep_refuses_is_an_error_and_the_images_are_checked(tmp_path, change, suffix):
    root = with_masks(tmp_path / "set", change, suffix)
    first = sorted((root / "train/images").iterdir())[0]
    Image.open(first).save(root / "val/images/copy.png")
    mask = next((root / "train/masks").glob(f"{first.stem}.*"))
    (root / f"val/masks/copy{suffix}").write_bytes(mask.read_bytes())

    code, _, findings = check(root)

    assert code == 2
    assert set(findings) == {"wrong-labels", "duplicates-across-splits"}
    assert "--set 'data.label_map=" in findings["wrong-labels"]["mend"]


def test_one_damaged_mask_among_colours_is_told_and_the_rest_is_read(tmp_path):
    root = with_masks(tmp_path / "set", colours)
    damaged = sorted((root / "train/masks").iterdir())[2]
    damaged.write_bytes(damaged.read_bytes()[:-100])

    code, tree, findings = check(root)

    assert code == 2
    assert set(findings) == {"truncated"}
    assert findings["truncated"]["files"] == [str(damaged)]
    assert len(tree["classes"]) == 3


def test_a_colour_that_the_map_leaves_out_names_the_mask(tmp_path):
    root = with_masks(tmp_path / "set", colours)
    stray = sorted((root / "train/masks").iterdir())[4]
    pixels = np.array(Image.open(stray))
    pixels[:4, :4] = (9, 9, 200)
    Image.fromarray(pixels).save(stray)

    code, _, findings = check(root, "data.label_map={'#000000': 0, '#ff0000': 1, '#00ff00': 2}")

    assert code == 2
    assert findings["wrong-labels"]["files"] == [str(stray)]
    assert "#0909c8" in findings["wrong-labels"]["mend"]


def test_numbers_of_objects_are_told(tmp_path):
    def objects(mask):
        rng = np.random.default_rng(int(mask.sum()))
        stored = np.zeros_like(mask)
        for number in range(int(rng.integers(4, 13))):
            top, left = 16 * (number // 4), 16 * (number % 4)
            stored[top + 2 : top + 12, left + 2 : left + 12] = number + 1
        return stored

    root = with_masks(tmp_path / "set", objects)

    code, _, findings = check(root)
    mended, *_ = check(root, NONZERO)

    assert code == 2
    assert "numbers of objects" in findings["wrong-labels"]["mend"]
    assert mended == 0


def test_smoothed_masks_are_one_finding(tmp_path):
    def smoothed(mask):
        soft = ndimage.gaussian_filter(black_and_white(mask), 2) // 3 * 3  # with gaps
        return np.where(soft > 240, 255, soft).astype(np.uint8)

    root = with_masks(tmp_path / "set", smoothed)

    code, tree, findings = check(root)

    assert code == 2
    assert len(tree["findings"]) == 1
    assert "{0..127: 0, 128..255: 1}" in findings["wrong-labels"]["mend"]


def test_small_objects_are_those_of_the_working_size(tmp_path):
    root = write_textured(tmp_path / "set")

    _, _, findings = check(root, "data.resize=16")

    assert "at the working size" in findings["small-objects"]["title"]
    assert "small-objects" not in check(root)[2]


def test_folds_are_the_splits(tmp_path):
    root = write_textured(tmp_path / "set")
    first, second = sorted((root / "train/images").iterdir())[:2]
    second.write_bytes(first.read_bytes())
    other = {p.stem: p for p in (root / "train/masks").iterdir()}
    other[second.stem].write_bytes(other[first.stem].read_bytes())

    _, tree, findings = check(root, "data.folds=4")

    assert tree["splits"] == {"test": 4, "fold_0": 4, "fold_1": 4, "fold_2": 4, "fold_3": 4}
    assert any(code.startswith("duplicates") for code in findings)


def test_a_class_that_a_fold_lacks_is_told(tmp_path):
    root = write_textured(tmp_path / "set")
    for path in sorted(root.glob("*/masks/*"))[:-6]:
        mask = np.array(Image.open(path))
        mask[mask == 2] = 1
        Image.fromarray(mask).save(path)

    code, tree, _ = check(root, "data.folds=8")

    assert code == 2
    assert {finding["code"] for finding in tree["findings"]} == {"class-missing"}
    assert any("fold_" in finding["title"] for finding in tree["findings"])


def test_groups_of_a_pattern_are_not_torn_by_a_drawn_split(tmp_path):
    root = write_textured(tmp_path / "set", splits={"": 12})
    for folder in ("images", "masks"):
        for number, path in enumerate(sorted((root / folder).iterdir())):
            path.rename(path.with_name(f"patient{number % 4}_slice{number}.png"))

    torn = check(root)[2]
    kept = check(root, r"data.group_pattern='^(patient\d)_'")[2]

    assert "suspected-group-leak" in torn
    assert kept == {}
