"""The open gallery: new and deleted pictures, work in progress, errors, originals."""

import re
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import INDEX, Page, wait_for
from tests.digest_engine import fail_on_bad
from tests.house import House

WRONG = "prompt: a corgi\nstesp: 2\n"


@pytest.fixture
def live(house: House, page: Page) -> Iterator[House]:
    """Start a daemon, and a browser that shows its gallery.

    Tests that click pictures use words that the demo model knows, because a warning could appear
    and move the grid at any time.
    """
    house.save("first.txt", "a moon --seed 1\n")
    house.once()
    page.go_live()
    with house.running():
        now = house.outbox / ".picowatch/gallery/now.js"
        wait_for(lambda: '"runs": true' in now.read_text(), "the first news of this run")
        page.open(house.outbox / INDEX)
        yield house


# -- pictures that come


def test_what_the_user_looks_at_stays_where_it_is(live: House, page: Page) -> None:
    """New pictures at the top move neither view nor focus; they are announced, one click away."""
    page.resize(500, 400)
    live.save("many.yaml", "prompt: a tree\nseed: 11..18\n")
    wait_for(lambda: len(page.shown()) == 9, "all pictures")
    page.js("document.querySelector('.tile').mark = 'the same'")
    page.tile("first/0001-1.png").click()
    page.leave_large()
    where = "return Math.round([...document.querySelectorAll('.tile')].find(tile =>"
    where += " tile.entry.file === 'first/0001-1.png').getBoundingClientRect().top)"
    page.next_frame()
    before, scrolled = page.js(where), page.js("return scrollY")
    assert scrolled > 200
    live.save("more.yaml", "prompt: a sun\nseed: 21..26\n")
    wait_for(lambda: len(page.shown()) == 15, "the new ones")
    page.next_frame()
    assert abs(page.js(where) - before) <= 1
    assert page.js("return scrollY") > scrolled
    assert page.focused() == "first/0001-1.png"
    assert page.js("return document.querySelectorAll('.tile')[6].mark") == "the same"
    assert "new picture" in page.text("#live")
    wait_for(lambda: page.find("#fresh").text == "↑ 6 new pictures", "it is told")
    page.find("#fresh").click()
    wait_for(lambda: not page.find("#fresh").is_displayed(), "at the top")


def test_a_day_of_many_pictures_comes_in_blocks(gallery: Page) -> None:
    """Blocks get their tiles when they come near; keys and addresses reach every picture."""
    gallery.js(
        "const like = (_, at) => ({ ...Pictures.all[0], file: `${at}` });"
        "Pictures.all = Array.from({ length: 1050 }, like);"
        "Pictures.byFile = new Map(Pictures.all.map(entry => [entry.file, entry]));"
        "Pictures.onchange()"
    )
    gallery.next_frame()
    assert len(gallery.all(".tile")) < 500
    gallery.js("Grid.goTo('500', { focus: true })")
    seen = "const box = document.activeElement.getBoundingClientRect();"
    assert gallery.focused() == "500"
    wait_for(lambda: gallery.js(f"{seen} return box.top > 0 && box.bottom < innerHeight"))
    gallery.press(Keys.END)
    assert gallery.focused() == "1049"
    gallery.press(Keys.ARROW_UP)
    assert gallery.focused() != "1049"


def test_a_page_that_is_read_while_it_is_written_is_read_again(house: House, page: Page) -> None:
    """The others are shown meanwhile. A page of another version asks to be reloaded."""
    house.save("two.yaml", "prompt: a cat\nseed: [1, 2]\n")
    assert house.once()
    data = house.outbox / ".picowatch/gallery"
    older, newer = (data / "page-00001.js").read_text().splitlines(keepends=True)
    (data / "page-00001.js").write_text(older[:-6])
    (data / "page-00002.js").write_text(newer)
    index = data / "pages.js"
    index.write_text(re.sub('"pages": .*?]', '"pages": ["1", "1"]', index.read_text()))
    page.go_live()  # what is read in part is no fault
    page.driver.get((house.outbox / INDEX).as_uri())
    wait_for(lambda: page.shown() == ["two/0002-2.png"], "the whole one")
    (data / "page-00001.js").write_text(older)
    wait_for(lambda: page.shown() == ["two/0002-2.png", "two/0001-1.png"], "both")
    index.write_text(index.read_text().replace('"format": ', '"format": 9'))
    wait_for(lambda: "Reload it." in page.text("#line"), "it is said")
    page.driver.execute_async_script("const done = arguments[0]; load('now.js', () => done());")
    assert "Reload it." in page.text("#line"), "whatever else that version says there"


