"""What is logged: as fields to the journal, as a line to standard error; nothing unescaped or endless."""

import io
import sys

import pytest

from pcipt.daemon import limits
from pcipt.daemon.telling import log as logs
from pcipt.daemon.telling.log import Logs, start_logging, to_journal, to_stderr
from pcipt.daemon.telling.messages import MESSAGE_IDS


class Sink:
    def __init__(self, level="info"):
        self.now = 0.0
        self.told = []
        self.log = Logs(lambda *what: self.told.append(what), level, lambda: self.now)

    @property
    def texts(self):
        return [text for _, text, _ in self.told]


def test_an_event_is_a_text_and_fields():
    sink = Sink()
    sink.log.warning(
        "map-mmio", kind="action", sbdf="0000:01:00.0", action="map-mmio", range="0x1000-0x1fff", errno=16,
        reason="it decodes and nobody maps it",
    )  # fmt: skip
    text = 'map-mmio sbdf=0000:01:00.0 range=0x1000-0x1fff errno=16 reason="it decodes and nobody maps it"'
    fields = {
        "MESSAGE_ID": MESSAGE_IDS["action"], "PCIPT_KIND": "action", "PCIPT_SBDF": "0000:01:00.0",
        "PCIPT_ACTION": "map-mmio", "PCIPT_RANGE": "0x1000-0x1fff", "ERRNO": "16",
        "PCIPT_REASON": "it decodes and nobody maps it",
    }  # fmt: skip
    assert sink.told == [("warning", text, fields)]


#  a hostile value, how it stands in the text
HOSTILE = [
    ("\x1b[2J", "name=\\x1b[2J"),
    ("a\nPRIORITY=0", "name=a\\nPRIORITY=0"),
    ('x" sbdf=0000:00:00.0', 'name="x\\" sbdf=0000:00:00.0"'),  # it cannot pass for another field
    ("\u202egnp.exe", "name=\\u202egnp.exe"),
    ("\ud800", "name=\\ud800"),
    ("", 'name=""'),
]


@pytest.mark.parametrize(("value", "shown"), HOSTILE)
def test_no_hostile_value_goes_out_as_it_came(value, shown):
    sink = Sink()
    sink.log.info("seen", kind="change", name=value)
    ((_, text, fields),) = sink.told
    assert text == f"seen {shown}"
    assert fields["PCIPT_NAME"].isprintable()


def test_a_long_value_is_cut():
    sink = Sink()
    sink.log.info("seen", kind="change", name="x" * 1_000_000)
    assert len(sink.told[0][2]["PCIPT_NAME"]) == logs.VALUE_LIMIT


def test_the_level_may_be_changed_while_it_runs():
    sink = Sink("warning")
    sink.log.info("no", kind="ready")
    sink.log.level = "debug"
    sink.log.debug("yes", kind="ready")
    sink.log.level = "error"
    sink.log.warning("no", kind="ready")
    sink.log.error("yes", kind="ready")
    assert sink.texts == ["yes", "yes"]


def test_one_device_cannot_fill_the_disk():
    sink = Sink()
    for _ in range(limits.BURST + 50):
        sink.log.info("bar-moved", kind="change", sbdf="0000:01:00.0")
    assert len(sink.told) == limits.BURST + 1
    level, text, fields = sink.told[-1]
    assert level == "warning"
    assert text == "too many messages of kind change, some are only counted sbdf=0000:01:00.0 of=change"
    assert fields["MESSAGE_ID"] == MESSAGE_IDS["limit"]
    sink.log.info("bar-moved", kind="change", sbdf="0000:02:00.0")  # another device is heard
    sink.log.info("map-mmio", kind="action", sbdf="0000:01:00.0")  # and so is another kind of message
    sink.now = 1.0
    sink.log.info("bar-moved", kind="change", sbdf="0000:01:00.0")
    assert sink.texts[-3:] == [
        "bar-moved sbdf=0000:02:00.0",
        "map-mmio sbdf=0000:01:00.0",
        "bar-moved sbdf=0000:01:00.0 held_back=50",
    ]


class Deaf:
    """A journal that takes nothing while it is `deaf`."""

    def __init__(self):
        self.dropped, self.deaf, self.taken = 0, False, []

    def send(self, fields):
        if self.deaf:
            self.dropped += 1
        else:
            self.taken.append(fields)


def test_what_the_journal_did_not_take_is_told_when_it_does_again():
    journal = Deaf()
    deliver = to_journal(journal)
    for deaf, text in ((False, "a"), (True, "b"), (True, "c"), (False, "d"), (False, "e")):
        journal.deaf = deaf
        deliver("error", text, {"PCIPT_SBDF": "x"})
    assert [fields["MESSAGE"] for fields in journal.taken] == ["a", "d not_logged=2", "e"]
    assert journal.taken[0] == {
        "MESSAGE": "a", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "pcipt", "SYSLOG_FACILITY": "3",
        "PCIPT_SBDF": "x",
    }  # fmt: skip
    assert journal.taken[1]["PCIPT_NOT_LOGGED"] == "2"


def test_by_hand_it_goes_to_standard_error(capsys, monkeypatch):
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    start_logging().info("ready", kind="ready", mode="observe")
    assert capsys.readouterr().err == "pcipt: ready mode=observe\n"


def test_a_standard_error_that_has_gone_ends_nothing(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    assert to_stderr("info", "text", {}) is None
