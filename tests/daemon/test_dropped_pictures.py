"""`_pictures.yaml`: every picture saved in its folder or below is a request with these fields."""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import pillow_heif
import pytest
from PIL import ExifTags, Image

from picowatch.daemon.dropped import DroppedPictures
from picowatch.files import pictures
from picowatch.files.names import ENDINGS
from picowatch.inbox import inbox as inbox_module
from picowatch.inbox import read as read_module
from picowatch.inbox.folder import InboxFolder
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import QueuedImage
from tests.commands.picowatch import picowatch_here
from tests.house import House, error_files, wait_for
from tests.pictures import picture_with

pillow_heif.register_heif_opener()  # to write the photos of tests

SMALL = "seed: 7\nsize: 64x64\n"
CORGI = f"prompt: a corgi\n{SMALL}"
STAR = f"prompt: a star\n{SMALL}"
TAKEN_NS = 1_234_567_890_987_654_321


def put(house: House, files: Mapping[str, str | int]) -> None:
    """Save texts, and pictures whose number says how red they are."""
    for name, content in files.items():
        if isinstance(content, int):
            house.draw(name, f"rgb({content},0,0)")
        else:
            house.save(name, content)


def errors(house: House) -> list[str]:
    return sorted(error_files(house.outbox))


Files = dict[str, str | int]
Results = dict[str, dict[str, Any] | None]


def each(number: int, *names: str) -> Files:
    return dict.fromkeys(names, number)


DROPPED: dict[str, tuple[Files, Results]] = {
    "names and folders are those of the pictures": (
        {"frames/_pictures.yaml": f"{CORGI}count: 2\ngrid: true\n",
         **each(1, "frames/0001.jpg", "frames/a/b/2.PNG", "frames/a/x.y.webp"),
         **each(2, "frames/twin.jpg", "frames/twin.png"), "frames/0001.txt": "",
         **each(3, "frames/ x.png", "frames/x.png")},
        {f"frames/{name}{number}.png": {} if number != "-sheet" else None
         for name in ("0001", "a/b/2", "a/x.y", "twin.jpg", "twin.png", " x", "x")
         for number in ("", "-2", "-sheet")},
    ),
    "the nearest template holds, and folders without one are as ever": (
        {"frames/_pictures.yaml": CORGI, "frames/stars/_pictures.yaml": STAR,
         **each(1, "frames/1.png", "frames/stars/2.png", "frames/stars/a/3.png", "other/4.png"),
         "other/a.yaml": "prompt: a tree\nseed: 1\n"},
        {"frames/1.png": {"prompt": "a corgi", "image": "frames/1.png"},
         "frames/stars/2.png": {"prompt": "a star"}, "frames/stars/a/3.png": {"prompt": "a star"},
         "other/a/0001-1.png": {"prompt": "a tree", "image": ""}},
    ),
    "a text is the prompt, a YAML the fields, and a mask no request": (
        {"frames/_pictures.yaml": f"{CORGI}mask_blur: 2\n",
         **each(1, "frames/1.png", "frames/2.png", "frames/_3.png", "frames/1.mask.png"),
         "frames/1.txt": "a star --steps 3\nat night\n",
         "frames/2.yaml": "steps: 5\nseed: 9\n",
         "frames/_3.txt": "a tree", "frames/_3.yml": "steps: 4\n",
         "frames/alone.txt": "a hat\na boat\n", "frames/deep/alone.yaml": "prompt: a boat\n",
         "frames/alone.mask.png": 1},
        {"frames/1.png": {"prompt": "a star --steps 3\nat night", "steps": 24,
                          "mask": "frames/1.mask.png", "mask_blur": 2},
         "frames/2.png": {"prompt": "a corgi", "steps": 5, "seed": 9, "mask_hash": ""},
         "frames/_3.png": {"prompt": "a tree", "steps": 4}},
    ),
    "a text is a note where pictures are only finished": (
        {"up/_pictures.yaml": "upscale: {model: demo-compact, scale: 2}\nsteps: 9\n---\n"
         "cutout: true\n", "up/1.png": 1, "up/1.txt": "for the client"},
        {"up/1.png": {"prompt": "for the client", "steps": 9},
         "up/1-2.png": {"prompt": "", "draws": False}},
    ),
    "features of recipes hold": (
        {"frames/_pictures.yaml": "prompt: a corgi\nseed: 1\nsize: picture\n"
         "sweep: {steps: [1, 2]}\n---\nprompt: a star\nseed: 1\nhires: true\n",
         "frames/1.png": 1},
        {"frames/1.png": {"prompt": "a corgi", "width": 64, "steps": 1},
         "frames/1-2.png": {"prompt": "a corgi", "steps": 2},
         "frames/1-3.png": {"prompt": "a star", "width": 128},
         "frames/1-sheet.png": None},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "results"), DROPPED.values(), ids=DROPPED)
