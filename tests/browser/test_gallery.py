"""The gallery in a real browser, opened from disk: views, search, keys, comparison."""

import re
import shlex
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.browser.conftest import CAT, DOG, INDEX, Page, made_at, wait_for
from tests.house import House

# -- looking


def test_every_picture_is_shown_newest_first(gallery: Page, outbox: Path) -> None:
    """Uncropped thumbnails in rows that fill the width, on the ground of the system's colours."""
    ground = "return Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    assert gallery.js(ground) > 200
    gallery.colours("dark")
    assert gallery.js(ground) < 50
    listed = re.findall(r'"file": "([^"]+)"', (outbox / "images.jsonl").read_text())
    assert [file for file in gallery.shown() if "sheet" not in file] == listed[::-1]
    assert gallery.text("#count") == "7 pictures"
    wait_for(lambda: len(gallery.all(".tile.loaded")) == 7, "the thumbnails")
    sources = [image.get_attribute("src") or "" for image in gallery.all(".tile img")]
    assert all(".webp?" in source for source in sources)
    for wanted, tile in zip(gallery.js("return shownList"), gallery.all(".tile"), strict=True):
        shape = wanted["width"] / wanted["height"]
        assert tile.rect["width"] / tile.rect["height"] == pytest.approx(shape, rel=0.02)


def test_the_large_view_has_every_setting_and_the_recipe(gallery: Page) -> None:
    """The picture's own settings are shown; hashes are folded."""
    gallery.tile(CAT).click()
    assert (gallery.large(), gallery.text("#large-title")) == (CAT, "a cat")
    expected = {"negative_prompt": "blurry", "steps": "30", "seed": "77", "sampler": "Euler a",
                "cfg_scale": "4", "recipe": "pets/cat.yaml", "file": CAT, "size": "128x128",
                "checkpoint": "demo", "vae": "baked", "clip_skip": "1"}  # fmt: skip
    assert gallery.settings() == gallery.settings() | expected
    assert "hash" not in gallery.text("#settings")
    gallery.find("#recipe summary").click()
    assert re.fullmatch(
        "prompt: a cat\nnegative_prompt: blurry\ncheckpoint: demo\nsampler: Euler a\n"
        "schedule_type: uniform\nsteps: 30\ncfg_scale: 4\nsize: .*\nseed: 77\n",
        gallery.text("#yaml"),
    )
    gallery.find("#panel > details:last-child summary").click()
    assert re.search(r"digest\s*[0-9a-f]{64}", gallery.find("#hashes").text)


def test_a_repaired_picture_has_its_own_shape(house: House, page: Page) -> None:
    """Not that in which its details are drawn."""
    house.draw("wide.png", size=(256, 128))
    house.save("a.yaml", "image: wide.png\ndetail: hat\nseed: 1\n")
    assert house.once(), house.error("a.yaml")
    page.open(house.outbox / INDEX)
    rect = page.tile("a/0001-1.png").rect
    assert rect["width"] / rect["height"] == pytest.approx(2, rel=0.02)
    page.tile("a/0001-1.png").click()
    shown = page.settings()
    assert (shown["size"], "enlarged to" in shown, "given_size" in shown) == (
        "256x128", False, False,
    )  # fmt: skip


@pytest.mark.parametrize("clipboard", ["async text => { written = text; }", "undefined"])
def test_recipes_paths_and_commands_are_copied(gallery: Page, outbox: Path, clipboard: str) -> None:
    """A button or a key copies; without a clipboard, the text is selected."""
    texts = {"y": gallery.js("return Pictures.byFile.get(arguments[0]).yaml", CAT),
             "p": f"{outbox}/{CAT}",
             Keys.DELETE: f"picowatch delete --outbox {outbox} {CAT}"}  # fmt: skip
    gallery.js(f"globalThis.written = null; navigator.clipboard.writeText = {clipboard}")
    for key, text in texts.items():
        gallery.tile(CAT).click()
        gallery.press(key)
        assert "copied" in gallery.text("#live")
        gallery.leave_large()
        box = gallery.find("#search")
        box.send_keys(Keys.CONTROL, "v")
        found = gallery.js("return written ?? search.value")
        assert found.split() == text.split()
        gallery.search("")
    for file in ("it's $HOME/0001-1.png", "--help/0001-1.png", "a b/ü.png"):
        command = shlex.split(gallery.js("return commandLine('delete', arguments[0])", file))
        assert command[4:] == [*["--"] * file.startswith("-"), file]


