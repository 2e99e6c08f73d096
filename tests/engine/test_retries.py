from pcipt.engine.attempts import PAUSES
from pcipt.engine.open_actions import key_of
from pcipt.engine.retries import Retries
from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.remap.actions import MapMmio, Outcome, Result


def action(start):
    return MapMmio(parse_sbdf("00:02.0"), "why", "00_02.0", 0, Frames(Gfn(start), 1))


ONE, OTHER = action(0xC0000), action(0xD0000)


def test_what_failed_waits_and_is_ripe_again():
    retries = Retries()
    assert retries.may(ONE, 0.0)
    retries.came(Outcome(ONE, Result.FAILED), 0.0)
    assert (retries.may(ONE, 0.5), retries.may(OTHER, 0.5), retries.due) == (False, True, PAUSES[0])
    assert retries.ripe(0.5) == []
    assert retries.ripe(PAUSES[0]) == [ONE]


def test_what_is_done_or_not_wanted_any_more_begins_anew():
    retries = Retries()
    for failed in (ONE, OTHER):
        retries.came(Outcome(failed, Result.FAILED), 0.0)
    retries.came(Outcome(ONE, Result.DONE), 1.0)
    assert retries.ripe(9.0) == [OTHER]
    assert retries.untried([ONE, OTHER], 9.0) == [key_of(OTHER)]
    retries.forget([key_of(OTHER)])
    assert (retries.ripe(9.0), retries.due, retries.may(OTHER, 0.0)) == ([], None, True)
