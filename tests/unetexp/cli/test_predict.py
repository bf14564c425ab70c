"""`unetexp predict`: files and folders in, label maps and overlays out."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from unetexp.cli.main import app
from unetexp.data.reading.image_decoding import read_image
from unetexp.inference.conforming import conform
from unetexp.inference.input_images import find_inputs
from unetexp.inference.predictor import Predictor
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import ResNet
from unetexp.models.saved_model import ModelSpec

CLASSES = ("background", "cell", "nucleus")


@pytest.fixture(scope="module")
def spec():
    return ModelSpec(
        class_names=CLASSES,
        in_channels=3,
        image_max=255,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        encoder=ResNet(name="resnet18", weights="none"),
        decoder=Decoder(),
    )


@pytest.fixture(scope="module")
def model(spec):
    torch.manual_seed(0)
    return spec.build().eval()


@pytest.fixture(scope="module")
def folder(spec, model, tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    save_file(model.state_dict(), place / "model.safetensors")
    description = ModelSpec.model_dump_json(spec)
    (place / "config.json").write_text(f'{{"model": {description}}}')
    return place


@pytest.fixture
def images(tmp_path):
    """A folder with images of several kinds, a broken one, and a file that is not an image."""
    root = tmp_path / "images"
    (root / "deep" / "er").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (37, 51, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(root / "photo.jpg")
    Image.fromarray(rgb[..., 0]).save(root / "grey.png")
    Image.fromarray(rgb).convert("P").save(root / "deep" / "photo.png")
    tifffile.imwrite(root / "deep" / "er" / "scan.tif", rgb.astype(np.uint16) * 257)
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_bytes(b"x")
    return root


def run(*arguments):
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def written(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def digests(root):
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in root.rglob("*.*")}


class TestResults:
    def test_a_folder_keeps_its_order(self, folder, images, tmp_path, model, spec):
        out = tmp_path / "new" / "out"
        done = run(folder, images, "--out", out)
        assert done.exit_code == 0, done.output
        stems = ["photo", "grey", "deep/photo", "deep/er/scan"]
        assert written(out) == sorted(f"{s}{e}" for s in stems for e in (".png", "_overlay.png"))
        labels = Image.open(out / "photo.png")
        assert (labels.mode, labels.size) == ("L", (51, 37))
        pixels, _ = conform(read_image(images / "photo.jpg"), spec)
        expected = Predictor(model, spec).labels(torch.from_numpy(pixels))
        assert np.array_equal(np.asarray(labels), expected.numpy())
        overlay = Image.open(out / "deep" / "er" / "scan_overlay.png")
        assert (overlay.mode, overlay.size) == ("RGB", (51, 37))
        for said in ("grey.png is grey", "16 bits", "4 images predicted", "2 nucleus"):
            assert said in done.output

    def test_overlays_are_the_image_where_nothing_is(self, folder, tmp_path):
        image = np.random.default_rng(1).integers(0, 256, (30, 40, 3)).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "x.png")
        run(folder, tmp_path / "x.png", "--out", tmp_path / "out")
        labels, overlay = (
            np.asarray(Image.open(tmp_path / "out" / n)) for n in ("x.png", "x_overlay.png")
        )
        assert np.array_equal((overlay == image).all(axis=2), labels == 0)

    def test_probabilities_and_no_overlay(self, folder, images, tmp_path):
        out = tmp_path / "out"
        done = run(folder, images / "photo.jpg", "--out", out, "--probabilities", "--no-overlay")
        assert done.exit_code == 0, done.output
        assert written(out) == ["photo.png", "photo_probabilities.npy"]
        shares = np.load(out / "photo_probabilities.npy")
        assert (shares.shape, shares.dtype) == ((3, 37, 51), np.float16)
        assert np.abs(shares.sum(axis=0, dtype=np.float32) - 1).max() < 0.01
        best = np.take_along_axis(shares, np.asarray(Image.open(out / "photo.png"))[None], 0)
        assert (best >= shares.max(axis=0) - 1e-3).all()

    def test_tiles_and_flips(self, folder, images, tmp_path):
        arguments = ("--tile", 32, "--overlap", 0, "--flips", "--device", "cpu")
        done = run(folder, images / "photo.jpg", "--out", tmp_path / "out", *arguments)
        assert done.exit_code == 0, done.output
        assert Image.open(tmp_path / "out" / "photo.png").size == (51, 37)

    def test_a_broken_image_is_reported_and_the_rest_continues(self, folder, images, tmp_path):
        whole = (images / "photo.jpg").read_bytes()
        (images / "deep" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
        (images / "deep" / "empty.png").touch()
        (images / "lost.png").symlink_to(tmp_path / "nowhere.png")
        done = run(folder, images, "--out", tmp_path / "out")
        assert done.exit_code == 1
        for name in ("cut.jpg", "empty.png", "lost.png", "3 of 7 images", "4 images predicted"):
            assert name in done.output
        assert not [name for name in written(tmp_path / "out") if "cut" in name or "part" in name]
        assert len(written(tmp_path / "out")) == 8

    def test_inputs_stay_as_they_are(self, folder, images):
        before = digests(images)
        for _ in range(2):  # the second time the results are among the images
            out = images / "out"
            done = run(folder, images, "--out", out)
            assert done.exit_code == 0, done.output
            assert len(written(out)) == 8
        out.joinpath("grey.png").unlink()
        out.joinpath("grey.png").symlink_to(images / "grey.png")
        assert run(folder, images, "--out", out).exit_code == 0
        assert {
            path: digest for path, digest in digests(images).items() if path in before
        } == before
        assert not out.joinpath("grey.png").is_symlink()


class TestMistakes:
    @pytest.fixture
    def out(self, tmp_path):
        return tmp_path / "out"

    def refused(self, words, *arguments):
        done = run(*arguments)
        assert done.exit_code == 2, done.output
        assert words in done.output
        assert "Traceback" not in done.output

    def test_nothing_to_predict(self, folder, tmp_path, out):
        (tmp_path / "empty").mkdir()
        self.refused("there are no images in", folder, tmp_path / "empty", "--out", out)
        self.refused("no such file or folder", folder, tmp_path / "none.png", "--out", out)
        self.refused("INPUTS: a value is needed", folder, "--out", out)
        assert not out.exists()

    def test_results_over_images(self, folder, images):
        self.refused("overwrite an image", folder, images, "--out", images)

    def test_a_place_that_cannot_be_written(self, folder, images):
        place = images / "notes.txt" / "out"
        self.refused("cannot be written to", folder, images, "--out", place)

    def test_no_model(self, images, out, tmp_path):
        self.refused("there is no such file or folder", tmp_path / "no", images, "--out", out)
        self.refused("are missing", images, images, "--out", out)
        assert not out.exists()

    def test_values(self, folder, images, out):
        same = (folder, images, "--out", out)
        self.refused("must be larger than the overlap", *same, "--tile", 64, "--overlap", 64)
        self.refused("Choices: auto, cpu, cuda", *same, "--device", "gpuu")


class TestNames:
    def names(self, tmp_path, *files, given=()):
        for name in files:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        places = [tmp_path / name for name in given or files]
        found = find_inputs(places, tmp_path / "out")
        return {str(image.path.relative_to(tmp_path.resolve())): str(image.stem) for image in found}

    def test_files_of_one_name(self, tmp_path):
        assert self.names(tmp_path, "a/x.png", "b/x.png", "b/y.png") == {
            "a/x.png": "a/x",
            "b/x.png": "b/x",
            "b/y.png": "y",
        }

    def test_folders_with_files_of_one_name(self, tmp_path):
        found = self.names(tmp_path, "a/c/x.png", "b/c/x.png", given=("a", "b"))
        assert found == {"a/c/x.png": "a/c/x", "b/c/x.png": "b/c/x"}

    def test_files_that_differ_by_their_ending_or_case(self, tmp_path):
        found = self.names(tmp_path, "x.png", "x.jpg", "X.v2.tif", given=(".",))
        assert found == {"x.png": "x.png", "x.jpg": "x.jpg", "X.v2.tif": "X.v2"}
        assert len(set(self.names(tmp_path / "s", "y.png", "Y.png").values())) == 2

    def test_a_file_called_like_anothers_overlay(self, tmp_path):
        found = self.names(tmp_path, "x.png", "x_overlay.png", given=(".",))
        assert found == {"x.png": "x.png", "x_overlay.png": "x_overlay.png"}

    def test_a_file_that_is_given_twice_is_taken_once(self, tmp_path):
        assert len(self.names(tmp_path, "a/x.png", given=("a", "a/x.png", "a/../a"))) == 1

    def test_no_name_leads_out_of_the_results(self, tmp_path):
        found = self.names(tmp_path, "a/x.png", "x.png", "b/x.png", given=("a/..", "b/../a", "b"))
        assert not any(".." in name for name in found.values())

    def test_links(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "x.png").touch()
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "round").symlink_to(tmp_path)
        (tmp_path / "a" / "y.png").symlink_to(tmp_path / "real" / "x.png")
        assert self.names(tmp_path, given=("a",)) == {"a/y.png": "y"}
        (tmp_path / "b").symlink_to(tmp_path / "real")
        assert self.names(tmp_path, given=("b",)) == {"real/x.png": "x"}
