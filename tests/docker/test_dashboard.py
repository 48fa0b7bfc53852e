"""The Grafana dashboard: every query is about series that a live server has."""

import itertools
import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import promql_parser
import pytest

from panacea.api_key import ApiKey
from panacea.config import EngineConfig
from panacea.engine.client import EngineClient
from tests.api.chatting import ask
from tests.api.metric_samples import families
from tests.api.serving import serving
from tests.docker.dockerfile import FOLDER
from tests.golden_files import ADAPTER, BASE

DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana/dashboards/panacea.json").read_text("utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES: dict[str, dict[str, Any]] = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
TARGETS = [(panel, target) for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = [target["expr"] for _, target in TARGETS]

# The query language's own, which Grafana fills in.
BUILT_IN = {"__rate_interval": "1m", "__range": "30m"}
PROMETHEUS_LABELS = {"job", "instance"}
"""What Prometheus adds to every series."""
OVER_TIME = {"rate", "increase", "irate"}


@dataclass
class Series:
    """What a live server says of one name: its metric's type and the labels of its samples."""

    kind: str
    labels: dict[str, set[str]]


@pytest.fixture(scope="module")
def live() -> Generator[dict[str, Series]]:
    """All series of a server with a real engine."""

    async def make_engine() -> EngineClient:
        return await EngineClient.start(EngineConfig(BASE, ADAPTER, device="cpu", threads=1))

    key = "a-key-of-the-dashboard"
    with (
        serving(make_engine, api_keys=[ApiKey.of(key, "alice")]) as served,
        httpx2.Client(base_url=served.url, timeout=60, headers={"authorization": f"Bearer {key}"}) as client,
    ):
        ask(client, preference=[1, 0, 0], max_tokens=2)
        yield series_of(client)


def series_of(client: httpx2.Client) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for family in families(client).values():
        for sample in family.samples:
            series = found.setdefault(sample.name, Series(family.type, {}))
            for name, value in sample.labels.items():
                series.labels.setdefault(name, set()).add(value)
    return found


def filled_in(expression: str) -> str:
    values = BUILT_IN | dict.fromkeys(VARIABLES, ".*")
    filled = re.sub(r"\$(\w+)", lambda match: values[match[1]], expression)
    assert "$" not in filled
    return filled


def nodes(expression: str) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(filled_in(expression)), found.append)
    return found


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    return [
        node.vector_selector if isinstance(node, promql_parser.MatrixSelector) else node
        for node in nodes(expression)
        if isinstance(node, promql_parser.VectorSelector | promql_parser.MatrixSelector)
    ]


def problems(expression: str, live: dict[str, Series]) -> Iterator[str]:
    """What a panel with this query would be empty or wrong for."""
    for selector in selectors(expression):
        series = live.get(selector.name or "")
        if series is None:
            yield f"no series is called {selector.name}"
            continue
        for matcher in selector.matchers.matchers:
            values = series.labels.get(matcher.name)
            if values is None and matcher.name not in PROMETHEUS_LABELS:
                yield f"{selector.name} has no label {matcher.name}"
            elif matcher.op == promql_parser.MatchOp.Equal and values is not None and matcher.value not in values:
                yield f"{selector.name} has no {matcher.name}={matcher.value}"
    for node in nodes(expression):
        labels = {*itertools.chain(*(live[s.name].labels for s in selectors(expression) if s.name in live))}
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            yield from (f"nothing has a label {name}" for name in node.modifier.labels if name not in labels)
        if isinstance(node, promql_parser.Call):
            yield from misused(node, live)
    grows = {s.name for n in nodes(expression) if isinstance(n, promql_parser.Call) and n.func.name in OVER_TIME
             for s in selectors(str(n.args[0].prettify()))}  # fmt: skip
    for selector in selectors(expression):
        series = live.get(selector.name or "")
        if series is not None and series.kind in ("counter", "histogram") and selector.name not in grows:
            yield f"{selector.name} only grows: it needs rate or increase"


def misused(call: promql_parser.Call, live: dict[str, Series]) -> Iterator[str]:
    """A rate of what is no counter; a quantile without the buckets' bounds."""
    if call.func.name in OVER_TIME:
        for selector in selectors(call.args[0].prettify()):
            series = live.get(selector.name or "")
            if series is not None and series.kind not in ("counter", "histogram"):
                yield f"{call.func.name} of {selector.name}, a {series.kind}"
    if call.func.name == "histogram_quantile":
        inner = call.args[1]
        modifier = inner.modifier if isinstance(inner, promql_parser.AggregateExpr) else None
        if modifier is None or "le" not in modifier.labels:
            yield "histogram_quantile without le"


@pytest.mark.slow
@pytest.mark.parametrize("expression", sorted(set(EXPRESSIONS)))
def test_every_query_is_about_what_a_live_server_has(expression: str, live: dict[str, Series]) -> None:
    assert list(problems(expression, live)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("panacea:num_requests_walking", "no series is called panacea:num_requests_walking"),
        ('panacea:num_requests_running{model="x"}', "panacea:num_requests_running has no label model"),
        ('rate(panacea:request_success_total{finished_reason="done"}[1m])', "has no finished_reason=done"),
        ("sum by (reason) (rate(panacea:request_success_total[1m]))", "nothing has a label reason"),
        ("rate(panacea:num_requests_running[1m])", "rate of panacea:num_requests_running, a gauge"),
        ("sum(panacea:generation_tokens_total)", "panacea:generation_tokens_total only grows"),
        ("histogram_quantile(0.5, sum(rate(panacea:preference_entropy_bucket[1m])))", "histogram_quantile without le"),
        ("histogram_quantile(0.5, rate(panacea:preference_entropy_bucket[1m]))", "histogram_quantile without le"),
    ],
)
def test_a_query_about_something_else_would_be_found(expression: str, problem: str, live: dict[str, Series]) -> None:
    assert any(problem in found for found in problems(expression, live))


@pytest.mark.slow
def test_every_metric_is_on_the_dashboard(live: dict[str, Series]) -> None:
    shown = {re.sub("_(bucket|sum|count)$", "", s.name or "") for each in EXPRESSIONS for s in selectors(each)}
    served = {re.sub("_(bucket|sum|count)$", "", name) for name in live if name.startswith("panacea:")}
    # Prefill and decode together, and both are shown.
    assert served - shown == {"panacea:request_inference_time_seconds"}


@pytest.mark.slow
def test_variables_are_the_values_of_labels(live: dict[str, Series]) -> None:
    for variable in VARIABLES.values():
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
        assert match
        assert variable["definition"] == variable["query"]["query"]
        (selector,) = selectors(match[1])
        assert selector.name in live
        assert match[2] in live[selector.name].labels


def test_legends_name_labels_that_the_query_leaves() -> None:
    for _, target in TARGETS:
        grouped = [node.modifier.labels for node in nodes(target["expr"])
                   if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None]  # fmt: skip
        is_summed = any(isinstance(node, promql_parser.AggregateExpr) for node in nodes(target["expr"]))
        left = set(grouped[0]) if grouped else set() if is_summed else PROMETHEUS_LABELS
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left


def test_heatmaps_show_buckets() -> None:
    for panel, target in TARGETS:
        assert (
            (panel["type"] == "heatmap")
            == (target.get("format") == "heatmap")
            == target["expr"].startswith("sum by (le)")
        )


def test_repeated_panels_repeat_for_a_variable() -> None:
    repeated = {panel["repeat"] for panel in PANELS if "repeat" in panel}
    assert repeated == {"dimension"} <= set(VARIABLES)


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert place["x"] + place["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells
