"""Sets in the form of fastai's CamVid: images, labels with _P at the end, and codes.txt."""

import numpy as np
import pytest
from PIL import Image

from tests.support.data_folders import blobs
from unetexp.data import Folder, open_dataset
from unetexp.data.checks.checked import check_source
from unetexp.data.layouts.paragraph import paragraph
from unetexp.errors import DataError

CODES = ["Animal", "Building", "Void", "Wall"]


def write(root, codes=CODES, count=5, suffix="_P"):
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    masks = {}
    for number in range(count):
        image, mask = blobs(rng, (40, 48), 4)
        name = f"0006R0_f0{number:04d}"
        Image.fromarray(image).save(root / f"images/{name}.png")
        Image.fromarray(mask).save(root / f"labels/{name}{suffix}.png")
        masks[name] = mask
    (root / "codes.txt").write_text("\n".join(codes))
    return masks


def check_masks(data, masks, codes):
    for split in data.splits.values():
        for sample in split:
            np.testing.assert_array_equal(sample.mask, np.array(codes)[masks[sample.name]])


def test_it_names_the_classes_and_void_is_no_class(tmp_path):
    masks = write(tmp_path)
    source = Folder(root=str(tmp_path))

    data = open_dataset(source)

    assert data.class_names == ("Animal", "Building", "Wall")
    check_masks(data, masks, [0, 1, 255, 2])
    assert "2 (Void) is void: " in paragraph(source, data)
    assert any("codes.txt" in note and "data.ignore=255" in note for note in data.notes)


def test_the_check_reads_it_as_a_sweep_does(tmp_path):
    write(tmp_path)
    checked = check_source(Folder(root=str(tmp_path)))
    assert checked.class_names == ("Animal", "Building", "Wall")
    assert "wrong-labels" not in {finding.code for finding in checked.findings}


@pytest.mark.parametrize(
    ("fields", "names", "codes"),
    [
        ({"ignore": "255"}, tuple(CODES), [0, 1, 2, 3]),
        ({"ignore": "3"}, tuple(CODES), [0, 1, 2, 255]),
        ({"label_map": "0: 0, nonzero: 1"}, ("0", "1"), [0, 1, 1, 1]),
    ],
)
def test_settings_go_before_it(tmp_path, fields, names, codes):
    masks = write(tmp_path)
    data = open_dataset(Folder(root=str(tmp_path), **fields))
    assert data.class_names == names
    check_masks(data, masks, codes)


def test_without_void_the_names_are_all_there_is(tmp_path):
    masks = write(tmp_path, ["Animal", "Building", "Tree", "Wall"])
    data = open_dataset(Folder(root=str(tmp_path)))
    assert data.class_names == ("Animal", "Building", "Tree", "Wall")
    check_masks(data, masks, range(4))
    assert "No pixel is void." in paragraph(Folder(root=str(tmp_path)), data)


def test_classes_txt_goes_before_it(tmp_path):
    write(tmp_path)
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    assert open_dataset(Folder(root=str(tmp_path))).class_names == ("a", "b", "c", "d")


def test_a_value_that_it_does_not_name_is_told(tmp_path):
    write(tmp_path, CODES)
    path = next((tmp_path / "labels").iterdir())
    mask = np.array(Image.open(path))
    mask[0, 0] = 9
    Image.fromarray(mask).save(path)
    with pytest.raises(DataError, match=r"value 9, which .*codes.txt"):
        open_dataset(Folder(root=str(tmp_path)))


def test_valid_txt_is_the_val_split(tmp_path):
    masks = write(tmp_path)
    names = sorted(masks)
    (tmp_path / "valid.txt").write_text(f"{names[1]}.png\n{names[3]}.png\n")
    data = open_dataset(Folder(root=str(tmp_path)))
    assert data["val"].names == (names[1], names[3])
    assert set(data["train"].names) == set(names) - {names[1], names[3]}
    assert "as given (valid.txt)" in paragraph(Folder(root=str(tmp_path)), data)


@pytest.mark.parametrize(("lines", "said"), [("x.png", "no image x"), ("", "it names 0")])
def test_a_valid_txt_of_other_images_is_refused(tmp_path, lines, said):
    write(tmp_path)
    (tmp_path / "valid.txt").write_text(lines)
    with pytest.raises(DataError, match=said):
        open_dataset(Folder(root=str(tmp_path)))
