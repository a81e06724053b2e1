"""The gallery with ten thousand pictures."""

import logging
import statistics
from pathlib import Path

import pytest
from selenium import webdriver

from benchmarks.gallery import OPENING, SCROLL, Outbox, wait_until_open
from tests.machine import within

log = logging.getLogger(__name__)

MANY = 10_000
OPENED, FRAME = 1.0, 1 / 60 + 0.001  # seconds; measured on a busy machine: 0.3 to 0.4 and 1 / 60


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_it_opens_in_a_second_and_scrolls_smoothly(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    """The window is full of pictures by then; half the frames are as quick as a screen's."""
    Outbox(tmp_path / "many", MANY)
    page = (tmp_path / "many/index.html").as_uri()
    added = chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": OPENING})
    opened, frames = [], []
    try:
        chromium.set_script_timeout(300)
        for step in (40, 40, 400):
            chromium.get("about:blank")
            chromium.get(page)
            opened.append(wait_until_open(chromium))
            frames.append(statistics.median(chromium.execute_async_script(SCROLL, step, 200)))
    finally:
        chromium.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    log.info("opened in %s ms; frames of %s ms", opened, frames)
    assert statistics.median(opened) / 1000 < within(OPENED)
    assert min(frames) / 1000 < within(FRAME)
