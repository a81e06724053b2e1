"""The gallery in a real browser, opened from disk: looking, searching, keys, comparing, live."""

import os
import re
import shutil
import threading
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image
from PIL.Image import Resampling
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from picowatch.commands.init import init
from picowatch.outbox.formats import FORMATS
from tests.browser.conftest import Page
from tests.commands.picowatch import picowatch
from tests.crash.dying_daemon import fail_on_bad
from tests.house import House, wait_for
from tests.kinds import one_of_each_kind

RECIPES = {
    "corgi.yaml": "prompt: a corgi wearing a red hat\nseed: [1, 2]\n",
    "pets/cat.yaml": "prompt: a cat\nnegative_prompt: blurry\nseed: 77\nsteps: 30\n"
    "sampler: Euler a\n",
    "pets/old/dog.txt": "a dog at the beach --seed 7 --size 256x512\n",
    "study.yaml": "prompt: a red star\nseed: 5\nsweep: {cfg_scale: [5, 8]}\n",
    "wrong.yaml": "prompt: a corgi\nstesp: 2\n",
}
INDEX = "index.html"


def fill(house: House) -> None:
    for name, text in RECIPES.items():
        house.save(name, text)
    house.once()


@pytest.fixture(scope="module")
def outbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some pictures that no test changes."""
    house = House(tmp_path_factory.mktemp("user"))
    fill(house)
    return house.outbox


@pytest.fixture
def gallery(page: Page, outbox: Path) -> Page:
    """The browser with the gallery of those pictures."""
    page.open(outbox / INDEX)
    return page


@pytest.fixture
def live(house: House, page: Page) -> Iterator[House]:
    """A daemon at work, and the browser that shows its gallery.

    Tests that click pictures save words that the demo model knows: a warning would be told, and
    move the grid, at any time.
    """
    house.save("first.txt", "a moon --seed 1\n")
    house.once()
    page.is_live = True
    with house.running():
        now = house.outbox / ".picowatch/gallery/now.js"
        wait_for(lambda: '"runs": true' in now.read_text(), "the first news of this run")
        page.open(house.outbox / INDEX)
        yield house


def of(folder: str, page: Page) -> list[str]:
    return [file for file in page.shown() if file.startswith(f"{folder}/")]


# -- looking


def test_every_picture_is_shown_newest_first(gallery: Page, outbox: Path) -> None:
    """With its thumbnail, and nothing is missing."""
    shown = gallery.shown()
    assert len(shown) == 7
    listed = (outbox / "images.jsonl").read_text().splitlines()
    newest = re.search(r'"file": "([^"]+)"', listed[-1])
    assert newest and newest[1] in shown[:2], "the sheet came after it"
    assert gallery.text("#count") == "7 pictures"
    wait_for(lambda: len(gallery.all(".tile.loaded")) == 7, "the thumbnails")
    sources = [image.get_attribute("src") or "" for image in gallery.all(".tile img")]
    assert all(source.endswith(".webp") for source in sources)
    assert gallery.errors() == []


def test_pictures_of_every_format_are_shown(house: House, page: Page) -> None:
    """In the grid and in the large view, whose setting changed in between."""
    for seed, name in enumerate(FORMATS):
        house.save(f"{name}.txt", f"a corgi --seed {seed} --size 128x64\n")
        house.once(format=name)
    shutil.rmtree(house.outbox / ".picowatch/gallery/thumbs")  # then the pictures themselves
    page.open(house.outbox / INDEX)
    wait_for(lambda: len(page.all(".tile.loaded")) == len(FORMATS), "the pictures")
    drawn = "i => i.src.endsWith(arguments[0]) && i.naturalWidth === 128"
    for file in page.shown():
        page.tile(file).click()
        wait_for(partial(page.js, f"return [...document.images].some({drawn})", file), file)
        page.leave_large()


def test_the_large_view_has_every_setting_and_the_recipe(gallery: Page) -> None:
    """As they are in the picture, and as `picowatch show` prints them."""
    (cat,) = of("pets/cat", gallery)
    gallery.tile(cat).click()
    assert gallery.large() == cat
    assert gallery.text("#large-title") == "a cat"
    settings = gallery.settings()
    expected = {"negative_prompt": "blurry", "steps": "30", "seed": "77", "sampler": "Euler a",
                "size": "512x512", "cfg_scale": "4", "recipe": "pets/cat.yaml", "file": cat,
                "checkpoint": "demo", "vae": "baked", "clip_skip": "1"}  # fmt: skip
    assert {**settings, "size": "512x512"} == settings | expected
    assert "sampler: Euler a\n" in gallery.text("#whole")
    gallery.find("#panel > details:last-child summary").click()
    assert re.search(r"digest\s*[0-9a-f]{64}", gallery.find("#hashes").text)


def test_pictures_that_were_only_upscaled_have_a_size(house: House, page: Page) -> None:
    """They have neither a prompt nor cfg_scale."""
    Image.new("RGB", (64, 128)).save(house.inbox / "photo.png")
    house.save("up.yaml", "image: photo.png\nupscale: {scale: 2}\n")
    assert house.once()
    page.open(house.outbox / INDEX)
    page.search("size:64x128")
    (file,) = page.shown()
    page.tile(file).click()
    assert page.settings()["size"] == "64x128"
    page.leave_large()


def test_hashes_of_all_kinds_are_out_of_the_way(house: House, page: Page) -> None:
    """They are no settings, and a word that is searched may stand in any of them."""
    Image.new("RGB", (64, 64)).save(house.inbox / "map.png")
    house.save(
        "up.yaml",
        "prompt: a moon\nseed: 1\nupscale: demo-compact\n"
        "control: {image: map.png, model: demo-sketch}\n",
    )
    house.once()
    page.open(house.outbox / INDEX)
    page.tile("up/0001-1.png").click()
    assert "hash" not in page.text("#settings") and "demo-sketch" in page.text("#settings")
    hashes = dict(line.split() for line in page.js(HASH_LINES))
    page.leave_large()
    page.search(hashes["upscaler_hash"][:9])
    assert page.shown() == []


HASH_LINES = """
const [names, texts] = ["dt", "dd"].map(kind => [...document.querySelectorAll(`#hashes ${kind}`)]);
return names.map((name, i) => `${name.textContent} ${texts[i].textContent}`);
"""


def test_the_recipe_is_copied(gallery: Page) -> None:
    """By the button and by a key; the clipboard then holds the whole text."""
    gallery.tile(of("pets/cat", gallery)[0]).click()
    gallery.js(
        "globalThis.copied = []; const write = navigator.clipboard?.writeText;"
        "if (navigator.clipboard) navigator.clipboard.writeText = text => {"
        " globalThis.copied.push(text); return Promise.resolve(); };"
    )
    said = gallery.texts_of("#large [data-do=copy]")
    gallery.find("#large [data-do=copy]").click()
    wait_for(lambda: said() == ["Copied", "Copy recipe"], "it is said for a moment")
    gallery.press("y")
    short = gallery.text("#yaml")
    assert re.fullmatch(
        "prompt: 'a cat'\nnegative_prompt: 'blurry'\ncheckpoint: 'demo'\nsampler: Euler a\n"
        "schedule_type: uniform\nsteps: 30\ncfg_scale: 4\nsize: .*\nseed: 77\n",
        short,
    ), short
    assert gallery.js("return copied") == [short] * 2
    assert "copied" in gallery.text("#live")


def test_the_recipe_is_copied_where_pages_from_disk_get_no_clipboard(gallery: Page) -> None:
    """By a selection, which goes to what the user types next."""
    gallery.tile(of("pets/cat", gallery)[0]).click()
    gallery.js("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    said = gallery.texts_of("#large [data-do=copy]")
    gallery.press("y")
    wait_for(lambda: "Copied" in said(), "it is said")
    gallery.leave_large(by="#large [data-do=close]")
    gallery.find("#search").send_keys(Keys.CONTROL, "v")
    pasted = "return document.getElementById('search').value"
    wait_for(lambda: gallery.js(pasted).startswith("prompt: 'a cat'"), "the copied text")
    assert not gallery.all("textarea")


def test_copying_by_a_selection_works_in_each_dialog(gallery: Page) -> None:
    """Where a question lies over the large view, too; the focus stays, and keys go on working."""
    shown = gallery.shown()
    gallery.tile(shown[1]).click()
    gallery.js("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    said = gallery.texts_of("#live")
    gallery.press("y")
    wait_for(lambda: "The recipe is copied." in said(), "the recipe")
    gallery.press(Keys.ARROW_RIGHT)
    assert gallery.large() == shown[2]
    gallery.press(Keys.DELETE)
    line = gallery.find("#ask-lines").text
    gallery.find("#ask-copy").click()
    wait_for(lambda: not gallery.find("#ask").is_displayed(), "it is copied")
    gallery.leave_large()
    gallery.find("#search").send_keys(Keys.CONTROL, "v")
    wait_for(lambda: gallery.js("return searchBox.value") == line, "the copied command")


def test_a_sweep_is_shown_by_its_contact_sheet(gallery: Page) -> None:
    """With what it varies; its pictures are one click away; sheets have a filter."""
    gallery.find('nav [data-row="sheets/"]').click()
    (sheet,) = gallery.shown()
    gallery.tile(sheet).click()
    assert gallery.settings()["cfg_scale"] == "5, 8"
    assert not gallery.find("#recipe").is_displayed()
    assert not gallery.find("#large [data-do=copy]").is_displayed()
    cells = gallery.all("#cells button")
    assert len(cells) == 2
    cells[1].click()
    assert gallery.settings()["cfg_scale"] == "8"
    assert gallery.large() == "study/0002-5.png"
    (back,) = gallery.all("#cells button")
    assert back.get_attribute("aria-label") == f"Its contact sheet {sheet}"
    back.click()
    assert gallery.large() == sheet


# -- finding


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("corgi", 2),
        ("RED", 5),
        ("red hat", 2),
        ('"a red"', 5),
        ('"red a"', 0),
        ("red -hat", 3),
        ("seed:7", 1),
        ("seed:77", 1),
        ("steps:30", 1),
        ("sampler:euler", 1),
        ("size:256x512", 1),
        ("negative:blurry", 1),
        ("-negative:blurry corgi", 2),
        ("pets/", 2),
        ("recipe:study", 3),
        ("cfg:8", 2),
        ("steps:<25", 5),
        ("steps:>=30", 1),
        ("cfg:4..7.5", 5),
        ("width:256", 1),
        ("seed:<7", 4),
        ("steps: <25", 5),
        ("steps: >= 30 -hat", 1),
        ("steps: 30", 1),
        ("steps:", 7),
        ("steps:<", 7),
        ("nothing is like this", 0),
        ("", 7),
        ('"', 7),
        ("-", 7),
    ],
)
def test_a_search_finds(gallery: Page, query: str, found: int) -> None:
    """Each word in the prompts, the settings or the path, while it is typed."""
    gallery.search(query)
    assert len(gallery.shown()) == found
    assert len(gallery.all(".tile")) == found
    words = "7 pictures" if found == 7 else f"{found} of 7 pictures"
    assert gallery.text("#count") == words
    assert gallery.find("#none").is_displayed() == (found == 0)
    assert not gallery.find("#empty").is_displayed()


def test_a_search_for_no_setting_says_so(gallery: Page) -> None:
    """A mistyped name is told from a value that no picture has."""
    for query, said in (
        ("corgi stesp:8", "No picture has a setting called “stesp”."),
        ("steps:149", "No picture matches."),
        ("stesp:8 steps:149", "No picture has a setting called “stesp”."),
        ("zebra", "No picture matches."),
    ):
        gallery.search(query)
        assert (gallery.shown(), gallery.text("#none-words")) == ([], said)


def test_a_search_finds_wildcards_as_they_were_drawn(house: House, page: Page) -> None:
    """What else they could have been is found under its own name alone; so are contact sheets."""
    house.save("a.yaml", "prompt: a {corgi|dragon}\nseed: 1\ngrid: true\n")
    assert house.once()
    page.open(house.outbox / INDEX)
    drawn = house.started()[0].removeprefix("a ")
    (other,) = {"corgi", "dragon"} - {drawn}
    for query, found in (
        (drawn, 2),
        (other, 0),
        (f"prompt:{other}", 0),
        (f"unexpanded:{other}", 2),
    ):
        page.search(query)
        assert len(page.shown()) == found, query


def test_folders_are_filters(gallery: Page) -> None:
    """Those below the chosen one appear; searching is within it."""

    def folders() -> list[str]:
        return [button.text.replace("\n", " ") for button in gallery.all("nav button")]

    top = ["All pictures 7", "Contact sheets 1", "corgi 2", "pets 2", "study 3"]
    assert folders() == top
    gallery.find('#folders [data-folder="pets"]').click()
    assert len(gallery.shown()) == 2
    assert folders() == [*top[:4], "cat 1", "old 1", top[4]]
    gallery.find('#folders [data-folder="pets/old"]').click()
    assert gallery.shown() == ["pets/old/dog/0001-7.png"]
    gallery.search("corgi")
    assert gallery.shown() == []
    gallery.find('nav [data-row="/"]').click()
    assert len(gallery.shown()) == 2
    chosen = gallery.all('nav [aria-current="true"]')
    assert [button.get_attribute("data-row") for button in chosen] == ["/"]
    assert gallery.find("#folders-title").text == "Recipes"
    assert len(gallery.all("#views button")) == 2, "contact sheets are apart from recipes"


# -- keys


def test_the_grid_is_walked_with_the_arrow_keys(gallery: Page) -> None:
    """One stop for Tab; Home and End; Enter opens; Escape comes back to the same picture."""
    shown = gallery.shown()
    gallery.find("#search").send_keys(Keys.ARROW_DOWN)
    assert gallery.focused() == shown[0]
    gallery.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert gallery.focused() == shown[2]
    gallery.press(Keys.ARROW_LEFT)
    assert gallery.focused() == shown[1]
    gallery.press(Keys.END)
    assert gallery.focused() == shown[-1]
    gallery.press(Keys.ARROW_RIGHT)
    assert gallery.focused() == shown[-1], "nothing is behind the oldest"
    gallery.press(Keys.HOME)
    assert gallery.focused() == shown[0]
    gallery.press(Keys.ARROW_DOWN)
    below = gallery.focused()
    assert below != shown[0]
    gallery.press(Keys.ARROW_UP)
    assert gallery.focused() == shown[0]
    assert len(gallery.all('.tile .open[tabindex="0"]')) == 1
    gallery.press(Keys.ARROW_RIGHT, Keys.ENTER)
    assert gallery.large() == shown[1]
    gallery.press(Keys.ESCAPE)
    wait_for(lambda: gallery.large() is None and gallery.focused() == shown[1], "it is back")


def test_the_large_view_goes_on_with_the_arrow_keys(gallery: Page) -> None:
    """Within what is shown; at its ends the buttons are off; the focus comes back to the last."""
    gallery.search("red")
    shown = gallery.shown()
    gallery.tile(shown[0]).click()
    assert not gallery.find("#large [data-do=previous]").is_enabled()
    gallery.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert gallery.large() == shown[2]
    assert gallery.text("#place") == "3 of 5"
    gallery.press(Keys.ARROW_LEFT)
    assert gallery.large() == shown[1]
    gallery.press(*[Keys.ARROW_RIGHT] * 9)
    assert gallery.large() == shown[-1]
    assert not gallery.find("#large [data-do=next]").is_enabled()
    gallery.press(Keys.ESCAPE)
    wait_for(lambda: gallery.focused() == shown[-1], "the focus")


def test_words_on_small_tiles_leave_the_star_alone(house: House, page: Page) -> None:
    """They have a few lines at most, and the star and the circle the upper corners."""
    house.save("long.yaml", f"prompt: {'a corgi with a very long name ' * 9}\nseed: 1\n")
    house.once()
    page.open(house.outbox / INDEX)
    smallest = "const box = document.getElementById('size'); box.value = box.min;"
    page.js(f"{smallest} box.dispatchEvent(new Event('input'))")
    page.next_frame()
    across = "return document.querySelector(arguments[0]).getBoundingClientRect()"
    assert page.js(across, ".tile")["width"] < 110
    star, words = page.js(across, ".tile .star"), page.js(across, ".tile .caption span")
    assert words["top"] >= star["bottom"] - 8, "8 pixels of it are invisible"
    assert words["height"] > 20


def test_the_large_view_zooms(gallery: Page) -> None:
    """1:1 is a pixel for each; what the wheel points at stays; the next picture fits again."""
    (cat,) = of("pets/cat", gallery)
    gallery.tile(cat).click()
    wait_for(lambda: gallery.js("return document.getElementById('full').naturalWidth"))
    size = gallery.js("return document.getElementById('full').naturalWidth")
    width = "return document.getElementById('full').getBoundingClientRect().width"
    fitting = gallery.js(width)
    assert fitting <= gallery.js("return document.getElementById('stage').clientWidth")
    gallery.find("#large [data-do=one]").click()
    assert gallery.js(width) == size
    assert gallery.text("#zoom") == "100 %"
    for _ in range(12):
        gallery.press("+")
    assert gallery.js(width) > 8 * size
    at = "const at = document.getElementById('full').getBoundingClientRect();"
    share = at + "return [(600 - at.left) / at.width, (300 - at.top) / at.height]"
    before = gallery.js(share)
    gallery.js(
        "document.getElementById('stage').dispatchEvent(new WheelEvent('wheel',"
        " { deltaY: -200, clientX: 600, clientY: 300, bubbles: true, cancelable: true }))"
    )
    assert gallery.js(share) == pytest.approx(before, abs=0.01)
    gallery.press("0")
    assert gallery.js(width) == pytest.approx(fitting)
    gallery.press("1", Keys.ARROW_RIGHT)
    assert gallery.find("#large [data-do=fit]").get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("width", one_of_each_kind([390, 768, 1280, 1600], [390, 1280]))
def test_the_zoom_buttons_are_below_the_picture(page: Page, outbox: Path, width: int) -> None:
    """Never over it, however it fills the window."""
    page.resize(width, 800)
    page.open(outbox / INDEX)
    over = (
        "const [a, b] = ['#full', '#zooms'].map(one => document.querySelector(one)"
        ".getBoundingClientRect()); return b.top - a.bottom"
    )
    for file in (*of("pets/old/dog", page), *of("pets/cat", page), *of("study", page)):
        page.tile(file).click()
        wait_for(lambda: page.js("return document.getElementById('full').naturalWidth"))
        page.next_frame()
        assert page.js(over) >= 0
        page.leave_large()


def test_a_narrow_large_view_begins_with_the_picture(page: Page, outbox: Path) -> None:
    """However far its settings were scrolled for the picture before."""
    page.resize(390, 500, touch=True)
    page.open(outbox / INDEX)
    hidden = "return document.querySelector('.bar').getBoundingClientRect().bottom"
    hidden += " - document.getElementById('full').getBoundingClientRect().top"
    scroll = "document.getElementById('file').scrollIntoView({ block: 'start' })"
    (sheet,) = [file for file in of("study", page) if "sheet" in file]
    page.tile(sheet).click()
    page.js(scroll)
    assert page.js(hidden) > 0
    page.js("document.querySelector('#cells button').click()")  # its first picture
    page.next_frame()
    assert page.large() != sheet and page.js(hidden) <= 0
    page.js(scroll)
    page.leave_large(by="#large [data-do=close]")
    page.tile(sheet).click()
    page.next_frame()
    assert page.js(hidden) <= 0


def test_a_finger_turns_the_pages_of_the_large_view(page: Page, outbox: Path) -> None:
    """Across, not where it scrolls down to the settings, or moves what two fingers enlarged."""
    page.resize(390, 844, touch=True)
    page.open(outbox / INDEX)
    shown = page.shown()
    page.tile(shown[1]).click()
    page.next_frame()
    page.slide((300, 400), (180, 420))
    wait_for(lambda: page.large() == shown[2], "the next picture")
    page.slide((180, 400), (300, 380))
    wait_for(lambda: page.large() == shown[1], "the one before")
    page.enlarge(1.05)
    page.js("globalThis.touches = 0; stage.addEventListener('touchend', () => { touches++; })")
    for count in (1, 2):  # at the edge there is nothing to be moved
        page.slide((300, 300), (150, 300))
        wait_for(lambda: page.js("return touches") == count, "a touch")  # noqa: B023
    assert page.large() == shown[1]
    page.enlarge(1)
    page.slide((300, 400), (210, 150))
    assert page.large() == shown[1]


def test_what_fills_the_window_hides_the_page_s_scrollbar(page: Page, outbox: Path) -> None:
    """And behind it the grid stays as it is."""
    page.resize(900, 420)
    page.open(outbox / INDEX)
    bar = "return innerWidth - document.documentElement.clientWidth"
    grid = "return [scrollY, document.getElementById('grid').getBoundingClientRect().width]"
    wide = page.js(bar)
    assert wide > 0
    page.tile(page.shown()[3]).click()
    assert page.js(bar) == 0
    assert page.js("return document.getElementById('large').getBoundingClientRect().right") == 900
    page.next_frame()
    during = page.js(grid)
    page.leave_large()
    assert page.js(bar) == wide
    page.next_frame()
    assert page.js(grid) == during
    for file in page.shown()[:2]:
        page.tile(file, ".pick").click()
    before = page.js(grid)
    page.find("#compare").click()
    page.next_frame()
    assert (page.js(bar), page.js(grid)) == (0, before)


def test_the_recipe_is_shown(gallery: Page) -> None:
    """What is copied, and on demand every setting; it stays open for the next picture."""
    gallery.tile(of("pets/cat", gallery)[0]).click()
    assert not gallery.find("#yaml").is_displayed()
    gallery.find("#large [data-do=recipe]").click()
    assert gallery.find("#yaml").text.startswith("prompt: 'a cat'")
    assert "cfg_rescale" not in gallery.find("#yaml").text
    gallery.find("#recipe details summary").click()
    assert "cfg_rescale: 0" in gallery.find("#whole").text
    gallery.press(Keys.ARROW_RIGHT)
    assert "a cat" not in gallery.find("#yaml").text != ""
    gallery.press("r")
    assert not gallery.find("#yaml").is_displayed()


def test_going_back_closes_the_large_view(gallery: Page) -> None:
    """As people do on a phone; the address is that of the picture."""
    (cat,) = of("pets/cat", gallery)
    gallery.tile(cat).click()
    assert gallery.js("return decodeURIComponent(location.hash)") == f"#{cat}"
    gallery.driver.back()
    wait_for(lambda: gallery.large() is None, "it is closed")
    assert len(gallery.shown()) == 7
    gallery.driver.forward()
    wait_for(lambda: gallery.large() == cat, "it is open again")
    gallery.leave_large()


def test_going_back_closes_what_is_above_the_large_view(gallery: Page) -> None:
    """A comparison over nothing would leave the grid without the focus."""
    shown = gallery.shown()
    gallery.tile(shown[0]).click()
    gallery.press("c", Keys.ARROW_RIGHT, "c", "x")
    assert gallery.find("#pair").is_displayed()
    gallery.driver.back()
    wait_for(lambda: gallery.large() is None, "it is closed")
    assert not gallery.find("#pair").is_displayed()
    wait_for(lambda: gallery.focused() == shown[1], "the focus")
    gallery.find("#unpick").click()


def test_going_back_closes_a_picture_opened_right_after_another_one(gallery: Page) -> None:
    """At once, too, where the browser has not yet told the page that the first one was closed."""
    gallery.js(
        "Large.open(shownList[0]); document.querySelector('#large [data-do=close]').click();"
        "Large.open(shownList[1]);"
    )
    gallery.next_frame()
    assert gallery.large() == gallery.shown()[1]
    assert gallery.js("return decodeURIComponent(location.hash)") == f"#{gallery.large()}"
    gallery.driver.back()
    wait_for(lambda: gallery.large() is None, "it is closed")
    assert gallery.js("return history.state") is None


def test_a_picture_s_address_opens_it_also_where_the_gallery_is_open(gallery: Page) -> None:
    """As a bookmark does, which loads nothing again; going back closes it."""
    gallery.js("location.hash = '#corgi/0001-1.png'")
    wait_for(lambda: gallery.large() == "corgi/0001-1.png", "the picture")
    gallery.js("location.hash = '#corgi/0002-2.png'")
    wait_for(lambda: gallery.large() == "corgi/0002-2.png", "the other one")
    gallery.driver.refresh()
    wait_for(lambda: gallery.js("return Pictures.loaded") and gallery.large() == "corgi/0002-2.png")
    gallery.leave_large()


def test_closing_the_large_view_shows_where_it_ended(gallery: Page) -> None:
    """Not the place where it was opened, to which browsers go back by themselves."""
    gallery.resize(500, 400)
    shown = gallery.shown()
    gallery.tile(shown[0]).click()
    gallery.press(*[Keys.ARROW_RIGHT] * 6)
    assert gallery.large() == shown[6]
    gallery.press(Keys.ESCAPE)
    wait_for(lambda: gallery.js("return history.state") is None, "the history is left")
    rect = "return document.activeElement.getBoundingClientRect()"
    assert gallery.focused() == shown[6]
    assert 0 <= gallery.js(rect)["top"] < 400


def test_keys_for_searching_and_for_help(gallery: Page) -> None:
    """`/` and `?`; in the search box they are letters."""
    gallery.find("#grid").send_keys("/")
    assert gallery.js("return document.activeElement.id") == "search"
    gallery.press("?", "c")
    assert gallery.js("return document.getElementById('search').value") == "?c"
    gallery.press(Keys.ESCAPE)
    assert len(gallery.shown()) == 7
    gallery.press(Keys.ARROW_DOWN, "?")
    assert gallery.find("#keys").is_displayed()
    gallery.press(Keys.ESCAPE)
    assert not gallery.find("#keys").is_displayed()


# -- comparing


def test_two_pictures_are_compared_with_their_differences_marked(gallery: Page) -> None:
    """Rows that differ, and in them the words."""
    one, other = "study/0002-5.png", of("corgi", gallery)[0]
    gallery.tile(one, ".pick").click()
    assert not gallery.find("#compare").is_enabled()
    gallery.tile(other, ".pick").click()
    gallery.find("#compare").click()
    different = {row.find_element("css selector", "th").text.split()[0]: [
        cell.text for cell in row.find_elements("css selector", "td")]
        for row in gallery.all("#table .different")}  # fmt: skip
    assert different.keys() == {"prompt", "cfg_scale", "seed", "recipe", "file"} | (
        different.keys() & {"made", "seconds"}
    )
    assert different["prompt"] == ["a red star", "a corgi wearing a red hat"]
    marked = [mark.text.strip() for mark in gallery.all("#table tr:first-child mark")]
    assert "star" in marked and "hat" in marked and "red" not in marked
    rows = len(gallery.all("#table tr"))
    gallery.find("#only-different").click()
    visible = [row for row in gallery.all("#table tr") if row.is_displayed()]
    assert len(visible) == len(different) < rows
    gallery.find("#only-different").click()
    gallery.find("#pair [data-do=swap]").click()
    assert gallery.text("#both figcaption") == other


def test_comparing_works_with_keys_alone(gallery: Page) -> None:
    """c picks, x compares, the arrow keys change the right picture, Escape goes back."""
    shown = gallery.shown()
    gallery.find("#search").send_keys(Keys.ARROW_DOWN)
    gallery.press("c", Keys.ARROW_RIGHT, "c", "x")
    captions = [caption.text for caption in gallery.all("#both figcaption")]
    assert captions == shown[:2]
    gallery.press(Keys.ARROW_RIGHT)
    assert [caption.text for caption in gallery.all("#both figcaption")] == [shown[0], shown[2]]
    gallery.press(Keys.ESCAPE)
    assert not gallery.find("#pair").is_displayed()
    gallery.press(Keys.ARROW_RIGHT, "c")
    picked = [tile.get_attribute("alt") for tile in gallery.all("#picked img")]
    assert len(picked) == 2, "a third one takes the place of the first"
    gallery.find("#unpick").click()
    assert not gallery.find("#tray").is_displayed()
    assert not gallery.all('.pick[aria-pressed="true"]')


def test_going_back_closes_a_comparison(gallery: Page) -> None:
    """And going forward opens it again; Escape leaves no entry in the history."""
    shown = gallery.shown()
    gallery.find("#search").send_keys(Keys.ARROW_DOWN)
    gallery.press("c", Keys.ARROW_RIGHT, "c", "x")
    pair = gallery.find("#pair")
    gallery.driver.back()
    wait_for(lambda: not pair.is_displayed(), "it is closed")
    assert gallery.shown() == shown, "the gallery was not left"
    assert gallery.focused() == shown[1]
    gallery.driver.forward()
    wait_for(pair.is_displayed, "it is open again")
    gallery.press(Keys.ESCAPE)
    wait_for(lambda: gallery.js("return history.state") is None, "the history is left")
    gallery.press(Keys.ENTER)
    assert gallery.large() == shown[1]
    gallery.leave_large()
    gallery.find("#unpick").click()


def test_two_pictures_are_compared_in_one_place(gallery: Page) -> None:
    """One instead of the other, by a click or a key; or one over a part of the other."""
    gallery.find("#search").send_keys(Keys.ARROW_DOWN)
    gallery.press("c", Keys.ARROW_RIGHT, "c", "x")

    def seen() -> list[bool]:
        return [one.is_displayed() for one in gallery.all("#both figure")]

    assert seen() == [True, True]
    gallery.press("f")
    assert seen() == [True, False]
    gallery.press(Keys.SPACE)
    assert seen() == [False, True]
    gallery.press("f", "f")
    assert seen() == [False, True]
    gallery.find("#both").click()
    assert seen() == [True, False]
    gallery.press(Keys.SPACE)
    assert seen() == [False, True]
    gallery.find("#pair [data-do=slide]").click()
    assert seen() == [True, True]
    gallery.press(Keys.ARROW_RIGHT)
    assert float(gallery.js("return document.getElementById('cut').value")) > 50
    gallery.find("#pair [data-do=flip]").click()
    gallery.press(Keys.SPACE)
    assert seen() == [False, True]
    gallery.find("#pair [data-do=slide]").click()
    boxes = "return [...document.querySelectorAll('#both img')].map(i => i.getBoundingClientRect())"
    one, other = gallery.js(boxes)
    assert one == other, "in one place"
    clip = "return getComputedStyle(document.querySelectorAll('#both img')[1]).clipPath"
    gallery.find("#cut").send_keys(Keys.HOME)
    assert gallery.js(clip) == "inset(0px 0px 0px 0%)"
    gallery.js(
        "const at = arguments[0]; document.querySelector('#both img').dispatchEvent("
        "new PointerEvent('pointermove', { bubbles: true, buttons: 1,"
        " clientX: at.left + at.width / 4, clientY: at.top }))",
        one,
    )
    assert gallery.js(clip) == "inset(0px 0px 0px 25%)"
    gallery.press(Keys.ESCAPE)
    assert not gallery.find("#pair").is_displayed()


# -- order


def test_dragging_in_pictures_selects_nothing(gallery: Page) -> None:
    """Firefox selects pictures, too, by a double click or a drag, and covers them with blue."""
    gallery.find("#search").send_keys(Keys.ARROW_DOWN)
    gallery.press("c", Keys.ARROW_RIGHT, "c", "x")
    for picture in (gallery.find("#full"), *gallery.all("#both img")):
        assert picture.value_of_css_property("user-select") == "none"
    assert gallery.find("#both figcaption").value_of_css_property("user-select") != "none"
    gallery.press(Keys.ESCAPE)
    gallery.find("#unpick").click()


def choose(page: Page, selector: str, text: str) -> None:
    page.js(
        "const box = document.querySelector(arguments[0]);"
        "box.value = [...box.options].find(one => one.text === arguments[1]).value;"
        "box.dispatchEvent(new Event('change'))",
        selector,
        text,
    )


def headings(page: Page) -> list[str]:
    return [option.text for option in page.all("#jump option")][1:]


def test_pictures_are_sorted_and_days_are_a_jump_away(page: Page, outbox: Path) -> None:
    """The order is kept for the next visit; by name, folders are the headings."""
    for path in (outbox / ".picowatch/gallery").glob("page-*.js"):  # half of them are older
        text = path.read_text()
        path.write_text(
            re.sub(r'("file": "(?:corgi|pets).*?"made_at": )\d+', r"\g<1>1700000000", text)
        )
    page.resize(600, 400)
    page.open(outbox / INDEX)

    newest = page.shown()
    assert set(headings(page)) >= {"Today", "November 14, 2023"} or len(headings(page)) > 1
    choose(page, "#jump", headings(page)[-1])
    wait_for(lambda: page.js("return scrollY") > 0, "the last day")
    choose(page, "#sort", "Oldest first")
    assert page.shown() == newest[::-1]
    choose(page, "#sort", "By name")
    assert page.shown() == sorted(newest)
    assert headings(page) == ["corgi", "pets/cat", "pets/old/dog", "study"]
    page.open(outbox / INDEX)
    assert page.shown() == sorted(newest), "it is kept"
    choose(page, "#sort", "Newest first")


def test_the_order_stands_above_the_last_picture_of_a_row(gallery: Page) -> None:
    """Also where there is one day only, and no list of days beside it."""
    edges = "return [...document.querySelectorAll('#tools, #tools label')].map(one =>"
    edges += " one.getBoundingClientRect().right)"
    tools, order, _ = gallery.js(f"document.getElementById('jump').hidden = true; {edges}")
    assert order == tools


def test_a_day_on_which_the_clocks_change_has_its_own_pictures(house: House, page: Page) -> None:
    """In New York, 1 November 2026 begins at 4:00 UTC, and ends at 5:00 UTC."""
    house.save("four.yaml", "prompt: a cat\nseed: [1, 2, 3, 4]\n")
    house.once()
    utc = ["2026-10-31T12:00", "2026-11-01T04:30", "2026-11-01T18:00", "2026-11-02T12:00"]
    times = iter([int(datetime.fromisoformat(f"{time}+00:00").timestamp()) for time in utc])
    data = house.outbox / ".picowatch/gallery/page-00001.js"
    data.write_text(
        re.sub(r'("made_at": )\d+', lambda found: f"{found[1]}{next(times)}", data.read_text())
    )
    page.time_zone("America/New_York")
    try:
        page.open(house.outbox / INDEX)
        days = ["November 2, 2026", "November 1, 2026", "October 31, 2026"]
        assert headings(page) == days
        choose(page, "#sort", "Oldest first")
        assert headings(page) == days[::-1]
    finally:
        page.time_zone("")


def test_today_is_yesterday_after_midnight(house: House, page: Page) -> None:
    """In a page that stays open, while there are no new pictures: these places are 25 h apart."""
    house.save("one.txt", "a moon --seed 1\n")
    house.once()
    page.time_zone("Pacific/Pago_Pago")
    try:
        page.open(house.outbox / INDEX)
        assert page.text("#days") == "Today"
        page.time_zone("Pacific/Kiritimati")
        wait_for(lambda: page.text("#days") != "Today", "another name of that day")
    finally:
        page.time_zone("")


def test_a_clock_that_was_set_back_leaves_each_day_one_heading(house: House, page: Page) -> None:
    """As two engines do around midnight: what was finished first is listed last."""
    house.save("four.yaml", "prompt: a cat\nseed: [1, 2, 3, 4]\n")
    house.once()
    times = iter([1700000000, 1700200000, 1700000100, 1700200100])
    data = house.outbox / ".picowatch/gallery/page-00001.js"
    data.write_text(
        re.sub(r'("made_at": )\d+', lambda found: f"{found[1]}{next(times)}", data.read_text())
    )
    page.open(house.outbox / INDEX)
    assert len(headings(page)) == 2
    numbers = [file.removeprefix("four/")[:4] for file in page.shown()]
    assert numbers == ["0004", "0002", "0003", "0001"]


def test_a_folder_whose_name_is_not_utf_8_is_a_place_for_an_outbox(
    house: House, page: Page
) -> None:
    """As on disks that were written with other encodings."""
    house.save("one.txt", "a moon --seed 1\n")
    house.once()
    house.outbox.rename(house.folder / os.fsdecode(b"B\xfccher"))
    page.driver.get(f"{house.folder.as_uri()}/B%FCcher/{INDEX}")
    wait_for(lambda: page.all(".tile.loaded"), "the picture")
    assert page.errors() == []


def test_folders_whose_names_sort_alike_are_not_mixed(house: House, page: Page) -> None:
    """`day 1` and `day 01` are one number to who sorts by numbers."""
    for name in ("day 1.yaml", "day 01.yaml", "day 2.yaml"):
        house.save(name, "prompt: a cat\nseed: [1, 2]\n")
    house.once()
    page.open(house.outbox / INDEX)
    choose(page, "#sort", "By name")
    assert headings(page) == ["day 01", "day 1", "day 2"]
    choose(page, "#sort", "Newest first")


# -- stars and deleting


@pytest.fixture
def address(outbox: Path) -> Iterator[str]:
    """Where the gallery is served: pages from disk get no folder of their own to choose."""
    handler = partial(Handler, directory=str(outbox))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()
        thread.join()


class Handler(SimpleHTTPRequestHandler):
    """Sends pictures only while `sends` is set, as a slow network does; says nothing."""

    sends = threading.Event()

    def do_GET(self) -> None:
        if self.path.endswith(".png"):
            self.sends.wait()
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


def test_a_picture_that_is_still_loading_is_not_shown_as_another_one(
    address: str, outbox: Path, page: Page
) -> None:
    """The thumbnail is shown meanwhile; the one before would stand beside its settings."""
    Handler.sends.set()
    page.driver.get(address)
    wait_for(lambda: page.js("return Pictures.loaded"))
    one, *_, other = (file for file in page.shown() if "sheet" not in file)
    wait_for(lambda: len(page.all(".tile.loaded")) == 7, "the thumbnails")
    loaded = "const full = document.getElementById('full');"
    loaded += "return full.complete && full.naturalWidth > 0 && full.src.endsWith(arguments[0])"

    def shown_as(file: str) -> bool:
        with Image.open(outbox / file) as picture:
            width, height = picture.size
            drawn = picture.getpixel((width // 16, height // 16))
        return page.pixel(page.find("#frame"), 1 / 16, 1 / 16) == pytest.approx(drawn, abs=20)

    page.tile(one).click()
    wait_for(lambda: page.js(loaded, one) and shown_as(one), "the picture")
    Handler.sends.clear()
    try:
        page.js("Large.open(Pictures.byFile.get(arguments[0]))", other)
        wait_for(lambda: shown_as(other), "its thumbnail")
        assert not page.js(loaded, other)
    finally:
        Handler.sends.set()
    wait_for(lambda: page.js(loaded, other) and shown_as(other), "the picture")
    assert not page.find("#small").is_displayed()


# -- while it is open


def test_new_pictures_appear_by_themselves(live: House, page: Page) -> None:
    """On top, announced politely; the filters stay as they are."""
    page.search("new")
    assert page.shown() == []
    live.save("pets/new.txt", "a red circle --seed 2\n")
    wait_for(lambda: page.shown() == ["pets/new/0001-2.png"], "the new picture")
    assert page.text("#live") == "1 new picture"
    assert page.text("#count") == "1 of 2 pictures"
    assert page.find('#folders [data-folder="pets"]').is_displayed()
    page.search("")
    assert page.shown() == ["pets/new/0001-2.png", "first/0001-1.png"]


def test_new_pictures_that_are_not_above_are_not_promised_there(gallery: Page) -> None:
    """Those of other folders, and all of them where the oldest come first."""
    gallery.resize(500, 300)
    arrive = (
        "Pictures.byFile.set(arguments[0], { ...Pictures.all[0], file: arguments[0] });"
        "Pictures.all = [...Pictures.byFile.values()].reverse(); Pictures.onchange()"
    )
    gallery.tile(gallery.shown()[-1])
    gallery.js(arrive, "corgi/0003-3.png")
    assert gallery.find("#fresh").text == "↑ 1 new picture"
    gallery.find("#fresh").click()
    wait_for(lambda: not gallery.find("#fresh").is_displayed(), "at the top")
    gallery.search("-recipe:pets")
    gallery.tile(gallery.shown()[-1])
    gallery.js(arrive.replace("file:", "recipe: 'pets/cat.yaml', file:"), "pets/cat/0002-2.png")
    assert gallery.text("#count") == "6 of 9 pictures"
    assert not gallery.find("#fresh").is_displayed()
    choose(gallery, "#sort", "Oldest first")
    gallery.tile(gallery.shown()[-1])
    gallery.js(arrive, "corgi/0004-4.png")
    choose(gallery, "#sort", "Newest first")
    assert not gallery.find("#fresh").is_displayed()


def test_what_comes_at_once_is_announced_together(gallery: Page) -> None:
    """A picture and its warning; the one does not silence the other."""
    gallery.js("announce('1 new picture'); announce('Warning: cat.txt')")
    assert gallery.text("#live") == "1 new picture. Warning: cat.txt"


def test_what_the_user_looks_at_stays_where_it_is(live: House, page: Page) -> None:
    """Also the open large view and the focus, when new pictures come on top."""
    page.resize(500, 400)
    live.save("many.yaml", "prompt: a tree\nseed: [11, 12, 13, 14, 15, 16, 17, 18]\n")
    wait_for(lambda: len(page.shown()) == 9, "all pictures")
    page.tile("first/0001-1.png").click()
    page.leave_large()
    where = "return Math.round([...document.querySelectorAll('.tile')].find(tile =>"
    where += " tile.entry.file === 'first/0001-1.png').getBoundingClientRect().top)"
    before, scrolled = page.js(where), page.js("return scrollY")
    assert scrolled > 200
    live.save("more.yaml", "prompt: a sun\nseed: [21, 22, 23, 24]\n")
    wait_for(lambda: len(page.shown()) == 13, "the new ones")
    assert abs(page.js(where) - before) <= 1
    assert page.js("return scrollY") > scrolled
    assert page.focused() == "first/0001-1.png"
    wait_for(lambda: page.find("#fresh").text == "↑ 4 new pictures", "it is told")
    page.find("#fresh").click()
    wait_for(lambda: not page.find("#fresh").is_displayed(), "at the top")


def test_what_the_user_looks_at_does_not_drift(gallery: Page) -> None:
    """However many pictures come one by one."""
    tops = gallery.js(
        "const like = (_, at) => ({ ...Pictures.all[0], file: `${at}`, width: 500 + at % 77 });"
        "const all = Array.from({ length: 90 }, like), last = all.at(-1);"
        "const top = () => [...document.querySelectorAll('.tile')].find("
        " tile => tile.entry === last).getBoundingClientRect().top;"
        "Grid.show(all.slice(60), { keep: false });"
        "Grid.goTo(last.file, { focus: false });"
        "const tops = [top()];"
        "for (let left = 59; left >= 0; left--) {"
        " Grid.show(all.slice(left), { keep: true }); tops.push(top()); }"
        "return tops"
    )
    assert max(tops) - min(tops) < 1, "the last row may become a little lower"


def test_a_phone_that_is_turned_shows_the_same_pictures(gallery: Page) -> None:
    """However often; with larger pictures, too, what has the focus stays in the window."""
    gallery.resize(390, 844, touch=True)
    gallery.js(
        "const like = (_, at) => ({ ...Pictures.all[0], file: `${at}` });"
        "Pictures.all = Array.from({ length: 200 }, like); show({ keep: false });"
        "scrollTo(0, 2000)"
    )
    gallery.next_frame()
    seen = (
        "return [...document.querySelectorAll('.tile')].filter(tile => {"
        " const rect = tile.getBoundingClientRect(), middle = (rect.top + rect.bottom) / 2;"
        " return middle > 0 && middle < innerHeight; }).map(tile => Number(tile.entry.file))"
    )
    before = set(gallery.js(seen))
    for _ in range(3):
        gallery.resize(844, 390, touch=True)
        assert before & set(gallery.js(seen))
        gallery.resize(390, 844, touch=True)
    assert len(before & set(gallery.js(seen))) > len(before) / 2
    gallery.js("Grid.goTo('150', { focus: true })")
    gallery.js("size.value = 300; size.oninput()")
    assert 150 in gallery.js(seen)


def test_news_and_pictures_at_once_move_nothing_below_them(gallery: Page) -> None:
    """The bar of what runs comes and goes, problems do: above what the user looks at."""
    gallery.resize(500, 400)
    gallery.tile(gallery.shown()[-1])
    gallery.next_frame()
    tops = gallery.js(
        "const last = shownList.at(-1), all = [...shownList];"
        "const top = () => [...document.querySelectorAll('.tile')].find("
        " tile => tile.entry === last).getBoundingClientRect().top;"
        "const news = { updated: Date.now() / 1000, runs: true, image: 1, last_image: 1, of: 2,"
        " step: 0, steps: 0, seconds_left: null, images: { queued: 0 }, waiting: [], problems: [],"
        " more_problems: 0, loading: '', trouble: '', paused: false, preview: false, inbox: '' };"
        "const tops = [top()];"
        "for (const recipe of ['a.yaml', '', 'b.yaml', '']) {"
        " now({ ...news, recipe });"
        " all.unshift({ ...all[0], file: recipe + all.length });"
        " Grid.show([...all], { keep: true });"
        " tops.push(top()); }"
        "return tops"
    )
    assert max(tops) - min(tops) < 1


def test_pictures_that_are_shown_do_not_flicker_when_new_ones_come(live: House, page: Page) -> None:
    """They stay the elements that they were, and their thumbnails are not loaded again."""
    page.tile("first/0001-1.png")
    wait_for(lambda: page.all(".tile.loaded"), "the thumbnail")
    page.js("document.querySelector('.tile').mark = 'the same'")
    live.save("new.txt", "a ring --seed 2\n")
    wait_for(lambda: len(page.shown()) == 2, "the new one")
    marks = page.js("return [...document.querySelectorAll('.tile')].map(tile => tile.mark)")
    assert marks == [None, "the same"]


def test_folders_that_are_touched_stay_when_new_pictures_come(gallery: Page) -> None:
    """They stay the elements that they were, or a click that began before would be lost."""
    assert gallery.js(
        "const rows = () => [...document.querySelectorAll('nav li')], before = rows();"
        "Pictures.byFile.set('a/1.png', { ...Pictures.all[0], file: 'a/1.png' });"
        "Pictures.all = [...Pictures.byFile.values()].reverse();"
        "const changes = new MutationObserver(() => {});"
        "changes.observe(document.querySelector('nav'), { childList: true, subtree: true });"
        "Pictures.onchange();"
        "const taken = changes.takeRecords().flatMap(change => [...change.removedNodes]);"
        "return [taken.some(node => before.includes(node)), rows().length - before.length]"
    ) == [False, 1]
    names = gallery.js(
        "return [...document.querySelectorAll('#folders li')].map(li => li.innerText)"
    )
    assert [name.split()[0] for name in names] == ["a", "corgi", "pets", "study"]


def test_errors_and_warnings_stand_on_top_until_they_are_fixed(live: House, page: Page) -> None:
    """With what is wrong in a line, and the whole text one click away."""
    live.save("wrong.yaml", RECIPES["wrong.yaml"])
    wait_for(lambda: page.all("#problems .error"), "the error")
    line = page.find("#problems summary").text
    assert "wrong.yaml" in line
    assert "unknown field 'stesp'. Did you mean 'steps'?" in line
    assert page.text("#live") == "Error: wrong.yaml"
    page.find("#problems summary").click()
    assert "line 2, column 1" in page.find("#problems pre").text
    link = page.find("#problems a").get_attribute("href") or ""
    assert link.endswith("/outbox/wrong.yaml.error.txt")
    live.save("wrong.yaml", "prompt: a corgi\nsteps: 2\n")
    wait_for(lambda: not page.all("#problems .error"), "it is fixed")


def test_carets_stay_below_what_they_point_at(house: House, page: Page) -> None:
    """In a narrow window the quoted line scrolls sideways; sentences wrap."""
    house.save("wrong.yaml", f"prompt: a corgi\nsampler: a very {'long ' * 15}name\n")
    house.once()
    page.resize(360, 800)
    page.open(house.outbox / INDEX)
    wait_for(lambda: page.all("#problems .error"), "the error")
    page.find("#problems summary").click()
    text, quoted = page.find("#problems pre"), page.find("#problems pre .quoted")
    line, carets = page.text("#problems pre .quoted").splitlines()
    assert line.index("a very") == carets.index("^")
    size = "const one = arguments[0]; return [one.scrollWidth - one.clientWidth, one.clientHeight]"
    beyond, height = page.js(size, quoted)
    assert beyond > 0
    assert height < 60, "two lines, and perhaps a scrollbar"
    assert page.js(size, text)[0] == 0
    told = (house.outbox / "wrong.yaml.error.txt").read_text()
    assert page.text("#problems pre") == told, "nothing is lost"


def test_errors_are_folded_to_three(live: House, page: Page) -> None:
    """A failed image's headline is its reason."""
    live.engine.before_batch = fail_on_bad
    live.save("failing.yaml", "prompt: bad\nseed: [1, 2]\n")
    first = "return document.querySelector('#problems .first')?.textContent"
    wait_for(lambda: page.js(first) == "2 images failed. Bad.", "the reason")
    for number in range(4):
        live.save(f"wrong{number}.yaml", RECIPES["wrong.yaml"])
    wait_for(lambda: len(page.all("#problems .error")) == 5, "all of them")
    more = len(page.all("#problems details")) - 3  # and warnings
    assert page.find("#fold").text == f"Show {more} more"
    assert sum(box.is_displayed() for box in page.all("#problems details")) == 3
    page.find("#fold").click()
    assert sum(box.is_displayed() for box in page.all("#problems details")) == 3 + more
    assert page.find("#fold").get_attribute("aria-expanded") == "true"


