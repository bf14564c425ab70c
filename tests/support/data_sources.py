"""Functions that write small samples of published data sets, in the form that each has."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from tests.support.data_folders import blobs

CAMVID_COLOURS = {  # some of the 32, as in label_colors.txt
    "Animal": (64, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "Road": (128, 64, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "Void": (0, 0, 0),
}


def picture(path, array, palette=None):
    """Save an image file, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette(palette)
    image.save(path)
    return path


def write_voc(root, train=3, val=2, size=(32, 40)):
    """VOCdevkit/VOC2012 with palette masks of 21 classes and void. Returns the VOC2012 folder."""
    base, rng = root / "VOCdevkit/VOC2012", np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        names = [f"2007_{split}_{number:04d}" for number in range(count)]
        lists = base / "ImageSets/Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            image, mask = blobs(rng, size, 21, void=0.05)
            picture(base / "JPEGImages" / f"{name}.jpg", image)
            colours = rng.integers(0, 256, 768).astype(np.uint8).tobytes()
            picture(base / "SegmentationClass" / f"{name}.png", mask, colours)
    return base


def write_cityscapes(root, splits={"train": 3, "val": 2}, size=(32, 64), kind="labelIds"):  # noqa: B006
    """leftImg8bit and gtFine with label ids 0 to 33 (or train ids). Returns `root`."""
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        for number in range(count):
            name, city = f"city{number}_000000_{number:06d}", f"city{number}"
            picture(
                root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png",
                rng.integers(0, 256, (*size, 3)).astype(np.uint8),
            )
            ids = np.arange(34) if kind == "labelIds" else np.array([*range(19), 255])
            mask = ids[rng.integers(0, len(ids), size)].astype(np.uint8)
            picture(root / "gtFine" / split / city / f"{name}_gtFine_{kind}.png", mask)
    return root


def write_camvid_numbers(root, splits={"train": 3, "val": 2, "test": 2}):  # noqa: B006
    """SegNet's form: classes 0 to 10, and 11 for void. Returns `root`."""
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        for number in range(count):
            name = f"0001TP_{split}{number:03d}.png"
            picture(root / split / name, rng.integers(0, 256, (24, 32, 3)).astype(np.uint8))
            mask = rng.integers(0, 12, (24, 32)).astype(np.uint8)
            picture(root / f"{split}annot" / name, mask)
    return root


def write_camvid_colours(root, splits={"train": 3, "val": 2}, table="label_colors.txt"):  # noqa: B006
    """The original form with colour masks and their table. Returns `root`."""
    rng, colours = np.random.default_rng(0), np.array(list(CAMVID_COLOURS.values()), np.uint8)
    for split, count in splits.items():
        for number in range(count):
            stem = f"0006R0_{split}{number:03d}"
            image = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
            picture(root / split / f"{stem}.png", image)
            mask = colours[rng.integers(0, len(colours), (24, 32))]
            picture(root / f"{split}_labels" / f"{stem}_L.png", mask)
    if table.endswith(".txt"):
        lines = [f"{r} {g} {b}\t\t{name}" for name, (r, g, b) in CAMVID_COLOURS.items()]
    else:
        lines = ["name,r,g,b", *(f"{n},{r},{g},{b}" for n, (r, g, b) in CAMVID_COLOURS.items())]
    (root / table).write_text("\n".join(lines) + "\n")
    return root


COCO_CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]


def coco_content(images, seed=0, size=(40, 48)):
    """The content of one annotation file: squares in squares, an RLE and a crowd an image."""
    height, width = size
    annotations = []

    def add(image, category, segmentation, crowd=0):
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": category,
                "segmentation": segmentation,
                "iscrowd": crowd,
                "area": 1.0,  # wrong on purpose: the drawn pixels count
                "bbox": [0, 0, 1, 1],
            }
        )

    for key in images:
        add(key, 18, [[10, 10, 20, 10, 20, 20, 10, 20]])  # the small one first in the file
        add(key, 1, [[5, 5, 30, 5, 30, 30, 5, 30]])
        run = np.zeros((height, width), np.uint8)
        run[35:39, 2:9] = 1
        flat = run.reshape(-1, order="F")
        changes = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
        counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
        add(key, 1, {"size": [height, width], "counts": counts})
        add(key, 1, {"size": [height, width], "counts": counts_of_crowd(height, width)}, crowd=1)
    return {
        "images": [
            {"id": key, "file_name": name, "height": height, "width": width}
            for key, name in images.items()
        ],
        "annotations": annotations,
        "categories": COCO_CATEGORIES,
    }


def counts_of_crowd(height, width):
    """An uncompressed RLE of the 20 columns on the right."""
    return [height * (width - 20), height * 20]


def write_coco(root, splits={"train": 3, "val": 2}):  # noqa: B006
    """annotations/instances_SPLIT2017.json and SPLIT2017/*.jpg. Returns `root`."""
    rng, key = np.random.default_rng(0), 0
    (root / "annotations").mkdir(parents=True)
    for split, count in splits.items():
        names = {}
        for _ in range(count):
            key += 1
            names[key] = f"{key:012d}.jpg"
            image = rng.integers(0, 256, (40, 48, 3)).astype(np.uint8)
            picture(root / f"{split}2017" / names[key], image)
        path = root / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(coco_content(names)))
    return root


def volume_pair(rng, shape=(20, 24, 10), classes=3, base=-900.0):
    """A scan (X, Y, Z) float32 in which a label's tissue is brighter, and the label uint8."""
    label = np.zeros(shape, np.uint8)
    for k in range(1, classes):
        corner = [int(rng.integers(0, size // 2)) for size in shape]
        label[tuple(slice(c, c + n // 2) for c, n in zip(corner, shape, strict=True))] = k
    scan = base + 400.0 * label + rng.normal(0, 20, shape)
    return scan.astype(np.float32), label


def save_nifti(path, array, affine=None):
    """Save a volume, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def write_nifti(root, cases=5, affine=None, shape=(20, 24, 10)):
    """imagesTr, labelsTr and dataset.json as the Medical Segmentation Decathlon has them."""
    rng = np.random.default_rng(0)
    for number in range(cases):
        scan, label = volume_pair(rng, shape)
        save_nifti(root / "imagesTr" / f"lung_{number:03d}.nii.gz", scan, affine)
        save_nifti(root / "labelsTr" / f"lung_{number:03d}.nii.gz", label, affine)
    content = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "lung", "2": "tumour"},
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def write_manifest(root: Path, rows=6, name="set.csv", split=True, group=True, classes=3):
    """A table and the files that it names. Returns its path."""
    rng, table = np.random.default_rng(0), []
    for number in range(rows):
        image, mask = blobs(rng, (40, 48), classes)
        picture(root / "scans" / f"s{number}.png", image)
        picture(root / "truth" / f"m{number}.png", mask)
        table.append({"image": f"scans/s{number}.png", "mask": f"truth/m{number}.png"})
        if split:
            table[-1]["split"] = ("train", "train", "val")[number % 3]
        if group:
            table[-1]["group"] = f"patient {number // 3}"
    return save_table(root / name, table)


def save_table(path, rows):
    """Rows as CSV, TSV, Parquet or JSON lines, by the extension."""
    if path.suffix == ".parquet":
        import pandas

        pandas.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path
