"""An audit is green only where a database has said so."""

import subprocess

import pytest
from hack import audit

CLEAN = "No known vulnerabilities found"
HOLES = "Found 2 known vulnerabilities in 1 package"
AWAY = "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='api.osv.dev', port=443): Max retries exceeded"
SKIPPED = "ERROR:pip_audit._cli:aiohappyeyeballs: Dependency not found on PyPI and could not be audited"

# What each database does (status, standard error), and what the audit's status is.
ENDS = [
    ({"pypi": (0, CLEAN)}, 0),
    ({"pypi": (1, HOLES)}, audit.FOUND),
    ({"pypi": (1, AWAY), "osv": (0, CLEAN)}, 0),
    ({"pypi": (1, SKIPPED), "osv": (1, HOLES)}, audit.FOUND),
    ({"pypi": (1, SKIPPED), "osv": (1, AWAY)}, audit.UNASKED),
    ({"pypi": (2, "usage:"), "osv": (127, "")}, audit.UNASKED),
]


@pytest.mark.parametrize(("answers", "status"), ENDS)
def test_an_audit_without_an_answer_is_no_success(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: dict[str, tuple[int, str]],
    status: int,
) -> None:
    def ask(uv: str, database: str, file: object) -> subprocess.CompletedProcess[str]:
        code, errors = answers[database]
        return subprocess.CompletedProcess([], code, stdout="", stderr=errors)

    monkeypatch.setattr(audit, "requirements", lambda uv: "")
    monkeypatch.setattr(audit, "ask", ask)
    assert audit.main() == status
    assert ("nobody could be asked" in capsys.readouterr().out) is (status == audit.UNASKED)
