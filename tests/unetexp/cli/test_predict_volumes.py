"""`unetexp predict` and `evaluate` for NIfTI volumes, with a model that was trained on slices."""

import json

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import unetexp
from tests.support.data_sources import save_nifti, volume_pair, write_nifti
from tests.support.small_config import config_with
from unetexp.cli.main import app
from unetexp.data import Nifti, open_dataset
from unetexp.data.reading.input_form import InputForm, VolumeForm
from unetexp.inference.predictor import Predictor
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import ResNet
from unetexp.models.saved_model import ModelSpec, save_model

LPS = np.diag([-0.7, -0.7, 2.0, 1.0])
TURNED = np.array([[0, 0, 1.5, 3], [-0.8, 0, 0, 20], [0, 0.8, 0, -7], [0, 0, 0, 1.0]])


def run(*arguments):
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def untrained(place, channels=1, **fields):
    """The folder of a model of slices, and the model."""
    windows = fields.pop("windows", (None,) * channels)
    form = VolumeForm(**{"axis": "axial", "windows": windows, "bits": 8} | fields)
    spec = ModelSpec(
        class_names=("background", "lung", "tumour"),
        in_channels=channels,
        image_max=255,
        input=InputForm(volumes=form),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        encoder=ResNet(name="resnet18", weights="none"),
        decoder=Decoder(),
    )
    torch.manual_seed(0)
    model = spec.build().eval()
    place.mkdir()
    save_file(model.state_dict(), place / "model.safetensors")
    (place / "config.json").write_text(f'{{"model": {spec.model_dump_json()}}}')
    return place, Predictor(model, spec)


def canonical(path):
    return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("affine", [LPS, TURNED])
def test_labels_lie_on_the_voxels_of_the_volume(tmp_path, axis, affine):
    root = write_nifti(tmp_path / "set", cases=1, affine=affine)
    model, predictor = untrained(tmp_path / "model", axis=axis, windows=((-1350.0, 150.0),))

    done = run("predict", model, root / "imagesTr", "--out", tmp_path / "out")

    assert done.exit_code == 0, done.stderr
    [path] = (tmp_path / "out").iterdir()
    assert path.name == "lung_000.nii.gz"
    written, stored = nibabel.load(path), nibabel.load(root / "imagesTr/lung_000.nii.gz")
    assert written.shape == stored.shape
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(written.affine, stored.affine)
    np.testing.assert_array_equal(written.header.get_zooms(), stored.header.get_zooms())
    source = Nifti(root=str(root), axis=axis, window="lung")
    reader, labels = source.reader(), canonical(path)
    place = {"sagittal": 0, "coronal": 1, "axial": 2}[axis]
    for sample in source.listing().unsplit:
        index = int(sample.name[-3:])
        expected = predictor.labels(torch.from_numpy(reader.image(sample)))
        np.testing.assert_array_equal(labels.take(index, axis=place).T[::-1], expected)
    assert len(np.unique(labels)) > 1


def test_a_spacing_is_undone(tmp_path):
    path = save_nifti(tmp_path / "x.nii.gz", volume_pair(np.random.default_rng(0))[0], LPS)
    model, _ = untrained(tmp_path / "model", spacing_mm=0.35)
    assert run("predict", model, path, "--out", tmp_path / "out").exit_code == 0
    assert nibabel.load(tmp_path / "out/x.nii.gz").shape == (20, 24, 10)


FORMS = {  # files of two channels, and what their labels are called
    "nnU-Net": (["a_0000", "a_0001", "b_0000", "b_0001"], ["a", "b"]),
    "a folder each case": (
        ["a/a_flair", "a/a_t1", "a/a_seg", "b/b_flair", "b/b_t1", "b/b_seg"],
        ["a", "b"],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_channels_in_several_files_are_one_volume(tmp_path, form):
    files, names = FORMS[form]
    rng = np.random.default_rng(0)
    for file in files:
        save_nifti(tmp_path / f"set/{file}.nii.gz", volume_pair(rng, base=200.0)[0])
    model, _ = untrained(tmp_path / "model", channels=2)
    done = run("predict", model, tmp_path / "set", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{n}.nii.gz" for n in names]
    both = [tmp_path / f"set/{file}.nii.gz" for file in files[:2]]
    assert run("predict", model, *both, "--out", tmp_path / "two").exit_code == 0
    assert len(list((tmp_path / "two").iterdir())) == 1


def test_what_a_model_cannot_take_is_said(tmp_path):
    path = save_nifti(tmp_path / "x.nii.gz", volume_pair(np.random.default_rng(0))[0])
    model, _ = untrained(tmp_path / "model", channels=2)
    done = run("predict", model, path, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "has 1 channels, and the model takes 2" in done.stderr
    done = run("predict", model, path, "--probabilities", "--out", tmp_path / "out")
    assert (done.exit_code, "--probabilities" in done.stderr) == (2, True)
    config = json.loads((model / "config.json").read_text())
    config["model"].pop("input")
    for kind, said in (("folder", "was trained on images"), ("nifti", "an earlier version")):
        config["train"] = {"data": {"kind": kind}}
        (model / "config.json").write_text(json.dumps(config))
        done = run("predict", model, path, "--out", tmp_path / "out")
        assert (done.exit_code, said in done.stderr) == (2, True), done.stderr


def test_a_trained_model_labels_volumes_and_is_evaluated_on_them(tmp_path):
    root = write_nifti(tmp_path / "set", cases=3, shape=(40, 40, 6))
    config = config_with(data={"kind": "nifti", "root": str(root)}, epochs=1)
    data = open_dataset(config.data)
    state = unetexp.TrainState(config, data, torch.device("cpu"))
    list(unetexp.fit(config, data, state))
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", state.model, config, data, epoch=1)

    done = run("predict", tmp_path / "model", root / "imagesTr", "--out", tmp_path / "out")
    judged = run("evaluate", tmp_path / "model", root, "--out", tmp_path / "judged")

    assert (done.exit_code, judged.exit_code) == (0, 0), done.stderr + judged.stderr
    assert len(list((tmp_path / "out").iterdir())) == 3
    worst = json.loads((tmp_path / "judged/evaluation.json").read_text())["image_miou"]
    case = worst[0]["image"]
    labels = canonical(tmp_path / f"out/{case[:8]}.nii.gz")[..., int(case[-3:])]
    truth = canonical(root / f"labelsTr/{case[:8]}.nii.gz")[..., int(case[-3:])]
    ious = [
        ((labels == k) & (truth == k)).sum() / ((labels == k) | (truth == k)).sum()
        for k in range(3)
        if ((labels == k) | (truth == k)).any()
    ]
    assert np.mean(ious) == pytest.approx(worst[0]["miou"], abs=0.02)
