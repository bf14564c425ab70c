"""`unetexp data check` at every kind of place, and with a model."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.support import data_sources as write
from tests.support.textured import write_textured
from unetexp.cli.main import app

TINY = [
    *("--set", "encoder.name=resnet18", "--set", "encoder.weights=none", "--epochs", "2"),
    *("--set", "augment.crop_px=32", "--set", "batch_size=4", "--device", "cpu"),
]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def checked(place, *flags):
    """What `--json` prints."""
    result = run("data", "check", place, "--json", *flags)
    assert result.exit_code in (0, 1, 2)
    assert result.stdout, result.stderr
    return json.loads(result.stdout)


def manifest(root):
    write.write_manifest(root)
    return root / "set.csv"


PLACES = {
    "table": (manifest, 6, {"0", "1", "2"}),
    "folder with a table": (lambda root: manifest(root).parent, 6, {"0", "1", "2"}),
    "voc2012": (write.write_voc, 5, {"aeroplane"}),
    "cityscapes": (write.write_cityscapes, 5, {"road", "sky"}),
    "camvid colours": (write.write_camvid_colours, 5, {"Animal", "Road"}),
    "camvid numbers": (write.write_camvid_numbers, 7, {"Sky", "Road"}),
    "coco": (write.write_coco, 5, {"background", "dog", "person"}),
    "nifti": (write.write_nifti, 50, {"background", "lung", "tumour"}),
    "mni152": (lambda _: "mni152", 131, {"grey_matter"}),
}


@pytest.mark.parametrize("kind", PLACES)
def test_every_kind_of_place_is_checked(tmp_path, kind):
    make, pairs, classes = PLACES[kind]
    (tmp_path / "set").mkdir()

    tree = checked(make(tmp_path / "set"))

    assert tree["pairs"] == pairs
    assert classes <= set(tree["classes"])
    assert not {"wrong-labels", "unreadable"} & {f["code"] for f in tree["findings"]}


def test_slices_are_drawn(tmp_path):
    page = tmp_path / "page.html"

    result = run("data", "check", write.write_nifti(tmp_path / "set"), "--html", page)

    assert result.exit_code == 0  # notes only
    assert "data:image/png;base64," in page.read_text("utf-8")


@pytest.mark.parametrize("what", ["absent", "empty", "no images", "no masks", "text"])
def test_a_place_without_data_is_one_message(tmp_path, what):
    place = tmp_path / "place"
    if what == "text":
        place.write_text("hello")
    elif what != "absent":
        (place / "images").mkdir(parents=True) if what == "no masks" else place.mkdir()
    if what == "no images":
        (place / "readme.txt").write_text("nothing here")
    if what == "no masks":
        for number in range(3):
            Image.fromarray(np.full((32, 32), 70 + number, np.uint8)).save(
                place / "images" / f"{number}.png"
            )

    result = run("data", "check", place)

    assert result.exit_code == 2
    assert result.stdout.strip() == ""
    assert result.stderr.count("error: ") == 1
    assert str(place) in result.stderr


def test_a_user_that_does_not_exist_is_one_message():
    result = run("data", "check", "~nobody-of-this-name/set")

    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_that_cut_copies_were_not_searched_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("unetexp.data.checks.copies.candidates._MANY", 19)
    root = write_textured(tmp_path / "set")

    result = run("data", "check", root)

    assert result.exit_code == 0
    assert "crops-not-searched" in result.stdout
    monkeypatch.setattr("unetexp.data.checks.copies.candidates._MANY", 20)
    assert "crops-not-searched" not in run("data", "check", root).stdout


def test_long_names_are_not_cut(tmp_path):
    root = write_textured(tmp_path / "set")
    image = sorted((root / "train/images").iterdir())[0]
    image.write_bytes(b"no image")

    result = run("data", "check", root)

    assert image.name in re.sub(r"[\s│]", "", result.stdout)


class TestWithAModel:
    @pytest.fixture(scope="class")
    def root(self, tmp_path_factory):
        root = write_textured(tmp_path_factory.mktemp("data") / "set")
        for path in root.glob("*/*/*"):
            Image.open(path).resize((32, 32), Image.Resampling.NEAREST).save(path)
        wrong = sorted((root / "val/masks").iterdir())[0]
        mask = np.asarray(Image.open(wrong))
        Image.fromarray(np.where(mask == 0, 1, 0).astype(np.uint8)).save(wrong)
        return root

    @pytest.fixture(scope="class")
    def model(self, root, tmp_path_factory):
        out = tmp_path_factory.mktemp("run") / "out"
        trained = run("train", "--data", root, "--out", out, *TINY)
        assert trained.exit_code == 0, trained.output
        return out / "best"

    def test_held_out_masks_are_ranked_and_drawn(self, root, model, tmp_path):
        page = tmp_path / "page.html"
        held_out = {(s, p.stem) for s in ("val", "test") for p in (root / s / "masks").iterdir()}

        tree = checked(root, "--model", model, "--device", "cpu", "--html", page)

        (finding,) = [f for f in tree["findings"] if f["code"] == "suspected-label-noise"]
        ranking = finding["numbers"]["ranking"]
        assert {(each["split"], each["image"]) for each in ranking} == held_out
        scores = [each["score"] for each in ranking]
        assert scores == sorted(scores, reverse=True)
        assert all(len(region) == 4 for each in ranking for region in each["regions"])
        assert any(each["regions"] for each in ranking)
        section = page.read_text("utf-8").split('id="suspected-label-noise"')[1]
        assert "data:image/png;base64," in section
        assert ranking[0]["image"] in section

    def test_the_table_names_the_most_doubtful(self, root, model):
        result = run("data", "check", root, "--model", model, "--device", "cpu")

        assert "suspected-label-noise" in result.stdout
        assert result.exit_code in (0, 1)

    def test_faults_that_stop_the_model_do_not_hide_the_findings(self, root, model, tmp_path):
        copy = shutil.copytree(root, tmp_path / "copy")
        sorted((copy / "train/images").iterdir())[0].write_bytes(b"no image")

        tree = checked(copy, "--model", model, "--device", "cpu")

        assert "unreadable" in {finding["code"] for finding in tree["findings"]}
        assert any("not ranked" in note for note in tree["notes"])

    def test_a_model_that_does_not_exist_is_one_message(self, root, tmp_path):
        result = run("data", "check", root, "--model", tmp_path / "none")

        assert result.exit_code == 2
        assert "none" in result.stderr