def test_a_sweep_is_shown_by_its_contact_sheet(gallery: Page) -> None:
    """Its pictures are one click away; there is a filter for sheets."""
    gallery.all("#views button")[1].click()
    (sheet,) = gallery.shown()
    gallery.tile(sheet).click()
    assert gallery.settings()["cfg_scale"] == "5, 8"
    assert not gallery.find("#large [data-do=recipe]").is_displayed()
    gallery.all("#cells button")[1].click()
    assert (gallery.large(), gallery.settings()["cfg_scale"]) == ("study/0002-5.png", "8")
    (back,) = gallery.all("#cells button")
    assert back.get_attribute("aria-label") == f"Its contact sheet {sheet}"
    back.click()
    assert gallery.large() == sheet


# -- finding


QUERIES = {
    "corgi": 2, "RED": 5, '"a red"': 5, '"red a"': 0, "red -hat": 3, "seed:7": 1, "seed:77": 1,
    "sampler:euler": 1, "size:256x512": 1, "negative:blurry": 1, "-negative:blurry corgi": 2,
    "pets/": 2, "recipe:study": 3, "cfg:8": 2, "cfg:<5": 4, "steps:<25": 5, "steps: >= 30 -hat": 1,
    "cfg:4..7.5": 5, "width:256": 1, "steps: 30": 1, "steps:": 7, "steps:<": 7, "no such": 0,
    '"': 7, "-": 7, "": 7,
}  # fmt: skip


def test_a_search_finds(gallery: Page) -> None:
    """It finds words in prompts, settings and path, and tells a misspelt name from a value."""
    told = "return [document.querySelectorAll('.tile').length, part('count').textContent,"
    told += " part('none').checkVisibility()]"
    for query, found in QUERIES.items():
        gallery.search(query)
        count = "7 pictures" if found == 7 else f"{found} of 7 pictures"
        assert gallery.js(told) == [found, count, found == 0], query
    digest = gallery.js("return shownList.at(-1).digest")
    for query, said in (
        ("corgi stesp:8", "No picture has a setting called “stesp”."),
        ("constructor:8", "No picture has a setting called “constructor”."),
        ("steps:149", "No picture matches."),
        (digest[:9], "No picture matches."),
        ("sta:5", "No picture matches."),
        ("mark:kept", "No picture matches."),
        ("unexp:cat", "No picture matches."),
    ):
        gallery.search(query)
        assert (gallery.shown(), gallery.text("#none-words")) == ([], said)
    gallery.find("#clear").click()
    assert len(gallery.shown()) == 7


def test_a_search_finds_what_was_drawn_and_accents_in_any_form(house: House, page: Page) -> None:
    """Other alternatives of a wildcard only as `unexpanded`; macOS composes names with accents."""
    house.save("a.yaml", "prompt: a {corgi|dragon}\nseed: 1\n")
    house.save("b.yaml", "prompt: un caf\u00e9\nseed: 1\n")
    house.save("cafe\u0301.yaml", "prompt: a tree\nseed: 1\n")
    house.once()
    page.open(house.outbox / INDEX)
    drawn = house.started()[0].removeprefix("a ")
    (other,) = {"corgi", "dragon"} - {drawn}
    queries = {drawn: 1, other: 0, f"prompt:{other}": 0, f"unexpanded:{other}": 1, "neg:cat": 0}
    queries |= dict.fromkeys(("CAF\u00c9", "caf\u00e9", "cafe\u0301"), 2)
    for query, found in queries.items():
        page.search(query)
        assert len(page.shown()) == found, query


