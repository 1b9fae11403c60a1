"""Certificates for tests, made by openssl."""

import subprocess
from pathlib import Path

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Authority:
    """A certificate authority in a folder; `issue` writes NAME.pem and NAME.key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run("req", "-x509", *KEY, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA", "-days", "2")

    def issue(self, name: str, host: str, days: int) -> None:
        (self.folder / "san").write_text(f"subjectAltName=DNS:{host}\n")
        self._run("req", *KEY, "-keyout", f"{name}.key", "-out", "csr", "-subj", f"/CN={host}")
        signer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-extfile", "san"]
        self._run("x509", "-req", "-in", "csr", *signer, "-days", str(days), "-out", f"{name}.pem")

    def self_sign(self, name: str, host: str) -> None:
        names = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
        self._run("req", "-x509", *KEY, "-keyout", f"{name}.key", "-out", f"{name}.pem", *names, "-days", "2")

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)
