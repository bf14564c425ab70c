"""Why a worker died, from Ray's message and from the nodes that are gone."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorUnavailableError, NodeDiedError, RayActorError

from sweeps.execution.tune_adapters import ControllerCallback
from sweeps.execution.worker_failures import (
    PATIENCE_S,
    FailureClassifier,
    cause_of,
    last_failure,
)
from sweeps.execution.worker_queue import WorkerQueue
from sweeps.state.stop_reason import StopReason

UNAVAILABLE = "The actor is temporarily unavailable: RpcError: RPC error: Socket closed"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RayActorError(preempted=True), "preempted"),
        (NodeDiedError("gone"), "node_lost"),
        (ActorUnavailableError(UNAVAILABLE, None), "crash"),
        ("The actor died because its node has died. Node Id: 12", "node_lost"),
        ("its node has died. Node Id: 12\n\tthe actor's node was preempted: spot", "preempted"),
        ("The actor is dead because its worker process has died.", "crash"),
    ],
)
def test_what_ray_says_is_believed(error, cause):
    assert cause_of(error) == cause
    assert cause_of(str(error)) == cause or cause == "preempted" or isinstance(error, NodeDiedError)


def node(name="n", alive=True, address="127.0.0.1", port=1, reason=0):
    return {
        "NodeID": name,
        "Alive": alive,
        "NodeManagerAddress": address,
        "NodeManagerPort": port,
        "DeathReason": reason,
        "DeathReasonMessage": "",
    }


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def classify(nodes, text=UNAVAILABLE, address="127.0.0.1", counted=True):
    return FailureClassifier(lambda: nodes).classify(text, address, counted=counted)


def test_a_broken_connection_to_a_node_that_answers_is_a_crash(listening):
    assert classify([node(port=listening)]) is StopReason.CRASH


def test_a_node_that_ray_still_believes_in_and_nobody_answers_at_is_lost():
    assert classify([node()]) is StopReason.NODE_LOST


def test_another_machines_death_is_not_this_trials(listening):
    nodes = [node(port=listening), node("other", address="127.0.0.2")]
    assert classify(nodes) is StopReason.CRASH


def test_a_node_that_was_dead_before_is_not_blamed(listening):
    nodes = [node("old", alive=False), node(port=listening)]
    assert classify(nodes) is StopReason.CRASH


def test_a_death_that_ray_does_not_count_was_a_preemption():
    text = "The actor died unexpectedly before finishing this task."
    assert classify([], text, counted=False) is StopReason.PREEMPTED


def test_only_the_last_failure_is_read(tmp_path):
    path = tmp_path / "error.txt"
    texts = ["The actor died because its node has died.", "its worker process has died"]
    path.write_text(
        "".join(f"Failure # {n} (occurred at 2026-01-01)\n{text}\n" for n, text in enumerate(texts))
    )
    assert last_failure(SimpleNamespace(error_file=str(path))) == "its worker process has died"


class TestCallback:
    """What the controller is told of deaths, and what Ray's count of them becomes."""

    class Controller:
        def __init__(self):
            self.told = []

        def __getattr__(self, name):
            return lambda *arguments: self.told.append((name, *arguments))

    @pytest.fixture
    def nodes(self, listening):
        return [node(port=listening)]

    @pytest.fixture
    def callback(self, nodes, monkeypatch):
        monkeypatch.setattr(
            "sweeps.execution.tune_adapters.FailureClassifier",
            lambda: FailureClassifier(lambda: nodes),
        )
        return ControllerCallback(self.Controller(), WorkerQueue(1))

    @pytest.fixture
    def trial(self, tmp_path):
        """A trial that failed `number` times, on a node at 127.0.0.1."""

        def failed(text=UNAVAILABLE, number=1):
            path = tmp_path / "error.txt"
            path.write_text(f"Failure # {number} (occurred at 2026-01-01)\n{text}\n")
            return SimpleNamespace(
                config={"trial": "a"},
                error_file=str(path),
                last_result={"node_ip": "127.0.0.1"},
                run_metadata=SimpleNamespace(num_failures=number),
                max_failures=3,
                should_recover=lambda: True,
            )

        return failed

    def test_a_preemption_is_taken_off_rays_count(self, callback, trial):
        preempted = trial("The actor's node was preempted: spot.", 2)
        callback.on_trial_recover(0, [], preempted)
        assert callback.controller.told == [("trial_restarted", "a", StopReason.PREEMPTED)]
        assert preempted.run_metadata.num_failures == 1

    def test_a_crash_is_believed_after_a_while_and_tunes_loop_runs_on(
        self, callback, trial, monkeypatch
    ):
        now = time.monotonic()
        monkeypatch.setattr("sweeps.execution.tune_adapters.time.monotonic", lambda: now)
        callback.on_trial_recover(0, [], trial())
        callback.on_step_begin(1, [])
        assert callback.controller.told == []
        now += PATIENCE_S
        callback.on_step_begin(2, [])
        assert callback.controller.told == [("trial_restarted", "a", StopReason.CRASH)]

    def test_a_node_that_is_seen_to_go_a_moment_later_is_the_cause(self, callback, trial, nodes):
        callback.on_trial_recover(0, [], trial())
        nodes[0] = node()
        callback.on_step_begin(1, [])
        assert callback.controller.told == [("trial_restarted", "a", StopReason.NODE_LOST)]

    def test_nothing_is_left_untold_at_the_end(self, callback, trial):
        callback.on_trial_error(0, [], trial())
        callback.settle_deaths(at_once=True)
        assert callback.controller.told == [("trial_ended", "a", StopReason.CRASH, UNAVAILABLE)]
