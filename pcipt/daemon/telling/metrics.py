"""Metrics for Prometheus: OpenMetrics on request, the older text format for node_exporter.

No label holds an address, so the number of series is limited. Counters start with the daemon.

Source: OpenMetrics 1.0; Prometheus, "Exposition formats", text format 0.0.4.
"""

import enum
import errno as names
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import attrs

from pcipt import __version__
from pcipt.errors import HypervisorError
from pcipt.remap.actions import Action, Outcome, Result
from pcipt.xen.dma_faults import There

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds
HYPERCALL_SERIES = 256  # pairs of operation and error with series of their own; all others share one series
CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]  # suffix, labels, value


class Form(enum.Enum):
    """The two text formats."""

    OPENMETRICS = "openmetrics"
    PROMETHEUS = "prometheus"


class Kind(enum.Enum):
    """The types of metrics."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    INFO = "info"


@attrs.frozen
class Family:
    """One metric. `name` is the name of its samples without their suffix (_total, _info, _bucket).

    `about` is its explanation. `unit` is empty if it has none.
    """

    name: str
    kind: Kind
    about: str
    unit: str = ""


_FUNCTIONS = Family("pcipt_functions", Kind.GAUGE, "PCI functions of this machine.")
_FINDINGS = Family("pcipt_findings", Kind.GAUGE, "Findings (see pcipt status), by their code.")
_MOVES = Family("pcipt_bar_moves", Kind.COUNTER, "BARs seen to move.")
_RENUMBERINGS = Family("pcipt_bus_renumberings", Kind.COUNTER, "Bridges seen to get new bus numbers.")
_ACTIONS = Family("pcipt_actions", Kind.COUNTER, "Actions by kind and outcome.")
_HYPERCALLS = Family("pcipt_hypercall_errors", Kind.COUNTER, "Calls to Xen that failed.")
_LOST = Family("pcipt_trace_lost_records", Kind.COUNTER, "Records of configuration writes that were lost.")
_OVERRUNS = Family("pcipt_uevent_overruns", Kind.COUNTER, "Overruns of the kernel's hot-plug messages.")
_RETURNED = Family(
    "pcipt_unmapped_pages_returned", Kind.COUNTER,
    "Pages that pcipt had unmapped and found mapped again (Xen's dom0=pf-fixup).",
)  # fmt: skip
_FAULTS = Family(
    "pcipt_dma_faults", Kind.COUNTER,
    "Lines of Xen's console about DMA that an IOMMU refused, by what is at the address; Xen does not print "
    "all of them.",
)  # fmt: skip
_LATENCY = Family(
    "pcipt_remap_latency_seconds", Kind.HISTOGRAM,
    "Time from the first write of a change to its last mapping call, including the wait for further writes.",
    "seconds",
)  # fmt: skip
_BUILD = Family("pcipt_build", Kind.INFO, "What runs here.")


@attrs.frozen
class Gauges:
    """The values that are read each time the metrics are written.

    `findings` holds their number by code, `dma_faults` the number of refused accesses by what lies there.
    """

    functions: int
    findings: Mapping[str, int]
    lost_records: int
    uevent_overruns: int
    pages_returned: int
    labels: Mapping[str, str]  # of the metric pcipt_build: xen, dom0
    dma_faults: Mapping[str, int] = attrs.field(factory=lambda: {there.value: 0 for there in There})


class Metrics:
    """All metrics. `read` returns the present gauges. `changed` is called after each change of a counter.

    Counters begin at 0 when the object is made.
    """

    def __init__(self, read: Callable[[], Gauges]) -> None:
        self._read = read
        self._moves = self._renumberings = 0
        self._actions = Counter({(k.word, r.value): 0 for k in Action.__args__ for r in Result})
        self._errors: Counter[tuple[str, str]] = Counter()
        self._latencies = [0] * (len(BUCKETS) + 1)
        self._latency_sum = 0.0
        self.changed: Callable[[], None] = lambda: None

    def count_change(self, word: str) -> None:
        """Count a change of registers if its word is "bar-moved" or "bus-numbers"; ignore other words."""
        self._moves += word == "bar-moved"
        self._renumberings += word == "bus-numbers"
        self.changed()

    def count_outcome(self, outcome: Outcome) -> None:
        """Count an action by its kind and its result."""
        self._actions[outcome.action.word, outcome.result.value] += 1
        self.changed()

    def count_error(self, error: HypervisorError) -> None:
        """Count a failed call to Xen by operation and errno.

        If there are HYPERCALL_SERIES such pairs already, a new pair is counted as "other", "other".
        """
        key = error.op, names.errorcode.get(error.errno, str(error.errno))
        if key not in self._errors and len(self._errors) >= HYPERCALL_SERIES:
            key = "other", "other"
        self._errors[key] += 1
        self.changed()

    def observe_latency(self, seconds: float) -> None:
        """Add one latency to the histogram: the seconds from the first write of a change to its last mapping
        call.
        """
        self._latencies[bisect_left(BUCKETS, seconds)] += 1
        self._latency_sum += seconds
        self.changed()

    def text(self, form: Form = Form.OPENMETRICS) -> str:
        """Return all metrics as text in this format, read now. OpenMetrics text ends with "# EOF"."""
        lines: list[str] = []
        for family, samples in self._families():
            lines += _lines(family, samples, form)
        if form is Form.OPENMETRICS:
            lines.append("# EOF")
        return "\n".join(lines) + "\n"

    def _families(self) -> Iterable[tuple[Family, list[Sample]]]:
        """Yield each metric with its samples, in a fixed order. The gauges are read first."""
        now = self._read()
        yield _BUILD, [("", (("version", __version__), *sorted(now.labels.items())), 1)]
        yield _FUNCTIONS, [("", (), now.functions)]
        yield _FINDINGS, [("", (("kind", code),), n) for code, n in sorted(now.findings.items())]
        yield _MOVES, [("", (), self._moves)]
        yield _RENUMBERINGS, [("", (), self._renumberings)]
        yield (
            _ACTIONS,
            [("", (("action", word), ("outcome", result)), n) for (word, result), n in self._actions.items()],
        )
        yield (
            _HYPERCALLS,
            [("", (("op", op), ("errno", name)), n) for (op, name), n in sorted(self._errors.items())],
        )
        yield _LOST, [("", (), now.lost_records)]
        yield _OVERRUNS, [("", (), now.uevent_overruns)]
        yield _RETURNED, [("", (), now.pages_returned)]
        yield _FAULTS, [("", (("there", there),), n) for there, n in sorted(now.dma_faults.items())]
        yield _LATENCY, self._histogram()

    def _histogram(self) -> list[Sample]:
        """Return the samples of the latency histogram. The count of a bucket includes all smaller buckets."""
        samples: list[Sample] = []
        total = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._latencies, strict=True):
            total += count
            samples.append(("_bucket", (("le", bound),), total))
        return [*samples, ("_count", (), total), ("_sum", (), self._latency_sum)]


# kind: suffix of its samples
_SUFFIX = {Kind.COUNTER: "_total", Kind.INFO: "_info", Kind.GAUGE: "", Kind.HISTOGRAM: ""}


def _lines(family: Family, samples: Iterable[Sample], form: Form) -> list[str]:
    """Return one metric as lines of text: type, unit (OpenMetrics only), explanation, then its samples."""
    name, kind, suffix = family.name, family.kind.value, _SUFFIX[family.kind]
    if form is Form.PROMETHEUS:  # in this form a family is named like its samples, and info is a gauge
        name, kind = name + suffix, "gauge" if family.kind is Kind.INFO else kind
    head = [f"# TYPE {name} {kind}"]
    if family.unit and form is Form.OPENMETRICS:
        head.append(f"# UNIT {name} {family.unit}")
    head.append(f"# HELP {name} {family.about}")
    return head + [f"{family.name}{suffix}{more}{_labels(labels)} {n}" for more, labels, n in samples]


def _labels(labels: Labels) -> str:
    """Return labels as text: {name="value",…}; an empty text if there are none."""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


def _escaped(value: str) -> str:
    """Return a label's value with backslash, double quote and newline escaped."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