def test_errors_that_are_not_shown_are_counted_apart_from_those_that_are_folded(
    house: House, page: Page
) -> None:
    """The page has twenty; the others are files in the outbox, errors and warnings."""
    for number in range(25):
        house.save(f"wrong{number:02}.yaml", RECIPES["wrong.yaml"])
    house.once()
    page.open(house.outbox / INDEX)
    wait_for(lambda: len(page.all("#problems .error")) == 20, "those that are shown")
    others = page.find("#problems > p")
    assert page.find("#fold").text == "Show 17 more"
    assert others.text == "and 5 more: look for .error.txt and .warning.txt in the outbox"
    page.find("#fold").click()
    assert sum(box.is_displayed() for box in page.all("#problems details")) == 20
    assert others.is_displayed()


def test_what_runs_and_what_waits_stands_on_top(house: House, page: Page) -> None:
    """With progress; the rest of the queue one click away; and the end of it all."""
    go = threading.Event()
    house.engine.before_batch = lambda batch: go.wait()  # type: ignore[assignment]
    house.save("a.yaml", "prompt: a corgi\ncount: 4\n")
    house.save("z.txt", "a cat\na dog\n")
    page.is_live = True
    with house.running(batch_size=1):
        try:
            page.open(house.outbox / INDEX)
            wait_for(lambda: "a.yaml: picture 1 of 4" in page.text("#line"), "the work")
            assert page.find("#bar").is_displayed()
            assert page.driver.title == "(1/4) picowatch"
            page.find("#waiting summary").click()
            wait_for(lambda: page.find("#waiting summary").text == "5 images queued", "the queue")
            rows = "return [...document.querySelectorAll('#waiting li')].map(li => li.innerText)"
            wait_for(lambda: page.js(rows) == ["a.yaml 3", "z.txt 2"], "its recipes")
        finally:
            go.set()
        wait_for(lambda: page.text("#line") == "picowatch is running; nothing to do", "the end")
        assert page.driver.title == "picowatch"
        wait_for(lambda: len(page.shown()) == 6, "all pictures")
    wait_for(lambda: page.text("#line") == "picowatch is not running", "it was ended")


