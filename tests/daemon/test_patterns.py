"""`image: frames/*.png`: one image for each picture that matches when the recipe is saved."""

import json
from pathlib import Path

import pytest
from PIL import Image

from picowatch.commands.check import check
from picowatch.families import DEMO_WIDTH
from tests.catalog.files import write_model
from tests.catalog.test_controlnets import original
from tests.house import House, wait_for

RECIPE = "prompt: a corgi\nseed: 7\nimage: frames/*.png\n"


def draw(path: Path, colour: object = "red", size: tuple[int, int] = (64, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)  # type: ignore[arg-type]


def draw_frames(house: House, *names: str) -> None:
    """Each of another colour."""
    for number, name in enumerate(names):
        draw(house.inbox / "frames" / name, (number * 20, 0, 0))


def images(house: House, folder: str = "") -> list[str]:
    """The start images of all pictures, in the pictures' order."""
    return [house.chunk(picture).request.image for picture in house.pictures(folder)]


def test_each_picture_that_matches_is_an_image_in_natural_order_with_the_same_seed(
    house: House,
) -> None:
    """Frame 2 before frame 10; hidden files, other files and masks are no frames."""
    draw_frames(house, "f10.png", "f2.png", "F1.PNG", "f1.jpg", "._f1.png", "f2.mask.png")
    (house.inbox / "frames/notes.png.txt").write_text("")
    (house.inbox / "frames/folder.png").mkdir()
    house.save("a.yaml", RECIPE)
    assert house.once(batch_size=1), house.error("a.yaml")
    assert images(house) == ["frames/F1.PNG", "frames/f2.png", "frames/f10.png"]
    assert house.seeds() == [7, 7, 7]
    assert len({house.chunk(one).request.image_hash for one in house.pictures()}) == 3


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("frames/*", ["frames/1.png", "frames/2.png"]),
        ("frames/?.png", ["frames/1.png", "frames/2.png"]),
        ("**/*.png", ["deep/er/3.png", "frames/1.png", "frames/2.png", "photo [1].png"]),
        ("f*/1.png", ["frames/1.png"]),
        ("inbox/frames/*.png", ["inbox/frames/1.png", "inbox/frames/2.png"]),
        ("outbox/old/*.png", ["outbox/old/0001-5.png"]),
        ("{inbox}/frames/*.png", ["inbox/frames/1.png", "inbox/frames/2.png"]),
        ("{outbox}/old/0001-5.png", ["outbox/old/0001-5.png"]),
        ("photo [1].png", ["photo [1].png"]),
    ],
)
def test_patterns_reach_where_paths_do(house: House, pattern: str, found: list[str]) -> None:
    """Beside the recipe, below the inbox or the outbox, absolute ones inside these too.

    In the outbox contact sheets do not match, nor do hidden folders anywhere. Brackets are names.
    """
    draw_frames(house, "1.png", "2.png")
    for place in ("inbox/deep/er/3.png", "inbox/.deep/4.png", "inbox/photo [1].png"):
        draw(house.folder / place)
    for place in ("old/0001-5.png", "old/0002-sheet.png"):
        draw(house.outbox / place)
    written = pattern.format(inbox=house.inbox, outbox=house.outbox)
    house.save("a.yaml", f"prompt: a corgi\nseed: 7\nimage: '{written}'\n")
    assert house.once(batch_size=1), house.error("a.yaml")
    assert images(house, "a") == found


def test_a_new_frame_is_made_at_the_next_save_and_no_other(house: House) -> None:
    """Each frame is an entry of its own: what did not change is not made again, random or not."""
    draw_frames(house, "1.png", "2.png")
    path = house.save("a.yaml", RECIPE.replace("seed: 7", "seed: random"))
    assert house.once()
    seeds = house.seeds()
    draw_frames(house, "3.png")
    assert house.once()
    assert len(house.pictures()) == 2, "frames trigger nothing by themselves"
    path.touch()
    assert house.once()
    assert images(house) == ["frames/1.png", "frames/2.png", "frames/3.png"]
    assert house.seeds()[:2] == seeds
    assert len(set(house.seeds())) == 3


def test_count_and_seeds_hold_for_each_frame(house: House) -> None:
    draw_frames(house, "1.png", "2.png")
    house.save("a.yaml", "prompt: a corgi\nseed: [3, 5]\nimage: frames/*.png\n")
    assert house.once(batch_size=1)
    assert list(zip(images(house), house.seeds(), strict=True)) == [
        ("frames/1.png", 3), ("frames/1.png", 5), ("frames/2.png", 3), ("frames/2.png", 5),
    ]  # fmt: skip


@pytest.mark.parametrize("more", ["grid: true", "sweep: {steps: [1, 2]}"])
def test_with_a_contact_sheet_the_frames_share_it_and_a_random_seed(
    house: House, more: str
) -> None:
    draw_frames(house, "1.png", "2.png")
    house.save("a.yaml", f"prompt: a corgi\nimage: frames/*.png\n{more}\n")
    assert house.once()
    sheets = [name for name in house.pictures() if "sheet" in name]
    assert len(sheets) == 1
    drawn = [name for name in house.pictures() if name not in sheets]
    assert len(drawn) == (2 if "grid" in more else 4)
    assert len({house.chunk(name).request.seed for name in drawn}) == 1


