"""What could not be asked is asked again: a few times by itself, and with whatever is asked next."""

import errno

import pytest

from pcipt.engine.unasked import Unasked
from pcipt.xen.outcome import Op
from tests.engine.stage import BusStage, S
from tests.xen.devices import device
from tests.xen.truth import mapped_pages, p2m_truth

NEW = "00:08.0"


def begun():
    stage = BusStage([device("00:02.0", (0xC000_0000, 0x1000))])
    engine = stage.start()
    engine.reconcile()
    return stage, engine


def right(stage):
    return p2m_truth(stage.hardware, stage.xen).mistakes(mapped_pages(stage.xen)) == ([], [])


@pytest.mark.parametrize("op", [Op.KNOWN, Op.CUSTODY])
@pytest.mark.parametrize("how", ["tick", "another"])
def test_what_came_while_xen_could_not_be_asked_is_known_when_it_leaves(op, how):
    stage, engine = begun()
    stage.xen.fail(op, errno.EBUSY)
    stage.plug(device(NEW, (0xC010_0000, 0x1000)))
    assert stage.settle(engine) == []
    assert "xen-not-asked" in {finding.code for _, finding in engine.findings}
    if how == "tick":
        assert engine.due == pytest.approx(1.0)
        stage.time += 1
        engine.tick()
    else:
        stage.write("00:02.0", 0x04, 2, 0)
        stage.settle(engine)
    assert engine.findings == []
    stage.pull(NEW)
    stage.settle(engine)
    assert right(stage)


def test_nothing_is_concluded_from_a_write_while_xen_cannot_be_asked():
    stage, engine = begun()
    stage.xen.forget(S("00:02.0"))
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    stage.write("00:02.0", 0x10, 4, 0xC020_0000)
    assert stage.settle(engine) == []
    stage.time += 1
    engine.tick()
    engine.reconcile()
    assert right(stage)


def test_a_comparison_of_everything_is_made_up_for():
    stage = BusStage([device("00:02.0", (0xC000_0000, 0x1000))])
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    engine = stage.start()
    engine.reconcile()
    assert len(engine.ledger.mapped) == 0
    stage.time += 1
    engine.tick()
    assert len(engine.ledger.mapped) == 1


def test_it_is_given_up_after_a_few_times_and_begins_anew_with_an_answer():
    unasked, now = Unasked(), 0.0
    for pause in (1.0, 5.0, 25.0):
        unasked.look(now, open_questions=True)
        unasked.look(now, open_questions=True)  # before the pause is over it does not count
        assert unasked.due == now + pause
        now += pause
        assert unasked.is_ripe(now)
    unasked.look(now, open_questions=True)
    assert unasked.due is None
    unasked.look(now, open_questions=False)
    unasked.look(now, open_questions=True)
    assert unasked.due == now + 1.0


def test_while_everything_is_open_an_answer_about_some_is_not_enough():
    unasked = Unasked()
    unasked.look(0.0, open_questions=True, everything=True)
    unasked.look(0.5, open_questions=False)
    assert unasked.due == 1.0


@pytest.mark.parametrize("event", ["write", "plug"])
def test_a_comparison_that_was_given_up_is_made_up_for_with_the_next_answer(event):
    stage = BusStage(
        [device("00:02.0", (0xC000_0000, 0x1000)), device("00:06.0", (0xC002_0000, 0x1000), header=2)]
    )
    for call in range(4):
        stage.xen.fail(Op.KNOWN, errno.EBUSY, call=call + 1)
    engine = stage.start()
    engine.reconcile()
    for _ in range(4):
        stage.time += 30
        engine.tick()
    assert engine.due is None
    if event == "write":
        stage.write("00:02.0", 0x04, 2, 0)
    else:
        stage.plug(device(NEW, (0xC010_0000, 0x1000)))
    stage.settle(engine)
    assert engine.due == pytest.approx(1.0)
    stage.time += 1
    engine.tick()
    assert right(stage)
