"""The alert rules and the dashboard in Debian's own Prometheus, which scrapes the metrics' file of a host."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from pcipt.daemon.telling.metrics import Form, Gauges, Metrics
from pcipt.errors import HypervisorError
from pcipt.pci import parse_sbdf
from pcipt.remap.actions import AddDevice, Outcome, Result
from tests.docs.test_monitoring import MONITORING, expressions

PROGRAMS = ("promtool", "prometheus", "prometheus-node-exporter")
pytestmark = pytest.mark.skipif(
    any(shutil.which(name) is None for name in PROGRAMS),
    reason="Prometheus is not installed (Debian: prometheus, prometheus-node-exporter)",
)

RULES = MONITORING / "alerts.yml"
PATIENCE = 60  # seconds until two programs have started and seen a change
BUILD = 'pcipt_build_info{instance="a",version="0.1.0",dom0="pvh",xen="4.20.4"}'
UPGRADED = BUILD.replace("0.1.0", "0.2.0")
FAILED = 'pcipt_actions_total{instance="a",action="map-mmio",outcome="failed"}'
REFUSED = FAILED.replace("failed", "refused")
ERRORS = 'pcipt_hypercall_errors_total{instance="a",op="pci_device_add",errno="EBUSY"}'
DMA = 'pcipt_dma_faults_total{instance="a",there="ram"}'
LOST = ('pcipt_trace_lost_records_total{instance="a"}', 'pcipt_uevent_overruns_total{instance="a"}')
MTIME = 'node_textfile_mtime_seconds{instance="a",file="/var/lib/prometheus/node-exporter/pcipt.prom"}'


def latency(bound):
    return f'pcipt_remap_latency_seconds_bucket{{instance="a",le="{bound}"}}'


#  alert: the labels and the value with which it fires; series that make it fire at a minute, or do not.
#  Values are promtool's, one a minute: 0x5 is 0 six times, 0+1x5 is 0 to 5, _x5 is none five times.
CASES = {
    "PciptFindings": (
        {"kind": "ghost"}, 1,
        [({'pcipt_findings{instance="a",kind="ghost"}': "1x20"}, 15)],
        [({'pcipt_findings{instance="a",kind="ghost"}': "1x4 0x20"}, 15), ({BUILD: "1x20"}, 15)],
    ),
    "PciptOrphan": (
        {}, 1,
        [({'pcipt_findings{instance="a",kind="orphan"}': "0x2 1x20"}, 4)],
        [({'pcipt_findings{instance="a",kind="ghost"}': "1x20"}, 4)],
    ),
    "PciptPolicyMismatch": (
        {}, 2,
        [({'pcipt_findings{instance="a",kind="policy-mismatch"}': "0x2 2x20"}, 4)],
        [
            ({'pcipt_findings{instance="a",kind="policy-mismatch"}': "2x2 0x20"}, 4),
            ({'pcipt_findings{instance="a",kind="hardware-changed"}': "1x20"}, 4),
        ],
    ),
    "PciptHardwareChanged": (
        {}, 1,
        [({'pcipt_findings{instance="a",kind="hardware-changed"}': "1x20"}, 1)],
        [({'pcipt_findings{instance="a",kind="policy-mismatch"}': "1x20"}, 4), ({BUILD: "1x20"}, 4)],
    ),
    "PciptActionsFail": (
        {"action": "map-mmio"}, None,
        [({FAILED: "0x60 1x10"}, 65), ({FAILED: "_x70 1x10"}, 75)],
        [({FAILED: "5x120"}, 100), ({FAILED.replace("failed", "done"): "0+1x120"}, 100)],
    ),
    "PciptRefused": (
        {"action": "map-mmio"}, None,
        [({REFUSED: "0x60 6x10"}, 65)],
        [({REFUSED: "0x60 2x10"}, 65), ({REFUSED: "9x120"}, 100)],
    ),
    "PciptHypercallErrors": (
        {"op": "pci_device_add", "errno": "EBUSY"}, None,
        [({ERRORS: "_x61 1x20"}, 70)],
        [({ERRORS: "3x120"}, 100), ({ERRORS: "_x61 1x20"}, 62)],
    ),
    "PciptDmaRefused": ({"there": "ram"}, None, [({DMA: "0x20 5x5"}, 22)], [({DMA: "5x40"}, 30)]),
    "PciptKeepsLosing": (
        {}, None,
        [({LOST[0]: "0+9x60", LOST[1]: "0x60"}, 50), ({LOST[0]: "0x60", LOST[1]: "0+9x60"}, 50)],
        [({LOST[0]: "7x60", LOST[1]: "0x60"}, 50), ({LOST[0]: "0x40 1x20", LOST[1]: "0x60"}, 50)],
    ),
    "PciptSlow": (
        {}, None,
        [({latency("1.0"): "0x90", latency("2.5"): "0+1x90", latency("+Inf"): "0+1x90"}, 70)],
        [({latency("1.0"): "0+1x90", latency("2.5"): "0+1x90", latency("+Inf"): "0+1x90"}, 70)],
    ),
    "PciptGone": (
        {}, 1,
        [({BUILD: "1x10 _x40"}, 40), ({BUILD: "1x10 _x40", BUILD.replace('"a"', '"b"'): "1x60"}, 40)],
        [({BUILD: "1x60"}, 40), ({BUILD: "1x10 _x5 1x40"}, 40), ({BUILD: "1x10", UPGRADED: "_x11 1x40"}, 40)],
    ),
    "PciptOld": (
        {"file": "/var/lib/prometheus/node-exporter/pcipt.prom"}, None,
        [({MTIME: "60x60", BUILD: "1x60"}, 40)],
        [
            ({MTIME: "0+60x60", BUILD: "1x60"}, 40),
            ({MTIME: "60x60"}, 40),
            ({MTIME.replace("pcipt", "other"): "60x60", BUILD: "1x60"}, 40),
        ],
    ),
}  # fmt: skip


def rules():
    """Give the labels and annotations of each alert, as the file has them."""
    for text in RULES.read_text().split("- alert: ")[1:]:
        words = dict(re.findall(r'^ +(summary|description): "(.*)"$', text, re.MULTILINE))
        severity = re.search(r"severity: (\w+)", text)[1]
        yield text.split()[0], severity, words


KNOWN = {name: (severity, words) for name, severity, words in rules()}


def told(text, labels, value):
    """Put labels and the value into an annotation, as Prometheus does."""
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
    return text.replace("{{ $value }}", str(value))


def one_test(alert, series, minute, expected):
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": expected}],
    }


def promtool(*arguments):
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_rules():
    promtool("check", "rules", RULES)


def test_every_rule_has_its_case():
    assert set(CASES) == set(KNOWN)


@pytest.mark.parametrize("alert", CASES)
def test_a_rule_fires_and_is_silent(alert, tmp_path):
    more, value, fires, silent = CASES[alert]
    severity, words = KNOWN[alert]
    labels = {"instance": "a", **more}
    expected = {
        "exp_labels": {"severity": severity, **labels},
        "exp_annotations": {key: told(text, labels, value) for key, text in words.items()},
    }
    tests = [one_test(alert, series, minute, [expected]) for series, minute in fires]
    tests += [one_test(alert, series, minute, []) for series, minute in silent]
    path = tmp_path / "tests.yml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "tests": tests}))
    promtool("test", "rules", path)


def test_a_fleet_of_several_versions(tmp_path):
    """An older version does not have all metrics: rules about these say nothing of its host, others hold."""
    old = {
        'pcipt_build_info{instance="old",version="0.0.9",dom0="pv",xen="4.17.7"}': "1x60",
        'pcipt_findings{instance="old",kind="ghost"}': "1x60",
    }
    new = {BUILD: "1x60", DMA: "0x20 5x40"}
    severity, words = KNOWN["PciptDmaRefused"]
    labels = {"instance": "a", "there": "ram"}
    dma = {
        "exp_labels": {"severity": severity, **labels},
        "exp_annotations": {key: told(text, labels, None) for key, text in words.items()},
    }
    labels = {"instance": "old", "kind": "ghost"}
    severity, words = KNOWN["PciptFindings"]
    findings = {
        "exp_labels": {"severity": severity, **labels},
        "exp_annotations": {key: told(text, labels, 1) for key, text in words.items()},
    }
    tests = [
        one_test("PciptDmaRefused", {**old, **new}, 22, [dma]),
        one_test("PciptFindings", {**old, **new}, 22, [findings]),
        one_test("PciptGone", {**old, **new}, 40, []),
    ]
    versions = {"expr": "count by (version) (pcipt_build_info)", "eval_time": "22m", "exp_samples": [
        {"labels": '{version="0.0.9"}', "value": 1}, {"labels": '{version="0.1.0"}', "value": 1},
    ]}  # fmt: skip
    tests[0]["promql_expr_test"] = [versions]
    path = tmp_path / "tests.yml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "tests": tests}))
    promtool("test", "rules", path)


class Host:
    """A host's metrics: the service's own text, in node_exporter's directory."""

    def __init__(self, directory):
        self._path = directory / "pcipt.prom"
        self._metrics = Metrics(
            lambda: Gauges(15, {"orphan": 1}, 0, 0, 0, {"xen": "4.20.4", "dom0": "pvh"}, {"ram": self._count})
        )
        self._count = 0
        self.tell()

    def tell(self):
        self._path.with_suffix(".new").write_text(self._metrics.text(Form.PROMETHEUS))
        self._path.with_suffix(".new").rename(self._path)

    def something_happens(self):
        self._count += 1
        self._metrics.count_change("bar-moved")
        self._metrics.count_error(HypervisorError("pci_device_add", 16))
        self._metrics.observe_latency(0.3)
        action = AddDevice(parse_sbdf("02:00.0"), "because")
        self._metrics.count_outcome(Outcome(action, Result.FAILED, "EBUSY"))
        self.tell()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(directory, *command):
    """Run a program until the block ends."""
    with open(directory / f"{command[0]}.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Prometheus:
    """The HTTP interface of a Prometheus that runs."""

    def __init__(self, port):
        self._base = f"http://127.0.0.1:{port}/api/v1"

    def get(self, what, **parameters):
        url = f"{self._base}/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=20) as reply:
            answer = json.load(reply)
        assert answer["status"] == "success"
        return answer["data"]

    def samples(self, expression):
        return self.get("query", query=expression)["result"]

    def wait_for(self, expression):
        """Wait until an expression has a sample; fail with the time."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(OSError, urllib.error.URLError):
                if self.samples(expression):
                    return
            time.sleep(0.1)
        pytest.fail(f"no sample of {expression} within {PATIENCE} s")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """Debian's Prometheus, which scrapes Debian's node_exporter, which has read a host's metrics."""
    place = tmp_path_factory.mktemp("prometheus")
    (place / "files").mkdir()
    host = Host(place / "files")
    exporter, server = free_port(), free_port()
    config = {
        "global": {"scrape_interval": "250ms", "evaluation_interval": "250ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{exporter}"]}]}],
    }
    (place / "prometheus.yml").write_text(json.dumps(config))
    with running(
        place, "prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
        f"--collector.textfile.directory={place}/files", f"--web.listen-address=127.0.0.1:{exporter}",
    ), running(
        place, "prometheus", f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/data",
        f"--web.listen-address=127.0.0.1:{server}",
    ):  # fmt: skip
        found = Prometheus(server)
        found.wait_for("pcipt_build_info and on (instance) pcipt_bar_moves_total == 0")
        host.something_happens()
        found.wait_for("pcipt_bar_moves_total == 1")
        host.something_happens()  # a counter that began with this change grows
        found.wait_for("pcipt_bar_moves_total == 2")
        yield found


