"""Who holds a slot of each profile and who waits for one, in order of age: kept up to date with every change.

Counted anew for every decision, a thousand that wait would cost a million looks for a thousand slots.
"""

from bisect import bisect_left, insort
from collections.abc import Hashable
from dataclasses import dataclass, field

from restoration_operator.decide.slots import NEXT_IN_LINE, Standing
from restoration_operator.decide.types import Slots

Seniority = tuple[float, str]
"""Time of creation and uid: the uid makes it an order for those of one second."""


@dataclass(frozen=True)
class _Place:
    key: Hashable
    seniority: Seniority
    standing: Standing


@dataclass
class _Line:
    holders: set[str] = field(default_factory=set)
    waiting: list[Seniority] = field(default_factory=list)


class Lines:
    """One line for each profile."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line] = {}
        self._places: dict[str, _Place] = {}

    def put(self, uid: str, *, key: Hashable, created: float, standing: Standing) -> list[str]:
        """Where a restoration stands now; returns the uids of those for whom that may have made room."""
        before, place = self._places.get(uid), _Place(key, (created, uid), standing)
        if before == place:
            return []
        freed = self.drop(uid)
        if standing is Standing.APART:
            return freed
        self._places[uid] = place
        line = self._lines.setdefault(key, _Line())
        if standing is Standing.HOLDS:
            line.holders.add(uid)
            return []  # it waited or held before: nobody has got any nearer
        insort(line.waiting, place.seniority)
        return freed

    def drop(self, uid: str) -> list[str]:
        """It holds and wants nothing any more; returns the uids of those for whom that may have made room."""
        place = self._places.pop(uid, None)
        if place is None:
            return []
        line = self._lines[place.key]
        if place.standing is Standing.HOLDS:
            line.holders.discard(uid)
        else:
            del line.waiting[bisect_left(line.waiting, place.seniority)]
        if not line.holders and not line.waiting:
            del self._lines[place.key]
        return [other for _, other in line.waiting[:NEXT_IN_LINE]]

    def seen_by(self, uid: str, *, key: Hashable, created: float) -> Slots:
        """What the others leave to one restoration, whether it stands in line or not."""
        line = self._lines.get(key, _Line())
        ahead = bisect_left(line.waiting, (created, uid))
        return Slots(active=len(line.holders) - (uid in line.holders), ahead=ahead)
