"""Additional checks of the run over the OpenAPI document, which loads this module."""

import re
from typing import Any

import schemathesis

BEYOND_THE_SCHEMA = (
    r"query\.cursor: is not one that this listing gave",
    r"(query|body)\.(created_after|created_before|since|until): must be an RFC 3339 time.*",
    r"body\.since: must lie before until.*",
    r"query\.types: must be some of .*",
    r"body\.model: (is not known.*|needs .*)",
    r"body\.input(\..*)?: .*",
    r"body\.filter\.(providers|models|accounts)\.\d+: .*",
    r"body\.account: is not known.*",
    r"body\.headers\..*",
    r"body\.(url|webhook_url): .*",
    r"(body|query)[^:]*: holds a NUL.*",
    r"body\..*: expected int, got float",
)
"""What a schema can't say: what a model takes, which address is public, which cursor was given, which time there is.

And 5.0, which JSON Schema counts among the integers.
"""


@schemathesis.check
def good_data_is_refused_only_for_what_a_schema_can_not_say(ctx: Any, response: Any, case: Any) -> None:
    is_good = case.meta is not None and case.meta.generation.mode.is_positive
    if response.status_code == 422 and is_good:
        for error in response.json()["errors"]:
            told = f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
            known = any(re.fullmatch(pattern, told, re.DOTALL) for pattern in BEYOND_THE_SCHEMA)
            assert known, f"a good request was refused: {told}"


@schemathesis.check
def every_refusal_is_a_problem_with_a_reason(ctx: Any, response: Any, case: Any) -> None:
    if response.status_code >= 400 and case.method.upper() != "HEAD":
        body = response.json()
        assert body["status"] == response.status_code or case.path == "/readyz"
        assert body["detail"] and body["title"]
        assert (response.status_code == 422) == ("errors" in body)