def test_folders_are_filters(gallery: Page) -> None:
    def folders() -> list[str]:
        return [button.text.replace("\n", " ") for button in gallery.all("nav button")]

    top = ["All pictures 7", "Contact sheets 1", "corgi 2", "pets 2", "study 3"]
    assert folders() == top
    gallery.find('#folders [data-folder="pets"]').click()
    assert len(gallery.shown()) == 2
    assert folders() == [*top[:4], "cat 1", "old 1", top[4]]
    gallery.find('#folders [data-folder="pets/old"]').click()
    assert gallery.shown() == [DOG]
    gallery.search("corgi")
    assert gallery.shown() == []
    gallery.find("#views button").click()
    assert len(gallery.shown()) == 2
    assert len(gallery.all('nav [aria-current="true"]')) == 1


# -- order and days


def test_pictures_are_sorted_and_days_are_a_jump_away(house: House, page: Page) -> None:
    """By name, folders are the headings; pictures may be listed out of order."""
    for name in ("day 1", "day 01", "day 2"):
        house.save(f"{name}.yaml", "prompt: a cat\nseed: [1, 2, 3]\n")
    house.once()
    made_at(house.outbox, *[1_800_000_000, 1_700_000_000] * 5)
    page.resize(600, 400)
    page.open(house.outbox / INDEX)
    newest, headings = page.shown(), "return Grid.headings()"
    assert page.js(headings) == ["Jan 15, 2027", "Nov 14, 2023"]
    Select(page.find("#jump")).select_by_visible_text("Nov 14, 2023")
    wait_for(lambda: page.js("return scrollY") > 0, "the last day")
    Select(page.find("#sort")).select_by_visible_text("Oldest first")
    assert page.shown() == newest[::-1]
    Select(page.find("#sort")).select_by_visible_text("By name")
    assert page.js(headings) == ["day 01", "day 1", "day 2"]
    assert page.shown() == sorted(newest)
    page.open(house.outbox / INDEX)
    assert page.js(headings)[0] == "day 01", "the order is kept"


# -- keys, zoom and history


def test_the_grid_is_walked_with_the_arrow_keys(gallery: Page) -> None:
    """Tab stops once; Home and End work; Enter opens; Escape returns to the same picture."""
    shown = gallery.shown()
    gallery.find("#search").send_keys(Keys.ARROW_DOWN)
    assert gallery.focused() == shown[0]
    for key, file in (
        (Keys.ARROW_RIGHT, shown[1]), (Keys.ARROW_RIGHT, shown[2]), (Keys.ARROW_LEFT, shown[1]),
        (Keys.END, shown[-1]), (Keys.ARROW_RIGHT, shown[-1]), (Keys.HOME, shown[0]),
    ):  # fmt: skip
        gallery.press(key)
        assert gallery.focused() == file
    gallery.press(Keys.ARROW_DOWN)
    assert gallery.focused() not in ("", shown[0])
    gallery.press(Keys.ARROW_UP)
    assert gallery.focused() == shown[0]
    assert len(gallery.all('.tile .open[tabindex="0"]')) == 1
    gallery.press(Keys.ARROW_RIGHT, Keys.ENTER)
    assert gallery.large() == shown[1]
    gallery.leave_large()
    assert gallery.focused() == shown[1]
    gallery.press("/", "?", "c")
    assert gallery.js("return search.value") == "?c", "in the search box keys are letters"
    assert not gallery.find("#keys").is_displayed()
    gallery.press(Keys.ESCAPE, Keys.ARROW_DOWN, "?")
    assert gallery.js("return search.value") == ""
    assert gallery.find("#keys").is_displayed()
    gallery.find("#keys [data-do=close]").click()
    assert not gallery.find("#keys").is_displayed()


