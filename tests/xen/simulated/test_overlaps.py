import random

from pcipt.pci import Frames, Gfn
from pcipt.xen.simulated.overlaps import Overlaps, without


def frames(start, count):
    return Frames(Gfn(start), count)


def test_the_same_as_looking_at_all():
    chance = random.Random(2)
    index, held = Overlaps[int](), {}
    for _ in range(3000):
        key, span = chance.randrange(40), frames(chance.randrange(5000), chance.choice((1, 3, 600)))
        if chance.random() < 0.6:
            index.put(key, span)
            held[key] = span
        else:
            index.discard(key)
            held.pop(key, None)
        asked = frames(chance.randrange(5000), chance.choice((1, 700)))
        assert dict(index.touching(asked)) == {k: s for k, s in held.items() if s.overlaps(asked)}


# spans, what is cut, what is left
CUTS = [
    ([frames(0, 4)], frames(1, 2), [frames(0, 1), frames(3, 1)]),
    ([frames(0, 4)], frames(0, 2), [frames(2, 2)]),
    ([frames(0, 4)], frames(2, 9), [frames(0, 2)]),
    ([frames(0, 4), frames(8, 1)], frames(0, 9), []),
    ([frames(0, 4)], frames(4, 1), [frames(0, 4)]),
]


def test_cutting():
    for spans, cut, left in CUTS:
        assert without(spans, cut) == left
