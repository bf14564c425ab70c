"""A model reads files as its training did: bands, ranges, pages, several files."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from unetexp.cli.main import app
from unetexp.cli.open_data import open_for_model
from unetexp.data import Folder, open_dataset
from unetexp.data.reading.input_form import InputForm
from unetexp.errors import ConfigError, DataError
from unetexp.inference.input_images import find_samples
from unetexp.inference.payloads import read_payload
from unetexp.inference.predictor import Predictor
from unetexp.models.image_spec import ImageSpec
from unetexp.models.saved_model import load, read_spec
from unetexp.training.config import decode_config
from unetexp.training.experiment import Experiment, best_figures

CPU = torch.device("cpu")
SIDE = 32
SETTINGS = {"bands": [5, 0, 1, 2, 3, 4]}


def write_six_bands(root, count=6, dtype=np.float32, scale=3000.0):
    """Only band 5 tells the classes apart; a hot pixel in each image."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[4:20, 4 + number : 18 + number] = 1
        image = rng.uniform(0.1, 0.3, (SIDE, SIDE, 6))
        image[..., 5] += 0.6 * mask
        image[0, number, 5] = 20
        tifffile.imwrite(
            root / f"images/{number}.tif",
            (image * scale).astype(dtype),
            photometric="minisblack",
            planarconfig="contig",
        )
        Image.fromarray(mask).save(root / f"masks/{number}.png")
    return root


def train(place, root, **data):
    config = decode_config(
        {
            "encoder": {"name": "resnet18", "weights": "none"},
            "augment": {"crop_px": 32, "modality_dropout": 0.2},
            "data": {"kind": "folder", "root": str(root), **data},
            "epochs": 1,
            "batch_size": 2,
        }
    )
    list(Experiment(config, open_dataset(config.data), place, CPU).run())
    return place / "best", open_dataset(config.data)


