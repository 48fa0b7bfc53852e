"""What `/metrics` says, as tests read it."""

import httpx2
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from panacea.api.observability.metrics import CONTENT_TYPE


def families(client: httpx2.Client) -> dict[str, Metric]:
    """All metrics, by the name under which they are documented: counters with _total."""
    response = client.get("/metrics")
    assert (response.status_code, response.headers["content-type"]) == (200, CONTENT_TYPE)
    parsed = list(text_string_to_metric_families(response.text))
    named = {family.name + ("_total" if family.type == "counter" else ""): family for family in parsed}
    assert len(named) == len(parsed)
    return named


class Samples:
    """The values of all series at one moment."""

    def __init__(self, client: httpx2.Client) -> None:
        self.labels: dict[str, dict[str, set[str]]] = {}
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in families(client).values():
            for sample in family.samples:
                self._values[sample.name, frozenset(sample.labels.items())] = sample.value
                for name, value in sample.labels.items():
                    self.labels.setdefault(sample.name, {}).setdefault(name, set()).add(value)

    def __call__(self, name: str, **labels: str) -> float:
        """Sum of the series with this name (without its prefix) and at least these labels; 0 if there is none."""
        wanted = labels.items()
        return sum(
            value
            for (key, given), value in self._values.items()
            if key == f"panacea:{name}" and wanted <= dict(given).items()
        )

    @property
    def series(self) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return set(self._values)
