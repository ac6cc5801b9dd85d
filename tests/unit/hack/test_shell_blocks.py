"""Which shell blocks `make docs` refuses, which commands it sees in them, and how it types a page."""

import os
from pathlib import Path

import pytest
from hack.docs.blocks import Block, Marker, blocks, commands
from hack.docs.play import PlayError, play
from hack.docs.promises import broken, targets_of_ci

MAKEFILE = """\
UV := uv
setup: .venv
lint: setup ## Style
\truff check
test: tools
\tpytest
tools: setup
\tpython -m hack.prerequisites
demo: tools
\t@python -m hack.demo
soak:
\tpytest -n 9
"""
TESTS = {
    "tests/e2e/test_demo.py": 'run([sys.executable, "-m", "hack.demo"])\n',
    "tests/chart/test_deploy.py": 'kubectl("apply", "--filename", ROOT / "deploy" / "install.yaml")\n',
    "tests/e2e/test_tutorial.py": 'from hack.docs.play import play\nmarked("docs/tutorial.md", by=ME)\n',
    "tests/kueue/test_kueue.py": "kubectl apply\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a Makefile, a CI script and some tests."""
    files = {"Makefile": MAKEFILE, ".ci/run": "set -e\nmake -k lint test </dev/null\nmake cluster-down\n", **TESTS}
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def page(marker: str, code: str, *, language: str = "sh", name: str = "docs/tutorial.md") -> Block:
    [block] = blocks(name, f"# Title\n\n{marker}\n```{language}\n{code}\n```\n")
    return block


KEPT = [
    page("<!-- run: sandbox -->", "anything --at all"),
    page("<!-- not run: needs a GPU -->", "python -m benchmarks.gpu"),
    page("<!-- run: .ci/run -->", "make lint   # style\nmake setup tools"),
    page("<!-- run: tests/e2e/test_demo.py -->", "make demo"),
    page("<!-- run: tests/e2e/test_tutorial.py -->", "whatever the page says"),
    page("<!-- run: tests/chart/test_deploy.py -->", "kubectl apply --filename deploy/install.yaml", name="README.md"),
    page("", "kind: Pod", language="yaml"),
]
BROKEN = [
    (page("", "ls"), "without a marker"),
    (page("<!-- run: sandbox -->\n\nWords in between.\n", "ls"), "without a marker"),
    (page("", "ls", language=""), "language is missing"),
    (page("<!-- run: sandbox -->", "a: 1", language="yaml"), "a marker above a block of yaml"),
    (page("<!-- not run: no -->", "ls"), "does not say why"),
    (page("<!-- run: .ci/run -->", "make soak"), "'make soak' is not among"),
    (page("<!-- run: .ci/run -->", "make lint && rm -rf /"), "is not among"),
    (page("<!-- run: make lint -->", "make lint"), "neither sandbox"),
    (page("<!-- run: tests/e2e/test_gone.py -->", "ls"), "there is no tests/e2e/test_gone.py"),
    (page("<!-- run: tests/kueue/test_kueue.py -->", "kubectl apply"), "nor a test that CI runs"),
    (page("<!-- run: tests/e2e/test_demo.py -->", "make soak"), "has no make, soak"),
    (page("<!-- run: tests/chart/test_deploy.py -->", "kubectl delete --filename deploy/install.yaml"), "no delete"),
    (Block("a.md", 1, None, "ls\n", None), "fence it"),
]


@pytest.mark.parametrize("block", KEPT, ids=lambda block: block.text[:20])
def test_kept_promises(block: Block, root: Path) -> None:
    assert broken(block, root) is None


@pytest.mark.parametrize(("block", "said"), BROKEN, ids=lambda item: item if isinstance(item, str) else "")
def test_what_is_refused_and_why(block: Block, said: str, root: Path) -> None:
    sentence = broken(block, root)
    assert sentence is not None
    assert sentence.startswith(block.place)
    assert said in sentence


def test_blocks_are_found_wherever_they_stand() -> None:
    text = "* item\n\n  <!-- run: sandbox -->\n  ```bash\n  ls\n  ```\n\n> ~~~sh\n> pwd\n> ~~~\n\n    indented\n"
    found = [(block.line, block.language, block.text, block.marker) for block in blocks("a.md", text)]
    assert found == [
        (4, "bash", "ls\n", Marker(runs="sandbox")),
        (8, "sh", "pwd\n", None),
        (12, None, "indented\n", None),
    ]


def test_commands_of_a_block() -> None:
    text = (
        "# first\nhelm install \\\n  vr chart --values - <<END\nimage: x\nEND\n\n$ kubectl get vr  # look\necho 'a#b'\n"
    )
    assert commands(text) == ["helm install vr chart --values - <<END", "kubectl get vr", "echo 'a#b'"]


def test_targets_of_ci_with_what_they_need(root: Path) -> None:
    assert targets_of_ci(root) == {"lint", "setup", "test", "tools"}


def test_a_page_is_typed_in_one_shell(tmp_path: Path) -> None:
    typed = [page("", text) for text in ("WORD=hello\ncd /", "echo $WORD from $PWD; echo again >&2")]
    first, second = play(typed, cwd=tmp_path, environment=os.environ)
    assert (first.output, second.output) == ("", "hello from /\nagain\n")


@pytest.mark.parametrize(("text", "code"), [("false | cat", 1), ("exit 0", 0), ("echo $UNSET_NAME", 1)])
def test_a_block_that_fails_is_named_and_ends_the_page(text: str, code: int, tmp_path: Path) -> None:
    typed = [page("", "echo fine"), page("", text), page("", f"touch {tmp_path}/third")]
    with pytest.raises(PlayError, match=f"docs/tutorial.md:4 ended with {code}"):
        play(typed, cwd=tmp_path, environment=os.environ)
    assert not (tmp_path / "third").exists()