def test_the_file_is_scraped_without_an_error(prometheus):
    (error,) = prometheus.samples("node_textfile_scrape_error")
    assert error["value"][1] == "0"
    (build,) = prometheus.samples("pcipt_build_info")
    assert build["metric"]["xen"] == "4.20.4"
    (moved,) = prometheus.samples("node_textfile_mtime_seconds")
    assert moved["metric"]["file"].endswith("pcipt.prom")


#  what did not happen on the host
EMPTY = {
    "PciptPolicyMismatch",
    "PciptHardwareChanged",
    "PciptRefused",
    "PciptKeepsLosing",
    "PciptSlow",
    "PciptGone",
    "PciptOld",
}


def asked():
    """Give each expression with the name of its alert, or of its panel."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    titles = [panel["title"] for panel in dashboard["panels"] for _ in panel["targets"]]
    return list(zip([*KNOWN, *titles], expressions(), strict=True))


@pytest.mark.parametrize(("name", "expression"), asked())
def test_every_expression_has_an_answer(prometheus, name, expression):
    """Those about what happened have samples; the others have none, and no error."""
    asked_for = expression.replace("$instance", ".*")
    if name in EMPTY:
        assert prometheus.samples(asked_for) == []
    else:
        prometheus.wait_for(asked_for)


def test_every_rule_is_evaluated_without_an_error(prometheus):
    end = time.monotonic() + PATIENCE
    while True:
        (group,) = prometheus.get("rules")["groups"]
        if all(rule["health"] != "unknown" for rule in group["rules"]) or time.monotonic() > end:
            break
        time.sleep(0.1)
    assert {rule["name"]: rule["health"] for rule in group["rules"]} == dict.fromkeys(KNOWN, "ok")
    firing = {rule["name"] for rule in group["rules"] if rule["state"] == "firing"}
    assert "PciptOrphan" in firing
    assert "PciptGone" not in firing