def test_the_large_view_zooms_and_goes_on(gallery: Page) -> None:
    """1:1 shows each pixel; the next picture fits again; the focus returns to the last one."""
    gallery.tile(CAT).click()
    wait_for(lambda: gallery.js("return document.getElementById('full').naturalWidth") == 128)
    gallery.find("#large [data-do=one]").click()
    assert (gallery.find("#full").rect["width"], gallery.text("#zoom")) == (128, "100 %")
    wheel = "new WheelEvent('wheel', { deltaY: -200, clientX: 600, clientY: 300 })"
    gallery.js(f"document.getElementById('stage').dispatchEvent({wheel})")
    turned = gallery.find("#full").rect["width"]
    gallery.press("+")
    assert 128 < turned < gallery.find("#full").rect["width"]
    gallery.press(Keys.ARROW_RIGHT)
    assert gallery.find("#large [data-do=fit]").get_attribute("aria-pressed") == "true"
    gallery.leave_large()
    gallery.search("red")
    shown = gallery.shown()
    gallery.tile(shown[0]).click()
    assert not gallery.find("#large [data-do=previous]").is_enabled()
    gallery.press(*[Keys.ARROW_RIGHT] * 2)
    assert (gallery.large(), gallery.text("#place")) == (shown[2], "3 of 5")
    gallery.press(*[Keys.ARROW_RIGHT] * 5)
    assert gallery.large() == shown[-1]
    assert not gallery.find("#large [data-do=next]").is_enabled()
    gallery.press(Keys.ESCAPE)
    wait_for(lambda: gallery.focused() == shown[-1], "the focus")


def test_going_back_closes_what_fills_the_window(gallery: Page, outbox: Path) -> None:
    """People do that on phones; the address is the picture's, as for a bookmark."""
    shown = gallery.shown()
    gallery.tile(shown[0]).click()
    assert gallery.js("return linkedFile()") == shown[0]
    gallery.press("c", Keys.ARROW_RIGHT, "c", "x")
    assert gallery.find("#pair").is_displayed()
    gallery.driver.back()
    wait_for(lambda: gallery.large() is None, "it is closed")
    assert not gallery.find("#pair").is_displayed()
    wait_for(lambda: gallery.focused() == shown[1], "the focus")
    gallery.driver.forward()
    wait_for(lambda: gallery.large() == shown[1], "it is open again")
    gallery.leave_large()
    gallery.open(outbox / INDEX, f"#{shown[0]}")
    wait_for(lambda: gallery.large() == shown[0], "the picture")
    gallery.js("location.hash = arguments[0]", shown[1])
    wait_for(lambda: gallery.large() == shown[1], "the other one")
    gallery.leave_large()


# -- comparing


def test_two_pictures_are_compared_with_their_differences_marked(gallery: Page) -> None:
    """Keys are enough: c selects, x compares, the arrow keys change the right picture."""
    shown = gallery.shown()
    for file in (CAT, DOG):
        gallery.tile(file)
        gallery.js("Grid.goTo(arguments[0], { focus: true })", file)
        gallery.press("c")
    assert len(gallery.all(".tile.picked")) == 2
    gallery.press("x")
    rows = {row.text.split()[0]: row for row in gallery.all("#table tr.different")}
    assert {"prompt", "seed", "size", "steps"} <= set(rows)
    assert " ".join(mark.text for mark in gallery.all("#table tr:first-child mark")).split() == [
        "cat", "dog", "at", "the", "beach",
    ]  # fmt: skip
    gallery.find("#only-different").click()
    same = [row for row in gallery.all("#table tr") if row not in rows.values()]
    assert same and not any(row.is_displayed() for row in same)
    gallery.press(Keys.ARROW_RIGHT)
    captions = [caption.text for caption in gallery.all("#both figcaption")]
    assert captions == [CAT, shown[shown.index(DOG) + 1]]
    gallery.press(Keys.ESCAPE)
    gallery.find("#unpick").click()
    assert not gallery.all(".tile.picked") and not gallery.find("#tray").is_displayed()


# -- everywhere

