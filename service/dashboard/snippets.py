"""A request as code to paste: the very body that is sent, for a shell and for Python."""

import json
import pprint
import shlex
from typing import Any


def curl_snippet(origin: str, body: dict[str, Any]) -> str:
    text = json.dumps(body, ensure_ascii=False, indent=2)
    return (
        f"curl {shlex.quote(origin + '/v1/tasks')} \\\n"
        '  -H "Authorization: Bearer $TASKHOOK_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(text)}"
    )


def python_snippet(origin: str, body: dict[str, Any]) -> str:
    literal = pprint.pformat(body, width=72, sort_dicts=False).replace("\n", "\n    ")
    return f"""import os

import httpx

task = httpx.post(
    {origin + "/v1/tasks"!r},
    headers={{"Authorization": f"Bearer {{os.environ['TASKHOOK_API_KEY']}}"}},
    json={literal},
).raise_for_status().json()
print(task["id"], task["status"])
"""
