"""Names for every legal VideoRestoration: valid, short, readable, apart."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restoration_operator.build.names import job_name, next_snapshot_name, slug, snapshot_name, volume_name

UID = "0b6f6a3e-3a55-4b0e-9d6e-6f6f7f3c9a1b"
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SUBDOMAINS = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("movie-night", "vr-movie-night-7f3c9a1b-e1-run"),
        ("a", "vr-a-7f3c9a1b-e1-run"),
        ("a" * 30, f"vr-{'a' * 30}-7f3c9a1b-e1-run"),
        ("season-1.episode-03", "vr-season-1-episode-03-881523-7f3c9a1b-e1-run"),
    ],
)
def test_readable(name: str, expected: str) -> None:
    assert job_name(name, UID, execution=1) == expected


@given(name=SUBDOMAINS, execution=st.integers(1, 99999), role=st.sampled_from(["run", "plan", "assemble"]))
def test_a_job_name_is_a_label_for_every_legal_name(name: str, execution: int, role: str) -> None:
    made = job_name(name, UID, execution=execution, role=role)
    assert LABEL.fullmatch(made)
    assert len(made) <= 58


@given(first=SUBDOMAINS, second=SUBDOMAINS)
def test_slugs_of_different_names_differ(first: str, second: str) -> None:
    assert (slug(first) == slug(second)) == (first == second)


@given(name=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True))
def test_a_volume_name_is_a_label(name: str) -> None:
    assert LABEL.fullmatch(volume_name("storage", name))


def test_replacements_of_a_snapshot_count_up() -> None:
    names = [snapshot_name("clip", UID)]
    for _ in range(3):
        names.append(next_snapshot_name(names[-1], "clip", UID))
    assert names == ["vr-clip-7f3c9a1b", "vr-clip-7f3c9a1b-2", "vr-clip-7f3c9a1b-3", "vr-clip-7f3c9a1b-4"]


def test_the_same_name_of_another_object_is_another_name() -> None:
    assert job_name("clip", UID, execution=1) != job_name("clip", UID.replace("7f3c9a1b", "12345678"), execution=1)
