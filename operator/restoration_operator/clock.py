"""The only clock of decisions."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The time in whole seconds, as Kubernetes stores it: what is written compares equal to what is read back."""
    return datetime.now(UTC).replace(microsecond=0)
