"""Images that are scaled to a working size: figures of their own size, loss of the working one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from tests.support.data_folders import write_folder_dataset
from unetexp.component import decode
from unetexp.data import Folder, open_dataset
from unetexp.data.decoded.sample import Sample
from unetexp.inference.evaluation import assess
from unetexp.inference.predictor import Predictor
from unetexp.models.factory import create_segmentation_model
from unetexp.models.saved_model import ModelSpec, load, model_spec, read_spec, save_model
from unetexp.training.batches.whole_images import Limits
from unetexp.training.config import decode_config
from unetexp.training.losses import create_loss
from unetexp.training.pictures import overlay_grid
from unetexp.training.validation import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_segmentation_model(3, False, encoder="resnet18", decoder="slim")
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_folder_dataset(
        tmp_path_factory.mktemp("data"), size=(90, 120), classes=3, void=0.05
    )


def config_for(data):
    return decode_config(
        {
            "data": data.tree(),
            "encoder": {"name": "resnet18", "weights": "none"},
            "decoder": {"kind": "slim"},
            "precision": "fp32",
            "memory_format": "contiguous",
        }
    )


@pytest.fixture(scope="module", params=[64, [50, 80], {"scale": 0.5}])
def opened(request, root, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNETEXP_CACHE", str(tmp_path_factory.mktemp("cache")))
        source = Folder(root=str(root), resize=request.param)
        return config_for(source), open_dataset(source)


def expected_labels(model, spec, image, size):
    """With none of our code around the model but the scaled image."""
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (spec.mean, spec.std))
    with torch.inference_mode():
        logits = model(((image.float() / 255 - mean) / std)[None])
        whole = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    return logits, whole[0].argmax(dim=0)


@pytest.mark.parametrize("tiles", [False, True])
def test_figures_are_of_the_images_own_size(model, opened, tiles, monkeypatch):
    config, data = opened
    if tiles:
        of = Limits.of
        small = {"forward_pixels": 64 * 64, "loss_pixels": 1}
        monkeypatch.setattr(
            Limits, "of", staticmethod(lambda *given: Limits(**{**vars(of(*given)), **small}))
        )
    loss = create_loss("cross_entropy")
    found = evaluate(config, data, data["val"], model, loss, keep=[0, 1], keep_matrices=True)
    total, losses = np.zeros((3, 3), int), []
    for index, sample in enumerate(data["val"]):
        spec = model_spec(config, data)
        logits, labels = expected_labels(model, spec, sample.image, (90, 120))
        losses.append(loss(logits, sample.mask[None].long()).item())
        valid = sample.original != 255
        counted = confusion_matrix(sample.original[valid], labels[valid], labels=[0, 1, 2])
        assert found.predictions[index].shape == (90, 120)
        assert (found.predictions[index] != labels).sum() <= 3  # ties in rounding
        assert np.abs(found.matrices[index].numpy() - counted).sum() <= 6
        total += counted
    assert np.abs(found.confusion.numpy() - total).sum() <= 12
    assert found.metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_evaluation_and_prediction_agree(model, opened, tmp_path):
    config, data = opened
    save_model(tmp_path, model, config, data, 1)
    spec = read_spec(tmp_path)
    assert spec.resize == data.resize
    found = assess(load(tmp_path), spec, data, "val", torch.device("cpu"), train=config)
    predictor = Predictor(load(tmp_path), spec)
    plain = open_dataset(Folder(root=config.data.root))
    for index, labels in found.worst.items():
        predicted = predictor.labels(plain["val"][index].image)
        assert (predicted != labels).sum() <= 3
    assert len(found.image_miou) == 2


def test_pictures_show_the_truth_at_its_own_size(model, opened):
    config, data = opened
    found = evaluate(config, data, data["val"], model, create_loss("dice_ce"), keep=[0])
    assert overlay_grid(data, found.predictions).size[0] == 224 * 4


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.one_of(
        st.integers(1, 160),
        st.tuples(st.integers(1, 90), st.integers(1, 90)),
        st.floats(0.05, 1).map(lambda scale: {"scale": scale}),
    ),
)
def test_predictions_have_the_images_size(model, height, width, resize):
    tree = spec_tree(model) | {"resize": resize if not isinstance(resize, tuple) else [*resize]}
    predictor = Predictor(model, decode(ModelSpec, tree), tile_px=64)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    assert predictor.labels(image).shape == (height, width)
    blocks = list(predictor.blocks(image))
    assert len(blocks) == predictor.block_count(height, width)
    whole = predictor.probabilities(image)
    assert whole.shape == (3, height, width)
    torch.testing.assert_close(whole.sum(0), torch.ones(height, width))


def spec_tree(model):
    config = config_for(Folder(root="/x"))
    return {
        "class_names": ["a", "b", "c"],
        "in_channels": 3,
        "image_max": 255,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "encoder": config.encoder.tree(),
        "decoder": config.decoder.tree(),
    }


def test_a_batch_of_images_of_different_own_sizes(model):
    """At one working size, each has the figures that it has alone."""

    class Photographs:
        names, shapes = ("a", "b", "c"), ((32, 32),) * 3
        original_shapes = ((64, 64), (40, 96), (32, 32))

        def __len__(self):
            return 3

        def __getitem__(self, index):
            rng = np.random.default_rng(index)
            image = torch.from_numpy(rng.integers(0, 256, (3, 32, 32)).astype(np.uint8))
            truth = rng.integers(0, 3, self.original_shapes[index]).astype(np.uint8)
            mask = torch.from_numpy(truth[:32, :32].copy())
            return Sample(self.names[index], image, mask, torch.from_numpy(truth))

    class Only(Photographs):
        def __init__(self, index):
            self.index, self.names, self.shapes = index, ("x",), ((32, 32),)
            self.original_shapes = (Photographs.original_shapes[index],)

        def __len__(self):
            return 1

        def __getitem__(self, _):
            return Photographs()[self.index]

    class Data:
        num_classes, class_names, channels, image_max = 3, ("a", "b", "c"), 3, 255

    config, loss = config_for(Folder(root="/x")), create_loss("dice_ce")
    whole = evaluate(config, Data, Photographs(), model, loss, keep_matrices=True)
    for index in range(3):
        alone = evaluate(config, Data, Only(index), model, loss, keep_matrices=True)
        assert (whole.matrices[index] - alone.matrices[0]).abs().sum() <= 4
        assert int(whole.matrices[index].sum()) == np.prod(Photographs.original_shapes[index])
