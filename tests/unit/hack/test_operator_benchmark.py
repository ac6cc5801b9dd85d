"""The benchmark's yardstick: raw writes are the operator's own, or the ratio would compare two different things."""

from benchmarks.operator import bench, report
from benchmarks.operator.ceiling import NAME, recorded_writes
from benchmarks.operator.life import restoration


def test_raw_writes_are_what_the_operator_writes_until_there_is_a_job() -> None:
    uid, writes = recorded_writes("films")
    methods = [write.method for write in writes]
    assert methods[0] == "apply_status", "a number is reserved before anything is created"
    assert {"apply_status", "create_config_map", "create_job"} == set(methods)
    for write in writes:
        assert NAME in write.body or uid in write.body or write.method == "apply_status"


def test_names_of_the_load_fit_where_the_samples_name_stands() -> None:
    name = restoration("films", 17)["metadata"]["name"]
    assert len(name) == len(NAME)
    assert name != NAME


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert bench.quantile(values, 0.5) == 50
    assert bench.quantile(values, 0.99) == 99
    assert bench.quantile([7.0], 0.99) == 7


def test_the_table_names_machine_and_anchors_whatever_was_measured() -> None:
    machine = {"date": "2026-01-01 00:00Z", "commit": "abc", "cpu": "some", "cores": 2, "load": 0.5}
    text = report.table({"machine": machine, "quick": True})
    assert "commit abc, 2 cores of some, load 0.5, quick sizes" in text
    assert "42.7 workloads/s" in text