@pytest.fixture(scope="module", params=[np.float32, np.uint16])
def trained(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNETEXP_CACHE", str(place / "cache"))
        root = write_six_bands(place / "data", dtype=request.param)
        yield *train(place / "run", root, **SETTINGS), root


def predict(*arguments):
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def probabilities(folder, sample):
    spec = read_spec(folder)
    return Predictor(load(folder), spec).probabilities(sample.image)


def test_prediction_of_a_file_is_that_of_the_validation_sample(trained, tmp_path):
    folder, data, root = trained
    assert (data.channels, read_spec(folder).in_channels) == (6, 6)
    sample = data["val"][0]
    predict(folder, root / "images", "--out", tmp_path, "--probabilities")
    got = np.load(tmp_path / f"{sample.name}_probabilities.npy")
    np.testing.assert_allclose(got, probabilities(folder, sample), atol=2e-3)
    overlay = np.asarray(Image.open(tmp_path / f"{sample.name}_overlay.png"))
    assert overlay.shape == (SIDE, SIDE, 3)


def test_the_command_evaluates_it_as_training_did(trained, tmp_path):
    folder, _, root = trained
    done = CliRunner().invoke(
        app, ["evaluate", str(folder), str(root), "--out", str(tmp_path), "--format", "json"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["figures"]["miou"] == best_figures(folder.parent)["metrics"]["val/miou"]


def test_another_set_is_scaled_as_the_models_own(trained, tmp_path, monkeypatch):
    folder, data, root = trained
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    dtype = tifffile.imread(root / "images/0.tif").dtype
    other = write_six_bands(tmp_path / "other", dtype=dtype, scale=1000.0)
    seen = []

    def stop(model, spec, dataset, *rest, **more):
        seen.append(dataset)
        raise DataError("enough seen")

    monkeypatch.setattr("unetexp.cli.evaluate.assess", stop)
    CliRunner().invoke(app, ["evaluate", str(folder), str(other), "--out", str(tmp_path / "o")])
    assert seen[0].form.ranges == data.form.ranges


def test_another_set_is_read_without_the_models_values_for_no_measurement(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    roots = [
        write_six_bands(tmp_path / name, scale=scale) for name, scale in (("a", 3e3), ("b", 1e3))
    ]
    for file in [file for root in roots for file in (root / "images").iterdir()]:
        image = tifffile.imread(file)
        image[:, :2] = 1e20
        tifffile.imwrite(file, image, photometric="minisblack", planarconfig="contig")
    data = open_dataset(Folder(root=str(roots[0])))
    assert len(data.form.fills) == 6
    spec = ImageSpec(
        mean=(0.5,) * 6,
        std=(0.2,) * 6,
        class_names=("a", "b"),
        in_channels=6,
        image_max=65535,
        input=data.form,
    )
    other = open_for_model(Folder(root=str(roots[1])), spec, Console(quiet=True))
    assert other.form.ranges == data.form.ranges
    assert other["val"][0].image[:, :, :2].numpy().max() == 0
    assert other["val"][0].image[:, :, 2:].numpy().min() > 0


def test_numbers_that_a_model_of_whole_numbers_does_not_know_need_a_range(
    trained, tmp_path, monkeypatch
):
    folder, data, _ = trained
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    known = data.form.ranges is not None
    floats = write_six_bands(tmp_path / "floats")
    done = CliRunner().invoke(
        app, ["evaluate", str(folder), str(floats), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == (0 if known else 2)
    assert known or "data.value_range=[0, " in done.output


def test_served_models_take_arrays_of_their_channels(trained):
    folder, data, root = trained
    spec = read_spec(folder)
    sample = data["val"][0]
    stored = tifffile.imread(root / f"images/{sample.name}.tif")[..., SETTINGS["bands"]]
    (image,) = read_payload(stored, spec).images
    limited = np.minimum(image, spec.image_max)
    np.testing.assert_array_equal(limited, sample.image.numpy())
    (again,) = read_payload(sample.image.permute(1, 2, 0).numpy(), spec).images
    np.testing.assert_array_equal(again, sample.image.numpy())
    with pytest.raises(DataError, match=r"has 3 channels.*6, those of the images"):
        read_payload(stored[..., :3].astype(np.uint16), spec)


def test_the_band_that_tells_the_classes_apart_reaches_the_model(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    root = write_six_bands(tmp_path / "data")
    inside, outside = [], []
    for sample in open_dataset(decode_config({"data": {"kind": "folder", "root": str(root)}}).data)[
        "train"
    ]:
        band = sample.image[5].float()
        inside.append(band[sample.mask == 1].mean() / 65535)
        outside.append(band[sample.mask == 0].mean() / 65535)
    assert min(inside) > 0.6
    assert max(outside) < 0.4


def test_pages_that_were_samples_are_predicted_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    stack = rng.integers(0, 256, (6, SIDE, SIDE)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "data/images/a.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "data/masks/a.tif", stack >> 7, photometric="minisblack")
    folder, data = train(tmp_path / "run", tmp_path / "data", pages="samples")
    predict(folder, tmp_path / "data/images/a.tif", "--out", tmp_path / "out", "--probabilities")
    names = {path.stem for path in (tmp_path / "out").glob("a_p00?.png")}
    assert names == {f"a_p{page:03d}" for page in range(6)}
    sample = data["val"][0]
    got = np.load(tmp_path / f"out/{sample.name}_probabilities.npy")
    np.testing.assert_allclose(got, probabilities(folder, sample), atol=2e-3)


def test_a_sample_in_two_files_is_predicted_from_two_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETEXP_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        for place, high, dtype in (("red", 256, np.uint8), ("heat", 900, np.float32)):
            (tmp_path / place).mkdir(exist_ok=True)
            pixels = rng.uniform(0, high, (SIDE, SIDE)).astype(dtype)
            tifffile.imwrite(tmp_path / place / f"{name}.tif", pixels)
    form = InputForm(file_channels=(1, 1), ranges=((0, 255), (0, 900)))
    given = [tmp_path / "red", tmp_path / "heat"]
    inputs = find_samples(given, tmp_path / "out", form)
    assert [str(image.stem) for image in inputs] == ["a", "b", "c"]
    image = inputs[1].read(form)
    for plane, place, high in zip(image, ("red", "heat"), (255, 900), strict=True):
        expected = tifffile.imread(tmp_path / place / "b.tif") / high
        np.testing.assert_allclose(plane / 65535, expected, atol=1e-5)
    (tmp_path / "heat/b.tif").unlink()
    with pytest.raises(DataError, match=r"red/b\.tif: .*heat holds no file"):
        find_samples(given, tmp_path / "out", form)
    zeros = form.model_copy(update={"missing": "zeros"})
    assert find_samples(given, tmp_path / "out", zeros)[1].read(zeros)[1].max() == 0
    with pytest.raises(ConfigError, match="2 files an image"):
        find_samples(given[:1], tmp_path / "out", form)
