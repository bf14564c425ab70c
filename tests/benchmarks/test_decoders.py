"""The decoders' benchmark at a tiny size."""

from __future__ import annotations

from benchmarks.decoders import KINDS, measured, table


def test_every_kind_is_measured():
    figures = measured(["resnet:resnet18"], side=32, rounds=1)
    assert [row.decoder for row in figures] == list(KINDS)
    by_kind = {row.decoder: row for row in figures}
    assert by_kind["lite"].gflops < by_kind["slim"].gflops < by_kind["classic"].gflops
    assert len(table(figures).splitlines()) == 2 + len(KINDS)
