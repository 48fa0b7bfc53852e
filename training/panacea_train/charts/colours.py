"""Colours of values, preferences and models."""

import math
from collections.abc import Sequence

VIRIDIS = (
    "#440154", "#48186a", "#472d7b", "#424086", "#3b528b", "#33638d", "#2c728e", "#26828e", "#21918c",
    "#1fa088", "#28ae80", "#3fbc73", "#5ec962", "#84d44b", "#addc30", "#d8e219", "#fde725",
)  # fmt: skip
"""Every 16th colour of viridis (van der Walt & Smith 2015, as in matplotlib): equal steps look equal, also in grey."""

MODELS = ("#0077bb", "#cc5a11", "#008a72", "#b03a8c", "#7a6a00", "#6b6b6b")
"""One per model of a comparison: at least 3 : 1 against both pages' backgrounds, apart for the colour-blind."""

HUES = {2: (55.0, 265.0), 3: (55.0, 165.0, 290.0)}
"""Degrees in OKLab, per dimension."""
LIGHTNESS = 0.62
"""The same for all preferences, readable on light and dark backgrounds."""
CHROMA = 0.14

_LMS = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
_RGB = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


def of_model(index: int) -> str:
    """The colour of one model of a comparison."""
    return MODELS[index % len(MODELS)]


def of_value(share: float) -> str:
    """The colour of a value at `share`, 0 to 1, of its scale: linear between the entries of `VIRIDIS`."""
    place = min(max(share, 0.0), 1.0) * (len(VIRIDIS) - 1)
    below = min(int(place), len(VIRIDIS) - 2)
    low, high = _channels(VIRIDIS[below]), _channels(VIRIDIS[below + 1])
    return _hex([a + (b - a) * (place - below) for a, b in zip(low, high, strict=True)])


def of_preference(preference: Sequence[float]) -> str:
    """Two or three hues, mixed by weight: grey where they balance.

    A weighted mean in OKLab's plane of hue (Ottosson 2020, "A perceptual color space for image processing"), at one
    lightness.
    """
    hues = [math.radians(hue) for hue in HUES[len(preference)]]
    total = sum(preference) or 1.0
    a = CHROMA * sum(weight * math.cos(hue) for weight, hue in zip(preference, hues, strict=True)) / total
    b = CHROMA * sum(weight * math.sin(hue) for weight, hue in zip(preference, hues, strict=True)) / total
    lms = [(row[0] * LIGHTNESS + row[1] * a + row[2] * b) ** 3 for row in _LMS]
    return _hex([255 * _gamma(sum(x * y for x, y in zip(row, lms, strict=True))) for row in _RGB])


def ink_on(colour: str) -> str:
    """Black or white, whichever is easier to read on `colour`."""
    return "#000000" if contrast(colour, "#000000") > contrast(colour, "#ffffff") else "#ffffff"


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio, 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    linear = [(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in _scaled(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _gamma(linear: float) -> float:
    linear = min(max(linear, 0.0), 1.0)
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


def _scaled(colour: str) -> list[float]:
    return [channel / 255 for channel in _channels(colour)]


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _hex(channels: Sequence[float]) -> str:
    return "#" + "".join(f"{round(channel):02x}" for channel in channels)
