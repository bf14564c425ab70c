"""All of a process's computation is in one thread, and what was computed there is freed."""

from __future__ import annotations

import gc
import sys
import threading
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from unetexp.compute.compute_thread import ComputeThread, in_compute_thread


class Model:
    """Stands in for what is in memory; a cycle, as autograd graphs have."""

    def __init__(self):
        self.itself = self


def test_one_thread_serves_every_thread_that_asks():
    with ThreadPoolExecutor(4) as pool:
        seen = set(pool.map(lambda _: in_compute_thread(threading.get_ident), range(20)))
    assert len(seen) == 1
    assert threading.get_ident() not in seen
    assert seen == {in_compute_thread(threading.get_ident)}


def test_pieces_of_work_do_not_overlap():
    at_work, most = [], []

    def work():
        at_work.append(1)
        most.append(len(at_work))
        at_work.pop()

    with ThreadPoolExecutor(4) as pool:
        for _ in range(50):
            pool.submit(in_compute_thread, work)
    assert most == [1] * 50


def leave():
    sys.exit(0)


def divide():
    return 1 / 0


@pytest.mark.parametrize(
    ("work", "kind"),
    [(leave, SystemExit), (divide, ZeroDivisionError), (lambda: next(iter([])), StopIteration)],
)
def test_an_exception_of_any_kind_is_raised_where_it_was_asked_for(work, kind):
    thread = ComputeThread()
    with pytest.raises(kind) as caught:
        thread.run(work)
    assert work.__name__ in "".join(traceback.format_tb(caught.value.__traceback__))
    assert thread.run(lambda: "still there") == "still there"


def test_nothing_of_ended_work_is_kept():
    alive = []

    def work(error=None):
        model = Model()
        alive.append(weakref.ref(model))
        if error is not None:
            raise error
        return 1

    thread = ComputeThread()
    thread.run(work)
    for error in (SystemExit(0), ValueError("wrong")):
        with pytest.raises(type(error)) as caught:
            thread.run(lambda error=error: work(error))
        traceback.clear_frames(caught.value.__traceback__)
    gc.collect()
    assert [model() for model in alive] == [None] * 3


def test_an_exception_is_freed_without_the_garbage_collector():
    class WrongError(Exception):
        pass

    thread = ComputeThread()

    def fails():
        raise WrongError

    gc.disable()
    try:
        try:
            thread.run(fails)
        except WrongError as error:
            alive = weakref.ref(error)
        thread.run(int)  # the thread has gone on
        assert alive() is None
    finally:
        gc.enable()


def test_the_thread_does_not_keep_the_process_alive():
    thread = ComputeThread()
    thread.run(int)
    assert thread._thread.daemon
