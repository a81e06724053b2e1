"""The gallery in a real browser, opened from disk: looking, searching, keys, comparing, live."""

import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from picowatch.outbox.formats import FORMATS
from tests.browser.conftest import Page
from tests.house import House, wait_for

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
    """A daemon at work, and the browser that shows its gallery."""
    house.save("first.txt", "the first --seed 1\n")
    house.once()
    with house.running():
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
        page.press(Keys.ESCAPE)


def test_the_large_view_has_every_setting_and_the_recipe(gallery: Page) -> None:
    """As they are in the picture, and as `picowatch show` prints them."""
    (cat,) = of("pets/cat", gallery)
    gallery.tile(cat).click()
    assert gallery.large() == cat
    assert gallery.text("#large-title") == "a cat"
    settings = gallery.settings()
    expected = {"negative_prompt": "blurry", "steps": "30", "seed": "77", "sampler": "Euler a",
                "size": "512x512", "cfg_scale": "7.5", "recipe": "pets/cat.yaml", "file": cat,
                "checkpoint": "demo", "vae": "baked", "clip_skip": "1"}  # fmt: skip
    assert {**settings, "size": "512x512"} == settings | expected
    assert "sampler: Euler a\n" in gallery.text("#yaml")
    gallery.find("#panel summary").click()
    assert re.search(r"digest\s*[0-9a-f]{64}", gallery.find("#hashes").text)


def test_the_recipe_is_copied(gallery: Page) -> None:
    """By the button and by a key; the clipboard then holds the whole text."""
    gallery.tile(of("pets/cat", gallery)[0]).click()
    gallery.js(
        "globalThis.copied = []; const write = navigator.clipboard?.writeText;"
        "if (navigator.clipboard) navigator.clipboard.writeText = text => {"
        " globalThis.copied.push(text); return Promise.resolve(); };"
    )
    gallery.find("#large [data-do=copy]").click()
    wait_for(lambda: gallery.find("#large [data-do=copy]").text == "Copied", "it is said")
    gallery.press("y")
    assert gallery.js("return copied") == [gallery.text("#yaml")] * 2
    assert "copied" in gallery.text("#live")


