"""Write what is generated from the chart.

python -m hack.chart              write the files
python -m hack.chart --check      say which files differ, and fail if any does
"""

import argparse
import sys

from hack.chart.argocd import argocd_files
from hack.chart.dashboard import dashboard
from hack.chart.deploy import install_manifest
from hack.chart.paths import CHART, ROOT
from hack.chart.readme import readme


def generated() -> dict[str, str]:
    """The text of every generated file, by its path relative to the repository's root."""
    chart = CHART.relative_to(ROOT)
    return {
        f"{chart}/README.md": readme(CHART),
        f"{chart}/files/dashboard.json": dashboard(),
        "deploy/install.yaml": install_manifest(),
        **argocd_files(chart),
    }


def main() -> int:
    """Write or check the files; 1 if a checked file has drifted."""
    parser = argparse.ArgumentParser(description="Generate what follows from the chart.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    only_check = parser.parse_args().check
    drifted = 0
    for path, text in generated().items():
        target = ROOT / path
        if target.is_file() and target.read_text(encoding="utf-8") == text:
            continue
        drifted += 1
        if only_check:
            print(f"{path} differs from its source; run `make chart`", file=sys.stderr)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    return 1 if only_check and drifted else 0


if __name__ == "__main__":
    sys.exit(main())
