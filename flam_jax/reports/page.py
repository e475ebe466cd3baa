"""From a template and its values to one HTML file that needs no other."""

import base64
import functools
import io
import re
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flam_jax.reports.charts import FAINT, INK, Chart

_GLYPH = re.compile(r'(<path id="(DejaVuSans[\w-]*)"[^>]*/>) ?')
_THEME = {INK: "var(--ink-2)", FAINT: "var(--line)"}


def render(template: str, **values: Any) -> str:
    """Fills a template of the folder `templates`; text in the values is escaped.

    Args:
      template: its file's name.
      values: by the names that the template uses: text, `Table`, `Chart`, pictures from `png`.

    Returns:
      The page, the same for the same values.
    """
    text = _environment().get_template(template).render(**values)
    # Every chart brings the outlines of its letters: the page keeps one of each.
    glyphs = {name: path for path, name in _GLYPH.findall(text)}
    text = _GLYPH.sub("", text).replace("<defs> </defs> ", "")
    shared = f'<svg class="glyphs" aria-hidden="true"><defs>{"".join(glyphs.values())}</defs></svg>'
    return text.replace("<!-- glyphs -->", shared if glyphs else "", 1)


@functools.cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flam_jax.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = _inline
    return environment


def _inline(chart: Chart) -> Any:
    """A chart as a part of a page: in the colours of its theme, without what a file of its own needs."""
    from markupsafe import Markup

    svg = re.sub(r' xmlns(?::\w+)?="[^"]*"| version="1.1"', "", chart.svg)
    svg = re.sub(r' width="[^"]*pt" height="[^"]*pt"', "", svg, count=1)
    for color, variable in _THEME.items():
        svg = svg.replace(color, variable)
    return Markup(svg)


def png(picture: UInt8[np.ndarray, "H W 3"]) -> str:
    """A picture as the address of an inline image."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


__all__ = ["png", "render"]
