"""The real implementation on fake libraries: loading, degrading, batches, the console, handles."""

import errno
import gc
import os
import shutil
import warnings

import pytest

from pcipt.errors import HypervisorError, NotPermittedError, StateError, UnsupportedError
from pcipt.pci import Frames, Gfn, Sbdf, parse_sbdf, sbdf_from_devfn
from pcipt.xen.binding import CallHandle, ControlHandle, LoadError
from pcipt.xen.interface import Abilities, Custody, DeviceFlags, Dom0Kind, Hypervisor, Owner, OwnerKind
from pcipt.xen.libxc import BATCH, CHUNK, open_libxc

NIC = parse_sbdf("1234:56:0f.0")
VMD = parse_sbdf("10000:00:00.0")
HEAD = "(XEN) ==== PCI devices ====\n(XEN) ==== segment 0000 ====\n"
DUMP = HEAD + "(XEN) 0000:02:00.0 - d0 - node -1  - MSIs < 28 >\n(XEN) 0000:01:00.0 - NULL - node -1 \n"
OWNERS = {
    parse_sbdf("0000:02:00.0"): Owner(OwnerKind.DOMAIN, 0),
    parse_sbdf("0000:01:00.0"): Owner(OwnerKind.NOBODY),
}


@pytest.fixture
def xen(machine):
    with open_libxc(str(machine.root)) as opened:
        yield opened


def test_it_is_a_hypervisor(xen):
    checked: Hypervisor = xen
    assert (checked.identity.full, checked.identity.dom0) == ("4.17.7", Dom0Kind.PV)


# flags, the 16 bytes that reach Xen for 1234:56:0f.0
ADDS = [
    (DeviceFlags(), "34125678 00000000 00000000 00000000"),
    (DeviceFlags(extended=True), "34125678 01000000 00000000 00000000"),
    (DeviceFlags(physfn=parse_sbdf("1234:55:1f.7")), "34125678 02000000 55ff0000 00000000"),
    (DeviceFlags(True, parse_sbdf("1234:00:00.1")), "34125678 03000000 00010000 00000000"),
]


@pytest.mark.parametrize(("flags", "expected"), ADDS)
def test_add(xen, machine, flags, expected):
    xen.add_device(NIC, flags)
    assert (machine.call.op, machine.call.command, machine.call.size) == (33, 25, 16)
    assert bytes(machine.call.bytes[:16]) == bytes.fromhex(expected)


def test_remove(xen, machine):
    xen.remove_device(NIC)
    assert (machine.call.command, bytes(machine.call.bytes[:4])) == (26, bytes.fromhex("34125678"))


FRAMES = Frames(Gfn(0xFE604), 4)


@pytest.fixture
def pvh(machine):
    machine.write("sys/hypervisor/guest_type", "PVH")
    with open_libxc(str(machine.root)) as opened:
        yield opened


def test_map_and_unmap(pvh, machine):
    for action, add in ((pvh.map_mmio, 1), (pvh.unmap_mmio, 0)):
        action(FRAMES)
        seen = machine.control
        assert (seen.mapping_domain, seen.mapping_add) == (0, add)
        assert (seen.first_gfn, seen.first_mfn, seen.frames) == (0xFE604, 0xFE604, 4)
    assert machine.control.mappings == 2


def test_errors_of_a_mapping_keep_their_errno_and_name_the_range(pvh, machine):
    pvh.known([NIC])
    for number in (errno.EPERM, errno.ENOMEM, errno.EBUSY, errno.ENODEV, errno.EACCES, errno.ENOSYS):
        machine.control.fail = number
        for op, action in (("memory_mapping add", pvh.map_mmio), ("memory_mapping remove", pvh.unmap_mmio)):
            with pytest.raises(HypervisorError) as caught:
                action(FRAMES)
            assert (caught.value.op, caught.value.errno) == (op, number)
            assert caught.value.subject == "0xfe604000-0xfe607fff"


