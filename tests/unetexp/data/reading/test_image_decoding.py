"""Reading image and mask files: every format against the array it was written from."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from unetexp.data.reading.image_decoding import read_image, read_mask
from unetexp.errors import DataError

RNG = np.random.default_rng(0)
H, W = 12, 17
RGB = RNG.integers(0, 256, (H, W, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (H, W, 3)).astype(np.uint16)
GREY, GREY16 = RGB[..., 0], RGB16[..., 0]
ALPHA = RNG.integers(0, 256, (H, W, 1), np.uint8)
LABELS = RNG.integers(0, 3, (H, W)).astype(np.uint8)
PALETTE = RNG.integers(0, 256, (256, 3)).astype(np.uint8)


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def packed_png(values, bits, colour_type, palette=b""):
    """A PNG of fewer than 8 bits per pixel, which Pillow does not write."""
    height, width = values.shape
    spread = (values[..., np.newaxis] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(spread.reshape(height, -1), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    if palette:
        chunks.insert(1, chunk(b"PLTE", palette))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def pillow(array, **options):
    return lambda path: Image.fromarray(array).save(path, **options)


def paletted(path):
    image = Image.fromarray(LABELS, mode="P")
    image.putpalette(PALETTE.tobytes())
    image.save(path)


def png16(array):
    return lambda path: path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))


def plain_png16(array, colour_type, transparent=b""):
    """A PNG of 16 bits by the standard, with a colour that stands for transparency."""

    def write(path):
        raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
        header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, colour_type, 0, 0, 0)
        chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
        if transparent:
            chunks.insert(1, chunk(b"tRNS", transparent))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))

    return write


def tiff(array, **options):
    return lambda path: tifffile.imwrite(path, array, **options)


def chw(array):
    return np.atleast_3d(array).transpose(2, 0, 1)


BANDS = RNG.integers(0, 65536, (H, W, 6)).astype(np.uint16)


def bands(array, **options):
    return tiff(array, photometric="minisblack", planarconfig="contig", **options)


IMAGES = {
    "grey.png": (pillow(GREY), GREY),
    "rgb.png": (pillow(RGB), RGB),
    "rgba.png": (pillow(np.dstack([RGB, ALPHA])), RGB),
    "grey_alpha.png": (pillow(np.dstack([GREY, ALPHA])), GREY),
    "palette.png": (paletted, PALETTE[LABELS]),
    "grey16.png": (png16(GREY16), GREY16),
    "rgb16.png": (png16(RGB16), RGB16),
    "rgba16.png": (png16(np.dstack([RGB16, GREY16])), RGB16),
    "grey_alpha16.png": (png16(np.dstack([GREY16, GREY16])), GREY16),
    "rgb.tif": (tiff(RGB, photometric="rgb"), RGB),
    "plain_rgb16.png": (plain_png16(RGB16, 2), RGB16),
    "plain_rgba16.png": (plain_png16(np.dstack([RGB16, GREY16]), 6), RGB16),
    "transparent_grey16.png": (plain_png16(GREY16, 0, b"\0\1"), GREY16),
    "transparent_rgb16.png": (plain_png16(RGB16, 2, b"\0\1\0\2\0\3"), RGB16),
    "rgb16.tif": (tiff(RGB16, photometric="rgb", compression="deflate"), RGB16),
    "rgba.tiff": (tiff(np.dstack([RGB, ALPHA]), photometric="rgb"), RGB),
    "grey.tif": (tiff(GREY, compression="lzw"), GREY),
    "grey16_big_endian.tif": (tiff(GREY16, byteorder=">"), GREY16),
    "white_is_zero.tif": (tiff(GREY, photometric="miniswhite"), 255 - GREY),
    "planes.tif": (
        tiff(chw(RGB).copy(), photometric="rgb", planarconfig="separate"),
        RGB,
    ),
    "palette.tif": (
        tiff(LABELS, photometric="palette", colormap=PALETTE.T.astype(np.uint16) * 257),
        PALETTE[LABELS],
    ),
    "lossless.webp": (pillow(RGB, lossless=True), RGB),
    "alpha.webp": (pillow(np.dstack([RGB, ALPHA | 1]), lossless=True, exact=True), RGB),
    "rgb.bmp": (pillow(RGB), RGB),
    "grey.bmp": (pillow(GREY), GREY),
    "palette.bmp": (paletted, PALETTE[LABELS]),
    "palette.gif": (paletted, PALETTE[LABELS]),
    "gif_called.png": (pillow(GREY, format="GIF"), GREY),
    "grey.pgm": (pillow(GREY), GREY),
    "grey16.pgm": (pillow(GREY16), GREY16),
    "rgb.ppm": (pillow(RGB), RGB),
    "rgb16.ppm": (
        lambda path: path.write_bytes(b"P6\n# made\n17 12 65535\n" + RGB16.astype(">u2").tobytes()),
        RGB16,
    ),
    "text.pgm": (
        lambda path: path.write_text(f"P2\n17 12\n255\n{' '.join(map(str, GREY.flat))}\n"),
        GREY,
    ),
    "small_maximum.pgm": (
        lambda path: path.write_bytes(b"P5 17 12 2 " + LABELS.tobytes()),
        np.array([0, 128, 255], np.uint8)[LABELS],
    ),
    "reversible.jp2": (pillow(RGB, irreversible=False), RGB),
    "rgb.tga": (pillow(RGB), RGB),
    "rgb.qoi": (pillow(RGB), RGB),
    "six_bands.tif": (bands(BANDS), BANDS),
    "six_bands_deflate.tif": (bands(BANDS, compression="deflate", predictor=True), BANDS),
    "six_planes.tif": (
        tiff(chw(BANDS).copy(), photometric="minisblack", planarconfig="separate"),
        BANDS,
    ),
    "big.tif": (bands(BANDS, bigtiff=True), BANDS),
    "two_bands.tif": (bands(BANDS[..., :2], extrasamples=["unspecified"]), BANDS[..., :2]),
    "near_infrared.tif": (
        tiff(np.dstack([RGB, ALPHA]), photometric="rgb", extrasamples=["unspecified"]),
        np.dstack([RGB, ALPHA]),
    ),
    "tiled.tif": (bands(BANDS, tile=(16, 16)), BANDS),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_read_as_it_was_written(tmp_path, name):
    write, expected = IMAGES[name]
    write(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == expected.dtype
    np.testing.assert_array_equal(image, chw(expected))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_images_of_few_bits_span_the_whole_range(tmp_path, bits):
    values = RNG.integers(0, 2**bits, (H, W))
    (tmp_path / "a.png").write_bytes(packed_png(values, bits, colour_type=0))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), chw(values * 255 / (2**bits - 1)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_orientation_is_honoured(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, RGB, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(RGB).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(path), chw(expected))


MASKS = {
    "grey.png": pillow(LABELS),
    "palette.png": paletted,
    "agreeing_rgb.png": pillow(np.dstack([LABELS] * 3)),
    "agreeing_rgba.png": pillow(np.dstack([LABELS] * 3 + [ALPHA])),
    "grey_alpha.png": pillow(np.dstack([LABELS, ALPHA])),
    "grey16.png": png16(LABELS.astype(np.uint16)),
    "grey.tif": tiff(LABELS, compression="deflate"),
    "grey16.tif": tiff(LABELS.astype(np.uint16)),
    "palette.tif": tiff(LABELS, photometric="palette", colormap=PALETTE.T.astype(np.uint16) * 257),
    "two_bits.png": lambda path: path.write_bytes(packed_png(LABELS, 2, 0)),
    "four_bits.png": lambda path: path.write_bytes(packed_png(LABELS, 4, 0)),
    "palette_two_bits.png": lambda path: path.write_bytes(packed_png(LABELS, 2, 3, bytes(12))),
    "grey.gif": pillow(LABELS),
    "palette.gif": paletted,
    "grey.bmp": pillow(LABELS),
    "palette.bmp": paletted,
    "lossless.webp": pillow(np.dstack([LABELS] * 3), lossless=True),
    "grey.pgm": pillow(LABELS),
    "small_maximum.pgm": lambda path: path.write_bytes(b"P5 17 12 2 " + LABELS.tobytes()),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_keeps_its_stored_numbers(tmp_path, name):
    MASKS[name](tmp_path / name)
    mask = read_mask(tmp_path / name)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, LABELS)


def test_a_mask_of_one_bit_holds_0_and_1(tmp_path):
    Image.fromarray(LABELS > 0).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), LABELS > 0)


BAD_MASKS = {
    "jpeg.jpg": (pillow(LABELS), "JPEG"),
    "jpeg_called.png": (pillow(LABELS, format="JPEG"), "JPEG"),
    "jpeg_inside.tif": (tiff(RGB, photometric="rgb", compression="jpeg"), "JPEG"),
    "lossy.webp": (pillow(np.dstack([LABELS] * 3)), "lossy"),
    "lossy.jp2": (pillow(RGB, irreversible=True), "lossy"),
    "colours.png": (pillow(RGB), "colours"),
    "large_label.png": (png16(LABELS.astype(np.uint16) * 200), "label 400"),
    "float.tif": (tiff(LABELS.astype(np.float32)), "float32"),
    "int32.tif": (tiff(LABELS.astype(np.int32)), "int32"),
}


@pytest.mark.parametrize("name", BAD_MASKS)
def test_a_mask_that_cannot_be_trusted_is_refused(tmp_path, name):
    write, reason = BAD_MASKS[name]
    write(tmp_path / name)
    with pytest.raises(DataError, match=reason) as error:
        read_mask(tmp_path / name)
    assert name in str(error.value)


BAD_IMAGES = {
    "empty.png": (lambda path: path.write_bytes(b""), "empty"),
    "text.png": (lambda path: path.write_text("hello"), "not an image"),
    "cmyk16.tif": (tiff(np.dstack([RGB16, GREY16]), photometric="separated"), "SEPARATED"),
    "lab.tif": (tiff(RGB, photometric="cielab"), "CIELAB"),
    "pages.tif": (tiff(np.stack([RGB, RGB]), photometric="rgb"), "2 pages"),
    "complex.tif": (tiff(GREY.astype(np.complex64)), "complex64"),
    "floats.tif": (tiff(GREY.astype(np.float32)), "value_range"),
    "animated.gif": (
        pillow(GREY, save_all=True, append_images=[Image.fromarray(GREY[::-1])]),
        "animated",
    ),
    "animated.webp": (
        pillow(RGB, save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
        "animated",
    ),
    "animated.png": (
        pillow(RGB, save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
        "animated",
    ),
    "huge.png": (lambda path: path.write_bytes(huge_png(100_000)), "pixels"),
    "large.png": (lambda path: path.write_bytes(huge_png(9_000)), "9000 x 9000"),
    "no_pixels.png": (lambda path: path.write_bytes(huge_png(0)), "damaged"),
}


def huge_png(side):
    header = struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_what_is_no_usable_image_is_refused_with_its_name(tmp_path, name):
    write, reason = BAD_IMAGES[name]
    write(tmp_path / name)
    with pytest.raises(DataError, match=reason) as error:
        read_image(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize("name", ["rgb.png", "rgb16.png", "rgb.tif", "rgb16.tif", "rgb.jpg"])
@pytest.mark.parametrize("kept", [0.03, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path, name, kept):
    path = tmp_path / name
    write = IMAGES[name][0] if name in IMAGES else pillow(RGB)
    write(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(DataError, match=r"truncated or damaged|no image"):
        read_image(path)
