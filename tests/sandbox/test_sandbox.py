"""The sandbox as a whole: keys, bounds, pictures, hostile requests, closing."""

import asyncio
import io

import httpx
import pytest
from PIL import Image

from service.sandbox.pictures import draw
from service.sandbox.reading import pixels
from tests.sandbox.conftest import World, open_world
from tests.support.wait import PATIENCE_S, until

SUBMITS = (
    "/flux-context/v1/images/generations",
    "/fluxapi-ai/api/v1/flux/kontext/generate",
    "/acedata/flux/images",
    "/acedata/flux/tasks",
    "/fluxapi-org/v1/images/generations",
)
BROKEN = {
    "nothing": b"",
    "half": b'{"prompt": "a',
    "no object": b'["prompt"]',
    "a number": b"5",
    "bad UTF-8": b'{"prompt": "\xff"}',
    "half a surrogate pair": b'{"prompt": "\\ud800"}',
    "NaN": b'{"prompt": NaN}',
    "too large a number": b'{"prompt": 1e999}',
    "a very long number": b'{"prompt": ' + b"9" * 6000 + b"}",
    "deep": b"[" * 100_000,
    "a null prompt": b'{"prompt": null}',
    "a prompt of another type": b'{"prompt": {"a": 1}, "action": [], "id": {}}',
}


async def open_picture(world: World, url: str) -> Image.Image:
    response = await world.client.get(url)
    assert response.status_code == 200
    picture = Image.open(io.BytesIO(response.content))
    assert response.headers["content-type"] == f"image/{(picture.format or '').lower()}"
    return picture


@pytest.mark.parametrize("name", BROKEN)
async def test_a_hostile_body_gets_the_providers_own_refusal(world: World, name: str) -> None:
    for path in SUBMITS:
        response = await world.client.post(world.base_url + path, content=BROKEN[name])
        if path.startswith("/fluxapi-ai"):
            assert (response.status_code, response.json()["code"]) == (200, 422)
        else:
            assert response.status_code == 400
            assert response.json()["error"]


async def test_a_huge_body_is_refused(world: World) -> None:
    assert (await world.flux_context("x" * 300_000)).status == 413


async def test_only_the_right_key_is_good_when_there_is_one() -> None:
    async with open_world(key="right") as world:
        assert (await world.flux_context()).status == 401
        assert (await world.fluxapi_org()).status == 401
        world.client.headers["Authorization"] = "bearer right"
        assert (await world.flux_context()).status == 202


@pytest.mark.parametrize("header", ["", "Bearer", "Basic abc", "right"])
async def test_without_a_bearer_key_nothing_works(world: World, header: str) -> None:
    world.client.headers["Authorization"] = header
    statuses = [(await world.submit(provider, "a")).status for provider in ("flux-context", "acedata", "fluxapi-org")]
    assert statuses == [401, 400, 401]
    assert (await world.fluxapi_ai()).body["code"] == 401


async def test_the_oldest_jobs_are_forgotten() -> None:
    async with open_world(max_jobs=2) as world:
        ids = [(await world.flux_context()).body["taskId"] for _ in range(3)]
        assert [(await world.poll("flux-context", task_id)).status for task_id in ids] == [404, 200, 200]


@pytest.mark.parametrize(
    ("fields", "size", "form"),
    [
        ({"aspectRatio": "16:9"}, (1360, 768), "JPEG"),
        ({"aspectRatio": "9:16", "outputFormat": "png"}, (768, 1360), "PNG"),
        ({"aspectRatio": "1:1"}, (1024, 1024), "JPEG"),
    ],
)
async def test_pictures_have_the_ratio_and_format_asked_for(
    world: World, fields: dict[str, object], size: tuple[int, int], form: str
) -> None:
    await world.fluxapi_ai(**fields)  # type: ignore[arg-type]
    [callback] = await world.inbox.expect(1)
    for url in callback["data"]["info"].values():
        picture = await open_picture(world, url)
        assert (picture.size, picture.format) == (size, form)


