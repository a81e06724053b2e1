"""Deciding about many pictures: selecting, marking, and the one command that does the rest."""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.browser.conftest import INDEX, Page, made_at, wait_for
from tests.commands.picowatch import DIGESTS, PROJECT, give_commands, picowatch, ran
from tests.house import House

MANY = "prompt: a tree\nseed: 11..18\n"
FILES = [f"many/000{number}-1{number}.png" for number in range(1, 9)]


def paste(house: House, command: str, shell: str = "sh", call: str = "-m picowatch") -> str:
    """Paste a command into a shell, line by line; return what it printed."""
    picowatch = f'exec "{sys.executable}" {call} "$@"'
    path = f"{give_commands(house.folder / 'bin', picowatch=picowatch)}:{os.environ['PATH']}"
    done = ran(house.folder, shell, typed=command, PATH=path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def show_by_name(page: Page, outbox: Path) -> None:
    """Show the pictures oldest first; what is copied can be asked for."""
    page.open(outbox / INDEX)
    Select(page.find("#sort")).select_by_visible_text("By name")
    page.js("navigator.clipboard.writeText = async text => { globalThis.written = text; }")


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    house = House(tmp_path_factory.mktemp("eight"))
    house.save("many.yaml", MANY)
    assert house.once()
    return house.outbox


@pytest.fixture
def many(house: House, page: Page) -> Iterator[House]:
    house.save("many.yaml", MANY)
    assert house.once()
    page.go_live()
    with house.running():
        show_by_name(page, house.outbox)
        yield house


def click(page: Page, file: str, key: str = "", part: str = ".open") -> None:
    actions = ActionChains(page.driver)
    tile = page.tile(file, part)
    if key:
        actions.key_down(key).click(tile).key_up(key).perform()
    else:
        tile.click()


def selected(page: Page) -> list[str]:
    files: list[str] = page.js("return Selection.all().map(({ file }) => file)")
    return files


def copied(page: Page, which: str, what: str, into: str = "") -> str:
    """Choose in the dialog of commands; return what it copies."""
    page.find("#open-commands").click()
    Select(page.find("#which")).select_by_value(which)
    Select(page.find("#what")).select_by_value(what)
    if into:
        page.find("#into").clear()
        page.find("#into").send_keys(into)
    return copy_command(page)


def copy_command(page: Page) -> str:
    """Copy what the dialog of commands shows, and close it."""
    page.js("globalThis.written = ''")
    page.find("#copy-command").click()
    wait_for(lambda: page.js("return written"), "the copy")
    page.find("#commands [data-do=close]").click()
    return str(page.js("return written"))


# -- selecting


def test_pictures_are_selected_by_clicks_and_keys(eight: Path, page: Page) -> None:
    """Shift takes all from the last one, Ctrl one more; a click alone opens the picture."""
    show_by_name(page, eight)
    click(page, FILES[1], Keys.CONTROL)
    click(page, FILES[4], Keys.SHIFT)
    assert selected(page) == FILES[1:5]
    click(page, FILES[2], part=".pick")
    click(page, FILES[7], Keys.CONTROL)
    assert selected(page) == [FILES[1], FILES[3], FILES[4], FILES[7]]
    assert page.text("#tray-words") == "4 selected"
    assert len(page.all("#picked img")) == 4
    click(page, FILES[0])
    assert page.large() == FILES[0]
    page.leave_large()
    page.press(Keys.ESCAPE)
    assert selected(page) == [] and not page.find("#tray").is_displayed()
    page.driver.switch_to.active_element.send_keys(Keys.SHIFT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert selected(page) == FILES[:3]
    page.search("seed:>=14")
    page.find("#search").send_keys(Keys.ARROW_DOWN)
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.driver.switch_to.active_element.send_keys(Keys.CONTROL, "a")
    assert selected(page) == FILES[3:], "all of a search"
    page.find("#unpick").click()
    page.search("")
    page.find("#grid .select").click()
    assert selected(page) == FILES, "all of a folder"


def test_three_and_four_pictures_are_compared(eight: Path, page: Page) -> None:
    """Each row that differs is marked; five are too many; the last one changes by the arrows."""
    show_by_name(page, eight)
    for count in (3, 4):
        for file in FILES[:count]:
            if file not in selected(page):
                click(page, file, Keys.CONTROL)
        page.press("x")
        captions = [caption.text.removesuffix(" ✓") for caption in page.all("#both figcaption")]
        assert captions == FILES[:count]
        different = [row.text.split() for row in page.all("#table tr.different")]
        seeds = next(row for row in different if row[0] == "seed")
        assert [word for word in seeds if word.isdigit()] == [f"1{n + 1}" for n in range(count)]
        page.press(Keys.ARROW_RIGHT)
        assert page.all("#both figcaption")[-1].text == FILES[count]
        page.press("k", Keys.ESCAPE)
        assert page.js(f"return Marks.of(Pictures.byFile.get('{FILES[count]}')).flag") == "keep"
        wait_for(lambda: page.js("return location.hash") == "", "the address")
    click(page, FILES[4], Keys.CONTROL)
    assert not page.find("#compare").is_enabled()


# -- deciding


def test_rejected_pictures_are_deleted_and_kept_ones_moved(many: House, page: Page) -> None:
    """By keys, one by one or all that are selected; the browser remembers, until it is done."""
    click(page, FILES[0])
    page.press("k", "3", Keys.ARROW_RIGHT, "r", Keys.ARROW_RIGHT, "5", Keys.ARROW_RIGHT, "r", "r")
    assert page.find("#large [data-do=reject]").get_attribute("aria-pressed") == "false"
    page.leave_large()
    click(page, FILES[4], Keys.CONTROL)
    click(page, FILES[6], Keys.SHIFT)
    page.press("r")
    page.press(Keys.ESCAPE)
    show_by_name(page, many.outbox)
    badges = {tile.text for tile in page.all(".tile .badge") if tile.text}
    assert badges == {"✓ ★★★", "✕", "★★★★★"}
    assert page.text("#tray-words") == "1 kept, 4 rejected"
    views = {button.text.split("\n")[0]: button for button in page.all("#views button")}
    assert [*views] == ["All pictures", "Kept", "Rejected", "Not decided", "★★★★★", "★★★"]
    for name, files in (
        ("Kept", FILES[:1]), ("★★★★★", [FILES[2]]), ("Rejected", [FILES[1], *FILES[4:7]]),
        ("Not decided", [FILES[2], FILES[3], FILES[7]]),
    ):  # fmt: skip
        views[name].click()
        assert page.shown() == files
    page.press("/")
    for query, count in (("stars:>=3", 2), ("marked:kept", 1), ("-marked:none stars:0", 4)):
        page.find("#views button").click()
        page.search(query)
        assert len(page.shown()) == count, query
    page.search("")
    assert paste(many, copied(page, "rejected", "delete")) == "4 pictures deleted.\n"
    move = copied(page, "kept", "move", " the best/of May ")
    assert paste(many, move, "bash") == "1 picture moved to the best/of May.\n"
    moved = "the best/of May/0001-11.png"
    assert many.pictures() == [FILES[2], FILES[3], FILES[7], moved]
    wait_for(lambda: sorted(page.shown()) == many.pictures(), "the gallery")
    assert page.js(f"return badgeOf(Pictures.byFile.get('{moved}'))").endswith("★★★")
    assert not page.find("#tray").is_displayed(), "nothing is left to do"


def test_a_command_is_copied_for_the_pictures_that_were_shown(many: House, page: Page) -> None:
    """Meanwhile come new pictures, and marks of another window: they were not chosen."""
    page.search("recipe:many")
    page.find("#search").send_keys(Keys.ARROW_DOWN)
    page.press("r", "e")
    shown = page.text("#command")
    many.save("many2.yaml", MANY)
    wait_for(lambda: len(page.shown()) == 16, "the new ones")
    page.js("Marks.set(shownList.slice(1), { flag: 'reject' })")
    assert copy_command(page) == shown
    page.find("#open-commands").click()
    Select(page.find("#which")).select_by_value("shown")
    page.js("Filter.query = 'seed:11'; show()")
    Select(page.find("#what")).select_by_value("delete")
    assert page.text("#which [value=shown]") == "16 shown"
    assert len(copy_command(page).splitlines()[1:-1]) == 16


def test_a_picture_moved_twice_has_its_contact_sheet_and_stars(house: House, page: Page) -> None:
    house.save("study.yaml", "prompt: a tree\nseed: 5\nsweep: {cfg_scale: [5, 8]}\n")
    assert house.once()
    page.open(house.outbox / INDEX)
    page.tile("study/0001-5.png").click()
    page.press("4", "k")
    page.driver.get("about:blank")
    assert house.answer("keep", "best/of", "study/0001-5.png").done
    assert house.answer("keep", "best", "best/of").done
    page.open(house.outbox / INDEX)
    page.tile("study/0003-sheet.png").click()
    for wanted in ("best/0001-5.png", "study/0003-sheet.png"):
        page.all("#cells button")[0].click()
        assert page.large() == wanted
    assert page.js("return badgeOf(Pictures.byFile.get('best/0001-5.png'))") == "★★★★"


def test_stars_follow_each_picture_that_was_moved(eight: Path, page: Page) -> None:
    """Another may have its former name, and others may have been moved from there, too."""
    show_by_name(page, eight)
    page.js(
        """const first = { file: "a.png", digest: "1" };
        const moved = [["old", "0"], ["best", "1"], ["new", "2"]];
        Marks.set([first], { stars: 3 });
        const others = moved.map(([file, digest]) => ({ file, digest, moved: "a.png" }));
        Pictures.all = [{ ...first, digest: "3" }, ...others];
        Pictures.byFile = new Map(Pictures.all.map(entry => [entry.file, entry]));
        Marks.follow();"""
    )
    assert page.js("return Pictures.all.map(entry => Marks.of(entry).stars)") == [0, 0, 3, 0]


def test_pictures_are_copied_retried_and_drawn_with_other_seeds(many: House, page: Page) -> None:
    """Of a folder's recipe the new one is beside it."""
    many.save("pets/cat.yaml", 'prompt: it\'s a "cat"!\nseed: 7\n')
    wait_for(lambda: len(page.shown()) == 9, "the cat")
    for file in (FILES[0], "pets/cat/0001-7.png"):
        click(page, file, Keys.CONTROL)
    assert paste(many, copied(page, "selected", "copy", "-mine")) == "2 pictures copied to -mine.\n"
    wait_for(lambda: len(page.shown()) == 11, "the copies")
    made = paste(many, copied(page, "selected", "reseed")).splitlines()
    assert [Path(file).parent.name.partition("-")[0] for file in made] == ["again"] * 2
    new = [many.request(str(Path(file).relative_to(many.outbox))) for file in made]
    assert [request.prompt for request in new] == ["a tree", 'it\'s a "cat"!']
    assert not {request.seed for request in new} & {7, 11}
    assert [*(many.inbox / "pets").glob("again-*.yaml")]
    (many.outbox / FILES[0]).unlink()
    said = paste(many, copied(page, "selected", "retry"))
    assert said.startswith("many.yaml and pets/cat.yaml read again")
    wait_for(lambda: len(many.pictures("many")) == 8, "what was deleted is drawn again")


def test_other_seeds_are_drawn_with_the_same_models_and_settings(
    house: House, page: Page, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Wherever the command is pasted, though no picowatch runs, and as often as that is done."""
    (house.folder / "picowatch.yaml").write_text("format: webp\n")
    (house.folder / "shared/loras").mkdir(parents=True)
    shutil.copy(PROJECT / "tests/styles/pixel-art.safetensors", house.folder / "shared/loras")
    house.draw("pets/of/start.png")
    house.save("pets/cat.txt", "a cat <lora:pixel-art:0.5> --image of/start.png --seed 7\n")
    done = picowatch(house.folder, "run", "--once", "--models", "shared", program=DIGESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    (house.inbox / "pets/of/start.png").rename(house.inbox / "start.png")  # `show` looks for it
    page.go_live()
    elsewhere = House(tmp_path_factory.mktemp("elsewhere"))
    for count in (2, 3):
        show_by_name(page, house.outbox)
        click(page, "pets/cat/0001-7.webp", Keys.CONTROL)
        paste(elsewhere, copied(page, "selected", "reseed"), call=f"-m {DIGESTS}")
        assert len([*house.outbox.glob("pets/*/*.webp")]) == count


NAMES = [
    "a/plain.png", "-rf", "--help/1.png", "it's $HOME `x`.png", 'say "x"', '"quoted"', "END",
    "END_", "two\nlines", "tab\there", " spaces ", "wow!", "back\\slash\\n", "ü/日本.png", "#x",
    "\udcff.png",
]  # fmt: skip


@pytest.mark.parametrize("program", ["sh", "bash"])
def test_a_copied_list_has_the_names_as_they_are(gallery: Page, house: House, program: str) -> None:
    """Whatever they hold, and five thousand more."""
    script = "import sys; from pathlib import Path; from picowatch.commands import control; "
    script += "print([str(p) for p in control.names_in(Path('-'))], sys.argv[1:])"
    names = [*NAMES, *(f"{number:05}.png" for number in range(5000))]
    listed = "return listCommand(['keep'], JSON.parse(arguments[0]), [arguments[1]])"
    text = gallery.js(listed, json.dumps(names), "a 'b")
    assert text.endswith("\nEND__\n")
    flags = ["keep", "--outbox", gallery.js("return outboxFolder()"), "--from", "-", "--", "a 'b"]
    assert paste(house, text, program, f'-c "{script}"') == f"{names} {flags}\n"


def test_marks_of_deleted_pictures_stay_while_there_is_room(house: House, page: Page) -> None:
    """They may be restored. Without room, those of others count more."""
    house.save("many.yaml", MANY)
    assert house.once()
    kept = house.outbox / FILES[0]
    for gone, badge in ((0, "★★★"), (30_000, "")):
        show_by_name(page, house.outbox)
        page.js(f"Marks.set([Pictures.byFile.get('{FILES[0]}')], {{ stars: 3 }})")
        kept = kept.rename(house.folder / "away.png")
        assert house.once()
        show_by_name(page, house.outbox)
        some = f"[...Array({gone}).keys()].map(n => ({{ file: `gone/${{n}}`.padEnd(200) }}))"
        page.js(f"Marks.set([Pictures.byFile.get('{FILES[1]}'), ...{some}], {{ flag: 'keep' }})")
        kept = kept.rename(house.outbox / FILES[0])
        assert house.once()
        show_by_name(page, house.outbox)
        assert [tile.text for tile in page.all(".tile .badge")][:2] == [badge, "✓"]
        page.js("Marks.set(Pictures.all, { stars: 0 }); Marks.set(Pictures.all, { flag: '' })")


def test_a_browser_that_keeps_nothing_shows_everything(page: Page, outbox: Path) -> None:
    """Decisions last as long as the page, and it says so."""
    refused = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })"
    script = page.tell("Page.addScriptToEvaluateOnNewDocument", source=refused)
    try:
        page.open(outbox / INDEX)
        assert len(page.shown()) == 7
        page.find("#search").send_keys(Keys.ARROW_DOWN)
        page.press("r", Keys.ARROW_RIGHT, "4")
        assert "keeps no more marks" in page.text("#notice")
        assert page.text("#tray-words") == "1 rejected"
        page.press("e")
        assert page.text("#command").startswith("picowatch delete ")
        page.press(Keys.ESCAPE)
    finally:
        page.tell("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])
        page.open(outbox / INDEX)


# -- dates


def test_dates_are_searched(house: House, page: Page) -> None:
    house.save("many.yaml", MANY)
    assert house.once()
    now = time.time()
    noon = time.mktime((*time.localtime(now)[:3], 12, 0, 0, 0, 0, -1))
    days = [time.mktime((2023, 11, day, 12, 0, 0, 0, 0, -1)) for day in (1, 14, 15, 30)]
    made_at(house.outbox, *days, noon - 3 * 86400, noon - 86400, min(noon, now), now)
    page.open(house.outbox / INDEX)
    for query, found in {
        "made:2023-11-14": 1, "made:2023-11": 4, "made:2023": 4, "made:yesterday": 1,
        "made:today": 2, "made:<2023-11-15": 2, "made:<=2023-11-15": 3, "made:>2023-11": 4,
        "made:2023-11-14..2023-11-30": 3, "made:2023-11-30..today": 5, "made:2023-99-99": 0,
        "since:yesterday": 3, "since:2023-11-15": 6, "-made:2023 seed:>10": 4, "since:": 8,
    }.items():  # fmt: skip
        page.search(query)
        assert len(page.shown()) == found, query


def test_what_is_new_since_the_last_look_is_marked(house: House, page: Page) -> None:
    """Loading the page again within half an hour changes nothing."""
    house.save("old.txt", "a tree --seed 1\n")
    assert house.once()
    made_at(house.outbox, 1_700_000_000)
    page.open(house.outbox / INDEX)
    assert page.all("#views button")[-1].text.startswith("All pictures")
    age = "const key = Object.keys(localStorage).find(key => key.startsWith('picowatch looked'));"
    age += "const look = JSON.parse(localStorage.getItem(key)); look.at -= arguments[0];"
    age += "localStorage.setItem(key, JSON.stringify(look))"
    page.js(age, 3_600_000)
    house.save("new.txt", "a tree --seed 2\n")
    assert house.once()
    for _ in range(2):
        page.open(house.outbox / INDEX)
        wait_for(lambda: len(page.all(".tile")) == 2, "both")
        assert [tile.text for tile in page.all(".tile .badge")] == ["new", ""]
        page.search("since:last")
        assert page.shown() == ["new/0001-2.png"]
        page.search("")
        page.all("#views button")[1].click()
        assert page.shown() == ["new/0001-2.png"]
    page.js(age, 3_600_000)
    page.open(house.outbox / INDEX)
    assert page.js("return Pictures.all.filter(Looked.isNew)") == []


# -- totals


def test_headings_say_how_much_is_done(house: House, page: Page) -> None:
    """Of folders, those below them, and everything; a single picture says it itself."""
    house.save("night/a.yaml", "prompt: a tree\nseed: [1, 2]\n")
    house.save("night/wrong.yaml", "promt: a tree\n")
    house.save("one.txt", "a tree --seed 3\n")
    house.once()
    page.open(house.outbox / INDEX)
    wait_for(lambda: page.js("return Object.keys(totalsOf).length"), "totals")
    Select(page.find("#sort")).select_by_visible_text("By name")
    titles = [title.text.replace("\n", " ") for title in page.all("#grid h2")]
    assert re.fullmatch(r"night/a 2 of 2 done \d\d:\d\d(–\d\d:\d\d)?.*", titles[0]), titles
    assert titles[1].removesuffix("Select").strip() == "one"
    assert re.match(r"Everything: 3 of 3 done .*, 1 file refused$", page.text("#totals"))
    page.find('#folders [data-folder="night"]').click()
    assert re.match(r"night: 2 of 2 done .*, 1 file refused$", page.text("#totals"))
    Select(page.find("#sort")).select_by_visible_text("Newest first")
    assert page.text("#totals").startswith("night: ")
    assert page.text("#grid h2 small") == ""
    script = (house.outbox / ".picowatch/gallery/totals.js").read_text()
    assert sorted(json.loads(script[7:-3])) == ["", "night", "night/a", "night/wrong"]
