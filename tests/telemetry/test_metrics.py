import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from proxy.telemetry.metrics import Registry, merge, render, sanitised_name, without_gauges


def samples(text, parse=parse_text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse(text.decode())
        for sample in family.samples
    }


def filled(count=3, open_connections=2, times=(0.05, 0.1, 5.0)):
    registry = Registry()
    registry.counter("penstock_things_total", "Things", ("kind",)).labels(kind="a").inc(count)
    registry.gauge("penstock_open", "Open").labels().set(open_connections)
    histogram = registry.histogram("penstock_time_seconds", "Time", ("route",), (0.1, 1.0)).labels(route="r")
    for seconds in times:
        histogram.observe(seconds)
    return registry.snapshot()


EXPECTED = {
    ("penstock_things_total", ("kind", "a")): 3.0,
    ("penstock_open",): 2.0,
    ("penstock_time_seconds_bucket", ("le", "0.1"), ("route", "r")): 2.0,
    ("penstock_time_seconds_bucket", ("le", "1.0"), ("route", "r")): 2.0,
    ("penstock_time_seconds_bucket", ("le", "+Inf"), ("route", "r")): 3.0,
    ("penstock_time_seconds_count", ("route", "r")): 3.0,
    ("penstock_time_seconds_sum", ("route", "r")): 5.15,
}


def test_text():
    text, content_type = render(filled())
    assert content_type.startswith("text/plain; version=0.0.4")
    assert samples(text) == EXPECTED


def test_openmetrics_by_accept():
    text, content_type = render(filled(), "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert text.endswith(b"# EOF\n")
    assert samples(text, parse_openmetrics) == EXPECTED


def test_snapshot_is_json():
    snapshot = filled()
    assert json.loads(json.dumps(snapshot)) == snapshot


def test_merge_adds_series_by_series():
    other = Registry()
    other.counter("penstock_things_total", "Things", ("kind",)).labels(kind="b").inc(7)
    total = samples(render(merge([filled(), filled(count=4, times=(0.5,)), other.snapshot()]))[0])
    assert total["penstock_things_total", ("kind", "a")] == 7
    assert total["penstock_things_total", ("kind", "b")] == 7
    assert total["penstock_open",] == 4
    assert total["penstock_time_seconds_bucket", ("le", "1.0"), ("route", "r")] == 3
    assert total["penstock_time_seconds_count", ("route", "r")] == 4


def test_merge_leaves_its_inputs_alone():
    one, other = filled(), filled()
    merge([one, other])
    assert one == other == filled()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.lists(st.integers(0, 8))), min_size=1))
def test_merging_in_any_grouping_gives_the_same(parts):
    snapshots = [filled(*part) for part in parts]
    half = len(snapshots) // 2
    grouped = merge([merge(snapshots[:half]), merge(snapshots[half:])])
    assert render(grouped) == render(merge(snapshots))


@given(st.lists(st.floats(-10, 10)))
def test_a_value_counts_in_every_bucket_that_it_is_at_most(values):
    registry = Registry()
    bounds = (-1.0, 0.0, 0.5, 5.0)
    child = registry.histogram("penstock_x", "X", (), bounds).labels()
    for value in values:
        child.observe(value)
    found = samples(render(registry.snapshot())[0])
    for bound in bounds:
        assert found["penstock_x_bucket", ("le", str(bound))] == sum(value <= bound for value in values)


def test_dead_process_keeps_counters_only():
    kinds = {family["kind"] for family in without_gauges(filled())["families"]}
    assert kinds == {"counter", "histogram"}


def test_children_are_capped():
    registry = Registry()
    family = registry.counter("penstock_x_total", "X", ("name",), max_children=3)
    for number in range(1000):
        family.labels(name=str(number)).inc()
    found = samples(render(registry.snapshot())[0])
    assert len(found) == 4
    assert found["penstock_x_total", ("name", "_other")] == 997


def test_same_labels_give_the_same_child():
    family = Registry().counter("penstock_x_total", "X", ("a", "b"))
    assert family.labels(a="1", b="2") is family.labels(b="2", a="1") is family.child(("1", "2"))


@pytest.mark.parametrize("labels", [{}, {"a": "1", "b": "2"}, {"c": "1"}])
def test_wrong_labels(labels):
    with pytest.raises(ValueError, match="has the labels"):
        Registry().counter("penstock_x_total", "X", ("a",)).labels(**labels)


def test_declared_twice_differently():
    registry = Registry()
    registry.counter("penstock_x_total", "X", ("a",))
    with pytest.raises(ValueError, match="declared twice"):
        registry.counter("penstock_x_total", "X", ("b",))


def test_removed_children_are_gone():
    family = Registry().counter("penstock_x_total", "X", ("filter", "reason"))
    for name in ("one", "two"):
        family.labels(filter=name, reason="trap").inc()
    family.remove(filter="one")
    assert list(family.children) == [("two", "trap")]


def test_refreshed_before_a_snapshot():
    registry = Registry()
    child = registry.gauge("penstock_x", "X").labels()
    registry.before_snapshot(lambda: child.set(5))
    assert samples(render(registry.snapshot())[0]) == {("penstock_x",): 5.0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("requests", "requests"),
        ("my.metric-name", "my_metric_name"),
        ("9lives", "9lives"),
        ("", "unnamed"),
        ("...", "unnamed"),
        ("x\n# TYPE evil counter", "x_TYPE_evil_counter"),
        ("é" * 5, "unnamed"),
        ("a" * 500, "a" * 200),
    ],
)
def test_sanitised_name(name, expected):
    assert sanitised_name(name) == expected


@given(st.text())
def test_any_guest_metric_renders(name):
    registry = Registry()
    full = f"penstock_guest_{sanitised_name(name)}"
    registry.counter(f"{full}_total", "Defined by a filter", ("filter",)).labels(filter=name).inc()
    registry.gauge(full, "Defined by a filter", ("filter",)).labels(filter="f").set(1)
    registry.histogram(full, "Defined by a filter", ("filter",), (1.0,)).labels(filter="f").observe(1)
    for accept, parse in (("", parse_text), ("application/openmetrics-text", parse_openmetrics)):
        text, _ = render(registry.snapshot(), accept)
        names = [family.name for family in parse(text.decode())]
        assert len(names) == len(set(names)) == 3