def test_a_daemon_that_was_killed_is_not_shown_as_running(house: House, page: Page) -> None:
    """Its last word is an old one."""
    fill(house)
    told = house.outbox / ".picowatch/gallery/now.js"
    text = told.read_text().replace('"runs": false', '"runs": true')
    told.write_text(re.sub(r'"updated": [\d.]+', '"updated": 1700000000.5', text))
    page.open(house.outbox / INDEX)
    wait_for(lambda: page.text("#line") == "picowatch is not running", "it is seen")


def test_deleted_pictures_vanish(live: House, page: Page) -> None:
    """One that is looked at says so; one whose thumbnail is gone, too, leaves the grid at once."""
    live.save("two.yaml", "prompt: a cat\nseed: [1, 2]\n")
    wait_for(lambda: len(page.shown()) == 3, "all pictures")
    # A page in the background asks for nothing: picowatch would tell of it, sooner or later.
    page.js("Object.defineProperty(document, 'hidden', { value: true })")
    (live.outbox / "two/0001-1.png").unlink()
    page.tile("two/0001-1.png").click()
    wait_for(lambda: page.find("#deleted").is_displayed(), "it is said")
    page.press(Keys.ESCAPE)
    wait_for(lambda: len(page.shown()) == 2, "it is gone")
    for path in (live.outbox / ".picowatch/gallery/thumbs").rglob("*.webp"):
        path.unlink()
    (live.outbox / "two/0002-2.png").unlink()
    page.open(live.outbox / INDEX)
    wait_for(lambda: page.shown() == ["first/0001-1.png"], "the other one, too")
    wait_for(lambda: len(page.all(".tile.loaded")) == 1, "the picture instead of its thumbnail")