def test_an_interrupted_mapping_is_repeated_and_not_for_ever(pvh, machine):
    machine.control.interrupted = 3
    pvh.map_mmio(FRAMES)
    assert machine.control.mappings == 4
    machine.control.interrupted = 1000
    with pytest.raises(HypervisorError) as caught:
        pvh.unmap_mmio(FRAMES)
    assert caught.value.errno == errno.EINTR
    assert machine.control.mappings < 100


def test_a_pv_dom0_has_nothing_to_map(xen, machine):
    for action in (xen.map_mmio, xen.unmap_mmio):
        with pytest.raises(StateError):
            action(FRAMES)
    assert machine.control.opened == 0


def test_mapping_without_libxenctrl(machine):
    machine.write("sys/hypervisor/guest_type", "PVH")
    machine.library("libxenctrl.so.4.17").unlink()
    with open_libxc(str(machine.root)) as xen, pytest.raises(UnsupportedError):
        xen.map_mmio(FRAMES)


def test_reserved_regions(xen, machine):
    assert xen.reserved_regions() == ()
    machine.call.regions = 2
    assert xen.reserved_regions(NIC) == (Frames(Gfn(0x7FFF0), 1), Frames(Gfn(0x80000), 2))
    assert bytes(machine.call.bytes[:8]) == bytes.fromhex("00000000 02000000")
    assert bytes(machine.call.bytes[16:20]) == bytes.fromhex("34125678")
    assert xen.reserved_regions() == xen.reserved_regions(NIC)
    assert machine.control.opened == 0


def test_reserved_regions_that_grow_while_they_are_read(xen, machine):
    machine.call.regions = machine.call.grows = 1
    with pytest.raises(HypervisorError) as caught:
        xen.reserved_regions()
    assert caught.value.errno == errno.ENOBUFS
    machine.call.grows = 0
    assert len(xen.reserved_regions()) == machine.call.regions


# errno of the question, what it becomes
RESERVED = [
    (errno.EFAULT, HypervisorError),
    (errno.EPERM, HypervisorError),
    (errno.ENOSYS, UnsupportedError),  # Xen without passthrough
]


@pytest.mark.parametrize(("number", "expected"), RESERVED)
def test_reserved_regions_that_cannot_be_told(xen, machine, number, expected):
    machine.call.fail_call = number
    with pytest.raises(expected, match="reserved_device_memory_map"):
        xen.reserved_regions(NIC)


RANGESETS = (
    "(XEN) 'q' pressed -> dumping domain info (now = 7)\n(XEN) General information for domain 0:\n"
    "(XEN) Rangesets belonging to domain 0:\n"
    "(XEN)     I/O Memory { 0-fedff, fef00-fcfffff }\n(XEN)     I/O Ports  { 0-1f }\n"
    "(XEN) Notifying guest 0:0 (virq 1, port 0)\n"
)


def test_permissions_press_the_small_q(xen, machine):
    machine.control.will_print(RANGESETS)
    found = xen.permissions()
    assert (machine.control.presses, machine.control.key) == (1, b"q")
    assert found[0].memory == (Frames(Gfn(0), 0xFEE00), Frames(Gfn(0xFEF00), 0xFCFFFFF - 0xFEF00 + 1))


# what the key prints, a word of the one line that says so
NO_PERMISSIONS = [
    ("(XEN) something else\n", "printed no rangesets"),
    (RANGESETS.replace("fef00-fcfffff }", "fe(XEN) torn"), "damaged"),
]


@pytest.mark.parametrize(("text", "word"), NO_PERMISSIONS)
def test_permissions_that_cannot_be_read(xen, machine, text, word):
    machine.control.will_print(text)
    with pytest.raises(UnsupportedError) as caught:
        xen.permissions()
    assert word in caught.value.why
    assert machine.control.presses == 2


