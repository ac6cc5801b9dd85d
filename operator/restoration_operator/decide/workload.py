"""What a Kueue Workload says about a wait, as one sentence for a condition.

Conditions and their meaning: Kueue's documentation, "Workload", and `pkg/workload` of its source. `QuotaReserved` comes
before `Admitted`, which also waits for admission checks; `Evicted` stays True until quota is reserved again.
"""

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]


def waits_for(workload: Json) -> str:
    """Empty if it says nothing."""
    spec, status = workload.get("spec") or {}, workload.get("status") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or ()}
    evicted, reserved, admitted = (conditions.get(kind, {}) for kind in ("Evicted", "QuotaReserved", "Admitted"))
    parts = []
    if evicted.get("status") == "True":
        parts.append(f"evicted ({evicted.get('reason', '')}): {evicted.get('message', '')}")
    if spec.get("active") is False:
        parts.append("the Workload is deactivated (spec.active is false)")
    elif reserved.get("status") != "True":
        parts.append(reserved.get("message") or "no quota is reserved yet")
    elif admitted.get("status") != "True":
        parts.append(f"quota is reserved, admission waits: {_checks(status) or admitted.get('message', '')}")
    return "; ".join(part.strip(" :;") for part in parts)


def _checks(status: Json) -> str:
    """The admission checks that are not passed."""
    open_checks = (item for item in status.get("admissionChecks") or () if item.get("state") != "Ready")
    return ", ".join(
        f"{item['name']} is {item.get('state', '')} {item.get('message', '')}".strip() for item in open_checks
    )
