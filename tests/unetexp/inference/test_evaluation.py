"""A finished model on a data set: training's own metrics, the worst images, and `evaluate`."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from typer.testing import CliRunner

from tests.support.data_folders import write_folder_dataset
from unetexp.cli.main import app
from unetexp.data import open_dataset
from unetexp.errors import CheckpointError, DataError
from unetexp.inference.evaluation import as_the_model_takes_it, assess, train_config
from unetexp.metrics import (
    brier_score,
    expected_calibration_error,
    hausdorff95,
    normalized_surface_dice,
)
from unetexp.metrics.figures.settings import FigureSettings
from unetexp.metrics.per_image import ImageScores
from unetexp.metrics.segmentation import SegmentationMetrics, mean_iou
from unetexp.models.saved_model import load, model_spec, read_spec
from unetexp.models.weights.resolution import input_normalization, to_input
from unetexp.training.config import decode_config
from unetexp.training.experiment import Experiment, best_figures
from unetexp.training.losses import loss_for
from unetexp.training.validation import evaluate as run_evaluation

CPU = torch.device("cpu")
NAMES = ("ground", "cell", "wall")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of three classes: (its experiment's folder, the data's folder)."""
    place = tmp_path_factory.mktemp("evaluation")
    root = write_folder_dataset(
        place / "data", {"train": 4, "val": 6}, classes=3, class_names=NAMES, void=0.05
    )
    config = decode_config(
        {
            "data": {"kind": "folder", "root": str(root)},
            "encoder": {"name": "resnet18", "weights": "none"},
            "augment": {"crop_px": 32},
            "loss": {"kind": "cross_entropy", "class_weights": "balanced"},
            "epochs": 1,
            "batch_size": 4,
        }
    )
    experiment = Experiment(config, open_dataset(config.data), place / "run", CPU)
    list(experiment.run())
    return place / "run", root


def evaluate(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def assessment(trained, **options):
    folder = trained[0] / "best"
    train = train_config(folder)
    data = open_dataset(train.data)
    return assess(load(folder), read_spec(folder), data, "val", CPU, train=train, **options)


def test_the_metrics_are_training_s_to_the_bit(trained):
    found = assessment(trained)
    recorded = best_figures(trained[0])["metrics"]
    assert {f"val/{name}": value for name, value in found.metrics.items()} == {
        name: value for name, value in recorded.items() if name.startswith("val/")
    }


def test_each_image_has_its_own_metrics(trained):
    found = assessment(trained)
    assert found.image_names == tuple(f"{number:03d}" for number in range(6))
    assert found.matrices.sum(axis=0).tolist() == best_figures(trained[0])["confusion"]
    for matrix, miou in zip(found.matrices, found.image_miou, strict=True):
        single = SegmentationMetrics(3)
        single._confusion = torch.from_numpy(matrix)
        assert miou == single.compute()["miou"]


def test_the_worst_images_come_first(trained):
    found = assessment(trained, worst=3)
    assert list(found.worst) == np.argsort(found.image_miou, kind="stable")[:3].tolist()
    assert all(labels.shape == (40, 48) for labels in found.worst.values())
    assert not assessment(trained, worst=0).worst


def test_training_pictures_its_worst_images(trained):
    sheets = [Image.open(trained[0] / "best" / name) for name in ("overlay.png", "worst.png")]
    assert sheets[0].width == sheets[1].width
    assert sheets[1].height < sheets[0].height  # four rows against six


@pytest.mark.parametrize("order", [range(9), reversed(range(9)), [4, 0, 8, 2, 6, 1, 5, 3, 7]])
def test_a_running_worst_is_the_worst_of_all_in_any_order_and_on_any_ranks(order):
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.integers(0, 3, (9, 8, 8)))
    truth[5] = 255  # says nothing
    labels = torch.from_numpy(rng.integers(0, 3, (9, 8, 8)))
    labels[7] = truth[7]
    ranks = [ImageScores(SegmentationMetrics(3), keep=[2], worst=4) for _ in range(2)]
    for turn, index in enumerate(order):
        ranks[turn % 2].update([index], labels[index : index + 1], truth[index : index + 1])
    scores = ranks[0]
    scores.merge(ranks[1])
    own = mean_iou(SegmentationMetrics(3).update(labels, truth)).tolist()
    expected = sorted((i for i in range(9) if i != 5), key=lambda i: (own[i], i))[:4]
    assert list(scores.worst) == expected
    assert all(torch.equal(scores.worst[i].long(), labels[i]) for i in expected)
    assert list(scores.predictions) == [2] and not scores.matrices
    assert np.isnan(scores.image_miou[5]) and scores.image_miou[7] == 1