def test_errors_of_a_change_name_the_call_and_the_function(xen, machine):
    for number in (errno.EPERM, errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES):
        machine.call.fail_call = number
        for op, action in (
            ("pci_device_add", lambda: xen.add_device(NIC, DeviceFlags())),
            ("pci_device_remove", lambda: xen.remove_device(NIC)),
        ):
            with pytest.raises(HypervisorError) as caught:
                action()
            assert (caught.value.op, caught.value.errno, caught.value.subject) == (op, number, str(NIC))


def test_known_asks_in_batches_and_only_what_xen_can_name(xen, machine):
    functions = [sbdf_from_devfn(0, n >> 8 & 0xFF, n & 0xFF) for n in range(BATCH + 5)]
    functions.insert(1, VMD)
    answers = xen.known(functions)
    # the fake knows functions 0 and 1 of each device: 0 with a node, 1 without
    assert answers == [f != VMD and f.function < 2 for f in functions]
    assert machine.control.nodes_calls == 1 + 2  # one to see whether this Xen speaks with this library
    assert machine.control.count == 5


def test_known_of_nothing_asks_nothing(xen, machine):
    assert xen.known([]) == []
    assert xen.known([VMD, VMD]) == [False, False]
    assert machine.control.opened == 0


def test_custody(xen, machine):
    assert xen.custody(NIC) is Custody.HARDWARE_DOMAIN
    assert (machine.control.domain, machine.control.sbdf) == (0x7FF4, 0x12345678)
    for number, custody in ((errno.EINVAL, Custody.ELSEWHERE), (errno.EOPNOTSUPP, Custody.UNTOLD)):
        machine.control.fail = number
        assert xen.custody(NIC) is custody
    machine.control.fail = errno.EPERM
    with pytest.raises(HypervisorError):
        xen.custody(NIC)


def test_what_xen_cannot_name_never_reaches_it(xen, machine):
    for action in (
        lambda: xen.add_device(VMD, DeviceFlags()),
        lambda: xen.remove_device(VMD),
        lambda: xen.custody(VMD),
        lambda: xen.reserved_regions(VMD),
    ):
        with pytest.raises(UnsupportedError):
            action()
    assert (machine.call.calls, machine.control.opened) == (0, 0)


def test_owners_presses_q_once_and_clears_nothing(xen, machine):
    machine.control.will_print(DUMP)
    assert xen.owners() == OWNERS
    assert (machine.control.presses, machine.control.key) == (1, b"Q")
    assert machine.control.clears == 0


@pytest.mark.parametrize("foreign", ["0000:03:00.5 - d0 - node -1", "0000:03:00.7 - d7 - node 0"])
def test_a_function_that_xen_does_not_list_has_no_owner(xen, machine, foreign):
    """Text of dom0 names it, or it has left between the list and the question."""
    machine.control.will_print(f"{DUMP}(XEN) {foreign}\n")
    assert xen.owners() == OWNERS
    assert machine.control.presses == 1


def test_the_list_may_begin_behind_an_unfinished_line(xen, machine):
    """dom0 has printed a prompt when the key is pressed, and prints more of it then."""
    machine.control.will_print(DUMP + "login: ")
    assert xen.owners() == OWNERS
    machine.control.will_print("(XEN) x" + DUMP)
    assert xen.owners() == OWNERS


def test_a_key_that_prints_no_list(xen, machine):
    machine.control.will_print("(XEN) something else\n")
    with pytest.raises(UnsupportedError) as caught:
        xen.owners()
    assert "key Q" in caught.value.why


def test_owners_with_old_dumps_in_the_ring(xen, machine):
    machine.control.will_print(DUMP)
    assert xen.owners() == OWNERS
    gone = DUMP.replace("0000:01:00.0 - NULL", "0000:01:00.0 - d3")
    machine.control.will_print(gone)
    assert xen.owners()[parse_sbdf("0000:01:00.0")] == Owner(OwnerKind.DOMAIN, 3)