def test_the_large_view_says_when_its_picture_was_deleted(live: House, page: Page) -> None:
    """By a command in a terminal; in dark colours a sheet is drawn twice, and both go."""
    page.colours("dark")
    live.save("study.yaml", RECIPES["study.yaml"])
    wait_for(lambda: "study/0003-sheet.png" in page.shown(), "the sheet")
    page.tile("study/0003-sheet.png").click()
    wait_for(lambda: page.js("return document.getElementById('full').naturalWidth"), "its pixels")
    outbox = ["--outbox", str(live.outbox)]
    assert picowatch(live.folder, "delete", *outbox, "study/0003-sheet.png").returncode == 0
    wait_for(lambda: page.find("#deleted").is_displayed(), "it is said")
    assert not page.find("#frame").is_displayed()
    page.press(Keys.ARROW_RIGHT)
    wait_for(lambda: page.find("#full").is_displayed(), "the next one")
    assert not page.find("#deleted").is_displayed()


def test_a_deletion_loads_one_page_again(house: House, page: Page) -> None:
    """Not all of them: over a network thousands of pictures are many megabytes."""
    house.save("three.yaml", "prompt: a cat\nseed: [1, 2, 3]\n")
    house.once()
    data = house.outbox / ".picowatch/gallery"
    *older, newest = (data / "page-00001.js").read_text().splitlines(keepends=True)
    (data / "page-00001.js").write_text("".join(older))
    (data / "page-00002.js").write_text(newest)
    page.is_live = True
    with house.running():
        page.open(house.outbox / INDEX)
        assert len(page.shown()) == 3
        page.requests()
        outbox = ["--outbox", str(house.outbox)]
        assert picowatch(house.folder, "delete", *outbox, "three/0001-1.png").returncode == 0
        wait_for(lambda: len(page.shown()) == 2, "it is gone")
        loaded = [address for address in page.requests() if "/page-" in address]
        assert len(loaded) == 1 and "page-00001.js" in loaded[0]


