"""When Xen is asked again about what it could not be asked about: a few times, each after a longer pause."""

from pcipt.engine.attempts import Attempts


class Unasked:
    """With `everything` it is all that there is, and not only what the situation has noted."""

    def __init__(self) -> None:
        self.everything = False
        self._attempts: Attempts[None] = Attempts()

    @property
    def due(self) -> float | None:
        """When to ask again, on the clock that was given."""
        return self._attempts.due

    def is_ripe(self, now: float) -> bool:
        return bool(self._attempts.ripe(now))

    def look(self, now: float, *, open_questions: bool, everything: bool = False) -> None:
        """Note whether questions are open after Xen was asked."""
        self.everything |= everything
        if not open_questions and not self.everything:
            self._attempts.over(None)
            return
        if not open_questions and self._attempts.given_up(None):
            self._attempts.over(None)  # Xen answers again, so far about some only
        if self._attempts.may(None, now):
            self._attempts.failed(None, now)
