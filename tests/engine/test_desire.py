"""Which places a plan takes in, and what is remembered once it was made."""

import pytest

from pcipt.daemon.settings import Settings
from pcipt.engine.desire import conclude_places, desired_places
from pcipt.engine.open_actions import OpenActions
from pcipt.engine.queue import EVERYTHING, Reason, Work
from pcipt.engine.report import Scope
from pcipt.engine.round import Round
from pcipt.pci import Frames, Gfn
from pcipt.remap.actions import MapMmio, Outcome, Result
from pcipt.remap.desired import By, Desired, gone
from pcipt.remap.ignored import Intents
from pcipt.remap.mapped_pages import MappedRun
from tests.engine.stage import BusStage, S, compare
from tests.xen.devices import device

# Xen knows none of them: pcipt maps their pages
A, B, C, ALONE, SILENT = (S(f"00:{number}.0") for number in ("08", "09", "0a", "0b", "0c"))
GONE = S("00:1e.0")
RAWS = [
    device(str(A), (0xFE00_0000, 0x800)),
    device(str(B), (0xFE00_0800, 0x800), (0xFE01_0000, 0x800)),  # a page with A, one with C
    device(str(C), (0xFE01_0800, 0x800)),
    device(str(ALONE), (0xFE02_0000, 0x1000)),
    device(str(SILENT), (0xFE03_0000, 0x1000), command=0),
]
WHOLE = Work(EVERYTHING, frozenset({Reason.REQUESTED}), 0.0)
ALL = {"first": True, "last": True}
BEGINNING, END = {"first": True, "last": False}, {"first": False, "last": True}


@pytest.fixture(name="engine")
def the_engine():
    engine = BusStage(RAWS, known=[], settings=Settings(actions={"add-device": False})).start()
    compare(engine)
    return engine


def place(engine, sbdf):
    return engine.views.state.place_at(sbdf)


def about(engine, *functions, everything=False):
    work = (WHOLE,) if everything else tuple(Work(f, frozenset({Reason.WRITTEN}), 0.0) for f in functions)
    now = Round(Scope(work), engine.views)
    now.subjects = set(functions)
    return now


def wanted(now, part, open_actions=None, **slices):
    found = desired_places(now, part, open_actions or OpenActions(), **slices)
    assert len({each.place for each in found}) == len(found)
    return {each.sbdf: each for each in found}


def opened(where, sbdf, frames, subject=None):
    held = OpenActions()
    action = MapMmio(sbdf, "", where, 0, frames)
    held.replace([action], [Outcome(action, Result.REFUSED, "no")], [subject or sbdf], listed=None)
    return held


def page(number, count=1):
    return Frames(Gfn(number), count)


def test_a_plan_for_all_at_once_takes_in_the_functions_that_it_is_for(engine):
    assert wanted(about(engine, A), [A], **ALL).keys() == {A}
    assert wanted(about(engine, A, ALONE), [A, ALONE, A], **ALL).keys() == {A, ALONE}


@pytest.mark.parametrize("slices", [BEGINNING, END, {"first": False, "last": False}])
@pytest.mark.parametrize(
    ("part", "planned"),
    [([A], {A, B, C}), ([C], {A, B, C}), ([B, ALONE], {A, B, C, ALONE}), ([ALONE], {ALONE})],
)
def test_a_part_takes_in_functions_that_share_pages_with_it(engine, slices, part, planned):
    assert wanted(about(engine, *part), part, **slices).keys() == planned


def test_a_function_that_linux_does_not_have_is_not_planned_for(engine):
    assert wanted(about(engine, GONE, A), [GONE, A], **ALL).keys() == {A}


def test_each_function_has_the_pages_that_it_decodes(engine):
    each = wanted(about(engine, B), [B], **ALL)[B]
    assert [bar.spans for bar in each.bars] == [(page(0xFE000),), (page(0xFE010),)]
    assert not each.gone


#   whether the scope is everything, which part, whether a place that is no subject is taken in
VACATED = [(False, ALL, False), (True, ALL, True), (True, BEGINNING, False), (True, END, True)]


@pytest.mark.parametrize(("everything", "slices", "taken"), VACATED)
def test_a_vacated_place_is_planned_for_with_its_subject_or_at_the_end_of_everything(
    engine, everything, slices, taken
):
    engine.memory.vacated["left"] = GONE
    now = about(engine, ALONE, everything=everything)
    assert (GONE in wanted(now, [ALONE], **slices)) is taken
    now.subjects.add(GONE)
    assert wanted(now, [ALONE], **slices)[GONE] == gone("left", GONE)


@pytest.mark.parametrize(("everything", "slices", "taken"), VACATED)
def test_pages_without_a_function_are_planned_for_at_the_end_of_everything(engine, everything, slices, taken):
    engine.memory.mapped.put(MappedRun("left", GONE, 0, page(0xFD000), By.US, "then"))
    now = about(engine, ALONE, everything=everything)
    found = wanted(now, [ALONE], **slices)
    assert found.keys() == ({ALONE, GONE} if taken else {ALONE})
    assert found.get(GONE, gone("left", GONE)) == gone("left", GONE)