def test_the_recipe_is_copied_where_pages_from_disk_get_no_clipboard(gallery: Page) -> None:
    """By a selection, which goes to what the user types next."""
    gallery.tile(of("pets/cat", gallery)[0]).click()
    gallery.js("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    gallery.press("y")
    wait_for(lambda: gallery.find("#large [data-do=copy]").text == "Copied", "it is said")
    gallery.find("#large [data-do=close]").click()
    gallery.find("#search").send_keys(Keys.CONTROL, "v")
    first = gallery.js("return document.getElementById('search').value")
    assert first.startswith("prompt: 'a cat'")
    assert not gallery.all("textarea")


def test_a_sweep_is_shown_by_its_contact_sheet(gallery: Page) -> None:
    """With what it varies; its pictures are one click away; sheets have a filter."""
    gallery.find('#folders [data-folder="/"]').click()
    (sheet,) = gallery.shown()
    gallery.tile(sheet).click()
    assert gallery.settings()["cfg_scale"] == "5, 8"
    assert not gallery.find("#recipe").is_displayed()
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
    assert gallery.find("#empty").is_displayed() == (found == 0)


def test_a_search_finds_wildcards_as_they_were_drawn(house: House, page: Page) -> None:
    """What else they could have been is found under its own name alone."""
    house.save("a.txt", "a {corgi|dragon} --seed 1\n")
    assert house.once()
    page.open(house.outbox / INDEX)
    drawn = house.prompts()[0].removeprefix("a ")
    (other,) = {"corgi", "dragon"} - {drawn}
    for query, found in (
        (drawn, 1),
        (other, 0),
        (f"prompt:{other}", 0),
        (f"unexpanded:{other}", 1),
    ):
        page.search(query)
        assert len(page.shown()) == found, query


def test_folders_are_filters(gallery: Page) -> None:
    """Those below the chosen one appear; searching is within it."""

    def folders() -> list[str]:
        return [button.text.replace("\n", " ") for button in gallery.all("#folders button")]

    top = ["All pictures 7", "Contact sheets 1", "corgi 2", "pets 2", "study 3"]
    assert folders() == top
    gallery.find('#folders [data-folder="pets"]').click()
    assert len(gallery.shown()) == 2
    assert folders() == [*top[:4], "cat 1", "old 1", top[4]]
    gallery.find('#folders [data-folder="pets/old"]').click()
    assert gallery.shown() == ["pets/old/dog/0001-7.png"]
    gallery.search("corgi")
    assert gallery.shown() == []
    gallery.find('#folders [data-folder=""]').click()
    assert len(gallery.shown()) == 2
    chosen = gallery.all('#folders [aria-current="true"]')
    assert [button.get_attribute("data-folder") for button in chosen] == [""]


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


def test_going_back_closes_the_large_view(gallery: Page) -> None:
    """As people do on a phone; the address is that of the picture."""
    (cat,) = of("pets/cat", gallery)
    gallery.tile(cat).click()
    assert gallery.js("return decodeURIComponent(location.hash)") == f"#{cat}"
    gallery.driver.back()
    wait_for(lambda: gallery.large() is None, "it is closed")
    assert len(gallery.shown()) == 7


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
        different.keys() & {"made"}
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


# -- while it is open


def test_new_pictures_appear_by_themselves(live: House, page: Page) -> None:
    """On top, announced politely; the filters stay as they are."""
    page.search("new")
    assert page.shown() == []
    live.save("pets/new.txt", "a new one --seed 2\n")
    wait_for(lambda: page.shown() == ["pets/new/0001-2.png"], "the new picture")
    assert page.text("#live") == "1 new picture"
    assert page.text("#count") == "1 of 2 pictures"
    assert page.find('#folders [data-folder="pets"]').is_displayed()
    page.search("")
    assert page.shown() == ["pets/new/0001-2.png", "first/0001-1.png"]


def test_what_the_user_looks_at_stays_where_it_is(live: House, page: Page) -> None:
    """Also the open large view and the focus, when new pictures come on top."""
    page.resize(500, 400)
    live.save("many.yaml", "prompt: many\nseed: [11, 12, 13, 14, 15, 16, 17, 18]\n")
    wait_for(lambda: len(page.shown()) == 9, "all pictures")
    page.tile("first/0001-1.png").click()
    page.press(Keys.ESCAPE)
    where = "return Math.round([...document.querySelectorAll('.tile')].find(tile =>"
    where += " tile.entry.file === 'first/0001-1.png').getBoundingClientRect().top)"
    before, scrolled = page.js(where), page.js("return scrollY")
    assert scrolled > 200
    live.save("more.yaml", "prompt: more\nseed: [21, 22, 23, 24]\n")
    wait_for(lambda: len(page.shown()) == 13, "the new ones")
    assert abs(page.js(where) - before) <= 1
    assert page.js("return scrollY") > scrolled
    assert page.focused() == "first/0001-1.png"
    wait_for(lambda: page.find("#fresh").text == "↑ 4 new pictures", "it is told")
    page.find("#fresh").click()
    wait_for(lambda: not page.find("#fresh").is_displayed(), "at the top")


def test_pictures_that_are_shown_do_not_flicker_when_new_ones_come(live: House, page: Page) -> None:
    """They stay the elements that they were, and their thumbnails are not loaded again."""
    page.tile("first/0001-1.png")
    wait_for(lambda: page.all(".tile.loaded"), "the thumbnail")
    page.js("document.querySelector('.tile').mark = 'the same'")
    live.save("new.txt", "a new one --seed 2\n")
    wait_for(lambda: len(page.shown()) == 2, "the new one")
    marks = page.js("return [...document.querySelectorAll('.tile')].map(tile => tile.mark)")
    assert marks == [None, "the same"]


def test_errors_and_warnings_stand_on_top_until_they_are_mended(live: House, page: Page) -> None:
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
    wait_for(lambda: not page.all("#problems details"), "it is fixed")


def test_what_runs_and_what_waits_stands_on_top(house: House, page: Page) -> None:
    """With progress; the rest of the queue one click away; and the end of it all."""
    go = threading.Event()
    house.engine.before_batch = lambda batch: go.wait()  # type: ignore[assignment]
    house.save("a.yaml", "prompt: a corgi\ncount: 4\n")
    house.save("z.txt", "a cat\na dog\n")
    with house.running(batch_size=1):
        try:
            page.open(house.outbox / INDEX)
            wait_for(lambda: "a.yaml: picture 1 of 4" in page.text("#line"), "the work")
            assert page.find("#bar").is_displayed()
            assert page.driver.title == "(1/4) picowatch"
            page.find("#waiting summary").click()
            assert page.find("#waiting summary").text == "5 images queued"
            waiting = [row.text for row in page.all("#waiting li")]
            assert waiting == ["a.yaml 3", "z.txt 2"]
        finally:
            go.set()
        wait_for(lambda: page.text("#line") == "picowatch is running; nothing to do", "the end")
        assert page.driver.title == "picowatch"
        assert len(page.shown()) == 6
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
    live.save("two.yaml", "prompt: two\nseed: [1, 2]\n")
    wait_for(lambda: len(page.shown()) == 3, "all pictures")
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


def test_a_gallery_that_was_deleted_while_it_is_open_comes_back(live: House, page: Page) -> None:
    """With the next picture, all of it."""
    shutil.rmtree(live.outbox / ".picowatch/gallery")
    live.save("pets/new.txt", "a new one --seed 2\n")
    wait_for(lambda: page.shown() == ["pets/new/0001-2.png", "first/0001-1.png"], "both are there")
    page.open(live.outbox / INDEX)
    assert len(page.shown()) == 2


# -- everywhere


@pytest.mark.parametrize("width", [320, 390, 768])
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
    assert all(map(fits, ["#search", "#count", "#show-keys", "#problems details", "#grid"]))
    shown = page.shown()
    page.tile(shown[0]).click()
    assert all(
        map(fits, [f"#large [data-do={name}]" for name in ("next", "pick", "copy", "close")])
    )
    assert fits("#full") and fits("#settings") and fits("#yaml")
    page.find("#large [data-do=close]").click()
    for file in shown[:2]:
        page.tile(file, ".pick").click()
    page.find("#compare").click()
    assert fits("#both") and fits("#table table") and fits("#pair [data-do=close]")


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
    page.press(Keys.ESCAPE)
    for file in page.shown()[:2]:
        page.tile(file, ".pick").click()
    page.find("#compare").click()
    assert page.js(CONTRASTS) == []


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
    assert named("list")[-1] == "Pictures, newest first" or "Pictures, newest first" in named(
        "list"
    )
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
    """Before the first picture."""
    house.once()
    page.open(house.outbox / INDEX)
    assert "Save a recipe in the inbox" in page.find("#empty").text
    assert page.errors() == []
