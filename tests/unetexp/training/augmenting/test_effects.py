"""Effects against torchvision and formulas; batches, hosts and devices give the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from tests.support.fake_cuda import CUDA, NoWaiting, fake_cuda
from unetexp.training.augmenting.augmentation import Augment
from unetexp.training.augmenting.effects import UNCHANGED, Effects, apply_effects, elastic_shifts


def rows(*effects):
    return torch.tensor([list(each) for each in effects])


def images(count=1, channels=3, side=40):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def test_without_effects_the_images_are_the_same():
    before = images(2)
    assert torch.equal(apply_effects(before, rows(UNCHANGED, UNCHANGED)), before)
    assert torch.equal(apply_effects(before, torch.empty(2, 0)), before)
    assert elastic_shifts(rows(UNCHANGED), 8) is None


@pytest.mark.parametrize("sigma", [0.7, 2.0, 4.0])
def test_blur_is_torchvisions(sigma):
    before = images(2, 2)
    after = apply_effects(before, rows(UNCHANGED._replace(blur_px=sigma), UNCHANGED))
    expected = tv.gaussian_blur(before[:1], [25, 25], [sigma, sigma])
    torch.testing.assert_close(after[:1], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(after[1], before[1])


def test_gamma_is_the_exponent_on_the_images_own_range():
    before = 0.2 + 0.5 * images(1, 4)
    after = apply_effects(before, rows(UNCHANGED._replace(gamma=1.7)))
    low, high = before.min(), before.max()
    expected = low + (high - low) * ((before - low) / (high - low)) ** 1.7
    torch.testing.assert_close(after, expected)


def test_low_resolution_has_the_means_of_the_cells():
    before = images(side=36)
    after = apply_effects(before, rows(UNCHANGED._replace(coarse=3.0)))
    cells = before.view(1, 3, 12, 3, 12, 3).mean(dim=(3, 5))
    torch.testing.assert_close(after[..., 1::3, 1::3], cells)  # the middle of each cell


def test_noise_is_gaussian_and_the_samples_own():
    grey = torch.full((2, 1, 200, 200), 0.5)
    noise = [UNCHANGED._replace(noise=0.05, seed=seed) for seed in (3.0, 4.0)]
    after = apply_effects(grey, rows(*noise)) - grey
    assert after.mean().abs() < 1e-3
    assert after.std().item() == pytest.approx(0.05, rel=0.02)
    assert (after.abs() < 0.05).float().mean().item() == pytest.approx(0.683, abs=0.01)
    assert np.corrcoef(after.flatten(1))[0, 1] == pytest.approx(0, abs=0.02)
    neighbours = after[0, 0, :, :-1].flatten(), after[0, 0, :, 1:].flatten()
    assert np.corrcoef(torch.stack(neighbours))[0, 1] == pytest.approx(0, abs=0.02)
    assert torch.equal(apply_effects(grey[1:], rows(noise[1]))[0] - 0.5, after[1])


@pytest.mark.parametrize("seed", range(5))
def test_a_deformation_is_smooth_bounded_and_folds_nothing(seed):
    shifts = elastic_shifts(rows(UNCHANGED._replace(elastic=0.05, seed=float(seed))), 64)
    assert shifts.shape == (1, 64, 64, 2)
    assert 0.02 < shifts.abs().max() <= 2 * 0.05
    spacing = 2 / 63
    assert shifts[0, :, :, 0].diff(dim=1).min() > -spacing  # points keep their order
    assert shifts[0, :, :, 1].diff(dim=0).min() > -spacing


def test_nothing_waits_for_the_host():
    with fake_cuda(), NoWaiting():
        before = torch.zeros(2, 3, 32, 32, device=CUDA)
        effects = torch.zeros(2, 6, device=CUDA)
        assert apply_effects(before, effects).shape == before.shape
        assert elastic_shifts(effects, 32).shape == (2, 32, 32, 2)


def test_a_batch_on_a_device_is_the_host_s_sample_by_sample(monkeypatch):
    """A device computes every effect for every sample, and takes it where it is drawn."""
    strong = Augment(preset="strong", effect_probability=0.5)
    effects = rows(*(strong.draw_effects(0, 1, index) for index in range(8)))
    before = images(8)
    alone = [apply_effects(before[n : n + 1], effects[n : n + 1]) for n in range(8)]
    moved = [elastic_shifts(effects[n : n + 1], 40) for n in range(8)]
    monkeypatch.setattr("unetexp.training.augmenting.effects._used", lambda where: True)
    torch.testing.assert_close(apply_effects(before, effects), torch.cat(alone))
    for number, shifts in enumerate(elastic_shifts(effects, 40)):
        own = torch.zeros(40, 40, 2) if moved[number] is None else moved[number][0]
        torch.testing.assert_close(shifts, own)


class TestDraws:
    def test_each_effect_comes_with_its_probability_and_within_its_range(self):
        strong = Augment(preset="strong")
        drawn = np.array([strong.draw_effects(0, 1, index) for index in range(3000)])
        changed = (drawn != np.array(UNCHANGED)).mean(axis=0)[:5]
        assert changed[[0, 1, 2, 4]] == pytest.approx([0.3] * 4, abs=0.04)
        assert 0.1 < changed[3] < 0.3  # a factor of 1 changes nothing
        assert drawn[:, 0].max() <= 0.04 and drawn[:, 2].max() <= 1.5 and drawn[:, 4].max() <= 0.06
        assert drawn[:, 1].min() >= 1 / 1.5 and drawn[:, 1].max() <= 1.5
        assert set(drawn[:, 3]) == {1, 2, 3}

    def test_a_sample_in_an_epoch_is_always_the_same(self):
        medical = Augment(preset="medical")
        assert medical.draw_effects(1, 2, 3, 4) == medical.draw_effects(1, 2, 3, 4)
        drawn = {medical.draw_effects(*key) for key in [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4)]}
        assert len(drawn) == 4

    def test_strength_scales_them_and_zero_leaves_none(self):
        once, twice = (Augment(preset="medical", strength=strength) for strength in (1, 2))
        for index in range(50):
            one, two = once.draw_effects(0, 1, index), twice.draw_effects(0, 1, index)
            assert two.blur_px == pytest.approx(2 * one.blur_px)
            assert two.noise == pytest.approx(2 * one.noise)
            assert np.log(two.gamma) == pytest.approx(2 * np.log(one.gamma))
        assert not Augment(preset="medical", strength=0).has_effects
        assert isinstance(once.draw_effects(0, 1, 0), Effects)