def test_a_place_with_mapped_pages_whose_function_is_there_is_not_taken_for_gone(engine):
    found = wanted(about(engine, everything=True), [], **ALL)
    assert found == {}


def test_a_vacated_place_that_has_a_function_again_is_planned_for_as_it_is(engine):
    engine.memory.vacated[place(engine, ALONE)] = ALONE
    found = wanted(about(engine, everything=True), [], **ALL)
    assert (found.keys(), found[ALONE].gone) == ({ALONE}, False)


def test_open_actions_of_the_subjects_are_planned_again(engine):
    held = opened("left", GONE, page(0xFD000))
    assert wanted(about(engine, GONE), [], held, **ALL) == {GONE: gone("left", GONE)}
    assert wanted(about(engine, ALONE), [ALONE], held, **ALL).keys() == {ALONE}


def test_an_open_action_of_a_place_is_planned_for_where_its_function_is_now(engine):
    """Linux has the function at an address, whatever address the action names."""
    held = opened(place(engine, C), GONE, page(0xFD000))
    found = wanted(about(engine, GONE), [], held, **ALL)
    assert found.keys() == {C}
    assert found[C].bars


def test_open_actions_on_pages_that_a_subject_needs_are_planned_again(engine):
    engine.memory.mapped.take(place(engine, ALONE), 0, page(0xFE020))
    held = opened("left", GONE, page(0xFE020))
    assert wanted(about(engine, ALONE), [ALONE], held, **ALL).keys() == {ALONE, GONE}
    assert wanted(about(engine, A), [A], held, **ALL).keys() == {A}
    # also if it is planned for and no subject, as a function that shares pages with one
    assert wanted(about(engine, A), [ALONE], held, **ALL).keys() == {ALONE, GONE}


def test_open_actions_on_pages_that_a_planned_place_has_mapped_are_planned_again(engine):
    engine.memory.mapped.put(MappedRun(place(engine, ALONE), ALONE, 0, page(0xFD000), By.US, "then"))
    held = opened("left", GONE, page(0xFD000))
    assert wanted(about(engine, A), [ALONE], held, **ALL).keys() == {ALONE, GONE}


def test_open_actions_on_pages_that_a_vacated_place_has_mapped_are_planned_again(engine):
    engine.memory.vacated["left"] = GONE
    engine.memory.mapped.put(MappedRun("left", GONE, 0, page(0xFD000, 4), By.US, "then"))
    held = opened(place(engine, C), C, page(0xFD002))
    assert wanted(about(engine, GONE), [], held, **ALL).keys() == {GONE, C}


def test_open_actions_on_pages_of_a_subject_that_does_not_decode_are_planned_again(engine):
    held = opened("left", GONE, page(0xFE030))
    assert wanted(about(engine, SILENT), [], held, **ALL).keys() == {GONE}
    assert wanted(about(engine, A), [SILENT], held, **ALL).keys() == {SILENT}


def test_open_actions_on_pages_that_a_subject_had_before_the_reading_are_planned_again(engine):
    held = opened("left", GONE, page(0xFD000))
    now = about(engine, ALONE)
    assert wanted(now, [ALONE], held, **ALL).keys() == {ALONE}
    now.pages.add(page(0xFD000))
    assert wanted(now, [ALONE], held, **ALL).keys() == {ALONE, GONE}


def test_an_open_action_of_a_function_that_is_planned_for_adds_nothing(engine):
    held = opened(place(engine, ALONE), ALONE, page(0xFE020))
    assert wanted(about(engine, ALONE), [ALONE], held, **ALL).keys() == {ALONE}


# What is remembered


class Forgetting(Intents):
    def __init__(self):
        super().__init__()
        self.dropped = []

    def drop(self, where):
        self.dropped.append(where)


def test_a_place_that_was_planned_for_is_not_vacated_any_more(engine):
    engine.memory.vacated |= {"left": GONE, "other": C}
    conclude_places(about(engine), [gone("left", GONE), Desired("new", A)])
    assert engine.memory.vacated == {"other": C}


def test_bars_outside_of_the_window_are_remembered_until_there_are_none(engine):
    remembered = engine.memory.outside_window
    remembered |= {"other": frozenset({2})}
    conclude_places(about(engine), [Desired("a", A, outside_window=frozenset({0, 1}))])
    assert remembered == {"a": frozenset({0, 1}), "other": frozenset({2})}
    conclude_places(about(engine), [Desired("a", A, outside_window=frozenset({1}))])
    assert remembered["a"] == {1}
    conclude_places(about(engine), [Desired("a", A)])
    assert remembered == {"other": frozenset({2})}


def test_ignored_writes_are_forgotten_with_the_function_that_has_left(engine):
    engine.memory.intents = Forgetting()
    conclude_places(about(engine), [Desired("there", A), gone("left", GONE)])
    assert engine.memory.intents.dropped == ["left"]
