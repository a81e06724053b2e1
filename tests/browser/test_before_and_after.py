"""The large view with the picture that one was made from, in a real browser."""

from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import INDEX, Page
from tests.house import House, wait_for

WIDE = 96, 64


def before(page: Page) -> str:
    """Return what is shown beside the picture; "" for nothing."""
    return str(
        page.js("const b = document.getElementById('before'); return b.offsetWidth ? b.src : ''")
    )


def is_offered(page: Page) -> bool:
    return page.find("#large [data-do=before]").is_displayed()


def test_the_original_is_beside_its_result(house: House, page: Page) -> None:
    """It may be a dropped picture, a start image or an archived one; both zoom together.

    One that is gone or another is not offered, but to the picture that was made from that.
    """
    house.save("photos/_pictures.yaml", "prompt: a corgi\nseed: 7\nsize: picture\n")
    house.draw("photos/a b/ü.png", size=WIDE)
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
    page.open(house.outbox / INDEX)
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
        wait_for(lambda: before(page), "an original again")
        page.leave_large()
    page.tile("photos/a b/ü.png").click()
    wait_for(lambda: before(page))
    tops = "return ['left', 'stage'].map(id => document.getElementById(id).offsetTop)"
    for width, height, is_stacked in ((390, 844, True), (844, 390, False), (1280, 800, False)):
        page.resize(width, height, touch=width < 1000)
        one, other = page.js(tops)
        assert (one < other) is is_stacked
        assert page.js("return document.scrollingElement.scrollWidth") <= width
    page.press("1", "+", *"+" * 20)
    sizes = "return ['before', 'frame'].map(id => document.getElementById(id).offsetWidth)"
    one, other = page.js(sizes)
    assert one == other > 900
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