def test_an_empty_gallery_says_what_to_do(house: House, page: Page) -> None:
    """Before the first picture it has a recipe to copy and the inbox's path."""
    assert house.once()
    page.open(house.outbox / INDEX)
    wait_for(lambda: page.find("#inbox").text == str(house.inbox), "the inbox's path")
    assert "picowatch run" in page.find("#start").text
    assert page.text("#line") == "picowatch is not running"
    recipe = page.text("#first-recipe")
    page.find("[data-copy=first-recipe]").click()
    wait_for(lambda: page.text("#notice") == "Copied.")
    house.save("first.yaml", recipe.replace("count: 4", "count: 1"))
    assert house.once()
    assert house.prompts() == ["a corgi wearing a red hat"]


# -- pictures that go


def test_a_result_that_is_replaced_is_shown_at_once(live: House, page: Page) -> None:
    """In the grid and in the large view, though its name is that of the former one."""
    live.save("in/_pictures.yaml", "resize_to: 32\nreplace: true\n")
    live.draw("in/a.png")
    wait_for(lambda: "in/a.png" in page.shown(), "the first result")
    page.tile("in/a.png").click()
    images = "['#full', '[aria-label^=\"a.png\"] img'].map(name => document.querySelector(name))"
    high = f"return {images}.map(image => image.naturalHeight)"
    wait_for(lambda: page.js(high) == [32, 32], "it is shown")
    live.draw("in/a.png", "blue", (64, 32))
    wait_for(lambda: page.js(high) == [16, 16], "the second one")


def test_deleted_pictures_vanish(live: House, page: Page) -> None:
    """A command deletes them; the large view says so, and shows the next one."""
    live.save("two.yaml", "prompt: a cat\nseed: [1, 2]\n")
    wait_for(lambda: len(page.shown()) == 3, "all pictures")
    shown = page.shown()
    page.tile(shown[0]).click()
    live.tell("delete", None, shown[0])
    wait_for(lambda: page.find("#deleted").is_displayed(), "it is said")
    wait_for(lambda: page.shown() == shown[1:], "it is gone")
    page.press(Keys.ARROW_RIGHT)
    assert page.large() == shown[1]
    assert not page.find("#deleted").is_displayed()
    page.leave_large()
    live.tell("delete", None, *shown[1:])
    wait_for(lambda: page.shown() == [], "all are gone")
    assert page.find("#empty").is_displayed()


# -- what runs


def test_what_runs_and_what_waits_stands_on_top(house: House, page: Page) -> None:
    """It is now.txt's line; the rest of the queue is one click away; the end is shown, too."""
    go = threading.Event()
    house.engine.before_batch = lambda batch: go.wait()  # type: ignore[assignment]
    house.save("a.yaml", "prompt: a corgi\ncount: 4\n")
    house.save("z.txt", "a cat\na dog\n")
    page.go_live()
    with house.running(batch_size=1):
        try:
            page.open(house.outbox / INDEX)
            wait_for(lambda: "a.yaml: 1 of 4" in page.text("#line"), "the work")
            now = house.outbox / "now.txt"
            wait_for(lambda: page.text("#line") == now.read_text().strip(), "the words of now.txt")
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
    wait_for(lambda: page.text("#line") == "picowatch is not running", "it was ended")
    # The last word of one that was killed is an old one.
    killed = (
        "now({ updated: 1700000000, runs: true, recipe: '', image: 0, of: 0, steps: 0, waiting: [],"
    )
    wrong = "{ file: 'a', recipe: 'settings', is_error: true, text: 'Too many.\\n\\nFix it.' }"
    page.js(f"{killed} images: {{ queued: 0 }}, inbox: '', problems: [{wrong}] }})")
    assert page.text("#line") == "picowatch is not running"
    assert (
        page.text("#problems .first") == "settings: Too many."
    )  # settings begin with what is wrong