def test_pictures_come_back_with_an_outbox_that_was_away(house: House, page: Page) -> None:
    """As a share is while the network is down: what could not be loaded was not deleted."""
    house.save("two.yaml", "prompt: a cat\nseed: [1, 2]\n")
    house.once()
    page.open(house.outbox / INDEX)
    wait_for(lambda: len(page.all(".tile.loaded")) == 2, "the thumbnails")
    page.tile("two/0001-1.png", ".star").click()
    away = house.outbox.rename(house.folder / "away")
    page.tile("two/0001-1.png").click()
    wait_for(lambda: page.find("#deleted").is_displayed(), "it cannot be loaded")
    assert page.shown() == ["two/0002-2.png"]
    away.rename(house.outbox)
    wait_for(lambda: len(page.shown()) == 2, "it is back")
    wait_for(lambda: not page.find("#deleted").is_displayed(), "and shown")
    page.leave_large()
    assert len(page.all(".tile.starred")) == 1, "with the star that only this browser knows"


def test_a_gallery_that_was_deleted_while_it_is_open_comes_back(live: House, page: Page) -> None:
    """With the next picture, all of it."""
    # At once: the daemon writes into it meanwhile.
    (live.outbox / ".picowatch/gallery").rename(live.folder / "deleted gallery")
    live.save("pets/new.txt", "a ring --seed 2\n")
    wait_for(lambda: page.shown() == ["pets/new/0001-2.png", "first/0001-1.png"], "both are there")
    page.open(live.outbox / INDEX)
    assert len(page.shown()) == 2


