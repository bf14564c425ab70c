"""Validation: the figures of each image alone, however the images are grouped, cut and loaded."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix
from torch import nn

from unetexp.component import kinds_of
from unetexp.data.decoded.sample import Sample
from unetexp.models.factory import create_segmentation_model
from unetexp.training.batches.whole_images import Limits, whole_images
from unetexp.training.config import decode_config
from unetexp.training.losses import Loss, create_loss
from unetexp.training.validation import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = 3
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Photographs:
    """Images of the given sizes with masks that have void pixels; values from a seed."""

    def __init__(self, shapes, image_max=255, seed=0):
        self.shapes, self.image_max, self.seed = tuple(shapes), image_max, seed
        self.names = tuple(f"image-{number}" for number in range(len(self.shapes)))

    def __len__(self):
        return len(self.shapes)

    def __getitem__(self, index):
        rng, size = np.random.default_rng((self.seed, index)), self.shapes[index]
        kind = np.uint8 if self.image_max == 255 else np.uint16
        image = rng.integers(0, self.image_max + 1, (3, *size)).astype(kind)
        mask = rng.choice([0, 1, 2, 255], size, p=[0.5, 0.3, 0.1, 0.1]).astype(np.uint8)
        return Sample(self.names[index], torch.from_numpy(image), torch.from_numpy(mask))


@pytest.fixture(scope="module")
def model():
    """With the statistics of noise, so that its labels vary."""
    torch.manual_seed(0)
    model = create_segmentation_model(CLASSES, False, encoder="resnet18", decoder="slim")
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, 64, 64))
    return model.eval()


def evaluated(model, photographs, loss="dice_ce", **options):
    config = decode_config(
        {
            "encoder": {"name": "resnet18", "weights": "none"},
            "precision": "fp32",
            "memory_format": "contiguous",
            "batch_size": options.pop("batch_size", 8),
            "data": {"kind": "mni152"},
        },
        {},
    )
    data = SimpleNamespace(
        num_classes=CLASSES,
        class_names=("a", "b", "c"),
        channels=3,
        image_max=photographs.image_max,
    )
    chosen = create_loss(loss) if isinstance(loss, str) else loss
    return evaluate(config, data, photographs, model, chosen, **options)


@torch.inference_mode()
def each_alone(model, photographs, loss="dice_ce"):
    """Confusion matrix, mean loss and label maps, with none of our code around the model."""
    confusion, losses, labels = np.zeros((CLASSES, CLASSES), int), [], []
    for index in range(len(photographs)):
        sample = photographs[index]
        logits = model(((sample.image.float() / photographs.image_max - MEAN) / STD)[None])
        losses.append(create_loss(loss)(logits, sample.mask[None].long()).item())
        labels.append(logits[0].argmax(0))
        valid = sample.mask != 255
        confusion += confusion_matrix(
            sample.mask[valid], labels[-1][valid], labels=list(range(CLASSES))
        )
    return confusion, sum(losses) / len(losses), labels


@pytest.fixture
def small_passes(monkeypatch):
    """Passes of few pixels, so that images a little larger than the overlap are cut."""

    def limit(pixels, loss_pixels=10**9):
        of = Limits.of

        def limited(model, num_classes):
            limits = of(model, num_classes)
            fields = {"forward_pixels": pixels, "loss_pixels": loss_pixels}
            return Limits(**{**vars(limits), **fields})

        monkeypatch.setattr(Limits, "of", staticmethod(limited))

    return limit


class TestGroups:
    @settings(max_examples=12, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=8),
        st.sampled_from([255, 65535]),
    )
    def test_of_any_sizes_have_the_figures_of_each_image_alone(self, model, shapes, image_max):
        photographs = Photographs(shapes, image_max)
        found = evaluated(model, photographs, keep=range(len(shapes)))
        confusion, loss, labels = each_alone(model, photographs)
        assert found.confusion.tolist() == confusion.tolist()
        assert found.metrics["loss"] == pytest.approx(loss, rel=1e-6)
        for index, expected in enumerate(labels):
            assert torch.equal(found.predictions[index].long(), expected)

    @pytest.mark.parametrize("kind", kinds_of(Loss))
    def test_of_any_loss(self, model, kind):
        photographs = Photographs([(40, 48), (33, 64), (40, 48), (64, 60), (5, 7)])
        _, loss, _ = each_alone(model, photographs, kind)
        assert evaluated(model, photographs, kind).metrics["loss"] == pytest.approx(loss, rel=1e-6)

    def test_do_not_depend_on_the_batch_size_or_the_loaders(self, model):
        photographs = Photographs([(40, 48), (33, 64), (20, 20), (64, 60)] * 3)
        first = evaluated(model, photographs, batch_size=1)
        for options in ({"batch_size": 12}, {"workers": 1}, {"workers": 5}):
            other = evaluated(model, photographs, **options)
            assert other.metrics == first.metrics
            assert torch.equal(other.image_miou, first.image_miou)

    def test_do_not_depend_on_the_memory(self, model, small_passes):
        photographs = Photographs([(40, 48), (33, 64), (20, 20), (64, 60)] * 3)
        first = evaluated(model, photographs, keep_matrices=True)
        small_passes(64 * 64)
        second = evaluated(model, photographs, keep_matrices=True)
        assert torch.equal(first.matrices, second.matrices)
        assert second.metrics["loss"] == pytest.approx(first.metrics["loss"], rel=1e-6)

    def test_are_of_equal_padded_size_and_within_the_pixels(self):
        limits = Limits(stride=32, overlap=640, forward_pixels=64 * 64 * 3, loss_pixels=1)
        shapes = [(33, 64), (64, 33), (64, 65), (40, 40)] * 4
        batches = limits.batches(shapes)
        assert sorted(index for batch in batches for index in batch) == list(range(16))
        for batch in batches:
            (size,) = {limits.padded(shapes[index]) for index in batch}
            assert len(batch) * size[0] * size[1] <= 64 * 64 * 3
        assert len(batches) == 4 + 2

    def test_an_image_without_a_valid_pixel_adds_no_loss(self, model):
        class OneVoid(Photographs):
            def __getitem__(self, index):
                sample = super().__getitem__(index)
                return (
                    Sample(sample.name, sample.image, sample.mask.fill_(255)) if index else sample
                )

        alone = evaluated(model, Photographs([(40, 48)])).metrics["loss"]
        found = evaluated(model, OneVoid([(40, 48), (40, 48)]))
        assert found.metrics["loss"] == pytest.approx(alone / 2, rel=1e-6)
        assert found.image_miou.isnan().tolist() == [False, True]

    def test_a_model_of_another_package_gets_images_as_they_are(self):
        class Plain(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.sizes = nn.Conv2d(3, CLASSES, 1), []

            def forward(self, images):
                self.sizes.append(tuple(images.shape[2:]))
                return self.conv(images)

        plain = Plain()
        photographs = Photographs([(40, 48), (33, 64), (40, 48)])
        found = evaluated(plain, photographs)
        assert plain.sizes == [(40, 48), (33, 64)]
        assert found.confusion.tolist() == each_alone(plain, photographs)[0].tolist()


class TestTiles:
    SIZES = ((40, 1500), (1471, 33), (50, 60))

    @pytest.mark.parametrize("kind", ["cross_entropy", "dice_ce", "lovasz"])
    def test_large_images_have_the_figures_of_the_whole(self, model, small_passes, kind):
        photographs = Photographs(self.SIZES)
        small_passes(64 * 800)
        found = evaluated(model, photographs, kind, keep=range(3))
        confusion, loss, labels = each_alone(model, photographs, kind)
        assert found.metrics["loss"] == pytest.approx(loss, rel=1e-6)
        assert abs(found.confusion.numpy() - confusion).sum() <= 4  # ties within rounding
        for index, expected in enumerate(labels):
            assert (found.predictions[index].long() != expected).sum() <= 2

    def test_no_pass_is_larger_than_the_limit(self, model, small_passes):
        sizes = []
        hook = model.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape))
        small_passes(64 * 800)
        evaluated(model, Photographs([*self.SIZES, (64, 64)]))
        hook.remove()
        assert len(sizes) > 4
        assert max(batch * height * width for batch, _, height, width in sizes) <= 64 * 800

    def test_a_loss_too_large_for_one_piece_is_the_mean_over_its_pixels(self, model, small_passes):
        photographs = Photographs(self.SIZES)
        small_passes(64 * 800, loss_pixels=1000)
        found = evaluated(model, photographs, "cross_entropy")
        confusion, loss, _ = each_alone(model, photographs, "cross_entropy")
        assert found.metrics["loss"] == pytest.approx(loss, rel=1e-6)
        assert abs(found.confusion.numpy() - confusion).sum() <= 4

    @pytest.mark.parametrize("encoder", ["resnet34", "resnet101"])
    def test_pixels_beyond_the_overlap_are_within_rounding(self, encoder):
        torch.manual_seed(0)
        model = create_segmentation_model(2, False, encoder=encoder, decoder="slim")
        with torch.no_grad():
            model(torch.randn(2, 3, 64, 64))
        model.eval().double()
        image, far = torch.rand(1, 3, 32, 1024).double(), Limits.of(model, 2).overlap // 2
        with torch.inference_mode():
            whole, cut = model(image)[..., 512:], model(image[..., 512:])
        error = (whole - cut)[..., far:].abs().max() / whole.std()
        assert error < torch.finfo(torch.float32).eps


def test_cudnn_searches_no_plans_and_is_left_as_it_was(model, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen = []
    hook = model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    evaluated(model, Photographs([(32, 32), (64, 32)]))
    hook.remove()
    assert seen == [False, False]
    assert torch.backends.cudnn.benchmark


def test_ranks_share_the_batches_of_one_process(model):
    split, limits = Photographs([(40, 48), (33, 64), (20, 20), (90, 60)] * 6), Limits.of(model, 3)
    alone = [batch.indices for batch in whole_images(split, limits)]
    shares = [
        [batch.indices for batch in whole_images(split, limits, SimpleNamespace(rank=r, world=2))]
        for r in range(2)
    ]
    assert sorted(shares[0] + shares[1]) == sorted(alone)
    assert all(shares)


def test_the_next_images_are_read_while_the_model_computes(model):
    class Recorded(Photographs):
        read = tuple(threading.Event() for _ in range(3))

        def __getitem__(self, index):
            self.read[index].set()
            return super().__getitem__(index)

    photographs = Recorded([(32, 32), (32, 64), (32, 96)])
    following = iter([1, 2, 2])

    def wait_for_the_next(*_):
        assert photographs.read[next(following)].wait(60)

    hook = model.register_forward_pre_hook(wait_for_the_next)
    evaluated(model, photographs, workers=1)
    hook.remove()


_VALIDATE = """
import resource
from tests.unetexp.training.test_validation import *
torch.set_num_threads(1)
model = create_segmentation_model(CLASSES, False, encoder="resnet18", decoder="slim").eval()
evaluated(model, Photographs([(64, 64)]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluated(model, Photographs([(1500, 2000)] * 6), workers=1)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""


@pytest.mark.slow
def test_photographs_take_little_memory():
    """Six of 3 megapixels; one in one piece takes 1.3 GiB beside the process, all of them 8."""
    run = subprocess.run(
        [sys.executable, "-c", _VALIDATE], capture_output=True, text=True, timeout=1200
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 1.6
