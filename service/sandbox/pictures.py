"""The sandbox's pictures: a landscape drawn from the prompt, with the prompt on it; same prompt, same picture."""

import asyncio
import hashlib
import io
import math
import random
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from service.sandbox.jobs import Order

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

CACHED: Final = 24
LAYERS: Final = 5
FINE_PIXELS: Final = 1_600_000
MAX_LINES: Final = 4
MIN_BAND_SIDE: Final = 160
WHITE: Final[Colour] = (255, 255, 255)
GLOW: Final = [round(max(0.0, 1 - distance / 180) ** 2 * 158) for distance in range(256)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """The colours of one time of day; hills go from `far` to `near`."""

    zenith: Colour
    middle: Colour
    horizon: Colour
    sun: Colour
    far: Colour
    near: Colour
    stars: bool = False


PALETTES: Final = (
    Palette(
        zenith=(44, 62, 112),
        middle=(196, 108, 122),
        horizon=(255, 205, 148),
        sun=(255, 240, 205),
        far=(190, 128, 138),
        near=(40, 30, 58),
    ),
    Palette(
        zenith=(72, 138, 199),
        middle=(146, 196, 226),
        horizon=(240, 244, 230),
        sun=(255, 252, 232),
        far=(150, 190, 196),
        near=(30, 72, 70),
    ),
    Palette(
        zenith=(10, 16, 44),
        middle=(30, 44, 92),
        horizon=(92, 108, 158),
        sun=(240, 240, 226),
        far=(64, 78, 126),
        near=(8, 12, 28),
        stars=True,
    ),
    Palette(
        zenith=(92, 54, 102),
        middle=(232, 110, 94),
        horizon=(255, 214, 120),
        sun=(255, 246, 214),
        far=(206, 112, 104),
        near=(58, 24, 52),
    ),
    Palette(
        zenith=(126, 160, 178),
        middle=(188, 206, 206),
        horizon=(246, 232, 214),
        sun=(255, 250, 240),
        far=(170, 186, 182),
        near=(58, 82, 78),
    ),
    Palette(
        zenith=(6, 24, 44),
        middle=(20, 92, 98),
        horizon=(126, 206, 166),
        sun=(226, 255, 238),
        far=(36, 96, 104),
        near=(4, 18, 28),
        stars=True,
    ),
)


class Studio:
    """Draws pictures in two threads and caches the last few."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-picture")
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    async def draw(self, order: Order, index: int) -> bytes:
        """Return the encoded picture; `index` counts the pictures of one order from 0."""
        wanted = (order.prompt, order.width, order.height, order.picture_format, index)
        if wanted not in self._kept:
            loop = asyncio.get_running_loop()
            self._kept[wanted] = await loop.run_in_executor(self._threads, draw, *wanted)
        self._kept.move_to_end(wanted)
        picture = self._kept[wanted]
        while len(self._kept) > CACHED:
            self._kept.popitem(last=False)
        return picture

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def draw(prompt: str, width: int, height: int, picture_format: str, index: int) -> bytes:
    seed = hashlib.sha256(f"{index}/{prompt}".encode()).digest()
    scene = _Scene(random.Random(seed), width, height).paint()
    if min(width, height) >= MIN_BAND_SIDE:
        scene = _caption(scene, prompt)
    encoded = io.BytesIO()
    scene.save(encoded, picture_format.upper(), quality=88, compress_level=3)
    return encoded.getvalue()


class _Scene:
    """A landscape, drawn at twice the size and reduced, so that its edges are smooth."""

    def __init__(self, dice: random.Random, width: int, height: int) -> None:
        self._dice = dice
        self._scale = 2 if width * height <= FINE_PIXELS else 1
        self._width, self._height = width * self._scale, height * self._scale
        self._size = (self._width, self._height)
        self._palette = dice.choice(PALETTES)
        self._horizon = dice.uniform(0.5, 0.64)

    def paint(self) -> Image.Image:
        picture = self._sky()
        if self._palette.stars:
            self._add_stars(picture)
        self._add_sun(picture)
        for depth in range(LAYERS):
            self._add_hills(picture, depth / (LAYERS - 1))
        return picture.reduce(self._scale) if self._scale > 1 else picture

    def _sky(self) -> Image.Image:
        palette = self._palette
        fall = Image.linear_gradient("L").resize((1, round(self._height * (self._horizon + 0.08))))
        column = Image.new("L", (1, self._height), 255)
        column.paste(fall)
        sky = ImageOps.colorize(column, palette.zenith, palette.horizon, palette.middle, midpoint=150)
        return sky.resize(self._size)

    def _add_stars(self, picture: Image.Image) -> None:
        pen = ImageDraw.Draw(picture)
        for _ in range(220):
            x, y = self._dice.random() * self._width, self._dice.random() ** 1.6 * self._height * self._horizon
            radius = self._dice.uniform(0.3, 1.0) * self._width / 900
            light = self._dice.randint(150, 250)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(light, light, light))

    def _add_sun(self, picture: Image.Image) -> None:
        x = self._dice.uniform(0.18, 0.82) * self._width
        y = self._dice.uniform(0.22, 0.9) * self._height * self._horizon
        radius = self._dice.uniform(0.035, 0.075) * min(self._size)
        glow = Image.radial_gradient("L").point(GLOW)
        reach = round(radius * 8)
        picture.paste(self._palette.sun, (round(x - reach), round(y - reach)), glow.resize((2 * reach, 2 * reach)))
        ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=self._palette.sun)

    def _add_hills(self, picture: Image.Image, nearness: float) -> None:
        """Draw one ridge, from the farthest (0) to the nearest (1); mist brightens its foot."""
        palette = self._palette
        colour = _blend(palette.far, palette.near, nearness**0.8)
        ridge = list(self._ridge(nearness))
        top = max(0, math.floor(min(y for _, y in ridge)))
        shape = Image.new("L", (self._width, self._height - top))
        corners = [(self._width, self._height), (0, self._height)]
        ImageDraw.Draw(shape).polygon([(x, y - top) for x, y in [*ridge, *corners]], fill=255)
        mist = _blend(colour, palette.horizon, 0.42 * (1 - nearness))
        rise = Image.linear_gradient("L").resize((1, shape.height))
        picture.paste(ImageOps.colorize(rise, colour, mist).resize(shape.size), (0, top), shape)

    def _ridge(self, nearness: float) -> Iterator[tuple[float, float]]:
        """Yield the points of a ridge: a sum of waves, rougher for farther ridges."""
        base = self._height * (self._horizon + (1.02 - self._horizon) * nearness**1.25 * 0.72)
        swing = self._height * (0.075 - 0.03 * nearness)
        waves = [
            (self._dice.uniform(0.8, 1.3) * 1.9**octave, self._dice.random() * math.tau, 0.52**octave)
            for octave in range(6 if nearness < 0.6 else 4)
        ]
        for step in range(257):
            across = step / 256
            bend = sum(math.sin(across * math.tau * pitch + phase) * weight for pitch, phase, weight in waves)
            yield across * self._width, base - swing * bend


def _blend(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _caption(scene: Image.Image, prompt: str) -> Image.Image:
    """Write the prompt on a frosted band at the foot of the picture."""
    width, height = scene.size
    unit = max(6.0, math.sqrt(width * height) / 100)
    font, small = ImageFont.load_default(unit * 3.4), ImageFont.load_default(unit * 1.9)
    margin, padding = round(unit * 3), round(unit * 2.4)
    lines = _wrap(_plain(prompt[:400]), font, width - 2 * (margin + padding))
    step = round(unit * 4.5)
    top = height - margin - 2 * padding - len(lines) * step - round(unit * 2.4)
    _frost(scene, (margin, top, width - margin, height - margin), round(unit * 1.6))
    pen = ImageDraw.Draw(scene)
    for number, line in enumerate(lines):
        pen.text((margin + padding, top + padding + number * step), line, WHITE, font)
    foot = f"sandbox  \u00b7  {width} x {height}"
    pen.text((margin + padding, height - margin - padding), foot, (214, 220, 228), small, anchor="ls")
    return scene


def _frost(scene: Image.Image, box: tuple[int, int, int, int], radius: int) -> None:
    glass = scene.crop(box).filter(ImageFilter.GaussianBlur(radius))
    glass = Image.blend(glass, Image.new("RGB", glass.size, (16, 20, 32)), 0.52)
    mask = Image.new("L", glass.size)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, glass.width - 1, glass.height - 1), radius, fill=255)
    scene.paste(glass, box, mask)


def _plain(text: str) -> str:
    """Remove accents, which the bundled font lacks."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


def _wrap(text: str, font: Font, room: float) -> list[str]:
    """Return at most MAX_LINES lines that fit; a word longer than a line is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(_cut(word, font, room))
    lines = [line for line in lines if line]
    if len(lines) > MAX_LINES:
        return [*lines[: MAX_LINES - 1], _cut(lines[MAX_LINES - 1], font, room - font.getlength(" ...")) + " ..."]
    return lines


def _cut(word: str, font: Font, room: float) -> str:
    while len(word) > 1 and font.getlength(word) > room:
        word = word[: max(1, len(word) * 9 // 10)]
    return word
