"""Lines, dots and writing on a picture, smooth to a fraction of a pixel."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from poseda_deploy.opencv import Image, cv2

Colour = tuple[int, int, int]
"""Blue, green, red, as OpenCV has them."""
Point = Sequence[int]
"""x, y in units of 1 / 2^BITS pixel."""

FULL_HEIGHT_PX = 720
BITS = 4
"""Of a coordinate's fraction, as given to OpenCV: without them slow motion trembles."""


def blended(one: Colour, other: Colour, share: float) -> Colour:
    """The second colour's share laid over the first."""
    b, g, r = (round(a + (c - a) * float(share)) for a, c in zip(one, other, strict=True))
    return b, g, r


def sub_pixel(xy_px: Float[np.ndarray, "n 2"]) -> list[Point]:
    """Sub-pixel coordinates for OpenCV; far outside they are clipped, because it overflows."""
    fixed: list[Point] = (np.clip(xy_px, -8000, 8000) * (1 << BITS)).round().astype(int).tolist()
    return fixed


def draw_line(image: Image, begin: Point, end: Point, colour: Colour, width_px: float) -> None:
    """Between two sub-pixel points, ends round."""
    cv2.line(image, begin, end, colour, max(round(width_px), 1), cv2.LINE_AA, BITS)


def draw_dot(image: Image, at: Point, colour: Colour, radius_px: float) -> None:
    """Filled, about a sub-pixel point."""
    cv2.circle(image, at, round(radius_px * (1 << BITS)), colour, cv2.FILLED, cv2.LINE_AA, BITS)


def write_text(image: Image, text: str, at_px: tuple[float, float], colour: Colour, size: float) -> float:
    """Write with the line's left end at `at_px`, `size` as in a picture of FULL_HEIGHT_PX; where it ends."""
    scale, font = size * len(image) / FULL_HEIGHT_PX, cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(image, text, (round(at_px[0]), round(at_px[1])), font, scale, colour, 1, cv2.LINE_AA)
    return float(at_px[0] + cv2.getTextSize(text, font, scale, 1)[0][0])
