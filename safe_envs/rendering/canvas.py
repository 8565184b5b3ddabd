"""Flat drawings: a view from above, and a canvas that draws in meters or in pixels."""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Point = Sequence[float] | npt.NDArray[np.float64]
Color = tuple[int, int, int] | tuple[int, int, int, int]
Frame = npt.NDArray[np.uint8]

INK: Color = (38, 50, 64)
SOFT_INK: Color = (110, 122, 135)
PAPER: Color = (246, 247, 249)
FAINT: Color = (228, 231, 236)
WALL: Color = (96, 108, 122)
UNSAFE = (222, 68, 52)
SAFE = (38, 139, 130)
WARNING = (235, 160, 40)

SUPERSAMPLING = 2  # smooths edges


@dataclass(frozen=True, kw_only=True)
class View:
    """The part of the plane that a square picture shows, seen from above with +y upwards.

    Attributes:
        center: Of the picture, (x, y) [m].
        half_size: From the center to the upper edge [m].
    """

    center: tuple[float, float]
    half_size: float

    def scale(self, size: tuple[int, int]) -> float:
        """Pixels per meter in a picture of (width, height) pixels."""
        return size[1] / (2.0 * self.half_size)

    def pixel(self, point: Point, size: tuple[int, int]) -> tuple[float, float]:
        """Returns where (x, y) [m] appears in a picture of (width, height) pixels."""
        scale = self.scale(size)
        return (
            size[0] / 2 + scale * (point[0] - self.center[0]),
            size[1] / 2 - scale * (point[1] - self.center[1]),
        )


def with_alpha(color: Color, alpha: float) -> Color:
    """Returns the color with an opacity in [0, 1]."""
    return (*color[:3], round(255 * alpha))


class Canvas:
    """A picture to draw on. Lengths are meters of its view, or pixels of the finished picture.

    Args:
        background: A frame `(height, width, 3)` to draw over, or a color.
        size: Width and height in pixels, if the background is a color.
        view: Which part of the plane it shows. None: lengths are pixels, y downwards.
    """

    def __init__(
        self,
        background: Frame | Color,
        size: tuple[int, int] | None = None,
        view: View | None = None,
    ):
        if isinstance(background, np.ndarray):
            image = Image.fromarray(background)
            self.size = image.size
            big = (SUPERSAMPLING * self.size[0], SUPERSAMPLING * self.size[1])
            self._image = image.resize(big, Image.Resampling.NEAREST)
        else:
            assert size is not None
            self.size = size
            big = (SUPERSAMPLING * size[0], SUPERSAMPLING * size[1])
            self._image = Image.new("RGB", big, background)
        self._draw = ImageDraw.Draw(self._image, "RGBA")  # this mode blends translucent colors
        self.view = view

    def _at(self, point: Point) -> tuple[float, float]:
        x, y = point if self.view is None else self.view.pixel(point, self.size)
        return SUPERSAMPLING * x, SUPERSAMPLING * y

    def _length(self, length: float) -> float:
        return SUPERSAMPLING * length * (1.0 if self.view is None else self.view.scale(self.size))

    def polygon(self, points: Iterable[Point], fill: Color) -> None:
        """Fills a polygon."""
        self._draw.polygon([self._at(point) for point in points], fill=fill)

    def line(
        self, points: Iterable[Point], color: Color, width: float = 1.5, closed: bool = False
    ) -> None:
        """Draws a line through points; its width is in pixels, always."""
        path = [self._at(point) for point in points]
        path = path + path[:2] if closed else path
        self._draw.line(path, fill=color, width=round(SUPERSAMPLING * width), joint="curve")

    def disc(
        self,
        center: Point,
        radius: float,
        fill: Color | None = None,
        outline: Color | None = None,
        width: float = 1.5,
    ) -> None:
        """Draws a disc, a circle or both; the outline's width is in pixels."""
        x, y = self._at(center)
        r = self._length(radius)
        self._draw.ellipse(
            (x - r, y - r, x + r, y + r),
            fill=fill,
            outline=outline,
            width=round(SUPERSAMPLING * width),
        )

    def rectangle(
        self, corner: Point, other: Point, fill: Color, radius: float = 0.0, **outline: Any
    ) -> None:
        """Fills an upright rectangle with rounded corners (radius in pixels)."""
        (x0, y0), (x1, y1) = self._at(corner), self._at(other)
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        self._draw.rounded_rectangle(box, SUPERSAMPLING * radius, fill=fill, **outline)

    def text(
        self, position: Point, text: str, color: Color = INK, size: float = 15, anchor: str = "ls"
    ) -> None:
        """Writes a line; the anchor is Pillow's, "ls" starts it on the base line."""
        font = _font(round(SUPERSAMPLING * size))
        self._draw.text(self._at(position), text, fill=color, font=font, anchor=anchor)

    def frame(self) -> Frame:
        """Returns the finished picture, `(height, width, 3)`."""
        return np.array(self._image.reduce(SUPERSAMPLING))


def turned_box(
    center: Point, length: float, width: float, yaw: float, shift: Point = (0.0, 0.0)
) -> list[tuple[float, float]]:
    """Corners of a box that is turned by `yaw` [rad], and shifted in its own frame."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    corners = [(length, width), (-length, width), (-length, -width), (length, -width)]
    local = [(x / 2 + shift[0], y / 2 + shift[1]) for x, y in corners]
    return [(center[0] + cos * x - sin * y, center[1] + sin * x + cos * y) for x, y in local]


@functools.cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
