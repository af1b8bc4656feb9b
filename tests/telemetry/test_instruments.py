from proxy.telemetry.instruments import MAX_CODES, Instruments
from proxy.telemetry.metrics import Registry, render
from proxy.telemetry.stream import StreamInfo
from proxy.telemetry.telemetry import Telemetry


def text(registry):
    return render(registry.snapshot())[0].decode().splitlines()


def finished(status=200):
    info = StreamInfo()
    info.route_name, info.cluster_name, info.status = "api", "service", status
    info.bytes_received, info.bytes_sent = 10, 20
    info.upstream_seconds, info.filter_seconds = 0.003, 0.0002
    return info


def test_a_finished_stream_is_counted():
    telemetry = Telemetry(access=False)
    telemetry.stream_finished(finished())
    telemetry.stream_finished(finished(503))
    lines = text(telemetry.registry)
    assert 'penstock_requests_total{cluster="service",code="200",route="api"} 1.0' in lines
    assert 'penstock_requests_total{cluster="service",code="503",route="api"} 1.0' in lines
    assert 'penstock_request_duration_seconds_count{cluster="service",route="api"} 2.0' in lines
    assert 'penstock_upstream_duration_seconds_bucket{cluster="service",le="0.005"} 2.0' in lines
    assert 'penstock_upstream_duration_seconds_bucket{cluster="service",le="0.0025"} 0.0' in lines
    assert 'penstock_filters_duration_seconds_bucket{le="0.00025",route="api"} 2.0' in lines
    assert 'penstock_bytes_received_total{cluster="service",route="api"} 20.0' in lines
    assert 'penstock_bytes_sent_total{cluster="service",route="api"} 40.0' in lines


def test_made_up_status_codes_are_capped():
    telemetry = Telemetry(access=False)
    for status in range(100, 1000):
        telemetry.stream_finished(finished(status))
    counted = [line for line in text(telemetry.registry) if line.startswith("penstock_requests_total")]
    assert len(counted) == MAX_CODES + 1
    assert f'penstock_requests_total{{cluster="service",code="other",route="api"}} {900 - MAX_CODES}.0' in counted


def test_filter_and_cluster():
    registry = Registry()
    instruments = Instruments(registry)
    guard = instruments.filter("guard")
    guard.calls("on_request_headers").inc()
    guard.failures("fuel").inc()
    guard.host_call_errors("proxy_get_property", "NotFound").inc()
    guard.fuel.inc(1234)
    guard.guest_counter("my.hits").inc(3)
    guard.guest_gauge("level").set(7)
    guard.guest_histogram("size").observe(40)
    cluster = instruments.cluster("service")
    cluster.failed("connect_failed")
    cluster.failed("connect_failed")
    cluster.connections.inc()
    lines = text(registry)
    for line in (
        'penstock_filter_calls_total{callback="on_request_headers",filter="guard"} 1.0',
        'penstock_filter_failures_total{filter="guard",reason="fuel"} 1.0',
        'penstock_host_call_errors_total{filter="guard",function="proxy_get_property",status="NotFound"} 1.0',
        'penstock_filter_fuel_total{filter="guard"} 1234.0',
        'penstock_guest_my_hits_total{filter="guard"} 3.0',
        'penstock_guest_level{filter="guard"} 7.0',
        'penstock_guest_size_bucket{filter="guard",le="50.0"} 1.0',
        'penstock_upstream_failures_total{cluster="service",reason="connect_failed"} 2.0',
        'penstock_upstream_connections{cluster="service"} 1.0',
    ):
        assert line in lines
