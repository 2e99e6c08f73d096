"""The table of faults: what pcipt promises about each, and the tests that hold the promise from outside.

docs/reliability.md is generated from it: python -m tests.faults.matrix > docs/reliability.md
"""

import attrs

DAEMON, COMMAND = "test_daemon", "test_command_line"


@attrs.frozen
class Row:
    """One kind of fault. `tests` are (module in this folder, function)."""

    fault: str
    promise: str
    tests: tuple[tuple[str, str], ...]


def _row(fault, promise, module, *names):
    return Row(fault, promise, tuple((module, name) for name in names))


ROWS = (
    _row("The kernel's messages of hot-plug overrun the socket",
         "The loss is counted and told, the whole machine is compared, and Xen and the map are right again. "
         "Losses in a loop do not hold up a function that appears, and leave half of the time to other work.",
         DAEMON, "test_an_overrun_of_messages_is_counted_and_made_up_for",
         "test_overruns_in_a_loop_do_not_keep_a_function_from_its_pages"),
    Row("Records of the trace are lost, also between a write to port cf8 and the one to cfc",
        "The loss is counted, the address is forgotten, and what may have been written is read again.",
        ((DAEMON, "test_lost_writes_are_counted_and_read_again"),
         (COMMAND, "test_a_loss_between_address_and_data_forgets_the_address"))),
    _row("A function vanishes at any moment",
         "It is gone, not a function of vendor ffff; its pages are unmapped from the ledger.",
         DAEMON, "test_a_function_that_vanishes_is_gone_and_not_vendor_ffff"),
    _row("A 64-bit BAR is written in halves, in each order, with decode on or off",
         "It has moved when both halves are written or decode is switched on, not before.",
         DAEMON, "test_a_64_bit_bar_that_is_half_written"),
    _row("A BAR is sized and restored while another device is written",
         "That is no move: Xen is not called.", DAEMON, "test_sizing_a_bar_is_no_move"),
    _row("Odd accesses to the ports",
         "Parts of a register, the reset port and a clear enable bit are decoded as hardware does.",
         COMMAND, "test_odd_accesses_to_the_ports"),
    _row("A BAR lies over RAM, an APIC, the HPET, MMCFG or another device",
         "Nothing is mapped that is not the function's own; the host lives.",
         DAEMON, "test_a_bar_over_what_is_not_its_own_never_harms_the_host"),
    _row("Bus numbers that cannot be",
         "They are told, the machine is read on, and all is right when the numbers are.",
         DAEMON, "test_bus_numbers_that_cannot_be"),
    _row("Broken lists of capabilities", "The function is shown with what can be read; reading ends.",
         COMMAND, "test_broken_lists_of_capabilities"),
    _row("Malformed files of sysfs, a FIFO or a directory in the place of a file",
         "Nothing blocks, and the other functions are shown.",
         COMMAND, "test_malformed_files_of_sysfs", "test_a_segment_of_five_digits"),
    _row("A hostile recorded tree", "Nothing outside of it is read or written; no escape reaches a terminal.",
         COMMAND, "test_links_that_lead_out_of_a_recorded_tree", "test_names_with_escapes_reach_no_terminal",
         "test_an_archive_with_names_above_it_is_no_machine"),
    _row("A trace that is cut", "What is whole is decoded, and the offset of the cut is named.",
         COMMAND, "test_a_trace_that_is_cut_names_the_offset"),
    _row("The daemon is killed at any write and any call, twice",
         "The next start finds out what was done, and Xen, map and ledger agree.",
         DAEMON, "test_a_kill_at_each_write_of_an_action_twice",
         "test_a_kill_at_each_call_of_an_action_twice"),
    Row("Xen refuses a call, or performs a part of it",
        "The action failed, with its reason; it is tried again. Without Xen the reading commands work.",
        ((DAEMON, "test_a_call_that_fails_is_told_and_tried_again"),
         (COMMAND, "test_without_a_daemon_and_without_xen_reading_commands_work"))),
    _row("Clients that flood, cut their requests and never read",
         "A hot-plug and other clients are not held up.",
         DAEMON, "test_clients_that_flood_cut_and_never_read_hold_nobody_up"),
    _row("ACPI tables that are wrong", "Each is told in words; no table ends the command.",
         COMMAND, "test_bad_tables"),
    _row("The clock jumps, the disk is full, broken or read-only, settings are reloaded in the middle of "
         "work, the ledger is cut short",
         "Nothing is lost; what cannot be written is a finding until it can.",
         DAEMON, "test_a_clock_that_jumps_far_loses_nothing",
         "test_a_disk_that_takes_nothing_is_a_finding_until_it_does",
         "test_a_reload_in_the_middle_of_work_waits_for_it",
         "test_a_ledger_that_was_cut_short_is_said_or_harmless"),
    _row("Forged messages, and messages that contradict themselves",
         "They are counted and lead at most to a look: nothing is removed because of a message.",
         DAEMON, "test_forged_messages_are_counted_and_change_nothing",
         "test_a_message_of_the_kernel_that_cannot_be_removes_nothing",
         "test_a_number_that_comes_twice_leads_to_a_look"),
)  # fmt: skip

HEAD = """\
# Reliability: what pcipt survives

Each row is a kind of fault that is caused from outside: through the command line, or through what the
daemon hears of its kernel, its trace, its Xen, its disk and its clients. The tests are in
`tests/faults`. Those of the daemon hold all invariants of `tests/simulation` at their end: no
catastrophe in Xen, the map as defined, Xen's list as the machine's, a ledger on disk that says what the
daemon knows, every event counted, a status that is never better than the truth. This page is generated
from `tests/faults/matrix.py`.

| | what happens | what pcipt promises | tests | cases |
|---|---|---|---|---|
"""
TAIL = """
The same daemon lives through random faults (`make simulate`), and what comes from outside is fuzzed
(`make fuzz`). How both were run for longer:

| run | how long | what it found |
|---|---|---|
"""

#  of long runs: what ran, how long, what it found
FIGURES = (
    ("simulation", "11,550 steps, 33 seeds, each step of the table", "nothing in the service"),
    ("fuzz, blindly", "45 s a target: 5.1 million inputs", "nothing in the service"),
    ("fuzz, led by coverage", "20 s a target: config space, dumps, tables, start info, traces", "nothing"),
)


def document(cases):
    """Return the page. `cases` maps (module, function) to its number of cases."""
    lines = []
    for number, row in enumerate(ROWS, 1):
        names = "<br>".join(f"`{module}.py::{name}`" for module, name in row.tests)
        total = sum(cases[test] for test in row.tests)
        lines.append(f"| {number} | {row.fault} | {row.promise} | {names} | {total} |\n")
    figures = [f"| {run} | {long} | {found} |\n" for run, long, found in FIGURES]
    return HEAD + "".join(lines) + TAIL + "".join(figures)


def cases_in(modules):
    """Count the cases of each test: the parameters multiply."""
    found = {}
    for module in modules:
        short = module.__name__.rpartition(".")[2]
        for name, test in vars(module).items():
            if name.startswith("test_"):
                number = 1
                for mark in getattr(test, "pytestmark", ()):
                    number *= len(list(mark.args[1])) if mark.name == "parametrize" else 1
                found[short, name] = number
    return found


if __name__ == "__main__":
    from tests.faults import test_command_line, test_daemon

    print(document(cases_in([test_daemon, test_command_line])), end="")
