"""The machine: how many files may be open, which file system a path lies on, how much room is left."""

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from service.doctor.finding import Finding, fail, ok, warn

FILES_MIN, FILES_GOOD = 1_300, 4_096
"""Open files for connections to providers, endpoints and a few callers; and for some thousand callers."""
FREE_MIN, FREE_GOOD = 200 << 20, 2 << 30
NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "lustre", "afs", "fuse.sshfs", "fuse.gluster", "beegfs")
IN_MEMORY = ("tmpfs", "ramfs")
MOUNTS = Path("/proc/self/mountinfo")


def check_machine() -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield judge_files(2**31 if hard == resource.RLIM_INFINITY else hard)


def judge_files(limit: int) -> Finding:
    check, advice = "open files", "Raise it: LimitNOFILE= of systemd, --ulimit nofile= of Docker."
    if limit < FILES_MIN:
        return fail(check, f"At most {limit} may be open: connections will be refused.", advice)
    if limit < FILES_GOOD:
        return warn(check, f"At most {limit} may be open: few callers at once.", advice)
    return ok(check, f"{limit} may be open.")


def check_place(folder: Path) -> Iterator[Finding]:
    """The file system below a database file."""
    yield judge_filesystem(find_filesystem(str(folder.resolve()), _mounts()))
    free = shutil.disk_usage(folder).free
    advice = "Make room, or lower TASKHOOK_RETENTION_DAYS."
    if free < FREE_MIN:
        yield fail("disk space", f"{free >> 20} MiB are free: soon nothing can be written.", advice)
    elif free < FREE_GOOD:
        yield warn("disk space", f"{free >> 20} MiB are free.", advice)
    else:
        yield ok("disk space", f"{free >> 30} GiB are free.")


def judge_filesystem(kind: str) -> Finding:
    check = "file system"
    if kind.startswith(NETWORK):
        says = f"The database lies on {kind}: SQLite loses data on network file systems."
        return fail(check, says, "Move it to a local disk, or use PostgreSQL.")
    if kind in IN_MEMORY:
        return warn(check, f"The database lies on {kind}: it is gone after a restart.", "Move it to a disk.")
    if kind == "overlay":
        says = "The database lies in the container's own layer: it is gone with the container."
        return warn(check, says, "Mount a volume, and put it there.")
    return ok(check, f"A local one ({kind}).") if kind else ok(check, "Not told by this system.")


def find_filesystem(path: str, mounts: str) -> str:
    """The type of the deepest mount above the path; empty if the system does not report it."""
    found = (-1, "")
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].replace("\\040", " ")
        if os.path.commonpath([path, point]) == point and len(point) >= found[0]:
            found = (len(point), right.split(" ")[0])
    return found[1]


def _mounts() -> str:
    return MOUNTS.read_text("utf-8", "replace") if MOUNTS.exists() else ""
