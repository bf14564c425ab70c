"""The trials that the search sees: the latest, and the best of those before them.

Optuna's TPE loops over every earlier trial, in Python, each time it proposes one: 5 ms after 150
trials, 16 ms after 1,000. It uses few of the old ones: its good group never has more than 25
trials (`default_gamma`), and in the other group a trial's weight decreases with its age.
"""

from __future__ import annotations

import copy
import heapq
from collections import deque
from collections.abc import Container, Sequence

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

LATEST = 275
BEST = 25


class BoundedStorage(InMemoryStorage):
    """Optuna's storage for one study that maximises; it hides old trials that are not good."""

    def __init__(self, latest: int = LATEST, best: int = BEST) -> None:
        super().__init__()
        self._keep_latest, self._keep_best = latest, best
        self._latest: deque[FrozenTrial] = deque()
        self._best: list[tuple[tuple[bool, int, float], int]] = []  # a heap: the worst comes first
        self._seen: dict[int, None] = {}  # the numbers of trials that are not forgotten, in order

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id: int = super().create_new_trial(study_id, template_trial)
        self._seen[self.get_trial_number_from_id(trial_id)] = None
        self._remember(trial_id)
        return trial_id

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        done: bool = super().set_trial_state_values(trial_id, state, values)
        self._remember(trial_id)
        return done

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        trials = super().get_all_trials(study_id, deepcopy=False)
        seen = [trials[number] for number in self._seen]  # not all of them: there may be 10,000
        if states is not None:
            seen = [trial for trial in seen if trial.state in states]
        return copy.deepcopy(seen) if deepcopy else seen

    def _remember(self, trial_id: int) -> None:
        trial = self.get_trial(trial_id)
        if not trial.state.is_finished():
            return
        self._latest.append(trial)
        if len(self._latest) > self._keep_latest:
            old = self._latest.popleft()
            heapq.heappush(self._best, (_worth(old), old.number))
        if len(self._best) > self._keep_best:
            del self._seen[heapq.heappop(self._best)[1]]


def _worth(trial: FrozenTrial) -> tuple[bool, int, float]:
    """As TPE ranks: full trials by score, then stopped ones by epochs and score, then others."""
    if trial.state == TrialState.COMPLETE:
        return True, 0, float(trial.value or 0.0)
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        epoch, score = max(trial.intermediate_values.items())
        return False, epoch, score
    return False, -1, 0.0
