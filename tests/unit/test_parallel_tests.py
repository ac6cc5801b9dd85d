"""The test run's own ground: groups of tests that must share a process do."""

import pytest


@pytest.mark.xdist_group("somewhere")
def test_groups_are_respected(request: pytest.FixtureRequest) -> None:
    """pytest-xdist marks a test's group in its id, and ignored groups in silence with pytest 9.2."""
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("not run in parallel: every test is in one process anyway")
    assert request.node.nodeid.endswith("@somewhere")
