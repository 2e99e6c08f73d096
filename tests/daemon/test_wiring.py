"""The daemon in this process: what its parts tell each other, and what is told of the work that is done."""

import errno
import os
import re
import selectors
import signal
from functools import partial

import attrs
import pytest

from pcipt.daemon.daemon import Daemon, Options
from pcipt.daemon.replay.recording import RecordedHotplug
from pcipt.daemon.settings import Settings
from pcipt.daemon.telling.log import Logs
from pcipt.daemon.watcher import Watch
from pcipt.engine import performer
from pcipt.engine import round as rounds
from pcipt.engine.queue import CONSOLE, EVERYTHING, OWNERS, Reason
from pcipt.host.policy.policy_files import add_entries
from pcipt.host.uevents import HotplugEvent, Rescan
from pcipt.pci import Ids, PciPath
from pcipt.pci.identity import Identity
from pcipt.pci.policy.entries import Entry
from pcipt.pci.write import Lost
from pcipt.xen.outcome import Op
from tests.daemon.test_watcher import Unreadable
from tests.engine.stage import BusStage, S, Stage
from tests.engine.test_mapping import LOST, NO_ADD, machine
from tests.machines import function
from tests.xen.devices import device, port

ADDRESSES = [f"0000:00:{number:02x}.0" for number in range(6)]


class Service:
    """A daemon; `told` has the fields of each line of its log, `published` what monitors were told."""

    def __init__(self, directory, stage, settings, **more):
        self.stage, self.told, self.published = stage, [], []
        self.settings_file = directory / "pcipt.toml"
        self.hotplug = RecordedHotplug()
        options = Options(str(directory / "control"), str(directory), str(self.settings_file), False, **more)
        log = Logs(lambda level, text, fields: self.told.append((level, text, fields)))
        watch = getattr(stage, "watch", None)
        self.daemon = Daemon(stage.host, stage.xen, self.hotplug, options, settings, log, watch)
        self.daemon._announcer.publish = self.published.append
        self.engine = self.daemon.engine

    def begin(self):
        """Compare everything for the first time; what is told from now on is of the test."""
        self.daemon.settle()
        self.told.clear()
        self.published.clear()

    def close(self):
        self.hotplug.close()
        self.engine.close()
        self.daemon._loop.close()

    def happens(self, *events):
        """Let hot-plug messages arrive, with the writes and losses that the source has; do what is due."""
        self.daemon._playing = True  # so that nobody waits for more
        self.hotplug.push(events)
        self.daemon.settle()

    def kinds(self, kind):
        return [event for event in self.published if event["kind"] == kind]

    def texts(self):
        return [text for _, text, _ in self.told]

    def count(self, name):
        """Read a sample of the metrics."""
        text = self.daemon._metrics.text()
        return int(re.search(rf"^{re.escape(name)} (\d+)$", text, re.MULTILINE)[1])


@pytest.fixture
def serve(tmp_path):
    """Make daemons that are closed in the end."""
    made = []

    def make(stage=None, settings=None):
        stage = stage or Stage([function(address) for address in ADDRESSES])
        made.append(Service(tmp_path, stage, settings or stage.settings))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def small_slices(monkeypatch):
    monkeypatch.setattr(rounds, "SLICE", 2)
    monkeypatch.setattr(performer, "BATCH", 2)


def forgotten():
    """Give a PVH host on which pcipt maps a function: Xen does not know it and may not be told."""
    stage = BusStage(machine(), settings=NO_ADD)
    stage.xen.forget(S(LOST))
    stage.xen.vpci.remove(S(LOST))
    return stage


# Settings that are read again

