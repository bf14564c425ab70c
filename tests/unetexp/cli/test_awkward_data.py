"""Awkward data on the command line: trained on as it is, or after what its message says to paste.

The masks that a model sees are compared with those that were written.
"""

import re
import shlex

import numpy as np
import pytest
from typer.testing import CliRunner

from sweeps.config.loading import load_recipe
from tests.support.awkward_data import (
    cmyk,
    coco,
    links,
    masks_on_the_raw_frame,
    mixed_scales,
    modalities,
    objects,
    overviews,
    pages,
    pairs,
    smoothed,
    table,
    tiffs,
    usual,
    volumes,
)
from unetexp.cli.main import app
from unetexp.cli.open_data import source_of
from unetexp.data import Mni152, open_dataset
from unetexp.training.config import decode_config, parse_assignments, read_tree

TINY = [
    *("--set", "encoder.name=resnet18", "--set", "encoder.weights=none", "--epochs", "1"),
    *("--set", "augment.crop_px=32", "--set", "batch_size=2", "--device", "cpu"),
]
COLOURS = np.array([[0, 0, 0], [0, 128, 0], [128, 0, 0]], np.uint8)
GREY = {"photometric": "minisblack"}

READ = {  # what is written, and what the paragraph or a note says of it
    "x_mask": (pairs("images/{n}.png", "masks/{n}_mask.png"), "masks end in _mask"),
    "one folder": (pairs("{n}.webp", "{n}_mask.png"), "lie together"),
    "a folder each patient": (pairs("p{n}/scan{n}.tif", "p{n}/scan{n}_mask.tif"), "lie together"),
    "splits inside": (
        pairs("img_dir/{split}/{n}.bmp", "ann_dir/{split}/{n}.png"),
        "by the folders",
    ),
    "gif": (pairs("imgs/{n}.png", "labels/{n}.gif", as_mask=lambda m: m * 255), "255 is read as"),
    "cmyk": (cmyk, "CMYK is converted"),
    "jpeg masks": (pairs("images/{n}.jpg", "masks/{n}.jpg", as_mask=lambda m: m * 255), "changes"),
    "colours": (usual(classes=3, as_mask=lambda m: COLOURS[m]), "3 colours"),
    "float masks": (pairs("images/{n}.png", "masks/{n}.tif", as_mask=np.float32), "2 classes"),
    "int32 masks": (pairs("images/{n}.png", "masks/{n}.tif", as_mask=np.int32), "2 classes"),
    "six bands": (
        tiffs(lambda i, m: np.dstack([i, i]), planarconfig="contig", **GREY),
        "6 channels",
    ),
    "floats": (tiffs(lambda i, m: i[..., 0].astype(np.float32) - 9), "float32 numbers"),
    "overviews": (overviews, "overviews"),
    "infrared": (
        tiffs(lambda i, m: np.dstack([i, m * 99]), photometric="rgb", extrasamples=["unspecified"]),
        "4 channels",
    ),
    "table": (table(["image", "mask"]), "manifest"),
    "coco": (coco, "cell"),
    "volumes": (volumes, "65535 counts as 1.0"),
}
MAPS = "label_map={0: 0, nonzero: 1}"
ASKED = {  # what is written, what the message says, and the setting of it that is pasted
    "raw frame": (masks_on_the_raw_frame, "fit the images as stored", "exif=none"),
    "from 1": (usual(classes=3, as_mask=lambda m: m + 1), "0 occurs in no mask", "label_map"),
    "gaps": (usual(as_mask=lambda m: m * 7), "If each value is a class", "label_map"),
    "smoothed": (usual(as_mask=smoothed), "smoothed", "label_map={0..127"),
    "objects": (pairs("images/{n}.png", "masks/{n}.tif", as_mask=objects), "objects", MAPS),
    "mixed": (mixed_scales, "others 0 and 255", "255: 1}"),
    "jpeg classes": (
        pairs("images/{n}.png", "masks/{n}.jpg", classes=4, as_mask=lambda m: m * 80),
        "around 0, 80, 160, 240",
        "label_map={0..40: 0, 41..120: 1, 121..200: 2, 201..255: 3}",
    ),
    "pages": (pages, "4 pages|3 pages", "pages=samples"),
    "page channels": (
        tiffs(lambda i, m: np.stack([i[..., 0]] * 4), **GREY),
        "4 pages",
        "=channels",
    ),
    "links": (links, "outside", "follow_links"),
    "train alone": (
        pairs("img_dir/train/{n}.png", "ann_dir/train/{n}.png"),
        "not val",
        "images=img_dir/train|masks=ann_dir/train",
    ),
    "train_masks": (
        pairs("train/{n}.png", "train_masks/{n}_mask.gif"),
        "not val",
        "images=train|masks=train_masks",
    ),
    "a folder each": (
        pairs("case{n}/image.png", "case{n}/mask.png"),
        "in each of its folders",
        "images|masks",
    ),
    "modalities": (modalities(), "its channels", "images={"),
}