def test_ties_go_to_the_first_image():
    masks = torch.zeros(6, 4, 4, dtype=torch.long)
    scores = ImageScores(SegmentationMetrics(2), worst=2)
    scores.update(range(6), masks, masks)
    assert list(scores.worst) == [0, 1]


def test_the_command_says_it_in_a_table_and_a_picture(trained, tmp_path):
    result = evaluate(trained[0], trained[1], "--out", tmp_path / "out", "--worst", 2)
    assert result.exit_code == 0, result.output
    for word in ("miou", "iou/wall", "95 % interval", "Worst images", "val, 6 images"):
        assert word in result.output
    assert Image.open(tmp_path / "out/worst.png").height < 600
    assert "not the data" not in result.output


def test_the_command_s_json_has_training_s_miou_and_intervals(trained, tmp_path):
    result = evaluate(trained[0] / "best", trained[1], "--out", tmp_path, "--format", "json")
    found = json.loads(result.stdout)
    assert found["figures"]["miou"] == best_figures(trained[0])["metrics"]["val/miou"]
    assert found == json.loads((tmp_path / "evaluation.json").read_text())
    assert [row["class"] for row in found["classes"]] == list(NAMES)
    miou = found["summary"]["miou"]
    assert miou["low"] <= miou["value"] <= miou["high"]
    own = {row["image"]: row["miou"] for row in found["image_miou"]}
    assert len(own) == 6 and len(found["worst"]) == 4
    assert found["worst"][0]["miou"] == min(own.values())


def test_with_a_channel_missing_the_figures_stand_beside_the_whole_ones(trained, tmp_path):
    options = ("--out", tmp_path, "--without-channel", 2, "--without-channel", 3)
    result = evaluate(trained[0], trained[1], *options)
    assert result.exit_code == 0, result.output
    assert "channels 2, 3" in " ".join(result.output.split())
    found = json.loads((tmp_path / "evaluation.json").read_text())
    partial = found["without_channels"]
    assert partial["channels"] == [2, 3]
    assert partial["figures"].keys() == found["figures"].keys()
    assert partial["figures"]["loss"] != found["figures"]["loss"]
    assert partial["summary"]["miou"]["value"] == partial["figures"]["miou"]


