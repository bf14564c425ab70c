"""Folders as they lie on people's disks: days, unpacked archives, exports, tables from Windows."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image

from tests.support.awkward_data import save, scene
from unetexp.component import decode
from unetexp.data import DataSource, open_dataset
from unetexp.data.sources.recognised import recognised_tree
from unetexp.errors import DataError
from unetexp.training.config import parse_assignments

COUNT = 6


def write(root, image, mask, as_mask=lambda labels: labels, **options):
    """Pairs at the places that two formats make of a number; returns the masks."""
    for number in range(COUNT):
        pixels, labels = scene(number)
        save(root / image.format(n=number, m=number % 3), pixels, **options)
        save(root / mask.format(n=number, m=number % 3), as_mask(labels))
    return root


def opened(root, *settings):
    changes = parse_assignments(list(settings))
    tree = recognised_tree(str(root), changes)
    given = {path.removeprefix("data."): value for path, value in changes.items()}
    return open_dataset(decode(DataSource, {**tree, **given}))


def names(data):
    return sorted(name for split in data.splits.values() for name in split.names)


def check(data):
    """All pairs are there, and each mask is that of its image."""
    assert sum(map(len, data.splits.values())) == COUNT
    for split in data.splits.values():
        for sample in split:
            bright = sample.image.float().mean(dim=0)
            assert bright[sample.mask == 1].mean() > bright[sample.mask == 0].mean() + 80


def test_folders_of_days_hold_images_and_masks(tmp_path):
    root = write(
        tmp_path,
        "2023/2023-01-1{n}/images/img_001.png",
        "2023/2023-01-1{n}/masks/img_001.png",
    )
    data = opened(root)
    check(data)
    assert names(data)[0].replace("_", "/").endswith("2023-01-10/img/001")
    pattern = opened(root, "data.images='**/images'", "data.masks='**/masks'")
    assert len(names(pattern)) == COUNT


def test_sites_with_splits_of_their_own(tmp_path):
    root = write(tmp_path, "site{m}/train/images/{n}.png", "site{m}/train/masks/{n}.png")
    save(root / "site0/val/images/9.png", scene(9)[0])
    save(root / "site0/val/masks/9.png", scene(9)[1])
    data = opened(root)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": COUNT, "val": 1}


def test_two_folders_of_any_name_are_told_apart_by_the_masks_ending(tmp_path):
    root = write(tmp_path, "raw/IMG_{n}.JPG", "annotated/IMG_{n}_Mask.TIF", format=None)
    data = opened(root)
    check(data)
    assert any("images lie in raw, masks in annotated" in note.lower() for note in data.notes)


def test_two_folders_of_equal_names_are_asked_for(tmp_path):
    root = write(tmp_path, "raw/{n}.png", "drawn/{n}.png")
    with pytest.raises(DataError) as error:
        opened(root)
    ways = re.findall(r"--set \S+ --set \S+", str(error.value))
    assert len(ways) == 2
    meant = next(way for way in ways if "images=raw" in way)
    check(opened(root, *(part.rstrip(";.") for part in shlex.split(meant) if part != "--set")))


def test_what_an_archive_was_unpacked_into_is_found_beside_it(tmp_path):
    root = write(tmp_path, "final v2/dataset/imgs/{n}.png", "final v2/dataset/gt/{n}_gt.png")
    (root / "final v2.zip").write_bytes(b"PK")
    (root / "__MACOSX").mkdir()
    check(opened(root))


def test_labelmes_export_is_read_with_its_names(tmp_path):
    def palette(labels):
        return labels

    root = write(tmp_path, "JPEGImages/{n}.jpg", "SegmentationClassPNG/{n}.png", palette)
    for folder in ("SegmentationClass", "SegmentationClassVisualization"):
        (root / folder).mkdir()
    np.save(root / "SegmentationClass/0.npy", scene(0)[1])
    (root / "class_names.txt").write_text("_background_\ncell\n")
    data = opened(root)
    check(data)
    assert data.class_names == ("_background_", "cell")


@pytest.mark.parametrize("prefix", ["", "C:\\Users\\Anna Groß\\set\\", "D:/scans/2023/"])
def test_a_table_from_windows(tmp_path, prefix):
    root = write(tmp_path, "Scans/Serie A/s {n}.png", "Truth/s {n}_gt.png")
    between = "/" if "/" in prefix else "\\"
    rows = ["Image;Mask;Split"]
    for number in range(COUNT):
        image = between.join(("Scans", "Serie A", f"s {number}.png"))
        mask = between.join(("Truth", f"s {number}_gt.png"))
        rows.append(f"{prefix}{image};{prefix}{mask};{'Train' if number < 4 else 'Val'}")
    (root / "list.csv").write_bytes(("\r\n".join(rows) + "\r\n").encode("utf-8-sig"))
    data = opened(root)
    check(data)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "val": 2}
    assert bool(prefix) == any("of Windows" in note for note in data.notes)


def test_scans_in_other_formats_are_told_what_to_become(tmp_path):
    for folder, ending in (("images", ".dcm"), ("masks", ".nrrd")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"1{ending}").write_bytes(b"x")
    with pytest.raises(DataError, match=r"1.dcm: .dcm is not read.*NIfTI.*dcm2niix"):
        opened(tmp_path)


def test_mixed_case_junk_and_umlauts(tmp_path):
    root = write(tmp_path / "Größe M", "Images/Über {n}.JPG", "Masks/Über {n}.PNG", format=None)
    for folder in ("Images", "Masks"):
        for junk in ("Thumbs.db", "._Über 0.JPG", ".DS_Store", "desktop.ini"):
            (root / folder / junk).write_bytes(b"\0\5\26\7")
    check(opened(root))
    assert Image.open(next((root / "Masks").glob("Ü*"))).format == "PNG"
