"""The machines of the benches are what they say, and verdicts are right; no time is judged here."""

import itertools
from xml.etree import ElementTree as ET

import pytest

from bench import plot, trees
from bench.timing import Row, ratios
from pcipt.host.sysfs import read_machine
from pcipt.pci import decode_machine


@pytest.mark.parametrize("shape", sorted(trees.SHAPES))
def test_a_machine_is_sound(tmp_path, shape):
    trees.build(str(tmp_path), shape, 300)
    machine = decode_machine(read_machine(str(tmp_path)))
    assert len(machine.functions) == 300
    assert not [finding for each in machine.functions.values() for finding in each.findings]
    bars = sorted(
        (bar.address, bar.address + bar.size) for each in machine.functions.values() for bar in each.bars
    )
    assert len(bars) > 100
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(bars))
    depths = [len(each.path.hops) for each in machine.functions.values()]
    assert max(depths) == (2 if shape == "flat" else 2 + 2 * trees.SWITCHES)


@pytest.mark.parametrize("shape", sorted(trees.SHAPES))
def test_a_bar_is_in_the_windows_of_all_bridges_above_it(shape):
    made = {each.name: each for each in itertools.islice(trees.SHAPES[shape](), 500)}
    for each in made.values():
        for above in each.place.split("/")[1:-1]:
            bridge = made[above]
            assert bridge.base <= each.base
            assert each.base + each.size <= bridge.base + bridge.size


@pytest.mark.parametrize(
    ("found", "least", "verdict"),
    [((1.0, 1.5, 9.0), False, "held"), ((1.0, 1.6, 1.7), False, "MISSED"),
     ((1.0, 1.5, 9.0), True, "held"), ((1.0, 1.4, 9.0), True, "MISSED")],
)  # fmt: skip
def test_the_median_is_judged(found, least, verdict):
    row = Row("work", "peer", found, 1.5, least=least)
    assert (row.verdict, row.held) == (verdict, verdict == "held")


def test_a_peer_that_is_absent_is_told_and_not_judged():
    row = Row("work", "peer", bound=1.0, skipped="lspci is not installed")
    assert row.held
    assert row.cells()[-1] == "skipped: lspci is not installed"


def test_pairs_take_turns_and_the_first_is_not_counted():
    order = []

    def run(name, times):
        seconds = iter(times)

        def one():
            order.append(name)
            return next(seconds)

        return one

    assert ratios(run("ours", (9, 2, 3)), run("peer", (9, 1, 2)), 2) == (2, 1.5)
    assert order == ["peer", "ours", "ours", "peer", "peer", "ours"]


def test_the_plot_has_a_line_for_each_command_and_both_colours():
    text = plot.svg((100, 1000), {"pcipt list": [10, 50], "lspci -D": [5, 60]})
    lines = ET.fromstring(text).findall("{http://www.w3.org/2000/svg}polyline")
    assert [each.get("class") for each in lines] == ["line", "line peer"]
    assert "prefers-color-scheme: dark" in text
