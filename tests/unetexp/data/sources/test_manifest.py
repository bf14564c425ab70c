"""Tables of images and masks: their forms, columns, splits and mistakes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unetexp
from tests.support.data_sources import picture, save_table, write_manifest
from tests.support.small_config import config_with
from unetexp.data import Folder, Manifest, open_dataset
from unetexp.errors import DataError


def opened(path, **fields):
    return open_dataset(Manifest(path=str(path), **fields))


@pytest.mark.parametrize("name", ["set.csv", "set.tsv", "set.parquet", "set.jsonl"])
def test_every_form_of_table_is_read_alike(tmp_path, name):
    data = opened(write_manifest(tmp_path, name=name))
    assert data["train"].names == ("s0", "s1", "s3", "s4")
    assert data["val"].names == ("s2", "s5")
    mask = np.asarray(Image.open(tmp_path / "truth/m2.png"))
    np.testing.assert_array_equal(data["val"][0].mask, mask)
    image = np.asarray(Image.open(tmp_path / "scans/s2.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(data["val"][0].image, image)


def test_a_header_with_semicolons_and_a_byte_order_mark_is_read(tmp_path):
    path = write_manifest(tmp_path)
    path.write_text("\ufeff" + path.read_text().replace(",", ";"), encoding="utf-8")
    assert len(opened(path)["train"]) == 4


def test_columns_and_the_root_can_be_named(tmp_path):
    path = write_manifest(tmp_path / "files")
    text = path.read_text().replace("image,mask,split,group", "scan,truth,part,who")
    other = tmp_path / "elsewhere.csv"
    other.write_text(text)
    named = {"image_column": "scan", "mask_column": "truth", "split_column": "part"}
    data = opened(other, root=str(tmp_path / "files"), group_column="who", **named)
    assert data["val"].names == ("s2", "s5")


def test_classes_are_named_beside_the_table(tmp_path):
    path = write_manifest(tmp_path)
    (tmp_path / "classes.txt").write_text("soil\nweed\ncrop\n")
    assert opened(path).class_names == ("soil", "weed", "crop")


def test_the_same_content_elsewhere_is_the_same_set(tmp_path):
    path = write_manifest(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert opened(path).fingerprint == opened(tmp_path / "b/set.csv").fingerprint


def test_without_a_split_column_the_splits_are_drawn(tmp_path):
    listing = Manifest(path=str(write_manifest(tmp_path, split=False))).listing()
    assert (len(listing.unsplit), dict(listing.splits)) == (6, {})
    assert [sample.group for sample in listing.unsplit] == ["patient 0"] * 3 + ["patient 1"] * 3


def test_usual_names_of_splits_are_known_and_a_missing_val_is_drawn(tmp_path):
    path = write_manifest(tmp_path, group=False)
    path.write_text(path.read_text().replace(",val", ",Test").replace(",train", ",Training"))
    data = opened(path, val_fraction=0.25)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 3,
        "val": 1,
        "test": 2,
    }
    assert any("no val split: drawn from the train split" in note for note in data.notes)


def test_images_of_one_name_keep_apart(tmp_path):
    path = write_manifest(tmp_path, rows=2, split=False, group=False)
    for folder, number in (("a", 0), ("b", 1)):
        target = tmp_path / folder / "img.png"
        target.parent.mkdir()
        (tmp_path / f"scans/s{number}.png").rename(target)
    path.write_text("image,mask\na/img.png,truth/m0.png\nb/img.png,truth/m1.png\n")
    names = [sample.name for sample in Manifest(path=str(path)).listing().unsplit]
    assert names == ["a_img", "b_img"]


def test_several_columns_are_the_channels_of_a_sample(tmp_path):
    rows = [
        {"red": f"r{i}.png", "infrared": f"i{i}.png" if i else "", "mask": f"m{i}.png"}
        for i in range(3)
    ]
    for row in rows:
        for column, value in (("red", 60), ("infrared", 90)):
            if row[column]:
                picture(tmp_path / row[column], np.full((8, 8), value, np.uint8))
        picture(tmp_path / row["mask"], np.eye(8, dtype=np.uint8))
    path = save_table(tmp_path / "set.csv", rows)
    listing = Manifest(path=str(path), image_columns=("red", "infrared")).listing()
    assert [[p and p.name for p in sample.images] for sample in listing.unsplit] == [
        ["r0.png", None],
        ["r1.png", "i1.png"],
        ["r2.png", "i2.png"],
    ]
    assert any("red, infrared" in note for note in listing.notes)
    columns = {"image_columns": ("red", "infrared")}
    data = opened(path, **columns, missing="zeros", value_range=[0, 255])
    images = {s.name: s.image[:, 0, 0].float() for split in data.splits.values() for s in split}
    assert data.channels == 2
    assert images["r1"][1] / images["r1"][0] == pytest.approx(90 / 60, abs=0.01)
    assert images["r0"].tolist() == [images["r1"][0], 0]
    with pytest.raises(DataError, match=r"r0 lacks file 2 of 2 .*data.missing=zeros"):
        opened(path, **columns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("image,mask", "imgae,mask"), r"no column 'image' \(data.image_column\).*mean 'imgae'"),
        (("mask,split", "maks,split"), r"no column 'mask'.*Did you mean 'maks'.*data.mask_column="),
        ((",train,", ",trian,"), r"'trian' in 4 \(row 1\).*Did you mean 'train'"),
        ((",val,", ",,"), r"train, val or test in every row. It holds nothing in 2 \(row 3\)"),
        (("scans/s1.png", "scans/s9.png"), r"1 of the 6 rows .*s9.png \(row 2\).*data.root=FOLDER"),
        (("truth/m1.png", ""), r"1 of the 6 rows name no mask \(row 2\)"),
        (("scans/s1.png", "scans/s0.png"), r"1 images stand in more than one row: .*rows 1, 2"),
        (("train,patient 0", "train"), r"row 1 has 3 cells, the header 4"),
    ],
)  # fmt: skip
def test_mistakes_in_a_table_are_named(tmp_path, change, message):
    path = write_manifest(tmp_path)
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(DataError, match=message):
        opened(path)


def test_a_named_split_column_must_be_there(tmp_path):
    with pytest.raises(DataError, match=r"no column 'fold' \(data.split_column\)"):
        opened(write_manifest(tmp_path), split_column="fold")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("set.xlsx", b"x", "is not the form of a table"),
        ("set.csv", b"", "has no rows"),
        ("set.csv", b"image,mask\n", "has no rows"),
        ("set.csv", b"image,image\na,b\n", "names image more than once"),
        ("set.csv", "image,mask\nä,b".encode("latin-1"), "not UTF-8"),
        ("set.jsonl", b'{"image": "a"}\n{"image"', "line 2 is not JSON"),
        ("set.jsonl", b'{"image": ["a", "b"], "mask": "c"}', "data.image_columns"),
        ("set.parquet", b"PAR1 and then nothing", "not a Parquet file"),
    ],
)
def test_damaged_tables_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        opened(tmp_path / name)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        opened(tmp_path / "set.csv")


def test_a_table_is_recognised_by_its_columns(tmp_path):
    path = write_manifest(tmp_path / "set")
    save_table(tmp_path / "other.csv", [{"a": 1}])
    assert Manifest.looks_like(path)
    assert Manifest.found_in(tmp_path / "set") == path
    assert not Manifest.looks_like(tmp_path / "other.csv")
    assert not Manifest.looks_like(tmp_path)


def test_its_set_equals_that_of_a_folder_and_trains(tmp_path):
    path = write_manifest(tmp_path)
    data = opened(path)
    for split, rows in (("train", (0, 1, 3, 4)), ("val", (2, 5))):
        for row in rows:
            for kind, name in (("images", f"scans/s{row}.png"), ("masks", f"truth/m{row}.png")):
                target = tmp_path / "same" / split / kind / f"s{row}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(tmp_path / name, target)
    folder = open_dataset(Folder(root=str(tmp_path / "same")))
    for split in ("train", "val"):
        for ours, theirs in zip(data[split], folder[split], strict=True):
            assert torch.equal(ours.image, theirs.image)
            assert torch.equal(ours.mask, theirs.mask)
    config = config_with(data={"kind": "manifest", "path": str(path)}, epochs=1)
    state = unetexp.TrainState(config, data, torch.device("cpu"))
    (report,) = unetexp.fit(config, data, state)
    assert 0 <= report.metrics["val/miou"] <= 1


def test_paths_are_stored_absolute_and_uris_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Manifest(path="set.csv").path == str(Path(tmp_path / "set.csv"))
    assert Manifest(path="s3://bucket/set.csv").path == "s3://bucket/set.csv"