def test_what_is_dropped_is_rendered(house: House, files: Files, results: Results) -> None:
    """Each picture is rendered with the template above it and its own sidecars."""
    put(house, files)
    assert house.once(batch_size=4), errors(house)
    assert set(house.pictures()) == set(results)
    for picture, fields in results.items():
        if fields is not None:
            request = house.request(picture)
            assert fields == {field: getattr(request, field) for field in fields}, picture
    assert errors(house) == []
    assert not [*house.outbox.glob(".picowatch/start-images/*")], "copies are for what is next"


# -- one step after the other


@dataclass
class Run:
    """A run, and what is there afterwards: pictures' prompts, and what error files say."""

    prompts: Sequence[str] = ()
    errors: Mapping[str, str] = field(default_factory=dict)


Steps = list[Files | Run | Callable[[House], object]]
TEMPLATE = "frames/_pictures.yaml"
WITH_STYLE = f"{CORGI}control: {{image: style.png, model: demo-sketch}}\n"
PHOTOS = each(1, "frames/1.png") | each(2, "frames/2.png")
NO_PROMPTS = "seed: 1\ncfg_scale: 1\nnegative_prompt: dim\n"
NEEDED = "beside each picture, like anna.txt"
BOTH_NEED_PROMPTS = dict.fromkeys((TEMPLATE, "others/_pictures.yaml"), NEEDED)
NEF = "Files that end in .nef are not read. Develop it: darktable-cli 'DSC1.NEF' 'DSC1.jpg'"


def moved(old: str, new: str) -> Callable[[House], object]:
    return lambda house: (house.inbox / old).rename(house.inbox / new)


def removed(path: str) -> Callable[[House], object]:
    return lambda house: (house.inbox / path).unlink()


def copied_back(path: str) -> Callable[[House], object]:
    return lambda house: shutil.copy(house.outbox / "frames/1.png", house.inbox / path)


def told(words: str) -> Callable[[House], object]:
    def is_told(house: House) -> None:
        assert words in house.log()

    return is_told


def with_settings(house: House) -> None:
    for colour in ("red", "blue"):
        settings = "a hat\nSteps: 9, Sampler: Euler a, Size: 64x64"
        picture_with(house.inbox / f"frames/{colour}.png", "parameters", settings, colour)