def test_a_scrollbar_that_comes_is_no_script_that_fails(gallery: Page) -> None:
    """Browsers report an error then; a page of pictures that comes next would be read again."""
    told = "ResizeObserver loop completed with undelivered notifications."
    whole = gallery.driver.execute_async_script(
        "dispatchEvent(new ErrorEvent('error', { message: arguments[0] }));"
        "load('pages.js', arguments[1])",
        told,
    )
    assert whole


def test_a_page_of_another_version_asks_to_be_reloaded(house: House, page: Page) -> None:
    """Whatever else that version says in the same place."""
    house.save("one.txt", "a moon --seed 1\n")
    house.once()
    page.is_live = True
    page.open(house.outbox / INDEX)
    index = house.outbox / ".picowatch/gallery/pages.js"
    index.write_text(index.read_text().replace('"format": ', '"format": 9'))
    wait_for(lambda: "Reload it." in page.text("#line"), "it is said")
    page.driver.execute_async_script("const done = arguments[0]; load('now.js', () => done());")
    assert "Reload it." in page.text("#line")
    assert page.shown() == ["one/0001-1.png"]


@pytest.mark.parametrize("name", ["page-00001.js"])
def test_a_file_read_in_the_middle_of_a_write_is_read_again(
    house: House, page: Page, name: str
) -> None:
    """Also where nothing else changes; the others are shown meanwhile."""
    house.save("two.yaml", "prompt: a cat\nseed: [1, 2]\n")
    assert house.once()
    data = house.outbox / ".picowatch/gallery"
    older, newer = (data / "page-00001.js").read_text().splitlines(keepends=True)
    (data / "page-00001.js").write_text(older)
    (data / "page-00002.js").write_text(newer)
    index = (data / "pages.js").read_text()
    (data / "pages.js").write_text(re.sub('"pages": .*?]', '"pages": [1, 1]', index))
    (data / "stars.js").write_text('stars(["two/0001-1.png"]);\n')
    whole = (data / name).read_text()
    (data / name).write_text(whole[:-6])
    page.is_live = True  # what is read in part is no fault
    page.open(house.outbox / INDEX)
    assert "two/0002-2.png" in page.shown()
    assert not page.all(".tile.starred")
    (data / name).write_text(whole)
    wait_for(lambda: len(page.all(".tile.starred")) == 1, "the picture and its star")
    assert page.shown() == ["two/0002-2.png", "two/0001-1.png"]


