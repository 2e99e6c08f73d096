"""The text of the metrics, read by Prometheus's own parsers."""

import pytest

from pcipt import __version__
from pcipt.daemon.telling import metrics as module
from pcipt.daemon.telling.metrics import BUCKETS, Form, Gauges, Metrics
from pcipt.errors import HypervisorError
from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.remap.actions import Action, AddDevice, MapMmio, Outcome, Result

parsers = pytest.importorskip("prometheus_client.openmetrics.parser", reason="prometheus_client is not here")
classic = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not here")

NIC = parse_sbdf("01:00.0")
WORDS = {kind.word for kind in Action.__args__}


def made(**more):
    usual = {"functions": 12, "findings": {"ghost": 2, 'odd "code"\\\n': 1}, "lost_records": 3,
             "uevent_overruns": 4, "pages_returned": 6, "dma_faults": {"ram": 7, "bar": 0},
             "labels": {"xen": "4.17.7", "dom0": "pvh"}}  # fmt: skip
    return Metrics(lambda: Gauges(**{**usual, **more}))


def read(metrics, form=Form.OPENMETRICS):
    """Parse the text; gives {sample name: {labels: value}} and {family: type}."""
    parse = parsers if form is Form.OPENMETRICS else classic
    samples, types = {}, {}
    for family in parse.text_string_to_metric_families(metrics.text(form)):
        types[family.name] = family.type
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            assert labels not in samples.setdefault(sample.name, {}), sample
            samples[sample.name][labels] = sample.value
    return samples, types


def value(samples, name, **labels):
    return samples[name][frozenset(labels.items())]


#  the names that dashboards and alerts rely on, and their types in OpenMetrics
NAMES = {
    "pcipt_functions": "gauge",
    "pcipt_findings": "gauge",
    "pcipt_bar_moves": "counter",
    "pcipt_bus_renumberings": "counter",
    "pcipt_actions": "counter",
    "pcipt_hypercall_errors": "counter",
    "pcipt_trace_lost_records": "counter",
    "pcipt_uevent_overruns": "counter",
    "pcipt_unmapped_pages_returned": "counter",
    "pcipt_dma_faults": "counter",
    "pcipt_remap_latency_seconds": "histogram",
    "pcipt_build": "info",
}


def test_the_families_and_their_types():
    _, types = read(made())
    assert types == NAMES


@pytest.mark.parametrize("form", Form)
def test_what_is_counted_comes_out_in_both_forms(form):
    metrics = made()
    done = Outcome(AddDevice(NIC, "new"), Result.DONE)
    refused = Outcome(MapMmio(NIC, "it moved", "00_1c.0", 0, Frames(Gfn(1), 2)), Result.REFUSED)
    for outcome in (done, done, refused):
        metrics.count_outcome(outcome)
    for word in ("bar-moved", "bar-moved", "bus-numbers", "decode"):
        metrics.count_change(word)
    metrics.count_error(HypervisorError("pci_device_add", 16))
    metrics.count_error(HypervisorError("pci_device_add", 9999))
    samples, types = read(metrics, form)
    assert value(samples, "pcipt_functions") == 12
    assert value(samples, "pcipt_findings", kind="ghost") == 2
    assert value(samples, "pcipt_findings", kind='odd "code"\\\n') == 1
    assert value(samples, "pcipt_bar_moves_total") == 2
    assert value(samples, "pcipt_bus_renumberings_total") == 1
    assert value(samples, "pcipt_actions_total", action="add-device", outcome="done") == 2
    assert value(samples, "pcipt_actions_total", action="map-mmio", outcome="refused") == 1
    assert value(samples, "pcipt_actions_total", action="unmap-mmio", outcome="failed") == 0
    assert value(samples, "pcipt_hypercall_errors_total", op="pci_device_add", errno="EBUSY") == 1
    assert value(samples, "pcipt_hypercall_errors_total", op="pci_device_add", errno="9999") == 1
    assert value(samples, "pcipt_trace_lost_records_total") == 3
    assert value(samples, "pcipt_uevent_overruns_total") == 4
    assert value(samples, "pcipt_unmapped_pages_returned_total") == 6
    assert samples["pcipt_dma_faults_total"] == {
        frozenset({("there", "ram")}): 7,
        frozenset({("there", "bar")}): 0,
    }
    assert value(samples, "pcipt_build_info", version=__version__, xen="4.17.7", dom0="pvh") == 1
    assert len(samples["pcipt_actions_total"]) == len(WORDS) * len(Result)  # there from the start: rates work
    if form is Form.PROMETHEUS:
        assert "# EOF" not in metrics.text(form)
        assert "# TYPE pcipt_bar_moves_total counter\n" in metrics.text(form)
        assert types["pcipt_build_info"] == "gauge"


@pytest.mark.parametrize("form", Form)
def test_the_histogram(form):
    metrics = made()
    for seconds in (0.0004, 0.001, 0.07, 0.07, 99):
        metrics.observe_latency(seconds)
    samples, _ = read(metrics, form)
    name = "pcipt_remap_latency_seconds"
    buckets = {float(dict(labels)["le"]): count for labels, count in samples[f"{name}_bucket"].items()}
    assert list(buckets) == [*BUCKETS, float("inf")]
    assert [buckets[le] for le in (0.001, 0.05, 0.1, 5.0, float("inf"))] == [2, 2, 4, 4, 5]
    assert value(samples, f"{name}_count") == 5
    assert value(samples, f"{name}_sum") == pytest.approx(99.1414)


def test_the_number_of_series_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "HYPERCALL_SERIES", 2)
    metrics = made()
    for op in "abcdea":
        metrics.count_error(HypervisorError(op, 1))
    samples, _ = read(metrics)
    counted = {dict(labels)["op"]: count for labels, count in samples["pcipt_hypercall_errors_total"].items()}
    assert counted == {"a": 2, "b": 1, "other": 3}


def test_no_address_is_a_label():
    metrics = made()
    metrics.count_outcome(Outcome(AddDevice(NIC, "new"), Result.DONE))
    assert str(NIC) not in metrics.text()


def test_every_count_says_that_something_changed():
    metrics, seen = made(), []
    metrics.changed = lambda: seen.append(1)
    metrics.count_change("decode")
    metrics.count_outcome(Outcome(AddDevice(NIC, "new"), Result.PLANNED))
    metrics.count_error(HypervisorError("op", 1))
    metrics.observe_latency(1)
    assert len(seen) == 4