OBSERVE, NO_MAP = 'mode = "observe"\n', "[actions]\nmap-mmio = false\n"
#  the settings before, the file that is read, why everything is compared after that
RELOADS = [
    (Settings(mode="observe"), "", {Reason.SETTINGS}),
    (Settings(mode="observe"), NO_MAP, {Reason.SETTINGS}),
    (NO_ADD, "", {Reason.SETTINGS}),
    (NO_ADD, NO_MAP, {Reason.SETTINGS}),  # one is allowed, another is not any more
    (NO_ADD, "[actions]\nadd-device = false\n", set()),
    (Settings(), "", set()),
    (Settings(), OBSERVE, set()),
    (Settings(), NO_MAP, set()),
    (Settings(), "[watch]\nsettle-ms = 9\n", set()),
    (Settings(), "[watch]\nowners-s = 9\n", set()),
    (Settings(mode="observe"), "mode = 1\n", set()),  # the settings stay as they were
]


@pytest.mark.parametrize(("before", "text", "reasons"), RELOADS)
def test_everything_is_compared_if_a_reload_allows_an_action(serve, before, text, reasons):
    service = serve(settings=before)
    service.begin()
    service.settings_file.write_text(text)
    service.daemon._reload()
    assert service.engine.queue.reasons_of(EVERYTHING) == reasons
    assert (service.engine.next_due() == 0.0) is bool(reasons)


def test_what_was_only_planned_is_done_after_the_reload(serve):
    service = serve(Stage([function(address) for address in ADDRESSES], known=[]), Settings(mode="observe"))
    service.begin()
    assert service.stage.changes == []
    service.settings_file.write_text("")
    service.daemon._reload()
    service.daemon.settle()
    assert [(word, address) for word, address, _ in service.stage.changes] == [
        ("ADD", address) for address in ADDRESSES
    ]
    assert [event["result"] for event in service.kinds("action")] == ["done"] * len(ADDRESSES)


# The latency metric

LATENCY = "pcipt_remap_latency_seconds_count"


def test_the_latency_of_a_write_that_led_to_mapping_is_observed_once(serve):
    service = serve(forgotten())
    service.begin()
    assert service.count(LATENCY) == 0
    service.stage.write(LOST, 0x10, 4, 0xFE10_0000)
    service.happens()
    assert [event["result"] for event in service.kinds("action")] == ["done", "done"]
    assert service.count(LATENCY) == 1
    service.stage.write(LOST, 0x04, 2, 0)
    service.happens()
    assert service.count(LATENCY) == 2


def test_the_latency_counts_from_the_first_write_of_the_change(serve, monkeypatch):
    service, observed = serve(forgotten()), []
    service.begin()
    service.daemon._metrics.observe_latency = observed.append
    for now, address in ((50.0, 0xFE10_0000), (60.0, 0xFE12_0000)):
        service.engine._monotonic = lambda now=now: now
        service.stage.write(LOST, 0x10, 4, address)
        service.daemon._intake.take_writes()
    service.engine._monotonic = lambda: 61.0
    monkeypatch.setattr("pcipt.daemon.daemon.time.monotonic", lambda: 64.0)
    service.daemon._worker.work_off()
    assert observed == [14.0]


def moved_unseen(service):
    """Move a BAR so that no record of the writes is left."""
    service.stage.write(LOST, 0x10, 4, 0xFE10_0000)
    service.stage.source.read()


def nothing_to_map(service):
    service.stage.write(LOST, 0x04, 2, 2)
    service.stage.write("02:00.0", 0x04, 2, 0)  # vPCI does it
    service.happens()


def a_failure(service):
    service.stage.write(LOST, 0x10, 4, 0xFE10_0000)
    for op in (Op.MAP, Op.UNMAP):
        service.stage.xen.fail(op, errno.EBUSY)
    service.happens()


def a_hotplug(service):
    moved_unseen(service)
    service.happens(HotplugEvent("change", S(LOST), 1, synthetic=False))


def lost_records(service):
    moved_unseen(service)
    service.stage.source.push(Lost(1))
    service.happens()


#  what happens, the results of what is done for it
NO_LATENCY = [
    (nothing_to_map, set()),
    (a_failure, {"failed"}),
    (a_hotplug, {"done"}),
    (lost_records, {"done"}),
]


@pytest.mark.parametrize(("happens", "results"), NO_LATENCY)
def test_no_latency_is_observed_without_a_write_that_led_to_mapping(serve, happens, results):
    service = serve(forgotten())
    service.begin()
    happens(service)
    assert {event["result"] for event in service.kinds("action")} - {"planned"} == results
    assert service.count(LATENCY) == 0


