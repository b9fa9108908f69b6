"""What every page has in common: its template, and pictures inside of it."""

from __future__ import annotations

import base64
import io
import json
from typing import Any, Literal

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from thirtytwo import __version__
from thirtytwo.report import wording

LONGEST_SIDE = 96
"""Pixels: larger images are reduced to this, so that the page stays small."""


def render(template: str, facts: dict[str, Any]) -> str:
    """A page: one of the templates beside this file, which `base.html.jinja` frames.

    Args:
        template: its file name.
        facts: what it and the frame are to know, ``notice`` and ``warnings`` about the data among it.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("thirtytwo.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "count": wording.count,
        "plural": wording.plural,
        "listed": wording.listed,
        "picture": picture,
    }
    return environment.get_template(template).render({**facts, "version": __version__})


def data(facts: Any) -> Markup:
    """Facts as JSON, to stand inside of a script element, which only ``</`` could end."""
    return Markup(json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c"))


def picture(pixels: NDArray[np.uint8], alternative: str, form: Literal["png", "webp"] = "png") -> Markup:
    """An ``<img>`` that holds its image, losslessly, and is as long as `LONGEST_SIDE` on its longer side.

    Args:
        pixels: uint8 (height, width, 3).
        alternative: what those are told who do not see it.
        form: of the file inside; WebP is smaller by about a third.
    """
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    longest = max(height, width)
    if longest > LONGEST_SIDE:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    content = io.BytesIO()
    if form == "webp":
        image.save(content, "WEBP", lossless=True, quality=80)
    else:
        image.save(content, "PNG", optimize=True)
    # Small images are shown as the squares they are; reduced ones are no longer made of the original's pixels.
    style = "" if longest > LONGEST_SIDE else "pixels"
    return Markup('<img class="{}" src="data:image/{};base64,{}" width="{}" height="{}" alt="{}">').format(
        style,
        form,
        base64.b64encode(content.getvalue()).decode(),
        max(round(LONGEST_SIDE * width / longest), 1),
        max(round(LONGEST_SIDE * height / longest), 1),
        alternative,
    )
