"""What the documents tell people to type exists, and what they link to is there."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
)
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def code(page: str) -> list[str]:
    """Lines of code blocks and the inline code of a page."""
    text = (ROOT / page).read_text()
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    return [*"\n".join(fenced).splitlines(), *indented, *re.findall(r"`([^`\n]+)`", text)]


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    named = {target for line in code(page) if line.startswith("make ") for target in line.split("#")[0].split()[1:]}
    assert {target for target in named if "=" not in target} <= TARGETS


@pytest.mark.parametrize("page", PAGES)
def test_modules_exist(page: str) -> None:
    modules = {module for line in code(page) for module in re.findall(r"python3? -m ((?:hack|tests)[\w.]*)", line)}
    assert [module for module in sorted(modules) if importlib.util.find_spec(module) is None] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    prose = re.sub(r"`[^`\n]+`", "", (ROOT / page).read_text())
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose)
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not ((ROOT / page).parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_files_named_in_commands_exist(page: str) -> None:
    named = {
        path
        for line in code(page)
        for path in re.findall(r"\b((?:examples|charts|hack|crds|tests|benchmarks|docs)/[\w./-]+)", line)
    }
    assert [path for path in sorted(named) if not (ROOT / path.rstrip("./")).exists()] == []


def test_every_target_is_listed_by_help() -> None:
    helped = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"setup", "demo", "test", "e2e", "lint", "crds", "cluster-up", "cluster-status", "cluster-down"} <= helped
