"""A headless Chromium that opens the gallery from disk, as a user does."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests import house
from tests.house import House

INDEX = "index.html"
RECIPES = {
    "corgi.yaml": "prompt: a corgi wearing a red hat\nseed: [1, 2]\n",
    "pets/cat.yaml": "prompt: a cat\nnegative_prompt: blurry\nseed: 77\nsteps: 30\n"
    "sampler: Euler a\n",
    "pets/old/dog.txt": "a dog at the beach --seed 7 --size 256x512\n",
    "study.yaml": "prompt: a red star\nseed: 5\ncfg_rescale: 0.2\nsweep: {cfg_scale: [5, 8]}\n",
    "wrong.yaml": "prompt: a corgi\nstesp: 2\n",
}
CAT, DOG = "pets/cat/0001-77.png", "pets/old/dog/0001-7.png"

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
CHROMEDRIVER = shutil.which("chromedriver") or ""
# A mouse that can hover, which headless browsers say they have not.
MOUSE = "primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"
# Chromium takes a file's size before it opens the file: one that is replaced or grows in between is
# read in part. The page loads it again.
READ_IN_PART = re.compile(
    r"/gallery/(?:now|pages|page-\d+)\.js\?\S* .*Uncaught SyntaxError|ERR_FILE_NOT_FOUND"
)

wait_for = partial(house.wait_for, pause_seconds=0.05)  # a question takes the browser's time


class Page:
    """What a user sees and does in the gallery."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.often = ""  # the script of `go_live`

    def open(self, page: Path, fragment: str = "") -> None:
        """Open a file, without a server, and wait for all pictures and the news above them."""
        self.driver.get("about:blank")
        self.driver.get(page.resolve().as_uri() + fragment)
        is_whole = "Pictures.loaded && document.getElementById('line').textContent"
        wait_for(lambda: self.js(f"return typeof Pictures === 'undefined' || {is_whole}"))

    def go_live(self) -> None:
        """Let a daemon write meanwhile what the page reads, which looks ten times as often."""
        script = "const every = setInterval; setInterval = (call, ms) => every(call, ms / 10);"
        added = self.tell("Page.addScriptToEvaluateOnNewDocument", source=script)
        self.often = added["identifier"]

    def js(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> Sequence[WebElement]:
        found: Sequence[WebElement] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def text(self, selector: str) -> str:
        """Return the text in the document, visible or not."""
        return str(self.js("return document.querySelector(arguments[0]).textContent", selector))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def search(self, query: str) -> None:
        """Write a query at once: the page hears of it as of a paste."""
        put = "search.value = arguments[0]; search.dispatchEvent(new Event('input'))"
        self.js(f"search.focus(); {put}", query)

    def shown(self) -> list[str]:
        files: list[str] = self.js("return shownList.map(entry => entry.file)")
        return files

    def tile(self, file: str, part: str = ".open") -> WebElement:
        self.js("Grid.goTo(arguments[0], { focus: false })", file)
        found: WebElement = self.js(
            "return [...document.querySelectorAll('.tile')]"
            ".find(tile => tile.entry.file === arguments[0]).querySelector(arguments[1])",
            file,
            part,
        )
        return found

    def focused(self) -> str:
        return str(self.js("return document.activeElement.closest('.tile')?.entry.file ?? ''"))

    def large(self) -> str | None:
        """Return the file in the large view; None while that is closed."""
        found = self.js("return document.getElementById('large').open ? Large.entry.file : null")
        return None if found is None else str(found)

    def leave_large(self, *, by: str = "") -> None:
        """Close the large view; wait until the grid has the focus, which it gets a frame later."""
        if by:
            self.find(by).click()
        else:
            self.press(Keys.ESCAPE)
        assert self.large() is None
        wait_for(lambda: self.js("return location.hash") == "", "the address is left")

    def settings(self) -> dict[str, str]:
        found = "[...document.querySelectorAll('#settings dt, #settings dd')]"
        words: list[str] = self.js(f"return {found}.map(part => part.innerText.trim())")
        return dict(zip(words[::2], words[1::2], strict=True))

    def resize(self, width: int, height: int, *, touch: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.tell("Emulation.setDeviceMetricsOverride", **size)
        wait_for(lambda: width in self.js("return [innerWidth, screen.width]"), "the size")
        self.next_frame()  # with which the page is told

    def next_frame(self) -> None:
        self.driver.execute_async_script(
            "const done = arguments[0];"
            "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)))"
        )

    def colours(self, scheme: str) -> None:
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.tell("Emulation.setEmulatedMedia", features=media)

    def errors(self) -> list[str]:
        log: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [str(entry["message"]) for entry in log]

    def tell(self, command: str, **values: object) -> dict[str, Any]:
        """Tell the browser what scripts cannot, and return its answer."""
        answer: dict[str, Any] = self.driver.execute_cdp_cmd(command, values)
        return answer


def start_chromium() -> webdriver.Chrome:
    """Start a headless Chromium, without a sandbox if root runs it."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en",
                     "--window-size=1280,800", "--force-prefers-reduced-motion",
                     f"--blink-settings={MOUSE}"):  # fmt: skip
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    if not CHROMIUM or not CHROMEDRIVER:
        pytest.skip("no Chromium with its driver is here (`apt install chromium chromium-driver`)")
    driver = start_chromium()
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def page(chromium: webdriver.Chrome) -> Iterator[Page]:
    """Return the browser with a window of common size and empty storage."""
    shown = Page(chromium)
    shown.resize(1280, 800)
    shown.colours("light")
    shown.errors()
    yield shown
    expected = READ_IN_PART if shown.often else re.compile("ERR_FILE_NOT_FOUND")
    if shown.often:
        shown.tell("Page.removeScriptToEvaluateOnNewDocument", identifier=shown.often)
    complaints = [text for text in shown.errors() if not expected.search(text)]
    shown.js("if (location.protocol === 'file:') localStorage.clear()")
    chromium.get("about:blank")
    assert complaints == [], "no script fails, and the page's own policy forbids nothing of it"


@pytest.fixture(scope="session")
def outbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make some pictures that no test changes."""
    user = House(tmp_path_factory.mktemp("user"))
    for name, text in RECIPES.items():
        user.save(name, text)
    user.once()
    return user.outbox


@pytest.fixture
def gallery(page: Page, outbox: Path) -> Page:
    page.open(outbox / INDEX)
    return page


def made_at(outbox: Path, *times: float) -> None:
    """Set when the pictures were made, in their order in the gallery's data."""
    page, left = outbox / ".picowatch/gallery/page-00001.js", iter(times)
    page.write_text(
        re.sub(r'("made_at": )\d+', lambda found: f"{found[1]}{int(next(left))}", page.read_text())
    )
