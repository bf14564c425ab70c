"""Predicting images of any size: in one piece, in tiles, mirrored, of other depths and channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from tests.support.data_folders import blobs
from tests.support.trained_model import three_classes, train_briefly
from unetexp.errors import ConfigError, UserError
from unetexp.inference.conforming import conform
from unetexp.inference.predictor import Predictor
from unetexp.models.decoders import Decoder
from unetexp.models.encoders import ResNet
from unetexp.models.factory import create_segmentation_model
from unetexp.models.receptive_field import receptive_radius_px
from unetexp.models.saved_model import ModelSpec, load, read_spec
from unetexp.training.config import decode_config
from unetexp.training.losses import loss_for
from unetexp.training.validation import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return three_classes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    """A briefly trained model."""
    return train_briefly(tmp_path_factory.mktemp("model"), data)


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


@pytest.fixture(scope="module")
def spec(folder):
    return read_spec(folder)


def picture(height, width, seed=0):
    """A raw image (3, H, W) like the trained model's, with many blobs."""
    rng = np.random.default_rng(seed)
    tiles = [[blobs(rng, (64, 80), 3)[0] for _ in range(-(-width // 80))] for _ in range(4)]
    rows = [np.concatenate(row, axis=1) for row in tiles]
    image = np.concatenate([rows[i % 4] for i in range(-(-height // 64))])[:height, :width]
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def plain_logits(model, spec, image, white=255):
    """As in the article's formula, with none of our code around the model."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    with torch.inference_mode():
        return model(((image.float() / white - mean) / std)[None])[0]


def agreement(one, other):
    return (one == other).float().mean().item()


class TestOnePiece:
    @settings(max_examples=20, deadline=None)
    @given(height=st.integers(1, 100), width=st.integers(1, 100))
    def test_any_size(self, model, spec, height, width):
        image = picture(height, width)
        predictor = Predictor(model, spec)
        labels = predictor.labels(image)
        assert (labels.shape, labels.dtype) == ((height, width), torch.uint8)
        expected = plain_logits(model, spec, image)
        torch.testing.assert_close(predictor.logits(image), expected)
        assert torch.equal(labels.long(), expected.argmax(0))
        assert predictor.block_count(height, width) == 1

    def test_labels_are_those_of_validation(self, data, model, spec):
        config = decode_config({"data": {"kind": "mni152"}, "precision": "fp32"}, {})
        kept = range(len(data["val"]))
        loss = loss_for(config.loss, data)
        found = evaluate(config, data, data["val"], model, loss, keep=kept).predictions
        assert found[0].unique().tolist() == [0, 1, 2]
        for index, expected in found.items():
            labels = Predictor(model, spec).labels(data["val"][index].image)
            assert agreement(labels, expected) > 0.999  # rounding at most: the layouts differ

    def test_probabilities(self, model, spec):
        image = picture(33, 47)
        shares = Predictor(model, spec).probabilities(image)
        torch.testing.assert_close(shares.sum(0), torch.ones(33, 47))
        assert torch.equal(shares, plain_logits(model, spec, image).softmax(0))

    @pytest.mark.parametrize(
        "image",
        [
            torch.zeros(1, 8, 8, dtype=torch.uint8),
            torch.zeros(3, 8, 0, dtype=torch.uint8),
            torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
            torch.zeros(3, 8, 8),
        ],
    )
    def test_what_is_no_raw_image_is_refused(self, model, spec, image):
        with pytest.raises(UserError, match=r"raw images of shape \(3, H, W\), uint8 or uint16"):
            Predictor(model, spec).labels(image)


class TestTiles:
    @pytest.mark.parametrize("options", [{"tile_px": 128}, {"tile_px": 192, "overlap_px": 64}])
    def test_labels_of_a_trained_model_agree(self, model, spec, options):
        image = picture(231, 357)
        whole = Predictor(model, spec).labels(image)
        tiled = Predictor(model, spec, **options)
        assert tiled.block_count(231, 357) > 3
        assert agreement(tiled.labels(image), whole) >= 0.995

    def test_labels_agree_at_the_defaults(self, model, spec):
        image = picture(70, 1800)
        predictor = Predictor(model, spec)
        assert predictor.block_count(70, 1800) == 3
        whole = plain_logits(model, spec, image).argmax(0)
        assert agreement(predictor.labels(image), whole) >= 0.995

    def test_logits_agree_where_the_overlap_covers_the_receptive_field(self, model, spec):
        overlap = 2 * receptive_radius_px(model)
        image = picture(32, 1161)
        predictor = Predictor(model, spec, tile_px=overlap + 128, overlap_px=overlap)
        assert predictor.block_count(32, 1161) > 2
        whole = plain_logits(model, spec, image)
        assert whole.std() > 0.5
        torch.testing.assert_close(predictor.logits(image), whole, atol=1e-4, rtol=0)

    def test_sizes_are_rounded_up_and_small_tiles_overlap_by_half(self, model, spec):
        image = picture(150, 170)
        expected = Predictor(model, spec, tile_px=96, overlap_px=32).logits(image)
        assert torch.equal(Predictor(model, spec, tile_px=70).logits(image), expected)

    @pytest.mark.parametrize(("tile", "overlap"), [(64, 64), (64, -32), (0, None), (-5, None)])
    def test_tiles_that_do_not_go_on(self, model, spec, tile, overlap):
        with pytest.raises(ConfigError, match="must be larger than the overlap"):
            Predictor(model, spec, tile_px=tile, overlap_px=overlap)


class TestFlips:
    @pytest.mark.parametrize("size", [(64, 96), (45, 71)])
    @pytest.mark.parametrize(
        ("flips", "axes"),
        [(("left_right",), (-1,)), (("left_right", "up_down"), (-2, -1)), (("up_down",), (-2,))],
    )
    def test_a_mirrored_image_has_the_mirrored_result(self, model, spec, flips, axes, size):
        image = picture(*size)
        predictor = Predictor(model, spec, flips=flips)
        mirrored = predictor.logits(image.flip(axes))
        torch.testing.assert_close(mirrored, predictor.logits(image).flip(axes), atol=1e-4, rtol=0)

    def test_probabilities_are_averaged(self, model, spec):
        image = picture(40, 56)
        views = [
            plain_logits(model, spec, image).softmax(0),
            plain_logits(model, spec, image.flip(-1)).flip(-1).softmax(0),
        ]
        predictor = Predictor(model, spec, flips=["left_right"])
        torch.testing.assert_close(predictor.probabilities(image), (views[0] + views[1]) / 2)
        assert not torch.allclose(views[0], views[1], atol=1e-3)


class TestReceptiveField:
    @pytest.mark.parametrize(
        ("encoder", "decoder", "upsampling"),
        [
            ("resnet18", "slim", "bilinear"),
            ("resnet18", "slim", "pixel_shuffle"),
            ("resnet18", "classic", "nearest"),
            ("resnet50", "slim", "conv_transpose"),
        ],
    )
    def test_gradients_reach_as_far_as_it_says(self, encoder, decoder, upsampling):
        model = create_segmentation_model(
            2, False, encoder=encoder, decoder=decoder, upsampling=upsampling
        )
        model.eval().double()  # what comes from afar is tiny
        for parameter in model.parameters():  # nothing may cancel
            nn.init.constant_(parameter, 1.0 if parameter.ndim == 1 else 1 / parameter[0].numel())
        radius = receptive_radius_px(model)
        middle = -(-radius // 32) * 32
        reached = 0
        for offset in (28, 29):  # they see farthest
            image = torch.rand(1, 3, 32, 2 * middle + 32).double().requires_grad_()
            pixel = middle + offset
            model(image)[..., pixel].sum().backward()
            seen = image.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
            reached = max(reached, pixel - int(seen[0]), int(seen[-1]) - pixel)
        assert radius - 2 <= reached <= radius  # a maximum passes on only one of its pixels


class TestOtherImages:
    def test_sixteen_bits_are_scaled_as_in_training(self):
        model, spec = random_model(image_max=4000)
        image = torch.randint(0, 4001, (1, 40, 50)).to(torch.uint16)
        torch.testing.assert_close(
            Predictor(model, spec).logits(image), plain_logits(model, spec, image, white=4000)
        )
        assert conform(image.numpy(), spec)[1] == ()

    @pytest.mark.parametrize(
        ("image_max", "dtype", "white"), [(4000, torch.uint8, 255), (255, torch.uint16, 65535)]
    )
    def test_another_depth_is_reported_and_taken_for_the_full_range(self, image_max, dtype, white):
        model, spec = random_model(image_max=image_max)
        image = torch.randint(0, white + 1, (1, 40, 50)).to(dtype)
        _, notes = conform(image.numpy(), spec)
        assert len(notes) == 1
        assert "bits" in notes[0]
        torch.testing.assert_close(
            Predictor(model, spec).logits(image), plain_logits(model, spec, image, white=white)
        )

    def test_grey_for_a_model_of_colour(self, spec):
        grey = picture(20, 30)[:1]
        image, notes = conform(grey.numpy(), spec)
        assert "is grey" in notes[0]
        assert image.shape == (3, 20, 30)
        assert all(np.array_equal(band, grey[0]) for band in image)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_colour_for_a_model_of_grey(self, dtype):
        colour = picture(20, 30)
        image, notes = conform(colour.numpy().astype(dtype), random_model()[1])
        assert "luma" in notes[0]
        assert (image.shape, image.dtype) == ((1, 20, 30), dtype)
        expected = np.asarray(Image.fromarray(colour.permute(1, 2, 0).numpy()).convert("L"))
        assert np.abs(image[0].astype(int) - expected).max() <= 1

    def test_channels_that_mean_something_else(self, spec):
        with pytest.raises(UserError, match="has 4 channels and the model takes 3"):
            conform(np.zeros((4, 8, 8), np.uint8), spec)


def random_model(*, image_max=255):
    """A grey model with random weights and lively, fixed batch norm, and its spec."""
    torch.manual_seed(0)
    spec = ModelSpec(
        class_names=("a", "b"),
        in_channels=1,
        image_max=image_max,
        mean=(0.4,),
        std=(0.3,),
        encoder=ResNet(name="resnet18", weights="none"),
        decoder=Decoder(),
    )
    model = spec.build()
    with torch.no_grad():
        for _ in range(2):  # in train mode: batch norm takes its statistics from noise
            model(torch.randn(2, 1, 96, 96))
    return model.eval(), spec
