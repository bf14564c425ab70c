"""Small sets as people bring them: odd layouts, formats and faults. Each returns its true masks."""

import json

import nibabel as nib
import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage

SIDE, COUNT = 48, 6
RAW_FRAME = 3  # EXIF: turned by 180 degrees


def scene(number, classes=2):
    """An image (H, W, 3) in which the classes of the mask (H, W) are brighter rectangles."""
    rng = np.random.default_rng(number)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for label in range(1, classes):
        top, left = rng.integers(2, SIDE // 2, 2)
        mask[top : top + 14, left : left + 8 + 2 * label] = label
    mask[0, :classes] = np.arange(classes)  # every class in every mask
    noise = rng.integers(0, 50, (SIDE, SIDE, 3))
    return (noise + (180 // (classes - 1)) * mask[..., np.newaxis]).astype(np.uint8), mask


def scenes(classes=2):
    return [(number, *scene(number, classes)) for number in range(COUNT)]


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, **options)
    else:
        Image.fromarray(array).save(path, **options)


def pairs(image, mask, *, classes=2, as_image=lambda pixels: pixels, as_mask=lambda mask: mask):
    """A writer of pairs at the places that two formats make of a number, stored as given."""

    def write(root):
        for number, pixels, labels in scenes(classes):
            split = "train" if number < 4 else "val"
            save(root / image.format(n=number, split=split), as_image(pixels))
            save(root / mask.format(n=number, split=split), as_mask(labels))
        return [labels for _, _, labels in scenes(classes)]

    return write


def usual(**stored):
    return pairs("images/{n}.png", "masks/{n}.png", **stored)


def tiffs(as_image, **options):
    """A writer of TIFF images, with options of tifffile, beside masks as PNG."""

    def write(root):
        for number, pixels, labels in scenes():
            save(root / f"images/{number}.tif", as_image(pixels, labels), **options)
            save(root / f"masks/{number}.png", labels)
        return [labels for _, _, labels in scenes()]

    return write


def cmyk(root):
    for number, pixels, labels in scenes():
        save(root / f"masks/{number}.png", labels)
        (root / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).convert("CMYK").save(root / f"images/{number}.jpg")
    return [labels for _, _, labels in scenes()]


def masks_on_the_raw_frame(root):
    tag = Image.Exif()
    tag[0x0112] = RAW_FRAME
    for number, pixels, labels in scenes():
        save(root / f"images/{number}.jpg", pixels, exif=tag.tobytes(), quality=95)
        save(root / f"masks/{number}.png", labels)
    return [labels for _, _, labels in scenes()]


def overviews(root):
    for number, pixels, labels in scenes():
        save(root / f"masks/{number}.png", labels)
        (root / "images").mkdir(exist_ok=True)
        with tifffile.TiffWriter(root / f"images/{number}.tif") as tiff:
            tiff.write(pixels, photometric="rgb", tile=(16, 16))
            tiff.write(pixels[::2, ::2], photometric="rgb", tile=(16, 16), subfiletype=1)
    return [labels for _, _, labels in scenes()]


def pages(root):
    every = scenes()
    for start in (0, 3):
        part = every[start : start + 3]
        grey = {"photometric": "minisblack"}
        save(
            root / f"images/{start}.tif", np.stack([image[..., 0] for _, image, _ in part]), **grey
        )
        save(root / f"masks/{start}.tif", np.stack([mask for *_, mask in part]), **grey)
    return [labels for _, _, labels in every]


def mixed_scales(root):
    for number, pixels, labels in scenes():
        save(root / f"images/{number}.png", pixels)
        save(root / f"masks/{number}.png", labels * (255 if number % 2 else 1))
    return [labels for _, _, labels in scenes()]


def links(root):
    written = usual()(root.with_name("elsewhere"))
    root.mkdir()
    for folder in ("images", "masks"):
        (root / folder).symlink_to(root.with_name("elsewhere") / folder)
    return written


def modalities(lacking=None):
    def write(root):
        for number, pixels, labels in scenes():
            save(root / f"ct/{number}.png", pixels[..., 0])
            if number != lacking:
                save(root / f"mri/{number}.png", pixels[..., 1])
            save(root / f"masks/{number}.png", labels)
        return [labels for _, _, labels in scenes()]

    return write


def table(columns, separator=","):
    def write(root):
        rows = [separator.join(columns)]
        for number, pixels, labels in scenes():
            save(root / f"a/{number}.png", pixels)
            save(root / f"b/{number}.png", labels)
            rows.append(f"a/{number}.png{separator}b/{number}.png")
        (root / "data.csv").write_text("\n".join(rows) + "\n")
        return [labels for _, _, labels in scenes()]

    return write


def volumes(root):
    for number in range(COUNT):
        _, labels = scene(number)
        mask = np.stack([labels, labels], axis=2)
        hounsfield = np.where(mask == 1, 400, -800).astype(np.int16)
        for folder, array in (("images", hounsfield), ("labels", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / folder / f"case{number}.nii.gz")
    return  # their slices may be turned


def coco(root):
    """Rectangles in a JSON file beside the images."""
    tree = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "cell"}]}
    masks = []
    for number, pixels, _ in scenes():
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[10:30, 12:20] = 1
        masks.append(mask)
        save(root / f"images/{number}.jpg", np.where(mask[..., np.newaxis], 200, pixels // 4))
        tree["images"].append(
            {"id": number, "file_name": f"{number}.jpg", "width": SIDE, "height": SIDE}
        )
        tree["annotations"].append(
            {
                "id": number + 1, "image_id": number, "category_id": 7, "iscrowd": 0,
                "area": 160, "bbox": [12, 10, 8, 20],
                "segmentation": [[12, 10, 20, 10, 20, 30, 12, 30]],
            }
        )  # fmt: skip
    (root / "annotations.json").write_text(json.dumps(tree))
    return masks


def objects(labels):
    """Numbers of objects, in 16 bits, of a mask of one class."""
    return np.where(labels, 300 + np.indices(labels.shape)[0] // 8, 0).astype(np.uint16)


def smoothed(labels):
    """A mask of 0 and 255 whose edges are soft, and whose halves are the mask."""
    grown = ndimage.binary_dilation(labels)
    kept = ndimage.binary_erosion(labels)
    return np.select([kept, labels > 0, grown], [255, 190, 90]).astype(np.uint8)