# -- errors


def test_errors_stand_on_top_until_they_are_fixed_or_dismissed(live: House, page: Page) -> None:
    """Dismissed ones do not come back at the next visit, unless their text changes."""

    def recipes() -> list[str]:
        rows = "return [...document.querySelectorAll('#problems .error summary')]"
        return sorted(page.js(f"{rows}.map(row => row.textContent.split(' ')[1])"))

    live.save("wrong.yaml", WRONG)
    wait_for(recipes, "the error")
    line = page.find("#problems summary").text
    assert line.startswith("1 error wrong.yaml: ") and "Did you mean 'steps'?" in line
    assert "Error: wrong.yaml" in page.text("#live")
    page.find("#problems summary").click()
    assert page.text("#problems pre") == live.error("wrong.yaml")
    quoted, carets = page.text("#problems pre .quoted").splitlines()
    assert quoted.index("stesp") == carets.index("^")
    link = page.find("#problems a").get_attribute("href") or ""
    assert link.endswith("/outbox/wrong.yaml.error.txt")
    page.js("navigator.clipboard.writeText = async text => { globalThis.written = text; }")
    page.find("#problems .error .buttons button").click()
    again = shlex.split(page.js("return written"))
    assert again == ["picowatch", "retry", "--outbox", str(live.outbox), "wrong.yaml"]
    for name in ("one", "two"):
        live.save(f"night/{name}.yaml", WRONG)
    live.save("wrong.yaml", "prompt: a corgi\nsteps: 2\n")
    wait_for(lambda: recipes() == ["night/one.yaml", "night/two.yaml"], "one is fixed")
    page.find('[aria-label="Dismiss the message about night/two.yaml"]').click()
    assert recipes() == ["night/one.yaml"]
    page.open(live.outbox / INDEX)
    wait_for(recipes, "the other")
    assert recipes() == ["night/one.yaml"]
    live.save("night/two.yaml", f"{WRONG}seed: x\n")
    wait_for(lambda: recipes() == ["night/one.yaml", "night/two.yaml"], "what is new")
    page.find("#problems > summary").click()
    retry, dismiss = page.all("#problems > div > .buttons button")
    page.js("navigator.clipboard.writeText = async text => { globalThis.written = text; }")
    retry.click()
    assert shlex.split(page.js("return written"))[-1] == "night", "the folder of all of them"
    dismiss.click()
    assert recipes() == []
    assert live.error("night/two.yaml"), "the file stays"


def test_any_number_of_errors_takes_one_line(house: House, page: Page) -> None:
    """At most twenty are behind it, warnings included. A failed image's headline is its reason."""
    for number in range(24):
        house.save(f"wrong{number:02}.yaml", WRONG)
    house.once()
    house.engine.before_batch = fail_on_bad
    house.save("failing.yaml", "prompt: bad\nseed: [1, 2]\n")
    house.once()
    page.open(house.outbox / INDEX)
    line = page.find("#problems > summary")
    assert line.text == "20 errors and more failing.yaml: 2 images failed. Bad."
    line.click()
    assert len(page.all("#problems details")) == 20
    assert "and 6 more: look for .error.txt" in page.find("#problems > div > .buttons").text
    page.find("#problems > div > .buttons button:last-of-type").click()
    assert line.text.strip() == "6 more errors and warnings"


# -- what a picture was made from


def before(page: Page) -> str:
    """Return what is shown beside the picture; "" for nothing, and while a place is tried."""
    found = "const b = document.getElementById('before');"
    shown = "b.offsetWidth && b.naturalWidth ? b.src.split('?')[0] : ''"
    return str(page.js(f"{found} return {shown}"))