# WCAG 2.5.5: what is touched has 44 pixels each way.
SMALL = """
const open = document.querySelector("dialog[open]") ?? document.body;
return [...open.querySelectorAll("button, select, summary, input[type=search]")]
  .filter(one => one.checkVisibility() && !one.closest("dialog:not([open])"))
  .filter(one => !one.classList.contains("open"))
  .map(one => [one.outerHTML.slice(0, 80), one.getBoundingClientRect()])
  .filter(([, box]) => box.height < 43.9 || box.width < 43.9).map(([text]) => text);
"""
OUTSIDE = """
return arguments[0].filter(one => {
  const box = document.querySelector(one).getBoundingClientRect();
  return box.left < 0 || box.right > innerWidth + 0.5;
});
"""


@pytest.mark.parametrize("width", [320, 768])
def test_nothing_is_cut_off_in_a_narrow_window(page: Page, outbox: Path, width: int) -> None:
    """At a phone's width no view scrolls sideways, and all buttons can be touched."""
    page.resize(width, 800, touch=True)
    page.open(outbox / INDEX)
    page.js("document.getElementById('count').firstChild.textContent = '1,204 of 3,000'")
    assert page.find("#count").rect["height"] < 30

    def check(*selectors: str) -> None:
        assert page.js("return document.scrollingElement.scrollWidth") <= width
        assert page.js(OUTSIDE, selectors) == []
        assert width > 760 or page.js(SMALL) == []

    check("#search", "#count", "#show-keys", "#problems", "#grid")
    page.tile(CAT).click()
    wait_for(lambda: page.js("return document.getElementById('full').naturalWidth"))
    page.find("#recipe summary").click()
    buttons = [f"#large [data-do={name}]" for name in ("next", "pick", "recipe", "delete", "close")]
    check(*buttons, "#full", "#zooms", "#settings", "#yaml")
    page.leave_large(by="#large [data-do=close]")
    for file in page.shown()[:2]:
        page.tile(file, ".pick").click()
    page.find("#compare").click()
    check("#both", "#table table", "#pair [data-do=close]")


TOP = "return document.querySelector('.tile').getBoundingClientRect().top"
WORKS = """now({ updated: Date.now() / 1000, runs: true, recipe: "photos/1.jpg", image: 65, of: 300,
  share: 0.2, phase: "upscale", step: 3, steps: 24, images: { queued: 235 },
  waiting: [["photos", 235]], inbox: "/inbox", ignored: [["notes.md", "no recipe"]],
  ignored_count: 1, problems: arguments[0],
  line: "photos: 65 of 300, 22 %, 12 min left; 235 images wait" });"""


def test_pictures_begin_in_the_upper_third_of_a_phone(page: Page, outbox: Path) -> None:
    """Not only at rest: also with a progress, a queue, ignored files and errors above them."""
    page.resize(390, 844, touch=True)
    page.open(outbox / INDEX)
    assert page.js(TOP) < 844 / 3
    wrong = {"file": "a.error.txt", "recipe": "a.yaml", "is_error": True, "text": "Wrong."}
    assert page.js(WORKS + TOP, [wrong] * 30) < 844 / 3
    page.find("#ignored summary").click()
    assert page.find("#ignored").text == "1 ignored\nnotes.md no recipe"


def test_a_screen_reader_gets_names_for_all_there_is(gallery: Page) -> None:
    """Buttons, links, fields and pictures have names; dialogs keep the focus and return it."""

    def named(role: str) -> list[str]:
        nodes = gallery.tell("Accessibility.getFullAXTree")["nodes"]
        read = [node for node in nodes if not node.get("ignored")]
        return [node["name"]["value"] for node in read if node["role"]["value"] == role]

    for role in ("button", "searchbox", "slider", "navigation", "list", "region"):
        assert named(role) and all(named(role)), role
    assert "a cat, pets/cat.yaml, seed 77" in named("button")
    gallery.tile(CAT).click()
    assert named("dialog") == ["a cat"]
    assert all(named("button") + named("link") + named("image"))
    inside = "document.getElementById('large').contains(document.activeElement)"
    for _ in range(12):
        gallery.press(Keys.TAB)
        assert gallery.js(f"return {inside} || document.activeElement === document.body")
