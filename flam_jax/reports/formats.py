"""Numbers as text. A share or a score below one is never rounded up to one."""

import math


def bounded(value: float | int, digits: int) -> str:
    """A number whose best value is 1, rounded; cut off where rounding would make it 1.

    Args:
      value: the number, for example 0.9996.
      digits: after the decimal point.

    Returns:
      For example `0.999` for three digits.
    """
    scale = 10**digits
    return f"{math.floor(value * scale) / scale if round(value, digits) >= 1 > value else value:.{digits}f}"


def share(value: float | int | None) -> str:
    """A share as a percentage with one digit: 0.9996 is `99.9 %`, None a dash."""
    if value is None:
        return "–"
    return f"{math.floor(1000 * value) / 10 if 99.95 <= 100 * value < 100 else 100 * value:.1f} %"


def count_share(value: float | int | None) -> str:
    """A share of errors: as `share`, but a share above zero is never rounded to zero."""
    return "< 0.1 %" if value is not None and 0 < value < 0.0005 else share(value)


def duration(seconds: float | int) -> str:
    """For example `12 s`, `3.4 min` or `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def short_power(value: float | int) -> str:
    """A small number: 0.0001 is `1e-4`, 0.005 is `5e-3`."""
    digits, _, exponent = f"{value:.2e}".partition("e")
    return f"{float(digits):g}e{int(exponent)}"


def with_interval(mean: float | int, half_width: float | int | None, digits: int, best_is_one: bool = False) -> str:
    """A mean, and half of the width of its interval where there is one: `48.66 ± 0.01`."""
    text = bounded(mean, digits) if best_is_one else f"{mean:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text if half_width is None else f"{text} ± {half_width:,.{digits}f}"


__all__ = ["bounded", "count_share", "duration", "share", "short_power", "with_interval"]
