"""What a gateway process has done since it was started, in Prometheus' text format."""

from __future__ import annotations

from collections import Counter, defaultdict


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

    def text(self, uploads: int, downloads: int) -> str:
        """Return everything.

        Args:
            uploads: uploads under way or waiting.
            downloads: downloads under way or waiting.
        """
        lines = ["# TYPE durabatch_gateway_requests_total counter"]
        for (route, status), count in sorted(self._requests.items()):
            lines.append(f'durabatch_gateway_requests_total{{route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE durabatch_gateway_request_seconds_total counter")
        for route, seconds in sorted(self._seconds.items()):
            lines.append(f'durabatch_gateway_request_seconds_total{{route="{route}"}} {seconds:.6f}')
        for name, value in (("uploads", uploads), ("downloads", downloads)):
            lines += [f"# TYPE durabatch_gateway_{name} gauge", f"durabatch_gateway_{name} {value}"]
        return "\n".join([*lines, ""])