# What is told


def test_the_first_comparison_is_done_in_slices_and_ready_comes_after_it(serve, small_slices):
    service = serve(Stage([function(address) for address in ADDRESSES], known=[]))
    turns = []
    turn = service.daemon._worker.turn
    service.daemon._worker.turn = lambda **more: turns.append(turn(**more)) or turns[-1]
    seen = []

    def play():
        seen.extend(service.stage.changes)
        seen.append(service.engine.unsettled())
        os.kill(os.getpid(), signal.SIGTERM)

    service.close = lambda: None  # it does that itself
    service.daemon.run(play)
    slices = [report.finished for report in turns if report is not None]
    assert slices.index(True) > len(ADDRESSES) / rounds.SLICE
    assert seen == [("ADD", address, 0) for address in ADDRESSES] + [False]
    words = [text.split()[0] for text in service.texts()]
    assert words == ["add-device"] * len(ADDRESSES) + ["ready", "stopping"]


def test_each_outcome_of_a_comparison_in_slices_is_told_once(serve, small_slices):
    service = serve()
    service.begin()
    for address in ADDRESSES:
        service.stage.xen.forget(S(address))
    answers = []
    service.daemon._answers.handlers["Resync"]({}).when_given(answers.append)
    service.daemon.settle()
    assert [event["sbdf"] for event in service.kinds("action")] == ADDRESSES
    assert [fields["PCIPT_SBDF"] for _, _, fields in service.told if "PCIPT_ACTION" in fields] == ADDRESSES
    assert service.count('pcipt_actions_total{action="add-device",outcome="done"}') == len(ADDRESSES)
    assert [action["sbdf"] for action in answers[0]["actions"]] == ADDRESSES
    assert [str(record.outcome.action.sbdf) for record in service.engine.records] == ADDRESSES
    for address in ADDRESSES:
        events = service.daemon._answers.handlers["History"]({"function": address})["events"]
        assert [event["kind"] for event in events] == ["action"]


@pytest.mark.parametrize("times", [1, 3])
def test_an_outcome_that_stays_the_same_is_told_once(serve, times):
    """It stands in the answer to whoever asks, and in the journal when it is new."""
    service = serve(settings=Settings(mode="observe"))
    service.begin()
    service.stage.xen.forget(S(ADDRESSES[0]))
    for number in range(times):
        service.happens(HotplugEvent("change", S(ADDRESSES[0]), number, synthetic=False))
    assert [(event["sbdf"], event["result"]) for event in service.kinds("action")] == [
        (ADDRESSES[0], "planned")
    ]
    assert [event["code"] for event in service.kinds("finding")] == ["unknown-to-xen"]


def test_a_dry_run_is_told_to_nobody_but_its_client(serve, small_slices):
    service = serve()
    service.begin()
    service.stage.xen.forget(S(ADDRESSES[0]))
    answers = []

    def answered(message):
        answers.append(message)
        service.daemon._loop.stop()

    service.daemon._answers.handlers["Resync"]({"dry_run": True}).when_given(answered)
    service.daemon._loop.run()
    assert [action["result"] for action in answers[0]["actions"]] == ["planned"]
    assert service.kinds("action") == []
    assert service.count('pcipt_actions_total{action="add-device",outcome="planned"}') == 0


@pytest.mark.parametrize(
    ("event", "lost"),
    [
        (Rescan("a gap in SEQNUM"), {"what": "a gap in SEQNUM", "count": None}),
        (None, {"what": "records of configuration writes were lost", "count": 3}),
    ],
)
def test_a_loss_is_told_and_everything_is_compared(serve, event, lost):
    service = serve(BusStage([device("00:06.0", (0xC000_0000, 0x4000))], dom0="pv"))
    service.begin()
    service.stage.xen.forget(S("00:06.0"))
    if event is None:
        service.stage.source.push(Lost(3))
    service.happens(*([event] if event is not None else []))
    (told,) = service.kinds("lost")
    assert told.get("count") == lost["count"]
    assert lost["what"] in told.values()
    assert [(each["action"], each["result"]) for each in service.kinds("action")] == [("add-device", "done")]