async def test_pictures_have_the_size_asked_for_and_differ_within_one_order(world: World) -> None:
    done = await world.acedata(size="512x256", count=2, callback_url=None)
    first, second = [await open_picture(world, picture["image_url"]) for picture in done.body["data"]]
    assert first.size == second.size == (512, 256)
    assert first.tobytes() != second.tobytes()


async def test_there_is_no_picture_before_the_end_beyond_the_count_or_of_a_failure(world: World) -> None:
    site = world.sandbox.site
    done = (await world.fluxapi_org(size="64x64")).body["data"][0]["url"]
    assert (await world.client.get(done)).status_code == 200
    stuck = (await world.flux_context("sandbox:stuck")).body["taskId"]
    failed = (await world.flux_context("sandbox:failed")).body["taskId"]
    await world.final("flux-context", failed)
    urls = [f"{site.base_url}/pictures/{task_id}/result-1.png" for task_id in (stuck, failed, "unknown")]
    urls += [done.replace("result-1", other) for other in ("result-2", "result-0", "thumb-1")]
    assert {(await world.client.get(url)).status_code for url in urls} == {404}


async def test_an_original_is_gone_after_ten_minutes_and_the_result_is_not(world: World) -> None:
    await world.fluxapi_ai()
    [callback] = await world.inbox.expect(1)
    urls = callback["data"]["info"]
    job = world.sandbox.site.jobs.find(callback["data"]["taskId"])
    assert job is not None
    assert job.finished_at is not None
    job.finished_at -= 601
    assert (await world.client.get(urls["originImageUrl"])).status_code == 404
    assert (await world.client.get(urls["resultImageUrl"])).status_code == 200


def test_the_same_prompt_draws_the_same_picture() -> None:
    first = draw("a lighthouse", 320, 192, "png", 0)
    assert first == draw("a lighthouse", 320, 192, "png", 0)
    assert first != draw("a harbour", 320, 192, "png", 0)


@pytest.mark.parametrize("prompt", ["", "x" * 3000, "w " * 3000, "\x00\n\t", "\u732b\u200b\U0001f408", "\u00e4\u0301"])
@pytest.mark.parametrize("size", [(64, 64), (2048, 64), (160, 160), (160, 1600)])
def test_any_prompt_can_be_drawn_at_any_size(prompt: str, size: tuple[int, int]) -> None:
    assert Image.open(io.BytesIO(draw(prompt, *size, "jpeg", 0))).size == size


@pytest.mark.parametrize("ratio", ["21:9", "16:9", "4:3", "1:1", "3:4", "9:16", "16:21", "9:21", "4:5"])
def test_a_ratio_becomes_about_a_megapixel(ratio: str) -> None:
    width, height = pixels(ratio)
    wide, high = map(int, ratio.split(":"))
    assert width / height == pytest.approx(wide / high, rel=0.03)
    assert width * height == pytest.approx(1024 * 1024, rel=0.05)


async def test_closing_ends_what_is_held_and_what_is_planned() -> None:
    async with open_world(job_seconds=60) as world:
        held = asyncio.create_task(world.acedata(callback_url=None))
        await world.fluxapi_ai()
        await until(lambda: len(world.sandbox.site.jobs) == 2)
        await world.sandbox.close()
        assert (await held).status == 504
    assert world.inbox.requests == []


async def test_a_client_that_hangs_up_frees_the_request_it_held() -> None:
    async with open_world(job_seconds=60) as world:
        with pytest.raises(httpx.ReadTimeout):
            await world.client.post(
                world.base_url + "/fluxapi-org/v1/images/generations",
                json={"prompt": "sandbox:stuck", "model": "flux-dev"},
                timeout=httpx.Timeout(PATIENCE_S, read=0.1),
            )
        await until(lambda: not world.sandbox.site.jobs.busy)
