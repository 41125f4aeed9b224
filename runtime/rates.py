"""Frame rates as fractions: 29.97 is 30000/1001, wherever it is typed, reported or measured."""

from fractions import Fraction

from poseda_deploy.errors import InputError


def exact_fps(fps: float) -> Fraction:
    """The rate meant by a float: 29.97 (which OpenCV itself writes), 29.970029 are 30000/1001; 1 / 3600 is 1/3600."""
    if 0 < fps < 1:  # of a time lapse: the seconds from frame to frame are the round number
        return 1 / Fraction(1 / fps).limit_denominator(1001)
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    return ntsc if abs(float(ntsc) - fps) < 2e-6 * fps else Fraction(fps).limit_denominator(1001)


def exact_rate(flag: str, text: str) -> Fraction:
    """30, 29.97 or 30000/1001, as typed after that flag."""
    try:
        fps = Fraction(text) if "/" in text else exact_fps(float(text))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f"{flag} must be a number or a fraction, got {text!r}") from error
    if fps <= 0:
        raise InputError(f"{flag} must be above 0, got {text}")
    return fps
