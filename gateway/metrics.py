"""What a gateway process has done since it was started, in Prometheus' text format."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping


class Metrics:
    """Counts of requests by route and status; no tenant, file or batch is named."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: such as "files.create".
            status: of HTTP; 499 where the client went away before its answer.
            seconds: from its head to the end of its answer.
        """
        self._requests[route, status] += 1
        self._seconds[route] += seconds

    def text(self, gauges: Mapping[str, float]) -> str:
        """Return everything.

        Args:
            gauges: what is so at the moment, by name.
        """
        lines = ["# TYPE durabatch_gateway_requests_total counter"]
        for (route, status), count in sorted(self._requests.items()):
            lines.append(f'durabatch_gateway_requests_total{{route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE durabatch_gateway_request_seconds_total counter")
        for route, seconds in sorted(self._seconds.items()):
            lines.append(f'durabatch_gateway_request_seconds_total{{route="{route}"}} {seconds:.6f}')
        for name, value in gauges.items():
            lines += [f"# TYPE durabatch_gateway_{name} gauge", f"durabatch_gateway_{name} {value:.0f}"]
        return "\n".join([*lines, ""])