# When work is done


def test_work_is_done_when_it_is_due_whoever_has_added_it(serve):
    service = serve()
    service.begin()
    service.stage.xen.forget(S(ADDRESSES[2]))
    service.engine.add(S(ADDRESSES[2]), Reason.OWNER, quiet=0.01)
    tell = service.daemon._worker._tell
    service.daemon._worker._tell = lambda *what: (tell(*what), service.daemon._loop.stop())
    service.daemon._loop.run()
    assert [event["sbdf"] for event in service.kinds("action")] == [ADDRESSES[2]]


def test_nothing_is_waited_for_if_there_is_no_work(serve):
    service = serve()
    service.begin()
    service.engine.add(S(ADDRESSES[2]), Reason.WRITTEN, quiet=60.0)
    service.daemon._schedule()
    assert service.daemon._loop._timeout() > 0.0
    service.engine.next_due = lambda: None  # it was taken meanwhile
    service.daemon._schedule()
    assert service.daemon._loop._timeout() is None


def test_a_reload_shortens_the_pause_of_the_question_for_owners(serve):
    service = serve(settings=Settings(owners_s=600))
    service.begin()
    service.engine.queue.add(OWNERS, Reason.TIMER, service.engine._monotonic(), quiet=600)
    service.settings_file.write_text("[watch]\nowners-s = 9\n")
    service.daemon._reload()
    assert service.engine.settings.owners_s == 9
    assert service.engine.next_due() <= 9


def test_a_reload_that_changes_restore_on_fault_lets_everything_be_compared(serve):
    service = serve()
    service.begin()
    for value in ("true", "false"):
        service.settings_file.write_text(f"[reserved]\nrestore_on_fault = {value}\n")
        service.daemon._reload()
        assert service.engine.views.restores_on_fault is (value == "true")
        assert Reason.SETTINGS in service.engine.queue.reasons_of(EVERYTHING)
        service.daemon._worker.work_off()
    service.daemon._reload()
    assert service.engine.queue.reasons_of(EVERYTHING) == frozenset()


def test_refused_dma_is_logged_counted_and_kept(serve):
    stage = Stage([function(address) for address in ADDRESSES])
    service = serve(stage)
    service.begin()
    for _ in range(3):
        stage.xen.prints(f"AMD-Vi: IO_PAGE_FAULT: {S(ADDRESSES[2])} d0 addr 0000000090000000 flags 0x20 RW")
    service.engine.add(CONSOLE, Reason.LISTEN)
    service.engine.queue.hasten(Reason.LISTEN, service.engine._monotonic())
    service.daemon._worker.work_off()
    (event,) = service.kinds("dma-fault")
    assert (event["sbdf"], event["count"], event["there"]) == (str(S(ADDRESSES[2])), 3, "nothing")
    assert any(text.startswith("DMA refused ") for text in service.texts())
    assert service.count('pcipt_dma_faults_total{there="nothing"}') == 3


def test_a_broken_source_of_writes_is_told_and_not_polled_any_more(serve):
    stage = Stage([function(address) for address in ADDRESSES])
    read, write = os.pipe()
    stage.watch = Watch(Unreadable("none", read), "fake")
    service = serve(stage)
    service.begin()
    loop = service.daemon._loop
    loop.watch(read, selectors.EVENT_READ, partial(service.daemon._watch_ready, read))
    os.write(write, b"x")
    loop.after("end", 0.0, loop.stop)
    loop.run()
    assert read in loop._selector.get_map()
    stage.watch._source.broken = "read"
    loop.after("end", 0.0, loop.stop)
    loop.run()
    assert read not in loop._selector.get_map()
    assert "records of configuration writes were lost" in str(service.told)
    for each in (read, write):
        os.close(each)