def test_the_last_picture_goes_when_it_is_deleted_elsewhere(live: House, page: Page) -> None:
    """Its page of the gallery is empty then."""
    outbox = ["--outbox", str(live.outbox)]
    assert picowatch(live.folder, "delete", *outbox, "first/0001-1.png").returncode == 0
    wait_for(lambda: page.shown() == [], "it is gone")
    assert page.find("#empty").is_displayed()


# -- everywhere


@pytest.mark.parametrize("width", [320, 360, 390, 768])
def test_nothing_is_cut_off_in_a_narrow_window(page: Page, outbox: Path, width: int) -> None:
    """A phone's width: nothing scrolls sideways, in any view; all buttons can be touched."""
    page.resize(width, 800, touch=True)
    page.open(outbox / INDEX)
    wide = "return document.scrollingElement.scrollWidth"

    def fits(selector: str) -> bool:
        rect = page.js(
            "return document.querySelector(arguments[0]).getBoundingClientRect()", selector
        )
        return bool(rect["left"] >= 0 and rect["right"] <= width + 0.5)

    assert page.js(wide) <= width
    small = SMALL if width < 760 else "return []"  # a mouse hits what is smaller, too
    assert page.js(small) == []
    assert all(map(fits, ["#search", "#count", "#show-keys", "#problems details", "#grid"]))
    if width < 760:
        row = "const [a, b] = ['h1', '#show-keys'].map(one => document.querySelector(one)"
        row += ".getBoundingClientRect()); return a.bottom > b.top"
        assert page.js(row), "the title and its buttons are one row"
        page.js("document.getElementById('count').textContent = '1,204 of 3,000 pictures'")
        assert page.js(row)
    shown = [*of("corgi", page), *page.shown()]
    page.tile(shown[0]).click()
    assert all(
        map(fits, [f"#large [data-do={name}]" for name in ("next", "pick", "copy", "close")])
    )
    assert page.js(small) == []
    if width < 760:  # a phone's picture fills the width, and the buttons would lie over it
        over = "const [a, b] = ['#full', '#zooms'].map(one => document.querySelector(one)"
        over += ".getBoundingClientRect()); return b.top - a.bottom"
        wait_for(lambda: page.js("return document.getElementById('full').naturalWidth"))
        page.next_frame()
        assert page.js(over) >= 0
    page.find("#recipe summary").click()
    assert fits("#full") and fits("#settings") and fits("#yaml") and fits("#zooms")
    page.leave_large(by="#large [data-do=close]")
    for file in page.shown()[:2]:
        page.tile(file, ".pick").click()
    page.find("#compare").click()
    assert page.js(small) == []
    assert fits("#both") and fits("#table table") and fits("#pair [data-do=close]")
    page.js(
        "for (const one of document.querySelectorAll('figcaption'))"
        " one.textContent = 'portraits/night/a-corgi/0001-1234567890.png'"
    )
    page.find("#pair [data-do=slide]").click()
    captions = "return [...document.querySelectorAll('figcaption')]"
    left, right = page.js(f"{captions}.map(one => one.getBoundingClientRect())")
    assert left["right"] <= right["left"] + 0.5


