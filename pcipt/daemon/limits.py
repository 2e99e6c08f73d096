"""How many messages about one thing are let through: one hostile device must not fill the disk.

Each key has a bucket: so many at once, then so many a second. What was held back is counted and told with the
next message that gets through. The clock is given; a bounded number of keys is remembered.
"""

from collections import OrderedDict
from collections.abc import Hashable

import attrs

BURST = 500  # of one kind about one device: a function may move its BARs some hundred times in a row
PER_SECOND = 1.0
KEYS = 4096


@attrs.define
class _Bucket:
    tokens: float
    at: float
    held: int = 0


class Limits:
    def __init__(self, burst: int = BURST, per_second: float = PER_SECOND) -> None:
        self._burst = burst
        self._per_second = per_second
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, key: Hashable, now: float) -> tuple[bool, int]:
        """Ask whether one more may pass.

        Shape:  yes, and how many were held back before it; or no, and how many are by now.
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
