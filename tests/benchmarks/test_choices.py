"""The benchmark of the preflight's choices: its table, and a run on small crops."""

from __future__ import annotations

import pytest

from benchmarks import choices
from benchmarks.choices import behind_percent, main, model_config, table
from sweeps.preflight.step_cost import Size
from tests.support.pretend_probes import PretendProbes
from unetexp.compute.measured import is_free

TIMES = {
    "fp32 contiguous | 1 | 2": [0.105, 0.104, 0.2],
    "fp32 channels_last | 1 | 2": [0.100, 0.101, 0.099],
    "bf16 contiguous | 2 | 1": [0.5, 0.5, 0.5],
}
SMALL = "--px 32 --batch 2 --rounds 1 --encoders resnet18 --decoders slim".split()  # noqa: SIM905
CHOSEN = "fp32 contiguous | 1 | 2"


def test_the_table_says_how_far_the_choice_is_from_the_best():
    assert behind_percent(CHOSEN, TIMES) == pytest.approx(5.0)
    lines = table("a model", CHOSEN, TIMES).splitlines()
    assert lines[4].startswith("| fp32 channels_last | 1 | 2 | 100 |")
    assert lines[5].endswith("| chosen |")
    assert lines[-1] == "Chosen: 5.0 % behind the best (at most 5: met)."
    assert "missed" in table("a model", "bf16 contiguous | 2 | 1", TIMES)


def test_precision_and_layout_are_left_open():
    config = model_config("resnet18", "classic", Size(32, 2))
    assert is_free(config)
    assert (config.augment.crop_px, config.batch_size) == (32, 2)
    assert config.decoder.kind == "classic"


class OneIsFast(PretendProbes):
    """Processes in which fp32 contiguous is twice as fast as all else."""

    def __init__(self, count, environment):
        super().__init__(count, environment)
        assert "PYTHONPATH" in environment

    def step_s(self, settings, size, at_once, threads, limit_s):
        slow = 1 if (settings.precision, settings.memory_format) == ("fp32", "contiguous") else 2
        return 0.3 * slow * size.images / threads**0.5


def test_every_combination_is_timed(monkeypatch, capsys):
    monkeypatch.setattr(choices, "Probes", OneIsFast)
    monkeypatch.setattr(choices, "available_cores", lambda: 2)
    main(SMALL)
    said = capsys.readouterr().out
    assert "### resnet18, slim, 32 px, batch 2, cpu" in said
    assert said.count("| bf16 ") == said.count("| fp32 ") == 4
    assert "Chosen: 0.0 % behind the best (at most 5: met)." in said
    main([*SMALL, "--compile"])
    assert capsys.readouterr().out.count("default |") == 8