def test_the_policy_is_read_at_start_and_by_sighup_and_a_wrong_one_is_told(tmp_path, serve):
    """A device that is not what is kept for guests is told at once; a damaged file changes nothing else."""
    service = serve(Stage())
    service.daemon._options = attrs.evolve(service.daemon._options, policy=str(tmp_path / "etc"))
    service.begin()
    expected = Identity(PciPath(0, ((0, 0x1C, 0), (0, 0, 0))), ids=Ids(0x8086, 0x1533))
    add_entries([Entry(expected, "web")], str(tmp_path / "etc"))

    def reload():
        service.daemon._reload()
        service.daemon.settle()
        return {finding.code: subject for subject, finding in service.engine.findings}

    assert reload().get("policy-mismatch") == S("01:00.0")
    wrong = tmp_path / "etc/passthrough.d/wrong.toml"
    wrong.write_text("[[passthrough")
    told = reload()
    assert told.get("policy-mismatch") == S("01:00.0")
    assert "policy-unreadable" in told
    wrong.unlink()
    assert "policy-unreadable" not in reload()
    (tmp_path / "etc/passthrough.d/00_1c.0-00_00.0.toml").unlink()
    assert "policy-mismatch" not in reload()


def test_entries_in_the_settings_file_are_the_policy_too(tmp_path, serve):
    """Also where the settings file is not the one beside passthrough.d (--settings)."""
    service = serve(Stage())
    file = tmp_path / "mine.toml"
    options = attrs.evolve(service.daemon._options, policy=str(tmp_path / "etc"), settings=str(file))
    service.daemon._options = options
    service.begin()
    file.write_text('[[passthrough]]\npath = "00_1c.0-00_00.0"\nvendor = 0x1234\n')
    service.daemon._reload()
    service.daemon.settle()
    assert {finding.code: subject for subject, finding in service.engine.findings}["policy-mismatch"] == S(
        "01:00.0"
    )
    file.write_text("[[passthrough]]\n")
    service.daemon._reload()
    assert "policy-unreadable" in {finding.code for _, finding in service.engine.findings}


@pytest.mark.parametrize("policed", [False, True])
def test_a_port_that_the_hook_guards_is_let_go_if_the_settings_have_it_no_more(tmp_path, policed):
    """The initramfs was made before the port was taken out of hotplug.below; the other is somebody else's."""
    ports = [port("00:1c.0", 2, 4), port("00:1d.0", 5, 8)]
    stage = BusStage(ports, settings=Settings(below=("00_1c.0",) * policed), dom0="pv")
    stage.files.guarded = {S("00:1c.0"), S("00:1d.0")}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/pcipt.guarded").write_text("0000:00:1c.0\n")
    service = Service(tmp_path, stage, stage.settings, policy=str(tmp_path / "etc"), lines=str(tmp_path))
    service.begin()
    service.close()
    assert stage.files.guarded == ({S("00:1c.0"), S("00:1d.0")} if policed else {S("00:1d.0")})


def test_without_a_policy_nothing_is_read(serve, monkeypatch):
    monkeypatch.setattr("pcipt.daemon.kept.read_entries", lambda *_: pytest.fail("it was read"))
    service = serve()
    service.begin()
    service.daemon._reload()
    assert not any(finding.code.startswith("policy") for _, finding in service.engine.findings)


def test_lines_of_other_tools_that_are_wrong_are_told_at_start_and_by_sighup(tmp_path, serve):
    service = serve(Stage())
    options = attrs.evolve(service.daemon._options, policy=str(tmp_path / "etc"), lines=str(tmp_path))
    service.daemon._options = options
    (tmp_path / "proc").mkdir()
    line = tmp_path / "proc/cmdline"
    line.write_text("xen-pciback.hide=(7f:00.0)")
    service.begin()
    service.daemon._tell_changes()

    def told():
        return {code for _, (code, _) in ((s, (f.code, f.text)) for s, f in service.engine.findings)}

    assert "line-absent" in told()
    line.write_text("xen-pciback.hide=01:00.0")
    service.daemon._reload()
    assert told() & {"line-absent", "line-malformed"} == {"line-malformed"}
    line.write_text("xen-pciback.hide=(01:00.0)")
    service.daemon._reload()
    assert not told() & {"line-absent", "line-malformed"}