def test_long_names_of_folders_leave_the_page_its_width(house: House, page: Page) -> None:
    """The list of folders to go to is no wider than the pictures below it."""
    for name in ("a" * 200, "b" * 200):
        house.save(f"{name}.txt", "a moon --seed 1\n")
    house.once()
    page.open(house.outbox / INDEX)
    choose(page, "#sort", "By name")
    assert page.find("#jump").is_displayed()
    assert page.find("#jump").rect["x"] >= page.find("#tools").rect["x"]
    choose(page, "#sort", "Newest first")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_both_colours(page: Page, outbox: Path, scheme: str) -> None:
    """WCAG 2.2 AA: a contrast of 4.5 for everything that is written."""
    page.colours(scheme)
    page.open(outbox / INDEX)
    wait_for(lambda: page.all("#problems .error"), "the error")
    page.find("#problems summary").click()
    weak = page.js(CONTRASTS)
    assert weak == []
    dark = page.js("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 200) == (scheme == "dark")
    page.tile(page.shown()[0]).click()
    assert page.js(CONTRASTS) == []
    page.leave_large()
    for file in page.shown()[:2]:
        page.tile(file, ".pick").click()
    page.find("#compare").click()
    assert page.js(CONTRASTS) == []


# WCAG 2.5.5: what is touched has 44 pixels each way.
SMALL = """
const open = document.querySelector("dialog[open]") ?? document.body;
return [...open.querySelectorAll("button, select, summary, input[type=search]")]
  .filter(one => one.checkVisibility() && !one.closest("dialog:not([open])"))
  .filter(one => !one.classList.contains("open"))
  .map(one => [one.outerHTML.slice(0, 80), one.getBoundingClientRect()])
  .filter(([, box]) => box.height < 43.9 || box.width < 43.9).map(([text]) => text);
"""


def sheet_tile(page: Page, outbox: Path, scheme: str) -> WebElement:
    """The thumbnail of the only contact sheet, loaded in these colours."""
    page.colours(scheme)
    page.open(outbox / INDEX)
    page.find('nav [data-row="sheets/"]').click()
    wait_for(lambda: page.all(".tile.loaded"), "the thumbnail")
    (tile,) = page.all(".tile")
    return tile


def test_contact_sheets_are_dark_in_dark_colours(page: Page, outbox: Path) -> None:
    """Their paper, not their pictures: in the grid and in the large view."""
    for scheme in ("light", "dark"):
        tile = sheet_tile(page, outbox, scheme)
        corners = [page.pixel(tile, 0.02, 0.02)]
        tile.click()
        frame = page.find("#frame")
        wide, high = frame.rect["width"], frame.rect["height"]
        (x, y, width, height), *_ = page.js("return Large.entry.boxes")
        with Image.open(outbox / str(page.large())) as sheet:
            share = (x + width / 2) / sheet.width, (y + height / 2) / sheet.height
            scaled = sheet.convert("RGB").resize((round(wide), round(high)), Resampling.BILINEAR)
            drawn = scaled.getpixel((int(wide * share[0]), int(high * share[1])))
        # It is decoded after it is loaded, at a time that a page is not told.
        shown = pytest.approx(drawn, abs=40)
        wait_for(lambda: page.pixel(frame, *share) == shown, f"the sheet, {scheme}")  # noqa: B023
        corners.append(page.pixel(frame, 0.01, 0.01))
        for corner in corners:
            assert max(corner) < 60 if scheme == "dark" else min(corner) > 230
        page.leave_large()


def test_contact_sheets_say_what_they_are(page: Page, outbox: Path) -> None:
    """Their words are seen in both colours: without them a pixel there is another one."""
    hide = """
        const hidden = new CSSStyleSheet();
        hidden.replaceSync(".open::before { visibility: hidden; }");
        document.adoptedStyleSheets = [hidden];
    """
    for scheme in ("light", "dark"):
        tile = sheet_tile(page, outbox, scheme)
        share = 12 / tile.rect["width"], 1 - 18 / tile.rect["height"]
        seen = page.pixel(tile, *share)
        page.js(hide)
        assert page.pixel(tile, *share) != seen, scheme


def test_words_of_a_contact_sheet_do_not_lie_on_each_other(gallery: Page) -> None:
    """What it is makes room for its caption."""
    (sheet,) = (file for file in gallery.shown() if "sheet" in file)
    seen = "return getComputedStyle(document.querySelector('.sheet .open'), '::before').opacity"
    gallery.find("#search").click()  # the mouse is not in the grid
    assert gallery.js(seen) == "1"
    gallery.press(Keys.ARROW_DOWN)
    while gallery.focused() != sheet:
        gallery.press(Keys.ARROW_RIGHT)
    assert gallery.js(seen) == "0"


CONTRASTS = """
const bright = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, place) => sum + v * [0.2126, 0.7152, 0.0722][place], 0);
const channels = colour => colour.match(/[\\d.]+/g).map(Number);
const behind = element => {
  for (let at = element; at; at = at.parentElement) {
    const found = channels(getComputedStyle(at).backgroundColor);
    if (found.length === 3 || found[3] > 0.5) return found;
  }
};
const weak = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim()) continue;
  if (!element.checkVisibility({ opacityProperty: true })) continue;
  if (element.closest("noscript, .unseen, .caption, .pick, button:disabled, header")) continue;
  const style = getComputedStyle(element);
  const [a, b] = [bright(channels(style.color)), bright(behind(element))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < 4.5) weak.push([walker.currentNode.data.slice(0, 30), contrast]);
}
return weak;
"""


def test_a_screen_reader_gets_names_for_all_there_is(gallery: Page) -> None:
    """Every button, link, field and picture has one; landmarks and the list of pictures exist."""
    nodes = gallery.accessibility()

    def named(role: str) -> list[str]:
        return [node["name"]["value"] for node in nodes if node["role"]["value"] == role]

    for role in ("button", "link", "searchbox", "slider", "dialog", "image"):
        assert all(named(role)), role
    assert {"banner", "navigation", "main", "region"} <= {node["role"]["value"] for node in nodes}
    assert "Pictures" in named("list")
    assert "a cat, pets/cat.yaml, seed 77" in named("button")
    assert any(name.startswith("Contact sheet: a red star") for name in named("button"))
    order = gallery.js("return [...document.querySelectorAll('.tile')].map(t => t.ariaPosInSet)")
    assert order == sorted(order)
    sizes = gallery.js("return [...document.querySelectorAll('.tile')].map(t => t.ariaSetSize)")
    assert sizes == ["7"] * 7
    ids = gallery.js("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert gallery.js("return document.documentElement.lang") == "en"


def test_the_dialogs_are_modal_and_named(gallery: Page) -> None:
    """The focus goes in, stays in, and comes back."""
    (cat,) = of("pets/cat", gallery)
    gallery.tile(cat).click()
    inside = "return document.getElementById('large').contains(document.activeElement)"
    inside_or_page = f"{inside} || document.activeElement === document.body"
    for _ in range(12):
        gallery.press(Keys.TAB)
        assert gallery.js(inside_or_page)
    dialogs = [node for node in gallery.accessibility() if node["role"]["value"] == "dialog"]
    assert [dialog["name"]["value"] for dialog in dialogs] == ["a cat"]
    gallery.press(Keys.ESCAPE)
    wait_for(lambda: gallery.focused() == cat, "the focus is back")


def test_an_empty_gallery_says_what_to_do(house: House, page: Page) -> None:
    """Before the first picture, from `init` on: a recipe to copy, and the inbox's path."""
    user = house.folder / "user"
    assert init(user) == 0
    page.open(user / "outbox" / INDEX)
    wait_for(lambda: page.find("#inbox").text == str(user / "inbox"), "the inbox's path")
    assert "picowatch run" in page.find("#start").text
    assert page.text("#line") == "picowatch is not running"
    assert not page.find("#tools").is_displayed()
    recipe = page.text("#first-recipe")
    page.find("[data-copy=first-recipe]").click()
    wait_for(lambda: page.text("#notice") == "Copied.")
    house.save("first.yaml", recipe.replace("count: 4", "count: 1"))
    assert house.once()
    assert house.prompts() == ["a corgi wearing a red hat"]
    assert page.errors() == []
