"""Pictures that repeat without seams."""

from typing import Any

import numpy as np
import pytest

from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from tests.engine.requests import NUMPY_WARNINGS, draw, pixels, request

pytestmark = NUMPY_WARNINGS

PROMPT = "a corgi on a pink background"
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 4}


def drawn(renderer: Renderer, **values: Any) -> RenderedImage:
    return draw(renderer, request(PROMPT, **{**SMALL, **values}))[0]


def seam(picture: Any) -> float:
    """How much steeper the step over both edges is than the steps within; about 1 for none."""
    array = np.asarray(picture).astype(float)
    ratios = []
    for axis in (0, 1):
        within = np.abs(np.diff(array, axis=axis)).mean()
        first, last = array.take(0, axis), array.take(-1, axis)
        ratios.append(np.abs(first - last).mean() / within)
    return float(max(ratios))


def test_it_repeats_and_leaves_no_trace(renderer: Renderer) -> None:
    """The next picture without it is what it was before, in bytes, also after a failure."""
    before = drawn(renderer)
    seams = [
        [seam(pixels(drawn(renderer, seed=seed, tiling=tiling))) for tiling in (True, False)]
        for seed in range(1, 6)
    ]
    repeating, others = np.median(seams, axis=0)
    assert repeating < 2 < 5 < others
    assert drawn(renderer).pixels == before.pixels

    def broken(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        renderer.render([request(PROMPT, tiling=True, **SMALL)], broken)
    assert drawn(renderer).pixels == before.pixels
