"""Prometheus metrics that every service has; served by its status socket and gathered by the node."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry(auto_describe=False)

REQUESTS = Counter(
    "cumulet_http_requests_total", "Requests answered", ["method", "route", "status"], registry=REGISTRY
)
REQUEST_SECONDS = Histogram(
    "cumulet_http_request_seconds", "Time to answer", ["route"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10), registry=REGISTRY,
)  # fmt: skip
PASSES = Counter("cumulet_loop_passes_total", "Passes of a reconcile loop", ["loop"], registry=REGISTRY)
FAILING = Gauge("cumulet_loop_failing_keys", "Keys that are not right yet", ["loop"], registry=REGISTRY)
COMMITS = Counter("cumulet_database_commits_total", "Transactions that changed something", registry=REGISTRY)
