"""Without Taskhook: submit to a provider, ask every two seconds, and begin again from nothing after a restart."""

import os
import sys
import time

import httpx

provider = httpx.Client(
    base_url=os.environ.get("PROVIDER_URL", "https://flux-context.org"),
    headers={"Authorization": f"Bearer {os.environ['PROVIDER_API_KEY']}"},
)


def generate(prompt: str) -> str:
    body = {"model": "flux-kontext-pro", "prompt": prompt}
    submitted = provider.post("/v1/images/generations", json=body).raise_for_status().json()
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        time.sleep(2)
        answer = provider.get(f"/v1/images/generations/{submitted['taskId']}")
        if answer.status_code in (429, 502, 503):
            continue
        found = answer.raise_for_status().json()
        if found["status"] == "completed":
            return found["result"]["url"]
        if found["status"] == "failed":
            raise RuntimeError(found["error"])
    raise TimeoutError(prompt)


print(generate(sys.argv[1]))