def test_a_torn_dump_is_asked_for_once_more_and_no_oftener(xen, machine):
    machine.control.will_print(DUMP + "(XEN) 0000:03:00.0 - (XEN) torn\n")
    with pytest.raises(UnsupportedError) as caught:
        xen.owners()
    assert "0000:03:00.0" in caught.value.why
    assert machine.control.presses == 2


def test_a_ring_too_small_for_the_dump(xen, machine):
    machine.control.will_print(DUMP)
    xen.owners()
    machine.control.forgets = machine.control.end - machine.control.oldest + 20
    with pytest.raises(UnsupportedError) as caught:
        xen.owners()
    assert "conring_size" in caught.value.why
    machine.control.forgets = 0
    machine.control.will_print(DUMP)
    assert xen.owners() == OWNERS  # and it goes on from there


def test_the_console_is_returned_once_and_no_key_is_pressed(xen, machine):
    machine.control.will_print("(XEN) before\n")
    machine.control.dump_size = 0
    assert xen.console() == ""
    machine.control.will_print(DUMP)
    xen.owners()
    assert xen.console() == DUMP  # what another reading met on its way is not lost
    assert xen.console() == ""
    assert (machine.control.presses, machine.control.clears) == (1, 0)


def test_a_console_without_end_does_not_fill_the_memory(xen, machine, monkeypatch):
    monkeypatch.setattr("pcipt.xen.libxc.KEPT", 2 * CHUNK)
    machine.control.will_print(f"{'x' * 99}\n" * 1000)
    for _ in range(3):
        with pytest.raises(UnsupportedError):
            xen.owners()
    text = xen.console()
    assert 2 * CHUNK - 100 < len(text) <= 2 * CHUNK
    assert {len(line) for line in text.splitlines()} == {99}  # no line was cut


FORGED = "(d1) " + "x" * 40 + "(XEN) [VT-D]DMAR:[DMA Write] Request device [0000:00:06.0] fault addr 1000\n"


def test_a_guests_line_whose_beginning_was_overwritten_is_left_out(xen, machine):
    """It would look like a line of Xen: the guest has written Xen's prefix into it."""
    machine.control.will_print(FORGED + DUMP)
    machine.control.forgets = machine.control.end - machine.control.oldest + FORGED.index("(XEN)")
    with pytest.raises(UnsupportedError):
        xen.owners()
    assert xen.console() == DUMP


def prints(xen, machine, text):
    """Let Xen print a text, once."""
    machine.control.will_print(text)
    xen._printed("Q", "a test")


def test_a_line_that_is_not_finished_waits_for_its_end(xen, machine):
    prints(xen, machine, "(XEN) setup of vPCI for d0 fai")
    assert xen.console() == ""
    prints(xen, machine, "led: -17\n(XEN) next")
    assert xen.console() == "(XEN) setup of vPCI for d0 failed: -17\n"


def test_what_was_overwritten_does_not_join_two_lines(xen, machine):
    prints(xen, machine, "(XEN) [VT-D]DMAR:[DMA Write] Request device [0000:00:06.0] fault addr 7ff")
    machine.control.forgets = machine.control.end - machine.control.oldest + 2
    with pytest.raises(UnsupportedError):
        prints(xen, machine, "abc\n(XEN) next\n")
    machine.control.forgets = 0
    assert xen.console() == "(XEN) next\n"


def test_the_command_line(xen, machine):
    machine.call.command_line = b"dom0=pvh,pf-fixup console=com1"
    assert xen.command_line() == "dom0=pvh,pf-fixup console=com1"
    assert (machine.call.op, machine.call.command, machine.call.size) == (17, 9, 1024)
    assert machine.control.opened == 0


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EFAULT, HypervisorError), (errno.ENOSYS, UnsupportedError), (errno.EPERM, HypervisorError)],
)
def test_a_command_line_that_xen_does_not_tell(xen, machine, number, kind):
    machine.call.fail_call = number
    with pytest.raises(kind, match="version commandline"):
        xen.command_line()


