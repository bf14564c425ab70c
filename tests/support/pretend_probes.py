"""Stand-ins for the preflight's processes: a test says what a step takes in them."""

from __future__ import annotations


class PretendProbes:
    def __init__(self, count, environment):
        self.count, self.environment = count, environment

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def load(self, *_):
        pass

    def step_s(self, settings, size, at_once, threads, limit_s):
        raise NotImplementedError
