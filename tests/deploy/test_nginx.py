"""The service behind a real nginx: with its defaults, below a path, and with deploy/nginx.conf."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.deploy.files import DEPLOY
from tests.support.service import API_KEY, Service, free_port
from tests.support.wait import PATIENCE_S, patience, until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx here (Debian: apt-get install nginx-light)")
KEY = {"Authorization": f"Bearer {API_KEY}"}

DEFAULTS = "server { listen 127.0.0.1:PORT; location / { proxy_pass http://127.0.0.1:UPSTREAM; } }"
"""As short as people write it: HTTP/1.0 towards the service, buffered, 60 s for an answer."""
STRIPPED = "server { listen 127.0.0.1:PORT; location /hooks/ { proxy_pass http://127.0.0.1:UPSTREAM/; } }"
PASSED_ON = "server { listen 127.0.0.1:PORT; location /hooks/ { proxy_pass http://127.0.0.1:UPSTREAM; } }"


def shipped(directory: Path) -> str:
    """deploy/nginx.conf with the names of this test, a certificate of its own, and nothing else changed."""
    certificate = ("-subj", "/CN=taskhook.example.com", "-days", "1", "-nodes", "-newkey", "rsa:2048", "-x509")
    files = ("-keyout", directory / "taskhook.key", "-out", directory / "taskhook.pem")
    subprocess.run(("openssl", "req", *certificate, *files), check=True, capture_output=True)
    text = (DEPLOY / "nginx.conf").read_text()
    text = text.replace("listen 443 ssl;", "listen 127.0.0.1:PORT ssl;").replace("127.0.0.1:8000", "127.0.0.1:UPSTREAM")
    return text.replace("/etc/ssl/", f"{directory}/").replace("/var/log/nginx/", f"{directory}/")


@asynccontextmanager
async def proxied(site: str, directory: Path, service: Service, port: int) -> AsyncIterator[None]:
    text = site.replace("PORT", str(port)).replace("UPSTREAM", str(service.port))
    paths = "".join(
        f"{name}_temp_path {directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log;\n"
        f"events {{}} http {{ access_log {directory}/access.log; {paths}\n{text}\n}}\n"
    )
    command = (NGINX, "-e", str(directory / "error.log"), "-p", str(directory), "-c", str(directory / "nginx.conf"))
    process = await asyncio.create_subprocess_exec(*[str(word) for word in command])
    try:
        await until(lambda: _listens(port), what="nginx listens")
        yield
    finally:
        process.terminate()
        async with patience():
            await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def service_behind(site: str, directory: Path, path: str = "", **env: str) -> AsyncIterator[tuple[Service, str]]:
    """A service whose callbacks come through nginx, in the sandbox, and the public URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}{path}"
    service = Service(directory, env={"TASKHOOK_SANDBOX": "true", "TASKHOOK_PUBLIC_URL": url} | env)
    try:
        await service.start()
        async with proxied(site, directory, service, port):
            yield service, url
    finally:
        await service.close()


async def create(client: httpx.AsyncClient, url: str) -> httpx.Response:
    body = {"model": "fluxapi-ai/flux-kontext-pro", "input": {"prompt": "a lighthouse"}}
    return await client.post(f"{url}/v1/tasks", json=body, headers=KEY)


@pytest.mark.parametrize(("site", "path"), [(DEFAULTS, ""), (STRIPPED, "/hooks"), (PASSED_ON, "/hooks")])
async def test_a_task_is_created_called_back_and_waited_for_through_it(tmp_path: Path, site: str, path: str) -> None:
    async with service_behind(site, tmp_path, path) as (_, url), httpx.AsyncClient(timeout=PATIENCE_S) as client:
        made = await create(client, url)
        assert (made.status_code, made.headers["location"]) == (202, f"{path}/v1/tasks/{made.json()['id']}")
        ended = (await client.get(f"{url}/v1/tasks/{made.json()['id']}?wait=55", headers=KEY)).json()
        assert (ended["status"], ended["tracking"]["via"]) == ("succeeded", "callback")
        page = (await client.get(f"{url}/")).text
        style = re.search(r'rel="stylesheet" href="([^"]+)"', page)
        assert style and style[1].startswith(f"{path}/assets/")
        assert (await client.get(f"{url.removesuffix(path)}{style[1]}")).status_code == 200
        signed_in = await client.post(
            f"{url}/sign-in", data={"key": API_KEY}, headers={"Sec-Fetch-Site": "same-origin"}
        )
        assert (signed_in.status_code, signed_in.headers["location"]) == (303, f"{path}/")
        assert f"; Path={path or '/'};" in signed_in.headers["set-cookie"]
        assert "Overview" in (await client.get(f"{url}/")).text
        assert (await client.get(f"{url}/openapi.json")).json()["servers"][0]["url"] == (path or "/")


