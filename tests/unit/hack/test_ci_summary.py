"""The last word of CI: what it counts, and which skips it lets pass."""

from pathlib import Path

import pytest
from hack.ci.summary import summarise

PASSED = '<testcase classname="tests.a" name="one"/>'
FAILED = '<testcase classname="tests.a" name="two"><failure message="no"/></testcase>'
BROKEN = '<testcase classname="tests.a" name="three"><error message="no fixture"/></testcase>'
KNOWN = '<testcase classname="tests.a" name="five"><skipped type="pytest.xfail" message="moto cannot"/></testcase>'


def skipped(reason: str) -> str:
    return f'<testcase classname="tests.a" name="four"><skipped message="{reason}"/></testcase>'


def report(folder: Path, name: str, *cases: str) -> Path:
    path = folder / f"{name}.xml"
    path.write_text(f'<testsuites><testsuite time="1.5">{"".join(cases)}</testsuite></testsuites>')
    return path


@pytest.mark.parametrize(
    ("cases", "last_line", "good"),
    [
        ([PASSED, PASSED], "2 passed, 0 failed, 0 skipped", True),
        ([PASSED, FAILED], "1 passed, 1 failed, 0 skipped", False),
        ([PASSED, BROKEN], "1 passed, 1 failed, 0 skipped", False),
        ([PASSED, skipped("needs a CUDA device")], "1 passed, 0 failed, 1 skipped", True),
        ([PASSED, skipped("ffprobe is missing")], "1 passed, 0 failed, 1 skipped", False),
        ([PASSED, KNOWN], "1 passed, 0 failed, 0 skipped", True),
        ([], "0 passed, 0 failed, 0 skipped", False),
    ],
    ids=["all good", "a failure", "an error", "no GPU", "a missing program", "a known failure", "no test at all"],
)
def test_verdict(tmp_path: Path, cases: list[str], last_line: str, good: bool) -> None:
    lines, verdict = summarise([report(tmp_path, "test", *cases)])
    assert (lines[-1], verdict) == (last_line, good)


def test_a_tier_without_a_report_fails_the_run(tmp_path: Path) -> None:
    lines, good = summarise([report(tmp_path, "test", PASSED), tmp_path / "e2e.xml"])
    assert not good
    assert "e2e: NO REPORT" in lines[0]


def test_every_skip_is_named_with_its_reason(tmp_path: Path) -> None:
    lines, _ = summarise([report(tmp_path, "test", PASSED, skipped("ffprobe is missing"))])
    assert any("tests.a::four: ffprobe is missing" in line for line in lines)
