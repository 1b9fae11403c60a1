"""A finding: a grade, a sentence, and what to do; never a secret."""

from typing import Literal

import msgspec

Grade = Literal["ok", "warn", "fail", "skipped"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`advice` is empty where nothing is to be done."""

    check: str
    grade: Grade
    says: str
    advice: str = ""


def ok(check: str, says: str) -> Finding:
    return Finding(check=check, grade="ok", says=says)


def warn(check: str, says: str, advice: str) -> Finding:
    return Finding(check=check, grade="warn", says=says, advice=advice)


def fail(check: str, says: str, advice: str) -> Finding:
    return Finding(check=check, grade="fail", says=says, advice=advice)


def skipped(check: str, says: str) -> Finding:
    return Finding(check=check, grade="skipped", says=says)
