"""Every shell block of the documentation is run by somebody, or says why not; here run those that need no node."""

import pytest
from hack.docs.__main__ import check
from hack.docs.pages import pages
from hack.docs.play import marked, play, times
from hack.docs.promises import SANDBOX
from tests.docs.conftest import Sandbox

PLAYED = [page for page in pages() if marked(page, by=SANDBOX)]


def test_every_shell_block_has_a_marker_that_is_kept() -> None:
    assert check() == []


@pytest.mark.parametrize("page", PLAYED)
def test_the_commands_of_a_page_work(page: str, sandbox: Sandbox) -> None:
    steps = play(marked(page, by=SANDBOX), cwd=sandbox.folder, environment=sandbox.environment, timeout_s=240)
    print(times(steps))
