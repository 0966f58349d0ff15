"""Words of WikiText-2 in matplotlib's DejaVu fonts on photos: the same for everybody."""

from __future__ import annotations

import importlib.util
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tools.studies.packages.boxes import Boxes

FACES = ("Sans", "Sans-Bold", "Sans-Oblique", "Serif", "Serif-Bold", "SansMono")
SIDE = 320
"""Height and width of a picture, in pixels."""
TEXTS = (3, 8)
"""How many texts a picture has: from, to below."""
SIZES = (18, 40)
"""Heights of letters, in pixels."""
TURNED = 3.0
"""The most that a text is turned, in degrees."""
BLUR, NOISE = 1.0, 8.0
"""The largest radius in pixels, and the largest standard deviation in shades of 255."""
ROOM = 6
"""Pixels that stay free around a text."""

Rng = np.random.Generator


@dataclass(frozen=True)
class Source:
    """What pictures are made of.

    Attributes:
        words: Words of three to eleven Latin letters, in the text's order.
        photos: What they are written on.
        numbers: Those of the pictures (and lines) that are drawn of it, so that no two parts share
            a draw.
    """

    words: Sequence[str]
    photos: Sequence[Image.Image]
    numbers: range


@cache
def calibration(root: Path) -> Source:
    """Return the words of the validation text, and every other photo."""
    return Source(_words(root / "wikitext2_valid.txt"), photos(root, 0), range(256))


@cache
def judging(root: Path) -> Source:
    """Return the words of the test text, and the photos that are not calibrated on."""
    return Source(_words(root / "wikitext2_test.txt"), photos(root, 1), range(1000, 1512))


def _words(file: Path) -> list[str]:
    return re.findall(r"(?<!\S)[A-Za-z]{3,11}(?!\S)", file.read_text(encoding="utf-8"))


def photos(root: Path, first: int) -> list[Image.Image]:
    """Return every other photo, beginning with the first or the second."""
    with zipfile.ZipFile(root / "imagenet_sample_125.zip") as archive:
        names = sorted(archive.namelist())[first::2]
        return [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]


def classes(root: Path, first: int) -> list[int]:
    """Return the classes of the same photos, which their names begin with."""
    with zipfile.ZipFile(root / "imagenet_sample_125.zip") as archive:
        return [int(name[:3]) for name in sorted(archive.namelist())[first::2]]


@cache
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    """Return one of the fonts that lie inside matplotlib, which is not imported."""
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None and spec.origin is not None
    fonts = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(fonts / f"DejaVu{face}.ttf"), size)


def draw_picture(source: Source, number: int) -> tuple[Image.Image, Boxes]:
    """Return a picture with some texts, and their boxes [texts, 4]; the number decides all of it.

    Args:
        source: Words and photos.
        number: The picture's; the photos take turns.
    """
    rng = np.random.default_rng((1, number))
    picture = _cover(source.photos[number % len(source.photos)], SIDE)
    boxes: list[tuple[int, int, int, int]] = []
    for _ in range(rng.integers(*TEXTS)):
        text = " ".join(_draw_words(source, rng, int(rng.integers(1, 3))))
        mask = _draw_mask(text, int(rng.integers(*SIZES)), rng)
        place = _free_place(mask.size, boxes, rng)
        if place is not None:
            _write(picture, mask, place, rng)
            boxes.append((*place, place[0] + mask.width, place[1] + mask.height))
    return _spoil(picture, rng), np.array(boxes, dtype=float).reshape(-1, 4)


def draw_line(source: Source, number: int) -> tuple[Image.Image, str]:
    """Return a word on a piece of a photo as large as its box, and the word."""
    rng = np.random.default_rng((2, number))
    (word,) = _draw_words(source, rng, 1)
    mask = _draw_mask(word, int(rng.integers(*SIZES)), rng)
    left, top, right, bottom = (int(each) for each in rng.integers(1, ROOM, 4))
    width, height = mask.width + left + right, mask.height + top + bottom
    photo = _cover(source.photos[number % len(source.photos)], max(SIDE, width))
    x, y = (int(rng.integers(photo.width - size + 1)) for size in (width, height))
    piece = photo.crop((x, y, x + width, y + height))
    _write(piece, mask, (left, top), rng)
    return _spoil(piece, rng), word


def _draw_words(source: Source, rng: Rng, count: int) -> Iterator[str]:
    begin = int(rng.integers(len(source.words) - count))
    yield from source.words[begin : begin + count]


def _cover(photo: Image.Image, side: int) -> Image.Image:
    """Return the photo's middle square at this size."""
    short = min(photo.size)
    left, top = (photo.width - short) // 2, (photo.height - short) // 2
    square = photo.crop((left, top, left + short, top + short))
    return square.resize((side, side), Image.Resampling.BICUBIC)


def _draw_mask(text: str, size: int, rng: Rng) -> Image.Image:
    """Return where the ink of a text is, turned a little, no larger than its ink."""
    font = _font(FACES[rng.integers(len(FACES))], size)
    left, top, right, bottom = font.getbbox(text)
    mask = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(mask).text((1 - left, 1 - top), text, fill=255, font=font)
    angle = float(rng.uniform(-TURNED, TURNED))
    turned = mask.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    return turned.crop(turned.point(lambda ink: 255 * (ink > 64)).getbbox())


def _free_place(
    size: tuple[int, int], boxes: Sequence[tuple[int, int, int, int]], rng: Rng, tries: int = 20
) -> tuple[int, int] | None:
    """Return left and top of a place where a text lies apart from the others; None: none found."""
    width, height = size
    if width + 2 * ROOM > SIDE:
        return None
    for _ in range(tries):
        x, y = (int(rng.integers(ROOM, SIDE - each - ROOM + 1)) for each in size)
        apart = (
            x > right + 2 * ROOM
            or x + width + 2 * ROOM < left
            or y > bottom + 2 * ROOM
            or y + height + 2 * ROOM < top
            for left, top, right, bottom in boxes
        )
        if all(apart):
            return x, y
    return None


def _write(picture: Image.Image, mask: Image.Image, place: tuple[int, int], rng: Rng) -> None:
    """Paint the ink in place: light on what is dark, dark on what is light, in some colour."""
    x, y = place
    below = picture.crop((x, y, x + mask.width, y + mask.height)).convert("L")
    is_dark = float(np.asarray(below).mean()) < 128
    shades = rng.integers(190, 256, 3) if is_dark else rng.integers(0, 66, 3)
    picture.paste(tuple(int(shade) for shade in shades), (x, y), mask)


def _spoil(picture: Image.Image, rng: Rng) -> Image.Image:
    """Return the picture a little out of focus and noisy."""
    blurred = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, BLUR))))
    shades = np.asarray(blurred, dtype=float)
    noisy = shades + rng.normal(0, float(rng.uniform(0, NOISE)), shades.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
