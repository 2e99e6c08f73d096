"""Faults that reach the daemon: its kernel, its trace, its Xen, its disk, its clients, its process.

`live` holds every invariant of the simulation at the end of each script.
"""

import errno
import signal

import pytest

from pcipt.pci import parse_sbdf
from pcipt.xen.outcome import Op
from tests.engine.test_remap_machine import APIC, BRIDGES, ENDPOINTS, HOSTILE, SLOTS, UNTRAPPED
from tests.faults.stage import live
from tests.simulation.kernel import uevent
from tests.simulation.peers import JUNK
from tests.simulation.play import KILL, START

WIDE, NIC = parse_sbdf("00:02.0"), parse_sbdf("00:03.0")  # the first has a 64-bit BAR behind its first one
PLUG = ("plug", SLOTS[0], 1)


def test_an_overrun_of_messages_is_counted_and_made_up_for():
    def script(play):
        play.machine_now.happen(PLUG)
        play.machine_now.lose_messages()
        yield 5.0
        status = yield from play.status()
        assert status["hotplug"]["overruns"] == 1
        assert SLOTS[0] in play.machine_now.engine.machine.functions
        assert play.machine_now.mistakes() == ([], [])

    live(script)


def test_overruns_in_a_loop_do_not_keep_a_function_from_its_pages():
    def script(play):
        for number in range(100):
            play.machine_now.lose_messages()
            if number == 50:
                play.machine_now.happen(PLUG)
            yield 0.05
            if number >= 80:
                assert play.machine_now.mistakes() == ([], [])
        status = yield from play.status()
        assert status["hotplug"]["overruns"] == 100
        assert SLOTS[0] in play.machine_now.engine.machine.functions

    live(script)


def test_lost_writes_are_counted_and_read_again():
    def script(play):
        play.machine_now.move_bar(UNTRAPPED, 0, 0xC020_0000)
        play.machine_now.lose_writes()
        yield 5.0
        status = yield from play.status()
        assert status["watch"]["lost"] == play.machine_now.lost > 0
        assert play.machine_now.mistakes() == ([], [])

    live(script)


@pytest.mark.parametrize("noticed", [0.0, 30.0])
def test_a_function_that_vanishes_is_gone_and_not_vendor_ffff(noticed):
    def script(play):
        play.machine_now.pull(UNTRAPPED)
        yield noticed
        play.machine_now.drop()
        yield 30.0
        status = yield from play.status()
        assert "ffff" not in str(status["findings"])
        assert UNTRAPPED not in play.machine_now.engine.machine.functions
        assert play.machine_now.mistakes() == ([], [])

    live(script)


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("order", [(0x14, 0x18), (0x18, 0x14)])
def test_a_64_bit_bar_that_is_half_written(on, order):
    values = {0x14: 0x0001_0004, 0x18: 0x9}

    def script(play):
        machine = play.machine_now
        machine.decode(WIDE, on=on)
        for offset in order:
            machine.write(WIDE, offset, 4, values[offset])
            yield 0.3
        machine.decode(WIDE, on=False)
        machine.decode(WIDE, on=True)
        yield 30.0
        assert machine.mistakes() == ([], [])

    live(script)


def test_sizing_a_bar_is_no_move():
    def script(play):
        machine = play.machine_now
        before = machine.xen.changed
        bar = machine.hardware.slot(UNTRAPPED).registers.read(0x10, 4)
        machine.write(UNTRAPPED, 0x10, 4, 0xFFFF_FFFF)
        machine.change(NIC, 0x3C, 1, 5)  # another device in between
        machine.write(UNTRAPPED, 0x10, 4, bar)
        yield 5.0
        assert machine.xen.changed == before

    live(script)


@pytest.mark.parametrize("address", [*HOSTILE, APIC, 0xFEC0_0000, 0xFED0_0000, 0xFFFF_F000, 0])
def test_a_bar_over_what_is_not_its_own_never_harms_the_host(address):
    def script(play):
        machine = play.machine_now
        machine.move_bar(UNTRAPPED, 0, address, politely=False)
        yield 30.0
        assert machine.xen.catastrophe is None
        assert machine.mistakes()[1] == []
        machine.move_bar(UNTRAPPED, 0, 0xC002_0000, politely=False)
        yield 30.0

    live(script)


@pytest.mark.parametrize(("secondary", "subordinate"), [(9, 3), (0, 0), (0xFF, 0xFF), (2, 0xFF), (12, 12)])
def test_bus_numbers_that_cannot_be(secondary, subordinate):
    def script(play):
        play.machine_now.renumber(BRIDGES[0], secondary, subordinate)
        yield 30.0
        status = yield from play.status()
        assert status["health"] == "degraded"
        play.machine_now.renumber(BRIDGES[0], 2, 4)
        yield 30.0

    live(script)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("change", [1, 2, 3, 5])
def test_a_kill_at_each_write_of_an_action_twice(change, late):
    def script(play):
        for address in (0xC020_0000, 0xC021_0000):
            disk = play.simulation.disk
            disk.die_at, disk.late = disk.changes + change, late
            play.machine_now.move_bar(UNTRAPPED, 0, address)
            yield 30.0
        assert play.machine_now.mistakes() == ([], [])

    assert any(line.endswith(" killed") for line in live(script))


