from __future__ import annotations

from pxeboot_stack.boot_handler.metrics import Metrics

WHOLE = """\
# HELP pvmlab_http_requests_total Requests answered, by route and status.
# TYPE pvmlab_http_requests_total counter
pvmlab_http_requests_total{route="/ipxe",status="200"} 2
pvmlab_http_requests_total{route="/m/{token}/report",status="403"} 1
# HELP pvmlab_http_request_seconds Seconds from a request's head to its answer's.
# TYPE pvmlab_http_request_seconds histogram
pvmlab_http_request_seconds_bucket{le="0.001"} 1
pvmlab_http_request_seconds_bucket{le="0.0025"} 1
pvmlab_http_request_seconds_bucket{le="0.005"} 1
pvmlab_http_request_seconds_bucket{le="0.01"} 1
pvmlab_http_request_seconds_bucket{le="0.025"} 2
pvmlab_http_request_seconds_bucket{le="0.05"} 2
pvmlab_http_request_seconds_bucket{le="0.1"} 2
pvmlab_http_request_seconds_bucket{le="0.25"} 2
pvmlab_http_request_seconds_bucket{le="1"} 2
pvmlab_http_request_seconds_bucket{le="+Inf"} 3
pvmlab_http_request_seconds_sum 2.521
pvmlab_http_request_seconds_count 3
# HELP pvmlab_denied_total Requests for what is another machine's.
# TYPE pvmlab_denied_total counter
pvmlab_denied_total 1
# HELP pvmlab_machines Machines by install state.
# TYPE pvmlab_machines gauge
pvmlab_machines{state="installed"} 3
# HELP pvmlab_definitions Definitions in use.
# TYPE pvmlab_definitions gauge
pvmlab_definitions 4
# HELP pvmlab_events_total Events.
# TYPE pvmlab_events_total counter
pvmlab_events_total 12
"""


def test_the_whole_text() -> None:
    metrics = Metrics()
    metrics.count("/ipxe", 200, 0.001)
    metrics.count("/ipxe", 200, 0.02)
    metrics.count("/m/{token}/report", 403, 2.5)
    gauges = {"definitions": ("Definitions in use.", 4.0), "events_total": ("Events.", 12.0)}
    assert metrics.render(gauges, {"installed": 3}) == WHOLE


def test_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.count('a"\\\n', 200, 0.001)
    assert 'route="a\\"\\\\\\n"' in metrics.render({}, {})
