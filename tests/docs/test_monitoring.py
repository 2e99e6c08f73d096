"""The alert rules and the dashboard name metrics and labels that the service has."""

import json
import re
from pathlib import Path

import pytest

from pcipt.daemon.telling.metrics import Gauges, Metrics

MONITORING = Path(__file__).resolve().parents[2] / "docs" / "monitoring"
#: Labels that Prometheus adds, that node_exporter has, or that belong to a histogram.
OUTER = {"instance", "le", "file"}
GAUGES = Gauges(
    functions=1,
    findings={"orphan": 1},
    lost_records=0,
    uevent_overruns=0,
    pages_returned=0,
    labels={"xen": "4", "dom0": "pv"},
)
EXPRESSION = re.compile(r"^ +expr: (?:>-\n +)?(.+)$", re.MULTILINE)


def names_and_labels():
    """Ask the service's own text; a counter of errors has no sample before the first one."""
    names = {"pcipt_hypercall_errors_total": {"op", "errno"}}
    for line in Metrics(lambda: GAUGES).text().splitlines():
        if match := re.match(r"(pcipt_\w+)(?:\{(.*)\})? ", line):
            names.setdefault(match[1], set()).update(re.findall(r"(\w+)=", match[2] or ""))
    return names


def expressions():
    rules = EXPRESSION.findall((MONITORING / "alerts.yml").read_text())
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    return rules + [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("expression", expressions())
def test_metrics_and_labels_exist(expression):
    known = names_and_labels()
    used = set(re.findall(r"\bpcipt_\w+", expression))
    assert used
    assert used - set(known) == set()
    labels = set(re.findall(r"(\w+)=~?\"", expression))
    for group in re.findall(r"by \(([^)]*)\)", expression):
        labels |= set(re.split(r", *", group))
    assert labels - OUTER - set().union(*(known[name] for name in used)) == set()
    assert expression.count("(") == expression.count(")")


def test_every_metric_is_watched():
    shown = " ".join(expressions())
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names_and_labels()}
    assert [name for name in families if name not in shown] == []


def test_each_alert_says_what_to_do():
    text = (MONITORING / "alerts.yml").read_text()
    alerts = text.split("- alert: ")[1:]
    assert len(alerts) == len(EXPRESSION.findall(text))
    for alert in alerts:
        for key in ("severity: ", "summary: ", "description: "):
            assert key in alert


def test_panels_have_their_own_places():
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    taken = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert cells & taken == set(), panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
