"""What `examples/` shows is what this version does: its runner takes every restoration that they apply."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders.resources import make_profile, parse

from restoration_api.resources import ClusterRestorationProfile, VideoRestoration
from restoration_operator.build.request import resolve_request
from restoration_runner.accept import check_request

EXAMPLES = Path(__file__).parents[2] / "examples"
RESTORATIONS = [
    pytest.param(body, id=f"{path.relative_to(EXAMPLES)}:{body['metadata'].get('name', '')}")
    for path in sorted(EXAMPLES.rglob("*.yaml"))
    for body in yaml.safe_load_all(path.read_text())
    if body and body["kind"] == "VideoRestoration"
]


@pytest.mark.parametrize("body", RESTORATIONS)
def test_the_runner_takes_it(body: dict[str, Any]) -> None:
    restoration, profile = parse(body), parse(make_profile())
    assert isinstance(restoration, VideoRestoration) and isinstance(profile, ClusterRestorationProfile)
    check_request(resolve_request(restoration.spec, profile.spec))
