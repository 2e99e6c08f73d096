"""Actions that failed, and when each is made again: a few times, then it stands as a finding."""

from collections.abc import Iterable

from pcipt.engine.attempts import Attempts
from pcipt.engine.open_actions import Key, key_of
from pcipt.remap.actions import Action, Outcome, Result


class Retries:
    """`now` is the clock of whoever asks; an action planned again is the same one (`key_of`)."""

    def __init__(self) -> None:
        self._attempts: Attempts[Key] = Attempts()
        self._actions: dict[Key, Action] = {}

    @property
    def due(self) -> float | None:
        return self._attempts.due

    def may(self, action: Action, now: float) -> bool:
        return self._attempts.may(key_of(action), now)

    def ripe(self, now: float) -> list[Action]:
        return [self._actions[key] for key in self._attempts.ripe(now) if key in self._actions]

    def came(self, outcome: Outcome, now: float) -> None:
        """Take in what came of an action."""
        key = key_of(outcome.action)
        if outcome.result is Result.FAILED:
            self._attempts.failed(key, now)
            self._actions[key] = outcome.action
        else:
            self.forget([key])

    def forget(self, keys: Iterable[Key]) -> None:
        """Forget what is not wanted any more: wanted again, it is another matter."""
        for key in keys:
            self._attempts.over(key)
            self._actions.pop(key, None)

    def untried(self, actions: Iterable[Action], now: float) -> list[Key]:
        """Choose those that are ripe still: nothing came of them, for they were not planned again."""
        ripe = set(self._attempts.ripe(now))
        return [key for action in actions if (key := key_of(action)) in ripe]

    def reset(self) -> None:
        """Begin anew: somebody asked for it."""
        self._attempts.reset()
