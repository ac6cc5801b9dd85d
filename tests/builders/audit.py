"""What an API server was asked, from the audit log that it still writes."""

import json
from pathlib import Path

from tests.builders.live_api import Json


def requests_of(log: Path, account: str) -> list[Json]:
    """Of a service account of that name, in order; the last line counts once all of it is there."""
    whole, _, _ = log.read_bytes().rpartition(b"\n")
    found = [json.loads(line) for line in whole.splitlines()]
    return [item for item in found if item["user"]["username"].endswith(f":{account}")]