def is_offered(page: Page) -> bool:
    return page.find("#large [data-do=before]").is_displayed()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Render results of photos, of which some are gone or others by now; return their outbox."""
    house = House(tmp_path_factory.mktemp("originals"))
    house.save("photos/_pictures.yaml", "prompt: a corgi\nseed: 7\nsize: picture\n")
    house.draw("photos/a b/ü.png", size=(96, 64))
    house.draw("photos/beach.jpg", size=(96, 64))
    for name in ("gone", "replaced"):
        house.draw(f"photos/{name}.png")
    house.draw("start.png", "blue")
    house.save("plain.yaml", "prompt: a tree\nseed: 1\n")
    house.save("start.yaml", "prompt: a star\nseed: 1\nimage: start.png\n")
    house.once()
    (house.inbox / "photos/gone.png").unlink()
    house.draw("photos/replaced.png", "blue")
    house.once()
    house.save("archived/_pictures.yaml", "prompt: a hat\nseed: 7\n")
    house.draw("archived/1.png", "green")
    house.once(when_done="archive")
    return house.outbox


def test_the_original_is_beside_its_result(results: Path, page: Page) -> None:
    """It zooms with the picture; one that is gone, or another by now, is not offered."""
    page.open(results / INDEX)
    for file, source in (
        ("photos/a b/ü.png", "/inbox/photos/a%20b/%C3%BC.png"),
        ("start/0001-1.png", ""),
        ("archived/1.png", "/outbox/archived/originals/1.png"),
        ("photos/replaced-2.png", "/inbox/photos/replaced.png"),
    ):
        page.tile(file).click()
        wait_for(lambda: before(page), file)
        assert before(page).endswith(source)
        page.leave_large()
    for file in ("plain/0001-1.png", "photos/gone.png", "photos/replaced.png"):
        page.tile(file).click()
        assert page.large() == file
        wait_for(lambda: not before(page) and not is_offered(page), file)
        page.leave_large()
    page.tile("photos/a b/ü.png").click()
    wait_for(lambda: before(page))
    tops = "return ['left', 'stage'].map(id => document.getElementById(id).offsetTop)"
    for width, height, is_stacked in ((390, 844, True), (844, 390, False), (1280, 800, False)):
        page.resize(width, height, touch=width < 1000)
        top, other = page.js(tops)
        assert (top < other) is is_stacked
        assert page.js("return document.scrollingElement.scrollWidth") <= width
    page.press("1", "+", *"+" * 20)
    sizes = "return ['before', 'frame'].map(id => document.getElementById(id).offsetWidth)"
    size, other = page.js(sizes)
    assert size == other > 900
    page.next_frame()
    page.js("document.getElementById('stage').scrollTo(70, 40)")
    wait_for(lambda: page.js("return document.getElementById('left').scrollLeft") == 70)
    page.press("b")
    assert not before(page)
    assert is_offered(page)
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    wait_for(lambda: is_offered(page))
    assert not before(page), "the choice stays"
    page.leave_large()


def test_holding_a_picture_shows_the_original_in_its_place(results: Path, page: Page) -> None:
    """A mouse or a finger holds it; the picture has its photo's name in the grid and the title."""
    page.open(results / INDEX)
    tile = page.tile("photos/beach.png")
    assert tile.get_attribute("data-name") == "beach.jpg"
    tile.click()
    assert page.text("#large-title") == "beach.jpg: a corgi"
    wait_for(lambda: is_offered(page))
    box = page.find("#stage").rect
    point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    shown = "return document.elementFromPoint(arguments[0].x, arguments[0].y)"
    shown += ".closest('#sides.held')?.querySelector('#small:not([hidden])')"
    shown += "?.src.split('?')[0] ?? ''"
    mouse, touch = {**point, "button": "left", "clickCount": 1}, "Input.dispatchTouchEvent"
    for hold, release in (
        (("Input.dispatchMouseEvent", {"type": "mousePressed", **mouse}),
         ("Input.dispatchMouseEvent", {"type": "mouseReleased", **mouse})),
        ((touch, {"type": "touchStart", "touchPoints": [point]}),
         (touch, {"type": "touchEnd", "touchPoints": []})),
    ):  # fmt: skip
        page.tell(hold[0], **hold[1])
        wait_for(lambda: page.js(shown, point).endswith("/inbox/photos/beach.jpg"), "the original")
        page.tell(release[0], **release[1])
        wait_for(lambda: page.js(shown, point) == "", "the picture")
    page.leave_large()
