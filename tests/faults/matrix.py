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
    _row("The kernel sends more hot-plug messages than the socket can hold, and some are lost",
         "pcipt counts and reports the loss and compares the whole machine. Then Xen's list and dom0's map "
         "are right again. If messages are lost again and again, pcipt still maps a function that appears, "
         "and half of pcipt's time is left for other work.",
         DAEMON, "test_an_overrun_of_messages_is_counted_and_made_up_for",
         "test_overruns_in_a_loop_do_not_keep_a_function_from_its_pages"),
    Row("Records of the trace of configuration writes are lost, also between a write to port cf8 and the "
        "write to port cfc that belongs to it",
        "pcipt counts the loss and forgets the address written to cf8. pcipt reads all registers again that "
        "may have been written.",
        ((DAEMON, "test_lost_writes_are_counted_and_read_again"),
         (COMMAND, "test_a_loss_between_address_and_data_forgets_the_address"))),
    _row("A function vanishes at any moment",
         "pcipt lists the function as gone, and not as a function of vendor ffff. The ledger tells which "
         "pages were mapped for the function, and pcipt unmaps these pages.",
         DAEMON, "test_a_function_that_vanishes_is_gone_and_not_vendor_ffff"),
    _row("A 64-bit BAR is written in halves, in each order, with decode on or off",
         "For pcipt the BAR has moved when both halves are written or when decode is switched on, not "
         "before.",
         DAEMON, "test_a_64_bit_bar_that_is_half_written"),
    _row("All ones and then the old address are written to a BAR to find its size, and another device is "
         "written between these two writes",
         "pcipt does not take this for a move of the BAR, and does not call Xen.",
         DAEMON, "test_sizing_a_bar_is_no_move"),
    _row("Unusual accesses to the configuration ports: to a part of a register, to the reset port cf9, or "
         "with the enable bit of cf8 clear",
         "pcipt decodes each of these accesses as the hardware does.",
         COMMAND, "test_odd_accesses_to_the_ports"),
    _row("A BAR has an address of RAM, of an APIC, of the HPET, of MMCFG or of another device",
         "pcipt maps no page that does not belong to the function. Xen and dom0 do not crash.",
         DAEMON, "test_a_bar_over_what_is_not_its_own_never_harms_the_host"),
    _row("A bridge has impossible bus numbers, such as a last bus below its first",
         "A finding names the bus numbers, and pcipt still reads the rest of the machine. When the bus "
         "numbers are correct again, Xen's list and dom0's map are right again.",
         DAEMON, "test_bus_numbers_that_cannot_be"),
    _row("A function has a broken list of capabilities, such as one with a loop",
         "The reading of the list ends, and pcipt shows the function with what could be read.",
         COMMAND, "test_broken_lists_of_capabilities"),
    _row("A file of sysfs is malformed, or a FIFO or a directory is in its place",
         "pcipt does not wait for the file, and shows all other functions.",
         COMMAND, "test_malformed_files_of_sysfs", "test_a_segment_of_five_digits"),
    _row("A recording of a machine was made to do harm",
         "pcipt reads and writes nothing outside of the recording, and sends no control character to a "
         "terminal.",
         COMMAND, "test_links_that_lead_out_of_a_recorded_tree", "test_names_with_escapes_reach_no_terminal",
         "test_an_archive_with_names_above_it_is_no_machine"),
    _row("A trace of configuration writes ends in the middle of a record",
         "pcipt decodes all complete records, and names the offset at which the incomplete record begins.",
         COMMAND, "test_a_trace_that_is_cut_names_the_offset"),
    _row("The daemon is killed at any write to the disk or at any call to Xen, and killed again after the "
         "next start",
         "At its next start the daemon finds out what it had done before. Afterwards Xen's list of "
         "functions, the memory map of dom0, and the daemon's record of it (the ledger) agree.",
         DAEMON, "test_a_kill_at_each_write_of_an_action_twice",
         "test_a_kill_at_each_call_of_an_action_twice"),
    Row("Xen refuses a call, or performs only a part of the call, or there is no Xen",
        "pcipt reports the action as failed with the reason, and tries the action again. Without Xen, "
        "commands that only read still work.",
        ((DAEMON, "test_a_call_that_fails_is_told_and_tried_again"),
         (COMMAND, "test_without_a_daemon_and_without_xen_reading_commands_work"))),
    _row("Clients send many requests or incomplete requests, and never read the answers",
         "The daemon handles hot-plug and answers other clients without delay.",
         DAEMON, "test_clients_that_flood_cut_and_never_read_hold_nobody_up"),
    _row("An ACPI table is wrong",
         "pcipt says in words what is wrong with the table. No table crashes the command.",
         COMMAND, "test_bad_tables"),
    _row("The clock jumps; the disk is full, broken or read-only; the settings are reloaded during other "
         "work; or the end of the ledger is missing",
         "No event is lost. If pcipt cannot write a file, a finding says so until pcipt can write the file.",
         DAEMON, "test_a_clock_that_jumps_far_loses_nothing",
         "test_a_disk_that_takes_nothing_is_a_finding_until_it_does",
         "test_a_reload_in_the_middle_of_work_waits_for_it",
         "test_a_ledger_that_was_cut_short_is_said_or_harmless"),
    _row("Hot-plug messages are forged, or contradict themselves",
         "pcipt counts these messages. After a message pcipt only reads the machine again. A message alone "
         "never makes pcipt remove a function.",
         DAEMON, "test_forged_messages_are_counted_and_change_nothing",
         "test_a_message_of_the_kernel_that_cannot_be_removes_nothing",
         "test_a_number_that_comes_twice_leads_to_a_look"),
)  # fmt: skip

HEAD = """\
# Reliability: what pcipt survives

Each row is a kind of fault. The fault comes from outside of pcipt: from the command line, the kernel, the
trace of configuration writes, Xen, the disk or the clients of the daemon. The tests are in `tests/faults`.
Each test of the daemon (`test_daemon.py`) checks six things at its end: Xen has not crashed; dom0's map is
as defined; Xen lists the functions of the machine; the ledger on disk says what the daemon knows; every
event was counted; and `pcipt status` does not show less trouble than there is. `python -m
tests.faults.matrix` generates this page from `tests/faults/matrix.py`.

| | what happens | what pcipt promises | tests | cases |
|---|---|---|---|---|
"""
TAIL = """
Two more commands test against faults. `make simulate` runs the daemon in a simulated machine with random
faults. `make fuzz` gives random data to the parsers. Each was also run for a longer time:

| run | how long | what it found |
|---|---|---|
"""

#  of long runs: what ran, how long, what it found
FIGURES = (
    (
        "`make simulate`",
        "874,000 random steps with 500 seeds, the last 244,000 after what had been found was mended",
        "seven faults of the service, mended and held by tests; of the last 122 seeds three broke",
    ),
    (
        "`make fuzz` with random data",
        "45 seconds for each parser, 5.1 million inputs in all",
        "no error in the service",
    ),
    (
        "`make fuzz` with data chosen by the code that they reach",
        "20 seconds for each of five parsers: config space, dumps, tables, start info, traces",
        "no error",
    ),
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
