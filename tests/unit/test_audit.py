"""Reading an audit log that a server still writes."""

import json
from pathlib import Path

from tests.builders.audit import requests_of


def line(account: str, number: int) -> bytes:
    user = {"username": f"system:serviceaccount:vr:{account}"}
    return json.dumps({"user": user, "requestURI": f"/é/{number}", "extra": {}}, ensure_ascii=False).encode()


def test_a_line_that_is_not_all_there_is_left_for_later(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    written = b"\n".join([line("operator", 1), line("runner", 2), line("operator", 3)]) + b"\n"
    last = line("operator", 4) + b"\n"
    for cut in range(len(last) + 1):
        log.write_bytes(written + last[:cut])
        found = [item["requestURI"] for item in requests_of(log, "operator")]
        assert found == ["/é/1", "/é/3", *(["/é/4"] if cut == len(last) else [])]
