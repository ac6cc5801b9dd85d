"""Which namespaces are served: all, a list, or those whose labels match a selector, as they come and go.

The API server judges the selector: the namespaces that a selected listing and watch tell of are the ones that match.
A namespace that matches no longer is left as it is: its running Jobs go on, and nobody follows them any more.
"""

import asyncio
from collections.abc import Iterable


class Scope:
    """What of a listing or watch concerns this operator."""

    def __init__(self, namespaces: tuple[str, ...] = (), *, selector: str | None = None) -> None:
        self.selector = selector
        self.places: tuple[str | None, ...] = namespaces or (None,)
        """Where to list and watch; None: everywhere at once."""
        self._matching: set[str] = set()
        self.grown = asyncio.Event()
        """Set when a namespace has begun to match: what lies in it was not listened to until now."""

    def serves(self, namespace: str | None) -> bool:
        """Whether objects of a namespace concern this operator; cluster-scoped ones do."""
        return self.selector is None or namespace is None or namespace in self._matching

    def admit(self, namespace: str) -> None:
        """It matches."""
        if namespace not in self._matching:
            self._matching.add(namespace)
            self.grown.set()

    def dismiss(self, namespace: str) -> None:
        """It matches no longer, or does not exist."""
        self._matching.discard(namespace)

    def replace(self, matching: Iterable[str]) -> list[str]:
        """These match and no others; returns those that did until now."""
        now = set(matching)
        gone = sorted(self._matching - now)
        for namespace in now:
            self.admit(namespace)
        for namespace in gone:
            self.dismiss(namespace)
        return gone
