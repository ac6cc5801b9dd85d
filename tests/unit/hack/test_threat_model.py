"""Every threat of the threat model is held by tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "security.md"


def names_of_tests() -> set[str]:
    """Names of all test functions of the repository."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(node.name)
    return found


def threats() -> list[tuple[str, list[str]]]:
    """(threat, names of its tests) of every row below "Threats"."""
    text = PAGE.read_text().partition("\n## Threats\n")[2].partition("\n## What is not")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in rows]
    kept = [row for row in cells if row[0] != "threat" and set(row[0]) != {"-"}]
    return [(row[0], re.findall(r"`(test_\w+)`", row[2])) for row in kept]


def test_every_threat_names_tests_that_exist() -> None:
    known, rows = names_of_tests(), threats()
    assert len(rows) > 20
    assert [threat for threat, names in rows if not names] == []
    assert [(threat, name) for threat, names in rows for name in names if name not in known] == []