@pytest.mark.parametrize(
    ("bits", "pv", "hvm", "iommu"),
    [
        (0x0, False, False, False),
        (0x1, False, True, False),
        (0x2, True, False, False),
        (0x3C7, True, True, True),
    ],
)
def test_what_xen_can_do(xen, machine, bits, pv, hvm, iommu):
    machine.control.capabilities = bits
    assert xen.abilities() == Abilities(pv=pv, hvm=hvm, iommu=iommu)


def test_a_xen_that_does_not_say_what_it_can_do(xen, machine):
    machine.control.fail = errno.ENOMEM
    with pytest.raises(HypervisorError) as caught:
        xen.abilities()
    assert caught.value.errno == errno.ENOMEM


def test_a_command_line_that_a_policy_hides(xen, machine):
    machine.call.command_line = b"<denied>"
    with pytest.raises(UnsupportedError, match="policy"):
        xen.command_line()


def test_a_dump_larger_than_one_reading(xen, machine):
    lines = [f"(XEN) 0000:{n >> 6:02x}:{n >> 1 & 31:02x}.{n & 1} - d0 - node -1 \n" for n in range(3000)]
    machine.control.will_print(HEAD + "".join(lines))
    assert machine.control.dump_size > CHUNK
    assert len(xen.owners()) == 3000


def test_an_interface_that_does_not_open_is_an_error_and_not_for_ever(xen, machine):
    machine.control.fail_open = errno.EMFILE
    for action in (lambda: xen.known([NIC]), lambda: xen.custody(NIC), xen.owners):
        with pytest.raises(HypervisorError) as caught:
            action()
        assert (caught.value.op, caught.value.errno) == ("xc_interface_open", errno.EMFILE)
    machine.control.fail_open = 0
    assert xen.known([NIC]) == [True]


def test_without_libxenctrl_changes_still_work(machine):
    machine.library("libxenctrl.so.4.17").unlink()
    with open_libxc(str(machine.root)) as xen:
        for action in (lambda: xen.known([NIC]), xen.owners, lambda: xen.known([NIC])):
            with pytest.raises(UnsupportedError) as caught:
                action()
            assert "libxenctrl" in str(caught.value)
            assert "\n" not in str(caught.value)
        assert xen.custody(NIC) is Custody.UNTOLD
        xen.add_device(NIC, DeviceFlags())
        xen.remove_device(NIC)
    assert machine.call.calls == 2


def test_a_libxenctrl_of_another_xen_is_refused_by_name(machine):
    machine.control.fail = errno.EACCES
    with open_libxc(str(machine.root)) as xen:
        with pytest.raises(UnsupportedError) as caught:
            xen.known([NIC])
        assert "libxenctrl.so.4.17 belongs to another release than the running Xen 4.17.7" in caught.value.why
        assert xen.custody(NIC) is Custody.UNTOLD
        xen.remove_device(NIC)
    assert machine.control.opened == machine.control.closed == 1


def test_a_libxenctrl_of_another_xen_serves_if_xen_takes_it(machine):
    machine.write("sys/hypervisor/version/minor", "18")
    with open_libxc(str(machine.root)) as xen:
        assert xen.known([NIC]) == [True]
    assert machine.control.closed == 1


def put_wrong_library(machine) -> None:
    """Something that is called libxencall and is not, where it is found before the good one."""
    wrong = machine.root / "usr" / "lib64" / "libxencall.so.1"
    wrong.parent.mkdir()
    shutil.copy(machine.library("libxenctrl.so.4.17"), wrong)


def test_a_library_without_the_functions_is_passed_over(machine):
    put_wrong_library(machine)
    with open_libxc(str(machine.root)) as xen:
        xen.remove_device(NIC)
    assert machine.call.calls == 1


def test_a_library_without_the_functions_is_told(machine):
    put_wrong_library(machine)
    machine.library("libxencall.so.1").unlink()
    with pytest.raises(UnsupportedError) as caught:
        open_libxc(str(machine.root))
    assert "xencall_open" in caught.value.why


