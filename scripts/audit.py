"""Known vulnerabilities of what is installed, by the OSV database; where it is out of reach, that is said, no more."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parent.parent / "requirements-dev.lock"
OSV = "https://api.osv.dev/v1/query"
TIMEOUT_S = 10
OPTIONS = (
    "--vulnerability-service=osv",
    "--disable-pip",
    "--require-hashes",
    "--progress-spinner=off",
    "--format=json",
)


def audit(lock: Path = LOCK, osv_url: str = OSV) -> int:
    """0 when nothing is known or nobody could be asked, 1 when something is known or the audit itself is broken."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        *OPTIONS,
        f"--timeout={TIMEOUT_S}",
        f"--osv-url={osv_url}",
        "-r",
        lock,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
    if done.stdout.strip():
        return tell(json.loads(done.stdout)["dependencies"])
    if is_offline(done.stderr):
        print(f"Not audited: the advisory service can't be reached ({reason[:200]}).", file=sys.stderr)
        return 0
    print(f"The audit failed: {reason[:500]}", file=sys.stderr)
    return 1


def is_offline(said: str) -> bool:
    words = (
        "ConnectionError",
        "ConnectTimeout",
        "ReadTimeout",
        "ProxyError",
        "SSLError",
        "Could not connect",
        "HTTPError",
    )
    return any(word in said for word in words)


def tell(dependencies: list[dict[str, Any]]) -> int:
    found = [(one, flaw) for one in dependencies for flaw in one.get("vulns", ())]
    for one, flaw in found:
        fixed = ", ".join(flaw.get("fix_versions") or ()) or "no version yet"
        print(f"{one['name']} {one['version']}: {flaw['id']}, fixed in {fixed}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(audit())