def unetexp(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def settings_in(message, pattern):
    """The settings of a message that fit a pattern, as they are when pasted."""
    pasted = re.findall(r"--set (?:'[^']*'|\S+)", message)
    chosen = [each.rstrip(".,;)") for each in pasted if _fits(pattern, each)]
    return shlex.split(" ".join(chosen))


def _fits(pattern, text):
    return any(part in text for part in pattern.split("|"))


def assert_masks(source, written):
    """A sweep trains on the data of a source, and its masks are those that were written."""
    data = open_dataset(source)
    seen = [np.uint8(sample.mask) for split in data.splits.values() for sample in split]
    assert sorted(mask.tobytes() for mask in seen) == sorted(mask.tobytes() for mask in written)
    return data


def pasted_source(place, *flags):
    return source_of(str(place), Mni152(), parse_assignments([f for f in flags if f != "--set"]))


@pytest.mark.parametrize("name", READ)
def test_it_is_read_rightly_and_trained_on(tmp_path, name):
    write, said = READ[name]
    out, written = tmp_path / "run", write(tmp_path / "data")
    result = unetexp("train", "--data", tmp_path / "data", "--out", out, *TINY)
    assert result.exit_code == 0, result.output
    assert said in result.output
    assert (out / "best").is_dir()
    if written is not None:
        assert_masks(decode_config(read_tree(out / "config.yaml")).data, written)


@pytest.mark.parametrize("name", ASKED)
def test_a_message_says_what_to_paste_and_that_works(tmp_path, name):
    write, said, setting = ASKED[name]
    root = tmp_path / "data"
    written = write(root)
    refused = unetexp("train", "--data", root, "--out", tmp_path / "none", *TINY)
    assert refused.exit_code == 2
    assert refused.output.count("error: ") == 1
    assert _fits(said, refused.output)
    pasted = settings_in(refused.output, setting)
    assert pasted
    assert_masks(pasted_source(root, *pasted), written)


def test_a_missing_file_of_several_becomes_zeros_where_asked(tmp_path):
    root, given = tmp_path / "data", ("--set", "data.images={ct: ct, mri: mri}")
    written = modalities(lacking=3)(root)
    refused = unetexp("train", "--data", root, "--out", tmp_path / "none", *TINY, *given)
    assert refused.exit_code == 2 and "mri lacks 3" in refused.output
    pasted = settings_in(refused.output, "missing")
    assert assert_masks(pasted_source(root, *given, *pasted), written).channels == 2


def test_a_table_of_other_columns_is_named_with_its_columns(tmp_path):
    root = tmp_path / "data"
    written = table(["filename", "label"], ";")(root)
    refused = unetexp("train", "--data", root, "--out", tmp_path / "none", *TINY)
    place = re.search(r"--data '([^']*)'", refused.output)[1]
    pasted = settings_in(refused.output, "_column")
    assert pasted == ["--set", "data.image_column=filename", "--set", "data.mask_column=label"]
    assert_masks(pasted_source(place, *pasted), written)


def test_a_recipe_for_a_folder_takes_a_table(tmp_path):
    """The recipe's own root is not where the table's paths begin."""
    written = table(["image", "mask"])(tmp_path / "data")
    assert_masks(load_recipe("folder", {}, str(tmp_path / "data")).base.data, written)


@pytest.mark.parametrize("name", ["gaps", "from 1", "mixed"])
def test_no_plan_is_made_for_what_no_sweep_trains_on(tmp_path, name):
    write, said, _ = ASKED[name]
    write(tmp_path / "data")
    result = unetexp("data", "plan", tmp_path / "data")
    assert result.exit_code == 2
    assert said in result.output and "label_map" in result.output
    page = unetexp("data", "show", tmp_path / "data", "--out", tmp_path / "page.html")
    assert page.exit_code == 0
    assert "a sweep refuses this set" in page.output


def test_a_plan_for_folds_counts_one_model_s_images(tmp_path):
    usual()(tmp_path / "data")
    result = unetexp("data", "plan", tmp_path / "data", "--set", "data.folds=3")
    assert result.exit_code == 0, result.output
    assert "# 4 train, 2 val images" in result.output
