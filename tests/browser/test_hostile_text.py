"""The gallery shows whatever is in a prompt or a name, and never runs it."""

import json
import re
import shutil
from itertools import cycle
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from picowatch.outbox.names import FORMATS
from tests.browser.conftest import INDEX, Page, wait_for
from tests.house import House

MARK = "document.documentElement.setAttribute('data-pwned', 1)"
HOSTILE = [
    f"</script><script>{MARK}</script>",
    f'<img src=x onerror="{MARK}">',
    f'" onerror="{MARK}" x="',
    f"' onload='{MARK}' x='",
    f"`${{{MARK}}}`",
    f'"}});{MARK};({{"x":"',
    f'\\"}});{MARK}//',
    f"*/{MARK}/*",
    f"<!--<script>{MARK}</script>-->",
    f"<svg/onload={MARK}>",
    f"<iframe srcdoc='<script>parent.{MARK}</script>'>",
    f"javascript:{MARK}",
    "]]> &lt;b&gt; \u202egnp.x\u202c constructor toString",
]
NAMES = [
    "a#b?c=1&d.yaml",
    "100% of %41.yaml",
    "space here/ü 日本 😀.yaml",
    "it's.yaml",
    "constructor.yaml",
]


def is_hit(page: Page) -> bool:
    return bool(page.js("return document.documentElement.hasAttribute('data-pwned')"))


@pytest.mark.heavy
def test_no_prompt_and_no_name_runs_as_a_script_in_the_gallery(house: House, page: Page) -> None:
    """It does not become an element or attribute in the grid, large view or comparison either."""
    for number, hostile in enumerate(HOSTILE):
        name = hostile.replace("/", "-")[:80]
        house.save(f"{name}.{number}.yaml", f"prompt: {json.dumps(hostile)}\nseed: 1\n")
        house.save(f"{name}.{number}.bad.yaml", f"{json.dumps(hostile)}: 1\n")
    house.once()
    page.open(house.outbox / INDEX)
    assert len(page.shown()) == len(HOSTILE)
    page.find("#problems > summary").click()
    refused = [title for title in page.all("#problems summary strong") if "Error" in title.text]
    assert len(refused) == len(HOSTILE)
    prompts = set()
    for file in page.shown():
        page.tile(file, ".pick").click()
        page.tile(file).click()
        prompts.add(page.text("#large-title"))
        page.press("y")
        page.leave_large(by="#large [data-do=close]")
    assert prompts == set(HOSTILE)
    page.find("#compare").click()
    page.press(Keys.ESCAPE)
    for hostile in HOSTILE:
        page.search(hostile)
    assert not is_hit(page)
    tags = page.js("return [...new Set([...document.querySelectorAll('*')].map(e => e.localName))]")
    assert not {"iframe", "b", "svg"} & set(tags)
    names = "return [...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
    assert not [name for name in page.js(names) if name.startswith("on")]


def test_a_script_that_got_into_the_page_would_be_forbidden(page: Page, outbox: Path) -> None:
    """The page's policy, a second protection, forbids inline scripts and handlers."""
    index = outbox / "hit.html"
    markup = f'<script>{MARK}</script><img src="x:" onerror="{MARK}">'
    index.write_text((outbox / INDEX).read_text().replace("<main>", f"<main>{markup}"))
    page.open(index)
    assert not is_hit(page)
    assert any("Content Security Policy" in text for text in page.errors())


def test_pictures_with_strange_names_are_shown(house: House, page: Page) -> None:
    """Addresses are encoded; without thumbnails, the pictures themselves are shown."""
    shown_by_browsers = cycle(kind for kind in FORMATS if kind != "tiff")
    for name, kind in zip(NAMES, shown_by_browsers, strict=False):
        house.save(name, f"prompt: a corgi\nseed: 1\nsize: 128x64\nformat: {kind}\n")
    house.once()
    shutil.rmtree(house.outbox / ".picowatch/gallery/thumbs")
    page.open(house.outbox / INDEX)
    drawn = "return [...document.querySelectorAll('.loaded img')].map(i => i.naturalWidth)"
    wait_for(lambda: page.js(drawn) == [128] * len(NAMES), "the pictures")
    loaded = (
        "const image = document.getElementById('full'); return image.complete && image.naturalWidth"
    )
    assert len(page.shown()) == len(NAMES)
    for file in page.shown():
        page.tile(file).click()
        wait_for(lambda: page.js(loaded), file)
        page.leave_large(by="#large [data-do=close]")
    folders = {button.get_attribute("data-folder") for button in page.all("#folders button")}
    assert {"a#b-c=1&d", "100% of %41", "space here", "it's", "constructor"} <= folders
    page.open(house.outbox / INDEX, "#100%25%20of%20%2541%2F0001-1.jpg")
    wait_for(lambda: page.large() == "100% of %41/0001-1.jpg", "the linked picture")
    not_utf8 = r"return address('a b/\udcfc\ud83d\udc80')"
    assert page.js(not_utf8) == "a%20b/%fc%F0%9F%92%80"
    assert page.js("return sidesOf({ size: ['64x48'] })") == [64, 48]


def test_the_gallery_names_no_other_machine(gallery: Page, outbox: Path) -> None:
    own = [outbox / INDEX, *(outbox / ".picowatch/gallery").glob("*.[jc]s*")]
    assert len(own) > 8
    for file in own:
        assert not re.search(r"https?:|[\"'(]//\w|@import|url\((?!#)", file.read_text()), file
    gallery.tile(gallery.shown()[0]).click()
    loaded = "return [...document.querySelectorAll('img, script, link, a')]"
    asked = gallery.js(f"{loaded}.map(one => one.src || one.href).filter(Boolean)")
    assert len(asked) > 8
    assert all(address.startswith("file:///") for address in asked)