@pytest.mark.parametrize(
    ("channels", "message"), [((4,), "takes 3 channels"), ((0,), "1 to 3"), ((1, 2, 3), "all 3")]
)
def test_channels_that_cannot_be_missing(trained, tmp_path, channels, message):
    options = [option for channel in channels for option in ("--without-channel", channel)]
    result = evaluate(trained[0], trained[1], "--out", tmp_path, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_all_splits_together(trained, tmp_path):
    result = evaluate(trained[0], trained[1], "--split", "all", "--out", tmp_path)
    assert result.exit_code == 0 and "all, 10 images" in result.output
    assert "trained on these images" in result.output


def test_a_split_that_is_not_there_names_those_that_are(trained, tmp_path):
    result = evaluate(trained[0], trained[1], "--split", "test", "--out", tmp_path / "out")
    assert result.exit_code == 2 and not (tmp_path / "out").exists()
    assert "no 'test' split" in result.output and "train, val" in result.output


def test_other_data_is_reported_and_used_whole_if_it_has_no_split(trained, tmp_path):
    root = write_folder_dataset(tmp_path / "new", {"": 3}, (33, 47), 3, seed=5)
    result = evaluate(trained[0], root, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "not the data" in result.output and "all, 3 images" in result.output


def test_grey_images_go_to_a_model_of_coloured_ones(trained, tmp_path):
    root = write_folder_dataset(tmp_path / "grey", {"train": 1, "val": 1}, classes=3)
    for path in root.glob("*/images/*.png"):
        Image.open(path).convert("L").save(path)
    result = evaluate(trained[0], root, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "grey" in result.output and "val, 1 image" in result.output


@pytest.mark.parametrize(
    ("classes", "names", "message"),
    [
        (2, None, "2 classes (counted in the masks"),
        (4, ("a", "b", "c", "d"), "the data has 4 classes, a, b, c, d"),
        (3, ("ground", "wall", "cell"), "in another order"),
        (3, ("ground", "cell", "door"), "label 2 is 'door' in the data and 'wall' in the model"),
    ],
)
def test_other_classes_are_a_mistake(trained, tmp_path, classes, names, message):
    splits = {"train": 1, "val": 1}
    root = write_folder_dataset(tmp_path / "x", splits, classes=classes, class_names=names)
    result = evaluate(trained[0], root, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert message in result.output


def test_unnamed_classes_need_only_be_as_many(trained):
    spec = read_spec(trained[0] / "best")
    data = open_dataset(train_config(trained[0] / "best").data)
    unnamed = as_the_model_takes_it(data, spec.model_copy(update={"class_names": ("0", "1", "2")}))
    assert unnamed.class_names == ("0", "1", "2")
    with pytest.raises(DataError, match="2 is 'wall' in the data and 'door'"):
        as_the_model_takes_it(
            data, spec.model_copy(update={"class_names": ("ground", "cell", "door")})
        )


@pytest.mark.parametrize("what", ["model", "data"])
def test_a_place_that_is_not_there_is_a_mistake(trained, tmp_path, what):
    places = {"model": trained[0], "data": trained[1], what: tmp_path / "nothing"}
    result = evaluate(places["model"], places["data"])
    assert result.exit_code == 2 and str(tmp_path / "nothing") in result.output


def test_a_model_that_does_not_tell_how_it_was_trained_is_refused(trained, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(trained[0] / "best", folder)
    description = json.loads((folder / "config.json").read_text())
    del description["train"]
    (folder / "config.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="train"):
        train_config(folder)


def test_the_figures_of_the_json_are_those_of_the_labels_that_the_model_predicts(trained, tmp_path):
    options = ("--out", tmp_path, "--tolerance", 1.5, "--outline", "contours")
    result = evaluate(trained[0], trained[1], *options, "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    settings = found["figure_settings"]
    assert (settings["tolerance"], settings["outline"], settings["unit"]) == (1.5, "contours", "px")
    pairs = predicted(trained)
    for label, name in enumerate(NAMES):
        masks = [((t == label) & (t != 255), (p == label) & (t != 255)) for t, p in pairs]
        distances = [hausdorff95(*pair, outline="contours") for pair in masks]
        shares = [normalized_surface_dice(*pair, 1.5, outline="contours") for pair in masks]
        for family, values in (("hd95", distances), ("nsd", shares)):
            row = found["figure_intervals"][f"{family}/{name}"]
            assert row["value"] == pytest.approx(np.nanmean(values))
            assert row["low"] <= row["value"] <= row["high"]
            assert found["figures"][f"{family}/{name}"] == row["value"]
            assert row["unit"] == ("px" if family == "hd95" else "1")
            own = [image["figures"][f"{family}/{name}"] for image in found["by_image"]]
            assert own == pytest.approx(values)
        assert found["figures"][f"iou/{name}"] == found["figure_intervals"][f"iou/{name}"]["value"]
    assert 0 <= found["figures"]["ece"] <= 1 and 0 < found["figures"]["brier"] < 2
    assert {row["size"] for row in found["by_size"]} <= {"small", "medium", "large"}
    assert found["by_group"] == []


def predicted(trained):
    """Truth and prediction (H, W) of the validation images."""
    folder = trained[0] / "best"
    train = train_config(folder)
    data = open_dataset(train.data)
    pairs = {}

    def observe(index, labels, truth, calibration):
        pairs[index] = truth.numpy(), labels.numpy()

    loss = loss_for(train.loss, data)
    run_evaluation(train, data, data["val"], load(folder), loss, observe=observe)
    return [pairs[index] for index in range(len(pairs))]


def keep(seen):
    return lambda *image: seen.append(image)


def test_images_seen_one_by_one_are_at_their_own_size_and_their_probabilities_add_up(tmp_path):
    """As from the whole logits, with and without a working size."""
    root = write_folder_dataset(tmp_path / "data", {"train": 2, "val": 2}, (50, 70), 3, void=0.1)
    for resize in (None, 32):
        config = decode_config(
            {
                "data": {"kind": "folder", "root": str(root), "resize": resize},
                "encoder": {"name": "resnet18", "weights": "none"},
            }
        )
        data = open_dataset(config.data)
        torch.manual_seed(0)
        model = model_spec(config, data).build().eval()
        seen = []
        loss = loss_for(config.loss, data)
        run_evaluation(config, data, data["val"], model, loss, observe=keep(seen))
        assert sorted(index for index, *_ in seen) == [0, 1]
        for index, labels, truth, calibration in seen:
            assert labels.shape == truth.shape == (50, 70)
            assert torch.equal(truth, data["val"].original_mask(index))
            image = data["val"][index].image[None].float() / data.image_max
            inputs = to_input(image, input_normalization(config.encoder, data.channels))
            with torch.inference_mode():
                logits = model(inputs).float()
            if resize:
                logits = F.interpolate(logits, (50, 70), mode="bilinear", align_corners=False)
            shares = logits.softmax(dim=1)[0].numpy()
            expected = brier_score(shares, truth.numpy())
            assert float(calibration[-2] / calibration[-1]) == pytest.approx(expected, rel=1e-4)
            expected = expected_calibration_error(shares, truth.numpy())
            found = float(calibration[:-2].abs().sum() / calibration[-1])
            assert found == pytest.approx(expected, abs=1e-4)


def test_the_table_shows_figures_with_unit_and_misses(trained, tmp_path):
    grouped = ("--set", "data.group_pattern=^(0)")
    result = evaluate(trained[0], trained[1], "--out", tmp_path, *grouped)
    assert result.exit_code == 0, result.output
    for word in (
        "hd95/wall",
        "px",
        "outlines agree up to 2 px",
        "ece",
        "Objects by size",
        "Groups",
    ):
        assert word in result.output


def test_distances_are_in_millimetres_where_the_source_knows_its_pixels(trained, tmp_path):
    data = open_dataset(train_config(trained[0] / "best").data)
    folder = trained[0] / "best"
    spacings = dict.fromkeys(data["val"].names, (2.0, 2.0))
    common = (load(folder), read_spec(folder), data, "val", CPU)
    pixels = assess(*common, figures=FigureSettings(tolerance=1)).figures
    found = assess(*common, figures=FigureSettings(tolerance=2), spacings_mm=spacings).figures
    assert (pixels.unit, found.unit) == ("px", "mm")
    assert found.values["hd95/cell"] == pytest.approx(2 * pixels.values["hd95/cell"])
    assert found.values["nsd/cell"] == pytest.approx(pixels.values["nsd/cell"])


def test_a_model_that_gives_labels_alone_has_no_figures_of_probabilities(trained):
    folder = trained[0] / "best"
    data = open_dataset(train_config(folder).data)
    options = {"figures": FigureSettings(), "probabilities": False}
    found = assess(load(folder), read_spec(folder), data, "val", CPU, **options).figures
    assert np.isnan(found.values["ece"]) and np.isnan(found.values["brier"])
    assert assess(load(folder), read_spec(folder), data, "val", CPU).figures is None