@pytest.mark.parametrize("call", [1, 2])
def test_a_kill_at_each_call_of_an_action_twice(call):
    def script(play):
        for address in (0xC020_0000, 0xC021_0000):
            play.machine_now.xen.die_at = play.machine_now.xen.changed + call
            play.machine_now.move_bar(UNTRAPPED, 0, address)
            yield 30.0
        assert play.machine_now.mistakes() == ([], [])

    assert any(line.endswith(" killed") for line in live(script))


NUMBERS = [errno.EPERM, errno.EACCES, errno.EBUSY, errno.ENOMEM, errno.EINVAL, errno.ENODEV, errno.ESRCH,
           errno.EOPNOTSUPP, errno.ENOSYS, errno.EFAULT, errno.EAGAIN]  # fmt: skip


@pytest.mark.parametrize("pages", [0, 1])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_call_that_fails_is_told_and_tried_again(number, pages):
    def script(play):
        machine = play.machine_now
        machine.xen.fail(Op.MAP, number, pages=pages)
        machine.move_bar(UNTRAPPED, 0, 0xC020_0000)
        yield 120.0

    lines = live(script)
    (failed,) = (line for line in lines if "map-mmio" in line and "result=failed" in line)
    assert "detail=" in failed


def test_clients_that_flood_cut_and_never_read_hold_nobody_up():
    def script(play):
        clients = [play.simulation.client() for _ in range(40)]
        for number, client in enumerate(clients):
            client.send(JUNK[number % len(JUNK)])
            client.ask("Status")
        play.machine_now.happen(PLUG)
        yield 1.5
        assert SLOTS[0] in play.machine_now.engine.machine.functions
        status = yield from play.status()
        assert status is not None
        for client in clients:
            client.close()

    live(script)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_takes_nothing_is_a_finding_until_it_does(number):
    def script(play):
        play.simulation.disk.refuse[number] = 1 << 30
        play.machine_now.move_bar(UNTRAPPED, 0, 0xC020_0000)
        yield 30.0
        status = yield from play.status()
        assert status["health"] == "degraded"
        assert any("ledger" in finding["code"] for finding in status["findings"])
        play.simulation.disk.heal()
        yield 120.0
        assert play.machine_now.mistakes() == ([], [])

    live(script)


def test_a_clock_that_jumps_far_loses_nothing():
    def script(play):
        play.machine_now.happen(PLUG)
        yield 0.01
        play.simulation.clock.now += 7 * 86_400
        yield 1.0
        assert SLOTS[0] in play.machine_now.engine.machine.functions

    live(script)


def test_a_reload_in_the_middle_of_work_waits_for_it():
    def script(play):
        play.machine_now.happen(PLUG)
        signal.raise_signal(signal.SIGHUP)
        yield 5.0
        assert play.machine_now.mistakes() == ([], [])

    live(script)


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_ledger_that_was_cut_short_is_said_or_harmless(cut):
    def script(play):
        machine = play.machine_now
        machine.move_bar(UNTRAPPED, 0, 0xC020_0000)
        yield 2.0
        yield KILL
        path = f"{play.simulation.state}/ledger.steps"
        with open(path, "rb") as file:
            data = file.read()
        with open(path, "wb") as file:
            file.write(data[:-cut])
        play.simulation.audit.blurred = True
        yield START
        yield 30.0
        assert machine.mistakes()[0] == []

    live(script)


def test_forged_messages_are_counted_and_change_nothing():
    def script(play):
        machine = play.machine_now
        before = machine.xen.changed
        real = uevent("remove", NIC, 1)
        for sender in ({"port": 77}, {"uid": 1000}, {"pid": 4}):
            machine.forge(real, **sender)
        yield 5.0
        status = yield from play.status()
        assert status["hotplug"]["forged"] == 3
        assert machine.xen.changed == before

    live(script)


@pytest.mark.parametrize(
    "data",
    [
        uevent("remove", "../0000:00:03.0", 900),
        uevent("remove", NIC, 900).replace(b"PCI_SLOT_NAME=0000:00:03.0", b"PCI_SLOT_NAME=0000:00:02.0"),
        uevent("remove", NIC, 900).replace(b"SEQNUM=900", b"SEQNUM=nine"),
        b"\xff\0ACTION=\xff\0SEQNUM=900\0",
    ],
)
def test_a_message_of_the_kernel_that_cannot_be_removes_nothing(data):
    def script(play):
        machine = play.machine_now
        machine.netlink.send(data)
        yield 5.0
        assert {*ENDPOINTS} <= set(machine.xen.devices)
        machine.forged = (yield from play.status())["hotplug"]["forged"]

    live(script)


def test_a_number_that_comes_twice_leads_to_a_look():
    def script(play):
        machine = play.machine_now
        machine.happen(PLUG)
        machine.netlink.send(uevent("add", SLOTS[0], machine.sequence))
        yield 5.0
        status = yield from play.status()
        assert status["hotplug"]["gaps"] == 1
        assert machine.mistakes() == ([], [])

    live(script)
