"""The gallery in a real browser: whatever a prompt or a name holds is shown, never run."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.house import House

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

MARK = "document.documentElement.setAttribute('data-pwned', 1)"
INJECTED = re.compile(r"<html[^>]* data-pwned")
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
    "]]> &lt;b&gt; \u202egnp.x\u202c constructor",
]
# What a user does, beside looking: open the first picture.
CLICK = "<script>setTimeout(() => document.querySelector('figure button').click(), 1500)</script>"


class Elements(HTMLParser):
    """The names of all elements and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def shown_by_a_browser(page: Path) -> str:
    """The page's elements after its scripts ran for some seconds."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    profile = page.parent.parent / "profile"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    address = page.resolve().as_uri()
    result = subprocess.run(
        [CHROMIUM, *options, "--virtual-time-budget=5000", "--dump-dom", address],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return result.stdout


def test_no_prompt_and_no_name_runs_as_a_script_in_the_gallery(house: House) -> None:
    """Nor becomes an element or an attribute; all are shown, also in the large view."""
    for number, hostile in enumerate(HOSTILE):
        name = hostile.replace("/", "-")[:80]
        house.save(f"{name}.{number}.yaml", f"prompt: {json.dumps(hostile)}\nseed: 1\n")
    assert house.once()
    page = house.outbox / "with a click.html"
    page.write_text((house.outbox / "index.html").read_text() + CLICK)
    found = shown_by_a_browser(page)
    assert f"{len(HOSTILE)} pictures" in found
    assert re.search(r"<dialog[^>]* open", found)
    assert not INJECTED.search(found)
    elements = Elements(found)
    assert not elements.tags & {"iframe", "svg", "b"}
    assert not [name for name in elements.attributes if name.startswith("on")]


def test_the_browser_of_these_tests_sees_an_injection(tmp_path: Path) -> None:
    """A page that does it wrong is found out by the same look."""
    page = tmp_path / "outbox/index.html"
    page.parent.mkdir()
    page.write_text(f"<body><script>document.body.innerHTML = {json.dumps(HOSTILE[1])}</script>")
    assert INJECTED.search(shown_by_a_browser(page))


def test_the_gallery_names_no_other_machine(house: House) -> None:
    """No script, style, font or picture from anywhere else."""
    house.save("a.txt", "a corgi\n")
    house.once()
    page = (house.outbox / "index.html").read_text()
    assert not re.search(r"https?:|//\w+\.|@import|url\(", page)
