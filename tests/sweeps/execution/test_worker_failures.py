"""Why a worker died, from Ray's words and from the nodes that are gone."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorUnavailableError, NodeDiedError, RayActorError

from sweeps.execution.worker_failures import FailureClassifier, cause_of

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


@pytest.fixture
def trial(tmp_path):
    """A trial that failed for the first time, on a node at 127.0.0.1."""

    def failed(text=UNAVAILABLE, number=1):
        with (tmp_path / "error.txt").open("a") as file:
            file.write(f"Failure # {number} (occurred at 2026-01-01_00-00-00)\n{text}\n")
        return SimpleNamespace(
            trial_id="a",
            error_file=str(tmp_path / "error.txt"),
            last_result={"node_ip": "127.0.0.1"},
            run_metadata=SimpleNamespace(num_failures=number),
        )

    return failed


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


def test_a_broken_connection_to_a_node_that_answers_is_a_crash(trial, listening):
    classifier = FailureClassifier(lambda: [node(port=listening)], patience_s=0)
    assert classifier.classify(trial()) == ("crash", UNAVAILABLE)


def test_a_node_that_ray_still_believes_in_and_nobody_answers_at_is_lost(trial):
    assert FailureClassifier(lambda: [node()], patience_s=0).classify(trial())[0] == "node_lost"


def test_another_machines_death_is_not_this_trials(trial, listening):
    nodes = [node(port=listening), node("other", address="127.0.0.2")]
    assert FailureClassifier(lambda: nodes, patience_s=0).classify(trial())[0] == "crash"


def test_a_node_that_was_dead_before_is_not_blamed(trial, listening):
    nodes = [node("old", alive=False), node(port=listening)]
    assert FailureClassifier(lambda: nodes, patience_s=0).classify(trial())[0] == "crash"


def test_a_preemption_is_not_counted(trial, listening):
    classifier = FailureClassifier(lambda: [node(port=listening)], patience_s=0)
    classifier.classify(trial())
    preempted = trial("The actor's node was preempted: spot. The actor's node was preempted", 2)
    assert classifier.classify(preempted)[0] == "preempted"
    assert preempted.run_metadata.num_failures == 1


def test_a_death_that_ray_does_not_count_was_a_preemption(trial):
    uncounted = trial("The actor died unexpectedly before finishing this task.", 0)
    assert FailureClassifier(list, patience_s=0).classify(uncounted)[0] == "preempted"


def test_only_the_last_failure_is_read(trial, listening):
    classifier = FailureClassifier(lambda: [node(port=listening)], patience_s=0)
    trial("The actor died because its node has died.")
    assert classifier.classify(trial("its worker process has died", 2))[1] == (
        "its worker process has died"
    )