# errno of opening Xen's device, what it becomes
OPENING = [
    (errno.EACCES, NotPermittedError),
    (errno.EPERM, NotPermittedError),
    (errno.ENOENT, HypervisorError),
    (errno.ENODEV, HypervisorError),
]


@pytest.mark.parametrize(("number", "expected"), OPENING)
def test_a_device_that_does_not_open(machine, number, expected):
    machine.call.fail_open = number
    with pytest.raises(expected):
        open_libxc(str(machine.root))


# what is missing of a dom0, a word of the one line that says so
MISSING = [
    ("sys/hypervisor/type", "does not run under Xen"),
    ("dev/xen/privcmd", "/dev/xen/privcmd"),
    ("usr/lib/libxencall.so.1", "libxencall"),
]


@pytest.mark.parametrize(("path", "word"), MISSING)
def test_absence_is_one_clear_line(machine, capfd, path, word):
    (machine.root / path).unlink()
    with pytest.raises(UnsupportedError) as caught:
        open_libxc(str(machine.root))
    assert caught.value.feature == "Xen"
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("handle", [CallHandle, ControlHandle])
def test_the_real_libraries_are_silent_where_there_is_no_xen(handle, capfd):
    if os.path.exists("/dev/xen/privcmd") or os.path.exists("/proc/xen/privcmd"):
        pytest.skip("this machine runs under Xen: the contract tests use these libraries")
    name = "libxencall.so.1" if handle is CallHandle else "libxenctrl.so.4.17"
    with pytest.raises(LoadError) as caught:
        handle(name)
    if caught.value.errno == errno.ELIBACC:
        pytest.skip(f"{name} is not installed")
    assert caught.value.errno == errno.ENOENT
    assert capfd.readouterr() == ("", "")


def test_close_is_idempotent_and_ends_every_use(machine):
    xen = open_libxc(str(machine.root))
    xen.known([NIC])
    xen.close()
    xen.close()
    assert (machine.call.closed, machine.control.closed) == (1, 1)
    for action in (
        lambda: xen.known([]),
        lambda: xen.custody(NIC),
        xen.owners,
        lambda: xen.add_device(NIC, DeviceFlags()),
        lambda: xen.remove_device(NIC),
        lambda: xen.map_mmio(FRAMES),
        lambda: xen.unmap_mmio(FRAMES),
        xen.reserved_regions,
        xen.permissions,
        xen.console,
        xen.command_line,
        xen.abilities,
    ):
        with pytest.raises(StateError):
            action()
    assert (machine.call.calls, machine.control.presses) == (0, 0)


def test_a_handle_is_of_no_use_after_close(machine):
    handle = CallHandle(str(machine.library("libxencall.so.1")))
    handle.close()
    handle.close()
    with pytest.raises(StateError):
        handle.remove(NIC)
    assert machine.call.closed == 1


def test_in_a_forked_child_only_close_is_allowed(machine):
    xen = open_libxc(str(machine.root))
    xen.known([NIC])
    child = os.fork()
    if not child:
        code = 1
        try:
            refused = 0
            for action in (lambda: xen.known([NIC]), lambda: xen.remove_device(NIC), xen.owners):
                try:
                    action()
                except StateError:
                    refused += 1
            xen.close()
            code = 0 if (refused, machine.call.closed, machine.control.closed) == (3, 1, 1) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert machine.call.closed == 0
    xen.close()


def test_forgetting_to_close_is_warned_of(machine):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_libxc(str(machine.root))
        gc.collect()
    assert [w.category for w in caught if "connection to Xen" in str(w.message)] == [ResourceWarning]


def test_segments_up_to_ffff_are_asked(xen, machine):
    assert xen.known([Sbdf(0xFFFF, 0xFF, 0x1F, 0)]) == [True]
    assert bytes(machine.control.devices[:4]) == bytes.fromhex("fffffff8")
