"""Compute the smallest sets of functions that can only go together, and what goes with one function.

Source: see `groups_edges`, which has the rules.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from pcipt import values as attrs
from pcipt.firmware.passthrough.groups_edges import Doubt, Edge, Partition, Why, find_edges
from pcipt.firmware.passthrough.index import belongs_to_machine
from pcipt.firmware.passthrough.verdict import Evidence
from pcipt.pci import Sbdf


@attrs.frozen
class FunctionSet:
    """One set: all its functions, those that a guest can be given, its edges, and what was not known.

    `members` has bridges too; `assignable` has none. Both are in address order. `unknown` are the missing
    facts by which more functions that a guest can be given might be in the set.
    """

    members: tuple[Sbdf, ...]
    assignable: tuple[Sbdf, ...]
    edges: tuple[Edge, ...]
    unknown: tuple[str, ...]


@attrs.frozen
class Companion:
    """A function that goes along, and the edges that lead to it from the other function, in their order."""

    sbdf: Sbdf
    way: tuple[Edge, ...]


class Groups:
    """All edges and doubts of a machine (`edges`, `doubts`), made for questions about single functions."""

    def __init__(self, edges: Iterable[Edge], doubts: Iterable[Doubt]) -> None:
        self.edges = tuple(edges)
        self.doubts = tuple(doubts)
        self._at: dict[Sbdf, list[Edge]] = {}
        self._joined, self._maybe = Partition(), Partition()  # by edges; by edges and doubts
        self._missing: dict[Sbdf, dict[str, None]] = {}
        self._wide: dict[Sbdf, list[Sbdf]] = {}
        for edge in self.edges:
            self._at.setdefault(edge.one, []).append(edge)
            self._at.setdefault(edge.other, []).append(edge)
            self._joined.join(edge.one, edge.other)
            self._maybe.join(edge.one, edge.other)
        for doubt in self.doubts:
            self._maybe.join(doubt.one, doubt.other)
        for doubt in self.doubts:
            for end in (doubt.one, doubt.other):
                self._missing.setdefault(self._joined.top(end), {})[doubt.what] = None
        ends = (end for each in self.doubts for end in (each.one, each.other))
        touched = dict.fromkeys([*self._at, *ends])
        for sbdf in touched:
            self._wide.setdefault(self._maybe.top(sbdf), []).append(sbdf)

    def ways_from(self, sbdf: Sbdf, rules: Collection[Why]) -> dict[Sbdf, tuple[Edge, ...]]:
        """Return the functions that edges of `rules` connect with the function, each with its shortest way.

        The function itself is left out.
        Shape:  nearest first.
        """
        found: dict[Sbdf, tuple[Edge, ...]] = {sbdf: ()}
        waiting = deque([sbdf])
        while waiting:
            at = waiting.popleft()
            for edge in self._at.get(at, ()):
                other = edge.other if edge.one == at else edge.one
                if other not in found and edge.why in rules:
                    found[other] = (*found[at], edge)
                    waiting.append(other)
        del found[sbdf]
        return found

    def missing(self, sbdf: Sbdf) -> tuple[str, ...]:
        """Return the facts that are missing to say whether the function's set is larger, each once."""
        return tuple(self._missing.get(self._joined.top(sbdf), ()))

    def perhaps(self, sbdf: Sbdf) -> Iterator[Sbdf]:
        """Yield the functions that are in the function's set only if missing facts say so."""
        for other in self._wide.get(self._maybe.top(sbdf), ()):
            if not self._joined.same(sbdf, other):
                yield other


EVERY_RULE = frozenset(Why)


def groups_of(evidence: Evidence) -> Groups:
    """Return all edges and doubts of the machine."""
    return Groups(*find_edges(evidence))


def sets_of(
    evidence: Evidence, groups: Groups, rules: Collection[Why] = EVERY_RULE
) -> tuple[FunctionSet, ...]:
    """Return the sets of all functions of the machine by the edges of `rules`, by the lowest address in each.

    Each function is in exactly one set; a function without edges is a set of its own.
    """
    joined = Partition()
    edges = [edge for edge in groups.edges if edge.why in rules]
    for edge in edges:
        joined.join(edge.one, edge.other)
    members: dict[Sbdf, list[Sbdf]] = {}
    for sbdf in evidence.machine.functions:
        members.setdefault(joined.top(sbdf), []).append(sbdf)
    held: dict[Sbdf, list[Edge]] = {}
    for edge in edges:
        held.setdefault(joined.top(edge.one), []).append(edge)
    sets = []
    for top, found in sorted(members.items()):
        assignable = tuple(sbdf for sbdf in found if _assignable(sbdf, evidence))
        unknown = dict.fromkeys(what for sbdf in assignable for what in doubtful(sbdf, evidence, groups))
        sets.append(FunctionSet(tuple(found), assignable, tuple(held.get(top, ())), tuple(unknown)))
    return tuple(sets)


def companions(
    sbdf: Sbdf, evidence: Evidence, groups: Groups, rules: Collection[Why] = EVERY_RULE
) -> tuple[Companion, ...]:
    """Return the functions that go along with one function by the edges of `rules`, nearest first.

    Functions that a guest cannot be given, and functions that leave dom0 anyway (`Evidence.together`), are
    left out.
    """
    ways = groups.ways_from(sbdf, rules)
    staying = evidence.remains(evidence.machine.functions[sbdf], ways)
    return tuple(Companion(other, ways[other]) for other in staying if _assignable(other, evidence))


def doubtful(sbdf: Sbdf, evidence: Evidence, groups: Groups) -> tuple[str, ...]:
    """Return the facts that are missing to say whether more functions go along, each once.

    The result is empty if no function that a guest can be given, and that would stay in dom0, can be one.
    """
    missing = groups.missing(sbdf)
    left = (
        (other for other in groups.perhaps(sbdf) if other not in evidence.together) if missing else iter(())
    )
    return missing if any(_assignable(other, evidence) for other in left) else ()


def _assignable(sbdf: Sbdf, evidence: Evidence) -> bool:
    """Return True if a guest can be given the function."""
    return not belongs_to_machine(evidence.machine.functions[sbdf])
