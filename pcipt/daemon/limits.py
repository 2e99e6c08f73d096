"""Rate limits for messages: one faulty device must not fill the disk with log messages.

Each key has a token bucket: BURST messages at once, then PER_SECOND each second. Suppressed messages are
counted, and the count goes with the next message that passes. At most KEYS keys are remembered.
"""

from collections import OrderedDict
from collections.abc import Hashable

import attrs

BURST = 500  # messages at once: a function may move its BARs some hundred times in a row
PER_SECOND = 1.0  # messages
KEYS = 4096


@attrs.define
class _Bucket:
    """The state of one key: tokens left, time of the last refill in seconds, number of suppressed messages.

    One message takes one token.
    """

    tokens: float
    at: float
    held: int = 0


class Limits:
    """A rate limit for messages: for each key at most `burst` messages at once, then `per_second` each
    second.
    """

    def __init__(self, burst: int = BURST, per_second: float = PER_SECOND) -> None:
        self._burst = burst
        self._per_second = per_second
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, key: Hashable, now: float) -> tuple[bool, int]:
        """Count a message under `key` and return whether it passes. `now` is in seconds of a steady clock.

        At most KEYS keys are remembered; the key without a message for the longest time is forgotten.

        Shape:  True and the number of messages of this key suppressed since the last one that passed; or
                False and the same number, this message included.
        """
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= KEYS:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = _Bucket(float(self._burst), now)
        self._buckets.move_to_end(key)
        refill = max(0.0, now - bucket.at) * self._per_second
        bucket.tokens, bucket.at = min(float(self._burst), bucket.tokens + refill), now
        if bucket.tokens < 1:
            bucket.held += 1
            return False, bucket.held
        bucket.tokens -= 1
        held, bucket.held = bucket.held, 0
        return True, held