MASKS = [
    (("1.png", "2.png"), ("2.png", "1.jpg"), ["m/1.jpg", "m/2.png"]),  # by name
    (("1.png", "2.png"), ("b.png", "a.png"), ["m/a.png", "m/b.png"]),  # no name is the same
    (("1.png", "2.png"), ("1.mask.png", "2.mask.png"), ["m/1.mask.png", "m/2.mask.png"]),
]


@pytest.mark.parametrize(("frames", "masks", "used"), MASKS)
def test_masks_pair_with_pictures_by_name_or_else_in_order(
    house: House, frames: tuple[str, ...], masks: tuple[str, ...], used: list[str]
) -> None:
    draw_frames(house, *frames)
    for name in masks:
        draw(house.inbox / "m" / name)
    ending = "*.mask.png" if "mask" in masks[0] else "*"
    house.save("a.yaml", RECIPE + f"mask: m/{ending}\n")
    assert house.once(batch_size=1), house.error("a.yaml")
    assert [house.chunk(one).request.mask for one in house.pictures()] == used


def test_one_mask_serves_all_frames_and_one_picture_all_masks(house: House) -> None:
    draw_frames(house, "1.png", "2.png")
    draw(house.inbox / "mask.png")
    house.save("a.yaml", RECIPE + "mask: mask.png\n")
    house.save("b.yaml", "prompt: a corgi\nseed: 7\nimage: mask.png\nmask: frames/*.png\n")
    assert house.once(batch_size=1)
    assert images(house, "a") == ["frames/1.png", "frames/2.png"]
    masks = [house.chunk(one).request.mask for one in house.pictures("b")]
    assert masks == ["frames/1.png", "frames/2.png"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("image: none/*.png", "line 2, column 8|No picture matches 'none/*.png'"),
        ("image: frames/*.heic", "No picture matches|end in .png, .jpg"),
        ("image: ../frames/*.png", "must not contain '..'"),
        ("image: /etc/*.png", "leads out of them"),
        ("image: 'INBOX/../x/*.png'", "must not contain '..'"),
        ("image: frames/*.png\nmask: m/*.png", "line 3, column 7|image matches 3 pictures, mask "
         "matches 2, and 'frames/3.png' has none of its name"),
        ("image: frames/*.png\nmask: o/*.png", "image matches 3 pictures, mask matches 1."),
        ("image: frames/*.png\ncount: 2", "requests 6 images; one save may request 5"),
        ("image: '**/*.png'", "line 2, column 8|'**/*.png' matches 6 pictures. Together this file "
         "requests 6 images; one save may request 5"),
        ("image: frames/*.png\nsweep: {steps: [1, 2]}", "With the sweep this file requests 6"),
        ("size: picture", "size: picture is the size of the start image. Add image"),
        ("sweep:\n  image: [frames/1.png, frames/*.png]", "line 3, column 25|a sweep cannot "
         "contain a pattern. Write 'image: frames/*.png' outside the sweep"),
        ("image: frames/*.png\nsweep: {image: [m/1.png, m/2.png]}", "line 3, column 9|image is "
         "already a pattern, whose pictures are an axis. Keep one of the two."),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_said_at_its_place(house: House, more: str, said: str) -> None:
    draw_frames(house, "1.png", "2.png", "3.png")
    for name in ("m/1.png", "m/2.png", "o/x.png"):
        draw(house.inbox / name)
    house.save("a.yaml", f"prompt: a corgi\n{more.replace('INBOX', str(house.inbox))}\n")
    assert not house.once(max_images_per_save=5)
    error = house.error("a.yaml") or ""
    for words in said.split("|"):
        assert words in error
    assert house.engine.batches == []


def test_a_picture_whose_name_begins_with_a_space_is_not_taken_for_another(house: House) -> None:
    """People sort with it; also where the picture is dropped in such a folder."""
    for index, name in enumerate((" a.png", "a.png")):
        draw(house.inbox / "frames" / name, (index * 20, 0, 0))
        draw(house.inbox / " dropped" / name, (100 + index * 20, 0, 0))
    house.save("frames/a.yaml", "prompt: a corgi\nseed: 7\nimage: '*.png'\n")
    house.save(" dropped/_pictures.yaml", "prompt: a corgi\nseed: 7\n")
    assert house.once(), house.error(" dropped/a.png")
    assert sorted(images(house)) == [" a.png", " dropped/ a.png", " dropped/a.png", "a.png"]


def test_a_recipe_does_not_draw_its_own_results_again(house: House) -> None:
    """With each save there would be twice as many; those of another recipe there are drawn."""
    house.save("a.txt", "a star --seed 1\n")
    assert house.once()
    path = house.save("a.yaml", "prompt: a corgi\nseed: 7\nimage: a/*.png\n")
    for _ in "twice":
        path.touch()
        assert house.once(), house.error("a.yaml")
        assert images(house) == ["", "a/0001-1.png"]


def test_what_is_made_for_people_matches_no_pattern(house: House) -> None:
    """Contact sheets and maps; a result that is only called like a sheet does."""
    write_model(house.models / "controlnet/sketch.safetensors", original(DEMO_WIDTH))
    draw(house.inbox / "lines.png")
    followed = "control: {image: lines.png, model: sketch, preview: true}"
    house.save("b.yaml", f"prompt: b\nseed: 1\ncount: 2\ngrid: true\n{followed}\n")
    draw(house.inbox / "dropped/model-sheet.png")
    house.save("dropped/_pictures.yaml", "prompt: b\n")
    assert house.once(), house.error("b.yaml")
    house.save("a.yaml", "prompt: a\nimage: outbox/**/*.png\n")
    assert house.once(), house.error("a.yaml")
    assert sorted(images(house, "a")) == [
        "outbox/b/0001-1.png", "outbox/b/0002-2.png", "outbox/dropped/model-sheet.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "pattern", ["out/*.png", "*/*.png", "**/*.png", "linked*.png", "circle/**/*.png", "*" * 300]
)
def test_no_pattern_leads_out_of_the_folders(house: House, pattern: str) -> None:
    """Through links to folders and pictures elsewhere; links in a circle end."""
    draw(house.folder / "secret/0001.png")
    (house.inbox / "out").symlink_to(house.folder / "secret")
    (house.inbox / "circle").symlink_to(house.inbox)
    (house.inbox / "linked.png").symlink_to(house.folder / "secret/0001.png")
    house.save("a.yaml", f"prompt: a corgi\nimage: '{pattern}'\n")
    assert not house.once()
    assert "o picture" in (house.error("a.yaml") or "")
    assert "0001" not in (house.error("a.yaml") or "")
    assert house.engine.batches == []


def test_a_damaged_frame_is_named_and_waited_for(house: House) -> None:
    draw_frames(house, "1.png", "2.png")
    whole = (house.inbox / "frames/2.png").read_bytes()
    (house.inbox / "frames/2.png").write_bytes(whole[:60])
    house.save("a.yaml", RECIPE)
    with house.running():
        wait_for(lambda: "'frames/2.png': It is damaged" in (house.error("a.yaml") or ""))
        (house.inbox / "frames/2.png").write_bytes(whole)
        wait_for(lambda: len(house.pictures()) == 2)
    assert house.error("a.yaml") is None


@pytest.mark.parametrize(
    ("size", "rest", "rendered"),
    [
        ((320, 200), "size: picture", (320, 200)),
        ((323, 197), "size: picture", (320, 200)),
        ((4000, 3000), "size: picture", (1632, 1224)),  # 2 megapixels
        ((20, 400), "size: picture", (64, 400)),
        ((3000, 300), "size: picture", (2048, 208)),
        ((320, 200), "size: picture\nhires: {scale: 4}", (320, 200)),
        ((1200, 800), "size: picture\nhires: {scale: 4}", (1024, 680)),  # 4096 after hires
        ((320, 200), "size: Picture\ncount: 1", (320, 200)),
    ],
)
def test_the_size_of_the_picture_is_rounded_and_capped(
    house: House,
    capsys: pytest.CaptureFixture[str],
    size: tuple[int, int],
    rest: str,
    rendered: tuple[int, int],
) -> None:
    draw(house.inbox / "start.png", size=size)
    path = house.save("a.yaml", f"prompt: a corgi\nseed: 7\nimage: start.png\n{rest}\n")
    assert check(house.settings(), [path], as_json=True) == 0
    (image,) = json.loads(capsys.readouterr().out)
    assert (image["width"], image["height"]) == rendered


def test_each_frame_has_its_own_size_and_a_sideways_photo_stands(house: House) -> None:
    """EXIF turns it; beside a width the height follows in proportion."""
    draw(house.inbox / "frames/1.png", size=(128, 64))
    photo = Image.new("RGB", (128, 64))
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(house.inbox / "frames/2.jpg", exif=exif)
    house.save("_defaults.yaml", "size: picture\n")
    house.save("a.yaml", "prompt: a corgi\nseed: 7\nimage: frames/*\n")
    house.save("b.yaml", "prompt: a corgi\nseed: 7\nimage: frames/*\nwidth: 256\n")
    assert house.once(batch_size=1), house.error("a.yaml")
    requests = [house.chunk(one).request for one in house.pictures()]
    assert [(one.width, one.height) for one in requests] == [
        (128, 64), (64, 128), (256, 128), (256, 512),
    ]  # fmt: skip


def test_no_picture_is_hidden_for_want_of_a_start_image(house: House) -> None:
    house.save("a.yaml", "prompt: a corgi\nseed: 7\n")
    assert house.once(file_name="{picture}.{number}")
    assert house.pictures() == ["a/1.png"]


def test_pictures_can_be_named_like_their_frames(house: House) -> None:
    draw_frames(house, "1.png", "2.png")
    house.save("a.yaml", RECIPE)
    assert house.once(batch_size=1, file_name="{picture}-{number}")
    assert house.pictures() == ["a/1-1.png", "a/2-2.png"]
