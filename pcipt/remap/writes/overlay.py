"""Mappings that never change, with cheap changed copies: a base, and the keys that differ from it.

Pure. Many mappings share a base. When more than `_LIMIT` keys differ, a new base is made. Only the change
that makes a new base has a cost that grows with the size of the mapping.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")
_LIMIT = 128


class Lazy(Mapping[K, V]):
    """A mapping whose values are computed by `make` when they are looked at.

    `keys` are its keys. At most 128 computed values are kept, then all are dropped; so a key may have another
    value later. Values in `held` are kept for good, whether or not their keys are in `keys`.
    """

    __slots__ = ("_held", "_keys", "_made", "_make")

    def __init__(
        self, keys: Mapping[K, object], make: Callable[[K], V], held: Mapping[K, V] | None = None
    ) -> None:
        self._keys = keys
        self._make = make
        self._held: dict[K, V] = dict(held or {})
        self._made: dict[K, V] = {}

    def __getitem__(self, key: K) -> V:
        if key in self._held:
            return self._held[key]
        if key not in self._keys:
            raise KeyError(key)
        if key not in self._made:
            if len(self._made) >= _LIMIT:
                self._made.clear()
            self._made[key] = self._make(key)
        return self._made[key]

    def __contains__(self, key: object) -> bool:
        return key in self._held or key in self._keys

    def __iter__(self) -> Iterator[K]:
        yield from self._keys
        yield from (key for key in self._held if key not in self._keys)

    def __len__(self) -> int:
        return len(self._keys) + sum(key not in self._keys for key in self._held)

    def with_held(self, more: Mapping[K, V]) -> "Lazy[K, V]":
        """Return a mapping that also keeps the values of `more` for good. This mapping is unchanged."""
        return Lazy(self._keys, self._make, {**self._held, **more})


class Overlay(Mapping[K, V]):
    """A base mapping and the keys that differ from it. A key that was put hides the value of the base.

    Keys are in the order of the base, then in the order in which they were put.
    """

    __slots__ = ("_base", "_changed", "_length")

    def __init__(self, base: Mapping[K, V]) -> None:
        self._base: Mapping[K, V] = base
        self._changed: dict[K, V] = {}
        self._length = len(base)

    def __getitem__(self, key: K) -> V:
        if key in self._changed:
            return self._changed[key]
        return self._base[key]

    def __contains__(self, key: object) -> bool:
        return key in self._changed or key in self._base

    def __iter__(self) -> Iterator[K]:
        yield from self._base
        yield from (key for key in self._changed if key not in self._base)

    def __len__(self) -> int:
        return self._length

    def put(self, key: K, value: V) -> "Overlay[K, V]":
        """Return a mapping with one value replaced or added. This mapping is unchanged.

        If more than 128 keys then differ from the base, the returned mapping has a new base.
        """
        after: Overlay[K, V] = Overlay.__new__(Overlay)
        after._base, after._changed = self._base, {**self._changed, key: value}
        after._length = self._length + (key not in self)
        if len(after._changed) > _LIMIT:
            base = after._base
            after._base = (
                base.with_held(after._changed) if isinstance(base, Lazy) else {**base, **after._changed}
            )
            after._changed = {}
        return after


def overlay_of(mapping: Mapping[K, V]) -> Overlay[K, V]:
    """Return the mapping itself if it is an overlay, else a new overlay with the mapping as its base."""
    return mapping if isinstance(mapping, Overlay) else Overlay(mapping)
