from pcipt.daemon.telling import history
from pcipt.daemon.telling.history import History
from pcipt.pci import parse_sbdf
from tests.machines import bridge, function, machine

NIC, NEW = parse_sbdf("01:00.0"), parse_sbdf("05:00.0")
THERE = machine(bridge("00:1c.0", 1, 8), function("01:00.0", parent="00:1c.0"))
PATH, PORT = THERE.functions[NIC].path, THERE.functions[parse_sbdf("00:1c.0")].path


def event(when, sbdf="0000:01:00.0", **more):
    return {"when": when, "sbdf": sbdf, **more}


def test_events_of_a_place_are_found_by_address_and_by_path():
    log = History()
    log.add(PATH, event("2"))
    log.add(NIC, event("1"))
    assert log.of(THERE, NIC) == [event("2"), event("1")]  # as they came: the clock may jump
    assert log.of(THERE, PATH) == [event("2"), event("1")]
    assert log.of(THERE, NEW) == []


def test_a_place_that_is_empty_keeps_what_was_told_of_its_address_before_and_after():
    """Its arrival is told before it is read, its removal sometimes when sysfs has it no longer."""
    log, gone = History(), machine(bridge("00:1c.0", 1, 8))
    for number, place in enumerate((NIC, PATH, NIC)):
        log.add(place, event(str(number)))
    assert [told["when"] for told in log.of(gone, PATH)] == ["0", "1", "2"]
    assert log.of(gone, PORT) == []


def test_the_new_address_of_a_renumbered_function_leads_to_its_history():
    log = History()
    moved = event("2", "0000:00:1c.0", moved=[{"from": str(NIC), "to": str(NEW)}, {"from": None, "to": None}])
    log.add(PATH, event("1"))
    log.add(PORT, moved)
    assert log.of(THERE, NEW) == [event("1"), moved]


def test_an_address_that_is_gone_gives_what_was_told_of_it():
    log = History()
    log.add("00_02.0", event("1", "0000:00:02.0"))
    assert log.of(THERE, parse_sbdf("00:02.0")) == [event("1", "0000:00:02.0")]


def test_events_and_places_are_bounded(monkeypatch):
    monkeypatch.setattr(history, "PLACES", 2)
    log = History()
    for number in range(history.EVENTS + 5):
        log.add(PATH, event(f"{number:04}"))
    assert len(log.of(THERE, NIC)) == history.EVENTS
    log.add("a", event("a", "a"))
    log.add("b", event("b", "b"))
    assert log.of(THERE, PATH) == []


def test_all_events_together_are_bounded_and_the_newest_are_kept(monkeypatch):
    monkeypatch.setattr(history, "ALL", 50)
    log = History()
    for number in range(300):
        log.add(f"00_{number % 20:02x}.0", event(str(number), f"0000:00:{number % 20:02x}.0"))
    kept = [told["when"] for _, told in log._all()]
    assert len(kept) == log._kept == 50
    assert min(map(int, kept)) >= 240
