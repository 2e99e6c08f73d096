"""How often a failed action is tried again: a few times, each after a longer pause, then it is a finding.

The clock is given. Whoever asks with `may` before the pause is over is told to wait; `due` says when to ask.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

import attrs

PAUSES = (1.0, 5.0, 25.0)  # seconds; as many attempts follow the first one

K = TypeVar("K", bound=Hashable)


@attrs.define
class _Failing:
    failures: int
    due: float | None  # None: it is not tried again by itself


class Attempts(Generic[K]):
    def __init__(self) -> None:
        self._failing: dict[K, _Failing] = {}

    def may(self, key: K, now: float) -> bool:
        failing = self._failing.get(key)
        return failing is None or (failing.due is not None and failing.due <= now)

    def failed(self, key: K, now: float) -> bool:
        """Note a failure; tells whether it will be tried again."""
        failures = self._failing[key].failures + 1 if key in self._failing else 1
        due = now + PAUSES[failures - 1] if failures <= len(PAUSES) else None
        self._failing[key] = _Failing(failures, due)
        return due is not None

    def over(self, key: K) -> None:
        """Note that it was done, or is not wanted any more."""
        self._failing.pop(key, None)

    def given_up(self, key: K) -> bool:
        failing = self._failing.get(key)
        return failing is not None and failing.due is None

    def ripe(self, now: float) -> list[K]:
        return [
            key for key, failing in self._failing.items() if failing.due is not None and failing.due <= now
        ]

    def reset(self) -> None:
        """Begin anew: somebody asked for it."""
        self._failing.clear()

    @property
    def due(self) -> float | None:
        """When the next pause is over, on the clock that was given."""
        return min(
            (failing.due for failing in self._failing.values() if failing.due is not None), default=None
        )
