"""Values in masks that are not class numbers: refused, with a map to use instead, which works."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image, ImageFilter
from typer.testing import CliRunner

from tests.support.data_folders import write_folder_dataset
from unetexp.cli.main import app
from unetexp.component import decode
from unetexp.data import DataSource, Folder, open_dataset
from unetexp.errors import ConfigError, DataError
from unetexp.training.config import parse_assignments

SPLITS = {"train": 3, "val": 2, "test": 2}
TINY = ["encoder.name=resnet18", "encoder.weights=none", "augment.crop_px=32", "epochs=1"]


def dataset(place, classes=2, **options):
    return write_folder_dataset(place, options.pop("splits", SPLITS), classes=classes, **options)


def map_masks(root, change, pattern="**/masks/*"):
    for path in root.glob(pattern):
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def renumber(*values):
    table = np.zeros(256, np.uint8)
    table[: len(values)] = values
    table[255] = 255
    return lambda mask: table[mask]


def smooth(mask):
    """As saved by a program that draws soft edges."""
    drawn = Image.fromarray(mask * np.uint8(255)).resize((96, 80), Image.Resampling.NEAREST)
    return np.asarray(drawn.filter(ImageFilter.GaussianBlur(1)).resize((48, 40)))


def opened(root, **settings):
    return open_dataset(decode(DataSource, {"kind": "folder", "root": str(root), **settings}))


def suggested(message):
    """The label maps that a message prints, as a shell and `--set` would read them."""
    pasted = [shlex.split(part) for part in re.findall(r"--set '[^']*'", message)]
    return [parse_assignments([assignment])["data.label_map"] for _, assignment in pasted]


def refusal(root, **settings):
    with pytest.raises(DataError) as error:
        opened(root, **settings)
    return str(error.value)


@pytest.mark.parametrize("splits", [SPLITS, {"": 7}], ids=["own split", "drawn split"])
def test_smoothed_masks_are_refused_and_the_printed_map_reads_them(tmp_path, splits):
    root = dataset(tmp_path / "data", splits=splits, size=(40, 48))
    map_masks(root, smooth)
    smoothed = {path: np.asarray(Image.open(path)) for path in root.glob("**/masks/*")}
    message = refusal(root)
    assert re.search(r"0 \([\d.]+ %\).*255 \([\d.]+ %\) and \d+ more \([\d.]+ %\)", message)
    data = opened(root, label_map=suggested(message)[0])
    assert data.class_names == ("0", "1")
    for name, split in data.splits.items():
        masks = root / name / "masks" if name in splits else root / "masks"
        assert split.void_pixels == 0
        for sample in split:
            expected = smoothed[masks / f"{sample.name}.png"] >= 128
            np.testing.assert_array_equal(sample.mask, expected)


def test_gaps_are_refused_and_the_printed_map_numbers_the_classes(tmp_path):
    plain = dataset(tmp_path / "plain", 3, void=0.1)
    root = dataset(tmp_path / "data", 3, void=0.1)
    map_masks(root, renumber(0, 7, 24))
    message = refusal(root)
    assert re.search(r"0 \(.* %\), 7 \(.* %\), 24 \(.* %\), 255 \(.* %\)", message)
    assert "25 classes" in message
    assert suggested(message) == [{0: 0, 7: 1, 24: 2, 255: "void"}]
    data, expected = opened(root, label_map=suggested(message)[0]), opened(plain)
    assert data.class_names == ("0", "1", "2")
    for name in SPLITS:
        for sample, wanted in zip(data[name], expected[name], strict=True):
            np.testing.assert_array_equal(sample.mask, wanted.mask)
        assert (data[name].class_pixels == expected[name].class_pixels).all()
        assert data[name].void_pixels == expected[name].void_pixels


def test_labels_from_1_up_are_refused(tmp_path):
    root = dataset(tmp_path / "data", 3)
    map_masks(root, renumber(1, 2, 3))
    message = refusal(root)
    assert "0 occurs in no mask" in message
    assert suggested(message) == [{1: 0, 2: 1, 3: 2}]
    assert opened(root, label_map=suggested(message)[0])["train"].class_pixels.all()


def test_three_grey_levels_are_offered_as_classes_and_as_blur(tmp_path):
    root = dataset(tmp_path / "data", 3)
    map_masks(root, renumber(0, 128, 255))
    maps = suggested(refusal(root))
    assert {0: 0, 128: 1, 255: "void"} in maps
    for label_map in maps:
        assert opened(root, label_map=label_map).num_classes == 2
    assert opened(root, label_map={0: 0, 128: 1, 255: 2}).num_classes == 3


def test_many_class_numbers_with_gaps_are_numbered_whole(tmp_path):
    root = dataset(tmp_path / "data", 40)
    map_masks(root, lambda mask: mask + np.uint8(1))
    message = refusal(root)
    assert suggested(message) == [{label + 1: label for label in range(40)}]


def test_unused_numbers_may_be_named_instead(tmp_path):
    root = dataset(tmp_path / "data", 3)
    map_masks(root, renumber(0, 1, 3))
    assert "name all 4 in classes.txt" in refusal(root)
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    data = opened(root)
    assert data.class_names == ("a", "b", "c", "d")
    assert data.notes == ("Classes that occur in no mask at all: c.",)


def test_classes_txt_names_the_classes_of_the_printed_map(tmp_path):
    root = dataset(tmp_path / "data", 3, class_names=("ground", "cell", "wall"))
    map_masks(root, renumber(0, 7, 24))
    message = refusal(root)
    assert "(0 ground, 7 cell, 24 wall)" in message
    data = opened(root, label_map=suggested(message)[0])
    assert data.class_names == ("ground", "cell", "wall")


def test_smoothed_masks_of_two_named_classes_get_a_map_as_well(tmp_path):
    root = dataset(tmp_path / "data", class_names=("ground", "cell"))
    map_masks(root, smooth)
    data = opened(root, label_map=suggested(refusal(root))[0])
    assert data.class_names == ("ground", "cell")


def test_the_map_and_classes_txt_must_agree(tmp_path):
    root = dataset(tmp_path / "data", 3, class_names=("a", "b", "c"))
    message = refusal(root, label_map={0: 0, 1: 1, 2: 1})
    assert "label_map makes 2 classes" in message
    assert "names 3 (a, b, c)" in message


def test_a_value_that_the_map_leaves_out_is_named_with_its_mask(tmp_path):
    root = dataset(tmp_path / "data", 3)
    message = refusal(root, label_map={0: 0, 1: 1})
    assert "masks/000.png" in message
    assert "the value 2" in message
    assert "2 (" in message


def test_masks_of_two_scales_are_refused_with_examples_of_both(tmp_path):
    root = dataset(tmp_path / "data")
    truth = opened(root)["train"][0].mask
    map_masks(root, lambda mask: mask * np.uint8(255), "train/masks/000.png")
    message = refusal(root)
    assert "0 and 1 (001 (train), 002 (train)" in message
    assert "0 and 255 (000 (train))" in message
    as_class, as_void = suggested(message)
    np.testing.assert_array_equal(opened(root, label_map=as_class)["train"][0].mask, truth)
    assert opened(root, label_map=as_void)["train"].void_pixels > 0


def test_a_value_beside_void_alone_can_be_mapped(tmp_path):
    root = dataset(tmp_path / "data")
    map_masks(root, lambda mask: np.where(mask == 1, 255, 7).astype(np.uint8))
    assert opened(root, label_map=suggested(refusal(root))[0]).num_classes == 2


def test_the_map_is_part_of_the_fingerprint_and_of_the_record(tmp_path):
    root = dataset(tmp_path / "data", 3)
    maps = ({0: 0, 1: 1, 2: 2}, {0: 0, 1: 1, 2: "void"}, None)
    assert len({opened(root, label_map=label_map).fingerprint for label_map in maps}) == 3
    source = decode(DataSource, {"kind": "folder", "root": "x", "label_map": {"3..9": 1, 0: 0}})
    assert source.tree()["label_map"] == "0: 0, 3..9: 1"
    assert decode(DataSource, source.tree()) == source
    assert "label_map" not in Folder(root="x").tree()  # as in records of earlier versions


@pytest.mark.parametrize(
    ("label_map", "reason"),
    [
        ({0: 0, 2**32: 1}, "4294967296 is not a stored value"),
        ({"9..3": 0, 1: 1}, "9..3"),
        ({0: 0, 1: "viod"}, "'viod' is not a class"),
        ({0: 0, 1: 1.5}, "1.5 is not a class"),
        ({0: 0, 1: 2}, "without gaps"),
        ({0: 0, 1: 0}, "two or more"),
        ({0: 0, "0..5": 1}, "0 is mapped twice"),
        ({}, "does not map"),
        ([0, 1], "does not map"),
        ("threshold", "does not map"),
    ],
)
def test_a_map_that_cannot_be_meant_is_a_config_error(label_map, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        decode(DataSource, {"kind": "folder", "root": "x", "label_map": label_map}, "data")
    assert "data.label_map" in str(error.value)


def unetexp(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_commands_refuse_print_the_map_and_take_it(tmp_path):
    root = dataset(tmp_path / "data", splits={"train": 2, "val": 1})
    map_masks(root, smooth)
    tiny = [flag for setting in TINY for flag in ("--set", setting)]
    train = ["train", "--data", root, "--out", tmp_path / "run", "--device", "cpu", *tiny]
    refused = unetexp(*train)
    assert refused.exit_code == 2 and "Traceback" not in refused.output
    pasted = shlex.split(re.search(r"--set 'data\.label_map=[^']*'", refused.output)[0])
    trained = unetexp(*train, *pasted)
    assert trained.exit_code == 0, trained.output
    assert "best val/miou" in trained.output

    plain = dataset(tmp_path / "plain", splits={"train": 2, "val": 1}, seed=1)
    stored = dataset(tmp_path / "stored", splits={"train": 2, "val": 1}, seed=1)
    map_masks(stored, lambda mask: mask * np.uint8(255))
    written = []
    for place, changes in ((stored, ()), (plain, ("--set", "data.label_map=null"))):
        where = ("--out", tmp_path / place.name / "out", "--device", "cpu")
        result = unetexp("evaluate", tmp_path / "run/best", place, *where, *changes)
        assert result.exit_code == 0, result.output
        written.append((tmp_path / place.name / "out/evaluation.json").read_text())
    assert written[0].partition('"figures"')[2] == written[1].partition('"figures"')[2]
    map_masks(stored, lambda mask: mask // np.uint8(2))
    wrong = unetexp("evaluate", tmp_path / "run/best", stored, "--set", "data.label_map=null")
    assert wrong.exit_code == 2 and "data.label_map={0: 0, 127: 1}" in wrong.output
    other = unetexp("evaluate", tmp_path / "run/best", plain, "--set", "epochs=3")
    assert other.exit_code == 2 and "data.*" in other.output


def test_data_without_all_classes_can_be_evaluated(tmp_path):
    """Gaps and a val that lacks a class are reasons not to train, but no reason not to evaluate."""
    root = dataset(tmp_path / "data", 3)
    map_masks(root, renumber(0, 0, 2))
    with pytest.raises(DataError):
        open_dataset(Folder(root=str(root)))
    assert open_dataset(Folder(root=str(root)), to_train=False).num_classes == 3
