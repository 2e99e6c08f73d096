"""A mapping that never changes and of which the next one is cheap: a base, and what is different since.

The base is shared by many; when as many keys differ as a copy of them costs, a new base is made. So a change
costs the same on average whatever the size.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")
_LIMIT = 128


class Lazy(Mapping[K, V]):
    """A base whose values are made when they are looked at; those of `held`, and the last one, are kept.

    `keys` are all keys there are. What `make` gives for a key may change until it is put into `held`.
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
        return Lazy(self._keys, self._make, {**self._held, **more})


class Overlay(Mapping[K, V]):
    """Keys come in the order of the base, then in that in which they were put."""

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
    return mapping if isinstance(mapping, Overlay) else Overlay(mapping)