@pytest.mark.parametrize("site", [DEFAULTS, STRIPPED], ids=["defaults", "sub-path"])
async def test_an_event_of_a_stream_is_not_held_back_by_its_buffers(tmp_path: Path, site: str) -> None:
    path = "/hooks" if site == STRIPPED else ""
    async with (
        service_behind(site, tmp_path, path) as (_, url),
        httpx.AsyncClient(timeout=PATIENCE_S) as client,
        client.stream("GET", f"{url}/v1/events/stream", headers=KEY) as stream,
    ):
        assert stream.status_code == 200
        made = await create(client, url)
        async for line in stream.aiter_lines():  # fails by the client's timeout if nothing comes
            if line.startswith("data:"):
                assert made.json()["id"] in line
                break


async def test_the_file_in_deploy_keeps_connections_and_hides_tickets_and_what_is_inside(tmp_path: Path) -> None:
    site, port = shipped(tmp_path), free_port()
    service = Service(tmp_path, env={"TASKHOOK_SANDBOX": "true", "TASKHOOK_TRUSTED_PROXIES": "127.0.0.1"})
    url, client = f"https://127.0.0.1:{port}", httpx.AsyncClient(timeout=PATIENCE_S, verify=False)
    try:
        await service.start()
        async with proxied(site, tmp_path, service, port), client:
            task_id = (await create(client, url)).json()["id"]
            ticket = (await client.post(f"{url}/v1/tasks/{task_id}/ticket", json={}, headers=KEY)).json()["ticket"]
            assert (await client.get(f"{url}/v1/tasks/{task_id}?ticket={ticket}")).status_code == 200
            await client.post(f"{url}/callbacks/acedata/a-forged-token", json={})
            assert [(await client.get(url + inside)).status_code for inside in ("/metrics", "/readyz")] == [404, 404]
            secure = await client.post(
                f"{url}/sign-in", data={"key": API_KEY}, headers={"Sec-Fetch-Site": "same-origin"}
            )
            assert "; Secure" in secure.headers["set-cookie"]
            assert secure.headers["set-cookie"].startswith("__Host-")
            await until(lambda: _logged(tmp_path, "a-forged-token", "(token hidden)"), what="nginx wrote its log")
            log = (tmp_path / "taskhook.log").read_text()
            assert ticket not in log and "(ticket hidden)" in log and "a-forged-token" not in log
    finally:
        await service.close()


async def _logged(directory: Path, *words: str) -> bool:
    text = (directory / "taskhook.log").read_text()
    return any(word in text for word in words)


def _connections_to(port: int) -> set[str]:
    """Local ends of established connections to the port, by the kernel's table."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {row[1] for row in rows if row[2].endswith(f":{port:04X}") and row[3] == "01"}


async def test_a_connection_to_the_service_that_was_idle_for_55_s_is_used_again(tmp_path: Path) -> None:
    """nginx keeps an idle one for 60 s. The clocks of two processes count here, so the time really passes."""
    site, port, service = shipped(tmp_path), free_port(), Service(tmp_path)
    try:
        await service.start()
        async with (
            proxied(site, tmp_path, service, port),
            httpx.AsyncClient(timeout=PATIENCE_S, verify=False) as client,
        ):
            assert (await client.get(f"https://127.0.0.1:{port}/healthz")).status_code == 200
            before = _connections_to(service.port)
            await asyncio.sleep(55)
            assert (await client.get(f"https://127.0.0.1:{port}/healthz")).status_code == 200
            assert _connections_to(service.port) == before != set()
    finally:
        await service.close()
