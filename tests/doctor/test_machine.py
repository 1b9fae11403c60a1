"""Limits and file systems that a database or many callers do not go well with."""

import pytest

from service.doctor.machine import find_filesystem, judge_files, judge_filesystem

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:20 / /tmp rw - tmpfs tmpfs rw
23 21 0:33 / /srv/my\\040data rw shared:2 master:1 - nfs4 10.0.0.1:/data rw
24 21 0:34 / /srv rw - xfs /dev/sdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/var/lib", "ext4"), ("/tmp/x", "tmpfs"), ("/tmpfoo", "ext4"), ("/srv/my data/db", "nfs4"), ("/srv/my", "xfs")],
)
def test_the_deepest_mount_above_a_path_counts(path: str, kind: str) -> None:
    assert find_filesystem(path, MOUNTS) == kind


def test_a_system_that_does_not_tell_is_no_mistake() -> None:
    assert judge_filesystem(find_filesystem("/var", "")).grade == "ok"


@pytest.mark.parametrize(
    ("kind", "grade"),
    [
        *((kind, "fail") for kind in ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p")),
        *((kind, "warn") for kind in ("tmpfs", "overlay")),
        *((kind, "ok") for kind in ("ext4", "btrfs", "xfs")),
    ],
)
def test_sqlite_belongs_on_a_local_disk(kind: str, grade: str) -> None:
    assert judge_filesystem(kind).grade == grade


@pytest.mark.parametrize(("limit", "grade"), [(1_024, "fail"), (1_300, "warn"), (4_095, "warn"), (4_096, "ok")])
def test_each_connection_is_an_open_file(limit: int, grade: str) -> None:
    assert judge_files(limit).grade == grade
