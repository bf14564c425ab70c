"""Prefetching in threads: in order, no further than requested, and with a time limit."""

from __future__ import annotations

import threading
import time

import psutil
import pytest

from unetexp.errors import DataError, UnetexpError
from unetexp.prefetch import prefetched


def slow_double(number):
    time.sleep(0.02 if number % 2 else 0.0)
    return 2 * number


def loaders():
    return [t for t in threading.enumerate() if t.name.startswith("loader")]


def wait_until_gone():
    until = time.monotonic() + 5
    while loaders() and time.monotonic() < until:
        time.sleep(0.01)
    return not loaders()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(threads):
    assert list(prefetched(slow_double, range(20), threads=threads)) == [*range(0, 40, 2)]
    assert wait_until_gone()


def test_no_process_is_started():
    before = psutil.Process().children()
    results = prefetched(slow_double, range(20), threads=2)
    next(results)
    assert psutil.Process().children() == before
    assert len(loaders()) == 2
    results.close()
    assert wait_until_gone()


def test_no_more_is_prepared_than_two_items_a_thread():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = prefetched(slow_double, items(), threads=2)
    next(results)
    time.sleep(0.1)
    assert len(taken) <= 5


def test_an_error_is_raised_at_its_place():
    def work(number):
        if number == 3:
            raise DataError("image 3 is damaged")
        return number

    results = prefetched(work, range(9), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="image 3 is damaged"):
        next(results)
    assert wait_until_gone()


def test_a_thread_that_hangs_is_named_with_what_it_was_at_and_what_to_try():
    release = threading.Event()

    def work(number):
        if number == 2:
            release.wait(30)
        return number

    results = prefetched(work, range(9), threads=2, timeout_s=0.2, describe=lambda n: f"image {n}")
    assert [next(results) for _ in range(2)] == [0, 1]
    with pytest.raises(UnetexpError, match=r"image 2 .*0\.2 s.*loader-\d.*cache") as caught:
        next(results)
    release.set()
    assert not isinstance(caught.value, ValueError)  # not the user's mistake
    assert wait_until_gone()
