"""Whether known holes are in the locked packages: `make audit`.

pip-audit asks a database of vulnerabilities for every package of `uv.lock`. It runs from a throwaway environment of
uv's, so that it is never among what it judges. There are three ends: 0 nothing is known, 1 holes are known, 2 nobody
could be asked. The last is no success: an audit without an answer is none.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIP_AUDIT = "pip-audit==2.10.1"
DATABASES = ("pypi", "osv")
"""As pip-audit calls them; the second is asked where the first does not answer."""
FOUND, UNASKED = 1, 2


def requirements(uv: str) -> str:
    """The locked packages with their hashes, without ourselves."""
    command = [uv, "export", "--frozen", "--all-extras", "--all-groups", "--no-emit-project", "--quiet"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def ask(uv: str, database: str, file: Path) -> subprocess.CompletedProcess[str]:
    """One run of pip-audit; what it finds is on its standard output."""
    flags = ["--requirement", str(file), "--disable-pip", "--require-hashes", "--strict", "--progress-spinner=off"]
    command = [uv, "tool", "run", "--quiet", PIP_AUDIT, *flags, f"--vulnerability-service={database}"]
    return subprocess.run(command, capture_output=True, text=True)


def verdict(code: int, errors: str) -> int | None:
    """What a run of pip-audit means; None if it could not ask. Its own status is 1 for holes and for failures alike."""
    if code == 0:
        return 0
    return FOUND if code == 1 and re.search(r"Found \d+ known vulnerabilit", errors) else None


def main() -> int:
    """Ask one database after the other until one answers."""
    uv = os.environ.get("UV", "uv")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text(requirements(uv))
        causes = []
        for database in DATABASES:
            done = ask(uv, database, file)
            found = verdict(done.returncode, done.stderr)
            if found is not None:
                print(done.stdout or f"no known holes in the locked packages, says {database}")
                return found
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            causes.append(f"{database}: {lines[-1][:100]}")
    print("audit: nobody could be asked for known holes; run it where PyPI or OSV can be reached.", *causes, sep="\n  ")
    return UNASKED


if __name__ == "__main__":
    sys.exit(main())