WRONG = {
    "prompt: a corgi\nstesp: 3\n": "inbox/frames/_pictures.yaml, line 2, column 1",
    "prompt: a corgi\ncheckpoint: none-such\n": "line 2, column 13",
    "prompt: a corgi\nimage: other.png\n": "image is the dropped picture itself",
    "prompt: [\n": "_pictures.yaml",
}
SCENARIOS: dict[str, Steps] = {
    "in the inbox itself a template is refused, and a picture not run": [
        {"1.png": 1, "a.yaml": STAR}, Run(["a star"]),
        {"_pictures.yaml": CORGI},
        Run(["a star"], {"_pictures.yaml": "Move _pictures.yaml into a folder of its own"}),
    ],
    "what is saved beside a picture requests it again, and tidying up nothing": [
        {TEMPLATE: "prompt: a corgi\n", "frames/1.png": 1}, Run(["a corgi"]),
        {"frames/1.txt": "a star"}, Run(["a star", "a corgi"]),
        {"frames/1.txt": "a tree"}, Run(["a star", "a tree", "a corgi"]),
        removed("frames/1.txt"), *[Run(["a star", "a tree", "a corgi"])] * 2,
        {"frames/1.mask.png": 1}, Run(["a star", "a tree", "a corgi", "a corgi"]),
    ],
    "what a renamed picture has beside it counts, though both are new": [
        {TEMPLATE: CORGI, "frames/1.png": 1}, Run(["a corgi"]),
        moved("frames/1.png", "frames/2.png"), {"frames/2.txt": "a star"},
        Run(["a corgi", "a star"]),
    ],
    "a picture that another folder's template names is a request of its own": [
        {TEMPLATE: CORGI, "stars/_pictures.yaml": f"{STAR}mask: frames/1.png\n",
         **each(1, "frames/1.png", "stars/2.png")}, Run(["a corgi", "a star"]),
    ],
    "it is read again without what was wrong beside it": [
        {TEMPLATE: CORGI, "frames/1.png": 1, "frames/1.yaml": "stesp: 5\n"},
        Run(errors={"frames/1.png": "stesp"}), removed("frames/1.yaml"), Run(["a corgi"]),
    ],
    "its texts are no recipes once the template has gone, and it may come back": [
        {TEMPLATE: CORGI, "frames/a/1.png": 1, "frames/a/1.txt": "a star"}, Run(["a star"]),
        removed(TEMPLATE), {"frames/a/new.txt": "a moon", "frames/a/1.yaml": "prompt: a hat\n"},
        Run(["a star", "a moon"]), told("frames/_pictures.yaml: deleted"),
        told("frames/a is not run: it had a _pictures.yaml"), Run(["a star", "a moon"]),
        {TEMPLATE: CORGI}, removed("frames/a/1.yaml"), Run(["a star", "a moon"]),
    ],
    "a photo that is renamed while its template is wrong follows its bytes": [
        {TEMPLATE: CORGI, **PHOTOS}, Run(["a corgi"] * 2),
        {TEMPLATE: "stesp: 3\n"}, Run(["a corgi"] * 2, {TEMPLATE: "stesp"}),
        moved("frames/1.png", "frames/3.png"), removed("frames/2.png"),
        Run(["a corgi"] * 2, {TEMPLATE: "stesp"}), told("frames/2.png: deleted"),
        {TEMPLATE: f"{CORGI}# right again\n"}, Run(["a corgi"] * 2),
        told("frames/1.png: renamed to frames/3.png, its queue is kept"),
    ],
    "a recipe that may have been meant as a template is told to be renamed": [
        {"frames/pictures.yaml": CORGI, "stars/pictures.yml": "references: [picture]\n",
         "other/pictures.yaml": f"{CORGI}image: 1.png\n", "plain/pictures.yaml": CORGI,
         **each(1, "frames/1.png", "stars/1.png", "other/1.png")},
        Run(["a corgi"] * 2, dict.fromkeys(("frames/pictures.yaml", "stars/pictures.yml"),
                                           "Rename it to _pictures.yaml.")),
        moved("frames/pictures.yaml", TEMPLATE), removed("stars/pictures.yml"),
        Run(["a corgi"] * 3),
    ],
    "a raw photo is refused by its name, though its thumbnail, a TIFF, can be read": [
        {"frames/1.tif": 1, "frames/phone.jpg": 1}, moved("frames/1.tif", "frames/DSC1.NEF"),
        moved("frames/phone.jpg", "frames/phone.jxl"),
        {TEMPLATE: CORGI, "a.yaml": f"{CORGI}image: frames/DSC1.NEF\n", "frames/a/b.TGA": "other",
         "frames/c.3FR": "other"},
        Run(errors={"a.yaml": NEF, "frames/DSC1.NEF": NEF, "frames/a/b.TGA": "Readable formats: P",
                    "frames/phone.jxl": "or give it its own ending", "frames/c.3FR": "Develop it"}),
        removed("a.yaml"), removed("frames/DSC1.NEF"), removed("frames/a/b.TGA"),
        removed("frames/c.3FR"),
        Run(errors={"frames/phone.jxl": "or give it its own ending"}),
    ],
    "a single run refuses what stays incomplete": [  # else it would say so each time
        {TEMPLATE: CORGI, "frames/cut.jpg": "\xff\xd8", "frames/1.png": 1},
        Run(["a corgi"], {"frames/cut.jpg": "cut"}),
    ],
    "the template's own result is refused, as a hook would copy it without end": [
        {TEMPLATE: CORGI, "stars/_pictures.yaml": STAR, "frames/1.png": 1}, Run(["a corgi"]),
        copied_back("frames/back.png"), copied_back("stars/on.png"),
        Run(["a corgi", "a star"], {"frames/back.png": "rendered with frames/_pictures.yaml"}),
    ],
    **{f"a wrong template is one error, once: {said}": [
        {TEMPLATE: text, **PHOTOS}, Run(errors={TEMPLATE: said}),
        {"frames/3.png": 3}, Run(errors={TEMPLATE: said}), {TEMPLATE: CORGI}, Run(["a corgi"] * 3),
    ] for text, said in WRONG.items()},
    "without a prompt a template needs one beside each picture": [
        {TEMPLATE: NO_PROMPTS, "others/_pictures.yaml": NO_PROMPTS, "frames/1.txt": "a star",
         **PHOTOS, **each(3, "frames/3.png", "others/1.png")},
        Run(["a star"], BOTH_NEED_PROMPTS),
        {"frames/2.txt": "a tree"}, Run(["a star", "a tree"], BOTH_NEED_PROMPTS),
        lambda house: house.answer("retry", "frames"), Run(["a star", "a tree"], BOTH_NEED_PROMPTS),
        moved("frames/3.png", "others/4.png"),
        *[Run(["a star", "a tree"], {"others/_pictures.yaml": NEEDED})] * 2,
        {"others/_pictures.yaml": "seed: 1\nprompt: a hat\n"},
        Run(["a star", "a tree", "a hat", "a hat"]),
    ],
    "where photos have settings, a missing picture of their template is one error": [
        {TEMPLATE: WITH_STYLE.replace(CORGI, "from: picture\n")}, with_settings,
        Run(errors={TEMPLATE: "There is no picture 'style.png'"}),
        each(9, "frames/style.png"), Run(["a hat", "a hat"]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("steps", SCENARIOS.values(), ids=SCENARIOS)
def test_what_becomes_of_pictures_step_by_step(house: House, steps: Steps) -> None:
    """Each error is told once: a run fails if one is new."""
    for step in steps:
        before = errors(house)
        if isinstance(step, Run):
            assert house.once() is ({*step.errors} <= {*before}), step
            assert (house.prompts(), errors(house)) == ([*step.prompts], sorted(step.errors))
            for path, words in step.errors.items():
                assert words in (house.error(path) or "")
        elif isinstance(step, dict):
            put(house, step)
        else:
            step(house)


def test_settings_inside_a_picture_can_be_followed(house: House) -> None:
    """`from: picture` takes another program's prompt and seed; a photo may have any format."""
    put(house, {TEMPLATE: "from: picture\nsteps: 3\n", "plain/_pictures.yaml": CORGI})
    put(house, each(1, "frames/none.png", *(f"plain/{n}{kind}" for n, kind in enumerate(ENDINGS))))
    settings = "a hat\nSteps: 9, Sampler: Euler a, Seed: 5, Size: 64x64"
    picture_with(house.inbox / "frames/1.png", "parameters", settings)
    assert not house.once()
    request = house.request("frames/1.png")
    assert (request.prompt, request.seed, request.steps) == ("a hat", 5, 3)
    plain = sorted(f"plain/{n}.png" for n in range(len(ENDINGS)))
    assert house.pictures() == ["frames/1.png", *plain]
    assert errors(house) == ["frames/none.png"]
    said = house.error("frames/none.png") or ""
    assert said.startswith("inbox/frames/none.png\n\nframes/none.png: it contains no settings")
    assert "inbox/frames/none.png: frames/none.png: it contains no settings" in house.log()


def test_a_template_that_is_wrong_for_one_picture_is_mended_for_it(house: House) -> None:
    """The others are rendered, and its error file says so."""
    put(house, {"frames/_pictures.yaml": f"{CORGI}extend: 1:2\n", "frames/1.png": 1})
    house.draw("frames/2.png", size=(64, 128))
    assert not house.once()
    assert (house.pictures(), errors(house)) == (["frames/1.png"], ["frames/2.png"])
    error = house.error("frames/2.png") or ""
    assert error.startswith("inbox/frames/_pictures.yaml, line ")
    closing = "This picture was not rendered; others are. Fix the file above and save it again."
    assert error.endswith(f"adds nothing to 64x128, which has that shape.\n\n{closing}\n")
    put(house, {"frames/_pictures.yaml": CORGI, "frames/bad.png": "no picture"})
    assert not house.once()
    assert (house.pictures(), errors(house)) == (
        ["frames/1.png", "frames/2.png"], ["frames/bad.png"],
    )  # fmt: skip
    assert (house.error("frames/bad.png") or "").endswith(f"{closing}\n")


def test_no_name_is_given_twice(house: House) -> None:
    """Not even if a picture is named like another one's second result, or like a user's file."""
    put(house, {"frames/_pictures.yaml": f"{CORGI}count: 3\n"})
    names = ("1.png", "1-2.png", "1.control.png")  # the last is a map's name
    put(house, {f"frames/{name}": len(name) for name in names})
    users = house.outbox / "frames/1-3.png"
    users.parent.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(users)
    assert house.once(batch_size=4)
    made = set(house.pictures()) - {"frames/1-3.png"}
    assert len({house.request(picture).digest for picture in made}) == len(made) == 9
    assert "frames/1.control_.png" in made


# -- again, renamed, away


def test_a_result_names_the_picture_as_it_is_called_when_it_is_rendered(house: House) -> None:
    """`from` finds what its metadata name."""
    put(house, {"frames/_pictures.yaml": CORGI, "frames/1.png": 1})
    with house.held(batch_size=1) as hold:
        put(house, {"frames/2.png": 7, "frames/2.mask.png": 7})
        wait_for(lambda: "frames/2.png: saved" in house.log(), "the save")
        with house.seen_at_once():
            for name in ("2.png", "2.mask.png"):
                (house.inbox / "frames" / name).rename(house.inbox / "frames" / f"new-{name}")
        wait_for(lambda: "renamed to frames/new-2.png" in house.log())
        hold.release()
        wait_for(lambda: len(house.pictures()) == 2)
    request = house.request("frames/new-2.png")
    assert (request.image, request.mask) == ("frames/new-2.png", "frames/new-2.mask.png")
    house.save("again.yaml", "from: outbox/frames/new-2.png\nsteps: 3\n")
    assert house.once(), house.error("again.yaml")


def test_no_picture_is_rendered_with_a_template_that_is_being_written(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer may begin after the scan that found the picture."""
    read, pictures = read_module.read, list[str]()

    def write(inbox: Any, folder: str, path: str, *others: Any, **named: Any) -> Any:
        if path == "frames/1.png":
            pictures.append(path)
        if pictures == [path]:
            house.save("frames/_pictures.yaml", STAR.replace("a star", "a st"))
        saved = read(inbox, folder, path, *others, **named)
        if pictures == [path]:
            house.save("frames/_pictures.yaml", STAR)
        return saved

    put(house, {"frames/_pictures.yaml": CORGI, "frames/0.png": 0})
    assert house.once()
    monkeypatch.setattr(inbox_module, "read", write)
    with house.running():
        house.draw("frames/1.png")
        wait_for(lambda: len(house.pictures()) == 2)
    assert house.prompts() == ["a corgi", "a star"]


@pytest.mark.usefixtures("often")
def test_a_template_that_is_away_for_a_moment_makes_no_recipes_of_prompts(house: House) -> None:
    """Like a deletion, its absence counts only after a quiet time; here scans fall into it."""
    put(house, {TEMPLATE: CORGI, "frames/1.png": 1, "frames/1.txt": "a star"})
    path = house.inbox / TEMPLATE
    assert house.once()
    with house.running(settle_seconds=60.0):
        aside = path.rename(house.folder / "aside")
        house.wait_for_rounds()
        aside.rename(path)
        house.wait_for_rounds()
    assert house.once()
    assert house.pictures() == ["frames/1.png"]
    assert "deleted" not in house.log()


# -- what cannot be used


def test_a_bad_picture_is_told_when_it_was_quiet_and_stops_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is copied slowly waits through pauses."""
    bad = {"frames/bad.png": "no picture", "frames/gone.jpg": "no picture", "frames/empty.png": ""}
    put(house, {"frames/_pictures.yaml": CORGI, "frames/1.png": 1, "frames/2.png": 2, **bad})
    whole = house.draw("elsewhere.png").read_bytes()
    with house.running():
        for part in (0, 60):
            house.save("frames/slow.png", whole[:part])
            house.wait_for_rounds(3)
        house.save("frames/slow.png", whole)
        wait_for(lambda: len(house.pictures()) == 3, "the good ones")
        assert errors(house) == []
    monkeypatch.setattr(inbox_module, "HELD_OPEN_LIMIT", 1.0)
    with house.running():
        wait_for(lambda: errors(house) == ["frames/bad.png", "frames/gone.jpg"], "the bad ones")
        error = house.error("frames/bad.png") or ""
        assert "This picture cannot be used: It is not a picture" in error
        house.draw("frames/bad.png", "blue")
        (house.inbox / "frames/gone.jpg").unlink()
        wait_for(lambda: len(house.pictures()) == 4, "the picture that replaced the bad one")
        wait_for(lambda: errors(house) == [], "no error")


LEADS_OUT = "a symbolic link in its path leads out"
BESIDE = {  # what lies beside a photo, where it leads, and what is said of it
    "1.txt": ("../../elsewhere/secret.txt", f"beside it: {LEADS_OUT}"),
    "5.mask.png": ("../../elsewhere/secret.png", f"beside it: {LEADS_OUT}"),
    "6.mask.png": ("nothing.png", "is a symbolic link to nothing"),
    "7.txt": ("nothing.txt", "is a symbolic link to nothing"),
    "8.mask.png": (".", "beside it: it is not a regular file"),
}


def test_nothing_that_is_dropped_leads_out_of_the_inbox(house: House) -> None:
    """Links to pictures, prompts, masks and templates elsewhere, and pipes, are not followed."""
    put(house, {TEMPLATE: CORGI, "stars/3.png": 1, "../elsewhere/secret.png": 1})
    put(house, {f"../elsewhere/{name}": CORGI for name in ("secret.txt", "_pictures.yaml")})
    put(house, {f"frames/{name[0]}.png": int(name[0]) for name in BESIDE})
    for name, (target, _) in BESIDE.items():
        (house.inbox / "frames" / name).symlink_to(target)
    (house.inbox / "frames/2.png").symlink_to("../../elsewhere/secret.png")
    (house.inbox / "stars/_pictures.yaml").symlink_to("../../elsewhere/_pictures.yaml")
    os.mkfifo(house.inbox / "frames/4.png")
    assert not house.once()
    assert house.pictures() == []
    for name, (_, said) in BESIDE.items():
        error = house.error(f"frames/{name[0]}.png") or ""
        assert f"This picture cannot be read: frames/{name} {said}" in error
    assert house.once(), "told once"
    (house.inbox / "frames/5.mask.png").unlink()
    assert house.once()
    assert house.pictures() == ["frames/5.png"]


# -- the template's own pictures


def test_a_picture_that_a_template_names_is_no_photo(house: House) -> None:
    """It is that of subfolders, too, whatever has the same name there."""
    put(house, {TEMPLATE: WITH_STYLE, **each(1, "frames/1.png", "frames/a/2.png")})
    put(house, each(7, "frames/style.png") | each(8, "frames/a/style.png"))
    style = hashlib.sha256((house.inbox / "frames/style.png").read_bytes()).hexdigest()
    assert house.once(), errors(house)
    assert house.pictures() == ["frames/1.png", "frames/a/2.png", "frames/a/style.png"]
    assert {request.control[0].image_hash for request in house.requests()} == {style}
    house.save("again.yaml", "from: outbox/frames/a/2.png\n")
    assert house.once(), house.error("again.yaml")


# -- commands, settings, copies


def test_check_lists_pictures_in_natural_order(house: House) -> None:
    """All under a template, and none without one."""
    names = ("frames/10", "frames/a/9", "frames/2", "frames/2.mask", "other/1")
    put(house, {TEMPLATE: CORGI, **each(1, *(f"{name}.png" for name in names))})
    found = json.loads(picowatch_here(house.folder, "check", "--json", f"inbox/{TEMPLATE}").stdout)
    listed = [image["image"] for image in found["images"]]
    assert listed == ["frames/2.png", "frames/10.png", "frames/a/9.png"]
    alone = picowatch_here(house.folder, "check", "inbox/other/1.png")
    assert "There is no _pictures.yaml in its folder" in alone.stderr


@pytest.mark.parametrize("by_command", [False, True])
def test_a_result_has_its_pictures_name_if_that_is_free(house: House, by_command: bool) -> None:
    """The gallery shows the new ones in their place. A rebuilt ledger knows whose file it is."""

    def saved(seed: int, kind: str = "png") -> list[str]:
        house.save("p/_pictures.yaml", f"prompt: a corgi\nseed: {seed}\nformat: {kind}\n")
        house.draw("p/a.png")
        assert house.once()
        return house.pictures("p")

    for seed, kind in ((1, "png"), (2, "png"), (3, "webp"), (1, "png")):
        for picture in house.pictures("p"):
            if by_command:
                assert house.answer("delete", None, picture).done
            else:
                (house.outbox / picture).unlink()
        assert saved(seed, kind) == [f"p/a.{kind}"]
        assert house.request(f"p/a.{kind}").seed == seed
        pages = sorted((house.outbox / ".picowatch/gallery").glob("page-*.js"))
        assert f'"seed": {seed}' in pages[-1].read_text().splitlines()[-1]
    house.ledger.unlink()
    assert saved(1) == ["p/a.png"]
    assert saved(2) == ["p/a-2.png", "p/a.png"]
    assert house.request("p/a-2.png").seed == 2


@pytest.mark.parametrize("when_done", ["archive", "delete"])
def test_what_lies_beside_a_picture_leaves_the_inbox_with_it(house: House, when_done: str) -> None:
    """Sidecars go with it unless another picture has them; the next picture is not affected.

    A template and defaults are no sidecars of a picture of their name. All that goes keeps its
    time: a scan has no other date.
    """
    stays = {TEMPLATE: STAR, "frames/_defaults.yaml": "steps: 3\n", "frames/other.txt": "a note"}
    names = ("1.png", "2.png", "2.jpg", "1.mask.png", "_pictures.png", "_defaults.png")
    put(house, {**stays, "frames/1.txt": "a corgi", "frames/2.yaml": "prompt: a heart\n"})
    put(house, {f"frames/{name}": len(name) for name in names})
    house.save("a.yaml", CORGI)
    for path in (*house.inbox.glob("frames/*"), house.inbox / "a.yaml"):
        os.utime(path, ns=(0, TAKEN_NS))
    dropped = (house.inbox / "frames/1.png").read_bytes()
    assert house.once(when_done=when_done), errors(house)
    assert {f"frames/{path.name}" for path in (house.inbox / "frames").iterdir()} == {*stays}
    found = {path.name: path.read_bytes() for path in house.outbox.glob("frames/originals/*")}
    if when_done == "archive":
        assert {*found} == {*names, "1.txt", "2.yaml"}
        assert found["1.png"] == dropped
        kept = [house.outbox / "a/a.yaml", *house.outbox.glob("frames/originals/*")]
        assert {path.stat().st_mtime_ns for path in kept} == {TAKEN_NS}
    else:
        assert not found
    house.draw("frames/1.png", "blue")
    assert house.once(when_done=when_done)
    again = house.request("frames/1-2.png")
    assert (again.prompt, again.mask) == ("a star", "")


def test_the_mask_of_a_template_stays_for_the_next_picture(house: House) -> None:
    """Though it is the mask of the picture of its name, too, which is taken away."""
    put(house, {TEMPLATE: f"{CORGI}mask: 1.mask.png\n"})
    put(house, {**each(1, "frames/1.png"), **each(255, "frames/1.mask.png")})
    for name in ("1", "2"):
        put(house, each(2, f"frames/{name}.png"))
        assert house.once(when_done="delete"), errors(house)
        left = {path.name for path in (house.inbox / "frames").iterdir()}
        assert left == {"_pictures.yaml", "1.mask.png"}
        assert house.request(f"frames/{name}.png").mask in ("frames/1.mask.png", "1.mask.png")


def test_archived_pictures_keep_their_own_sidecars(house: House) -> None:
    """The second picture of a name has a number, and so has all that lies beside it."""
    put(house, {"frames/_pictures.yaml": STAR, "frames/1.png": 1})
    assert house.once(when_done="archive")
    put(house, {"frames/1.png": 2, "frames/1.mask.png": 3, "frames/1.txt": "a corgi"})
    assert house.once(when_done="archive")
    put(house, {"frames/1.png": 1, "frames/1.txt": "a fox"})
    assert house.once(when_done="archive")
    found = sorted(path.name for path in house.outbox.glob("frames/originals/*"))
    assert found == ["1-2.mask.png", "1-2.png", "1-2.txt", "1.png", "1.txt"]


def test_a_photo_is_not_cut_out_by_the_demo_models_cutout(house: House) -> None:
    """Unless that is named: it would smear it. Drawings are."""
    house.save("cut/_pictures.yaml", "cutout: true\n")
    house.draw("cut/drawn.png")
    make = Image.Exif()
    make[ExifTags.Base.Make] = "Canon"
    Image.new("RGB", (64, 72), "red").save(house.inbox / "cut/camera.jpg", exif=make)
    Image.effect_noise((300, 200), 60).convert("RGB").save(house.inbox / "cut/noise.jpg")
    for name in ("large.png", "large-too.jpg"):
        Image.new("L", (2100, 2000)).save(house.inbox / "cut" / name)
    assert not house.once()
    assert house.pictures() == ["cut/drawn.png"]
    assert error_files(house.outbox) == {
        *("cut/camera.jpg", "cut/large.png", "cut/large-too.jpg", "cut/noise.jpg")
    }
    assert "a photo needs a cutout model, and none is installed" in house.log()
    house.save("cut/_pictures.yaml", "cutout: demo-cutout\n")
    house.tell("retry", "cut")
    assert house.once()
    assert len(house.pictures()) == 5


def test_a1111s_whole_text_beside_a_picture_is_told(house: House) -> None:
    """It is the prompt, as any text is; the warnings say where and what to do."""
    text = "a tree\nNegative prompt: dim\nSteps: 20, Sampler: Euler a, Seed: 7\n"
    put(house, {"frames/_pictures.yaml": CORGI, "frames/h.jpg": 1, "frames/h.txt": text})
    assert house.once()
    assert house.prompts() == [text.strip()]
    told = (house.outbox / "frames/_pictures.yaml.warning.txt").read_text()
    assert told.count("is drawn as plain text. Write fields, in YAML. (in frames/h.txt)") == 2
    assert "'Seed: 7' is drawn as plain text. Write it as a field in YAML, or in a .txt" in told


def test_warnings_that_name_a_picture_go_with_it(house: House) -> None:
    """Those of others stay, also under new names; the file goes with the last one."""
    put(house, {"small/_pictures.yaml": "resize_to: 32\n"})
    for name in ("h", "h2"):
        put(house, {f"small/{name}.jpg": 1, f"small/{name}.txt": "a note"})
    warnings = house.outbox / "small/_pictures.yaml.warning.txt"
    assert house.once()
    told = warnings.read_text()
    assert [f"small/{name}.txt is no prompt" in told for name in ("h", "h2")] == [True, True]
    for name in ("small/h.jpg", "small/h.txt"):
        (house.inbox / name).unlink()
    assert house.once()
    left = warnings.read_text()
    assert left.startswith("inbox/small/_pictures.yaml\n\nsmall/h2.txt is no prompt")
    assert left.count("\n\n") == 1 and left.endswith(".\n")
    for ending in ("jpg", "txt"):
        (house.inbox / f"small/h2.{ending}").rename(house.inbox / f"small/h3.{ending}")
    assert house.once() and warnings.read_text() == left.replace("h2", "h3"), house.log()
    (house.inbox / "small/h3.jpg").unlink()
    assert house.once() and not warnings.exists()


def test_a_copy_stays_while_an_image_that_was_renamed_and_put_back_uses_it(house: House) -> None:
    """Its request has the former name; another engine is done with the same bytes."""
    put(house, {"frames/_pictures.yaml": CORGI, "frames/1.png": 1})
    assert house.once()
    copies = house.outbox / ".picowatch/start-images"
    with closing(Ledger(house.ledger)) as ledger:
        dropped = DroppedPictures(InboxFolder(house.inbox), copies, ledger)
        image = QueuedImage.of(ledger.select("SELECT * FROM images")[0])
        renamed = replace(image, recipe="frames/2.png")
        other = threading.Thread(target=dropped.bring, args=[[renamed]])
        other.start()
        other.join()
        assert dropped.bring([image]) == [image]
        dropped.clear([image])
        assert [*copies.iterdir()]


def test_a_picture_that_a_process_checks_is_taken_like_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As photos of cameras' sizes are: the process and the daemon read one open file."""
    monkeypatch.setattr(pictures, "SMALL_PIXELS", dict.fromkeys(pictures.SMALL_PIXELS, 0))
    house.save("frames/_pictures.yaml", "resize_to: 16\n")
    photo = house.inbox / "frames/a.bmp"
    Image.effect_noise((200, 200), 90).convert("RGB").save(photo)
    assert house.once()
    (request,) = house.requests()
    assert request.image_hash == hashlib.sha256(photo.read_bytes()).hexdigest()
