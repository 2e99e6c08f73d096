"""What could not be asked is asked again: a few times by itself, and with whatever is asked next."""

import errno

import pytest

from pcipt.xen.outcome import Op
from tests.engine.stage import BusStage, S, compare, work_off
from tests.xen.devices import device
from tests.xen.truth import mapped_pages, p2m_truth

NEW = "00:08.0"


def begun():
    stage = BusStage([device("00:02.0", (0xC000_0000, 0x1000))])
    engine = stage.start()
    compare(engine)
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
        assert engine.next_due() == pytest.approx(1.0)
        stage.time += 1
        work_off(engine)
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
    work_off(engine)
    compare(engine)
    assert right(stage)


def test_a_comparison_of_everything_is_made_up_for():
    stage = BusStage([device("00:02.0", (0xC000_0000, 0x1000))])
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    engine = stage.start()
    compare(engine)
    assert len(engine.ledger.mapped) == 0
    stage.time += 1
    work_off(engine)
    assert len(engine.ledger.mapped) == 1


@pytest.mark.parametrize("event", ["write", "plug"])
def test_a_comparison_that_was_given_up_is_made_up_for_with_the_next_answer(event):
    stage = BusStage(
        [device("00:02.0", (0xC000_0000, 0x1000)), device("00:06.0", (0xC002_0000, 0x1000), header=2)]
    )
    for call in range(4):
        stage.xen.fail(Op.KNOWN, errno.EBUSY, call=call + 1)
    engine = stage.start()
    compare(engine)
    for _ in range(4):
        stage.time += 30
        work_off(engine)
    assert engine.next_due() == pytest.approx(30.0)  # it is never given up
    if event == "write":
        stage.write("00:02.0", 0x04, 2, 0)
    else:
        stage.plug(device(NEW, (0xC010_0000, 0x1000)))
    stage.settle(engine)
    assert engine.next_due() == pytest.approx(1.0)
    stage.time += 1
    work_off(engine)
    assert right(stage)
