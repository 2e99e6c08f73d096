"""Find ranges of frames that overlap a given range, in a time that hardly grows with their number. Pure."""

from bisect import bisect_left, insort
from bisect import bisect_right as _first
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from pcipt.pci import Frames, Gfn

Key = TypeVar("Key", bound=Hashable)


class Overlaps(Generic[Key]):
    """A set of ranges, each with a key. `touching` finds quickly the ranges that overlap a given range.

    Ranges whose lengths have the same number of bits are kept together, sorted by their starts.
    """

    def __init__(self) -> None:
        self._frames: dict[Key, Frames] = {}
        self._starts: dict[int, list[int]] = {}
        self._keys: dict[tuple[int, int], set[Key]] = {}

    def put(self, key: Key, frames: Frames) -> None:
        """Add a range, or replace the range of this key."""
        self.discard(key)
        self._frames[key] = frames
        place = _place(frames)
        if place not in self._keys:
            self._keys[place] = set()
            insort(self._starts.setdefault(place[0], []), place[1])
        self._keys[place].add(key)

    def discard(self, key: Key) -> None:
        """Remove the range of this key; nothing happens if there is none."""
        frames = self._frames.pop(key, None)
        if frames is None:
            return
        kind, start = place = _place(frames)
        self._keys[place].discard(key)
        if not self._keys[place]:
            del self._keys[place]
            starts = self._starts[kind]
            del starts[bisect_left(starts, start)]

    def touching(self, frames: Frames) -> list[tuple[Key, Frames]]:
        """Return (key, range) of all ranges that overlap `frames`, in no particular order."""
        return [
            (key, self._frames[key])
            for kind, starts in self._starts.items()
            for start in starts[_first(starts, frames.start - (1 << kind)) : bisect_left(starts, frames.end)]
            for key in self._keys[kind, start]
            if self._frames[key].overlaps(frames)
        ]


def without(spans: Iterable[Frames], cut: Frames) -> list[Frames]:
    """Return the spans without the frames of `cut`, in the order of `spans`.

    A span is divided if `cut` is inside it, and left out if `cut` contains it.
    """
    left = []
    for span in spans:
        if not span.overlaps(cut):
            left.append(span)
            continue
        if span.start < cut.start:
            left.append(Frames(span.start, cut.start - span.start))
        if cut.end < span.end:
            left.append(Frames(Gfn(cut.end), span.end - cut.end))
    return left


def all_but(denied: Iterable[Frames]) -> tuple[Frames, ...]:
    """Return all frames below 52 address bits except the denied frames, as ranges in ascending order."""
    spans = [Frames(Gfn(0), 1 << 40)]
    for cut in denied:
        spans = without(spans, cut)
    return tuple(spans)


def _place(frames: Frames) -> tuple[int, int]:
    """Return (number of bits of the length, start).

    `Overlaps` groups by the first and sorts by the second.
    """
    return frames.count.bit_length(), frames.start
