"""ControlNets from save to picture: their pictures are kept, their maps are shown on request."""

from pathlib import Path

import pytest
from PIL import Image

from picowatch.catalog.hashes import old_hash
from picowatch.families import DEMO_WIDTH
from picowatch.metadata import PARAMETERS, read_texts
from picowatch.metadata.recipe_yaml import recipe_yaml
from tests.catalog.files import write_model
from tests.catalog.test_controlnets import original
from tests.house import HeldEngine
from tests.house import House, wait_for

RECIPE = "prompt: a corgi\nseed: 1\ncontrol: {image: lines.png, model: sketch}\n"


def draw(path: Path, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), colour).save(path)


@pytest.fixture
def house(house: House) -> House:
    """With a ControlNet for the demo model."""
    write_model(house.models / "controlnet/sketch.safetensors", original(DEMO_WIDTH))
    return house


def test_the_picture_to_follow_is_kept_as_start_images_are(house: House) -> None:
    """Another picture under its name is another request, at the next save."""
    draw(house.inbox / "lines.png")
    path = house.save("a.yaml", RECIPE)
    assert house.once(), house.error("a.yaml")
    (use,) = house.chunk("a/0001-1.png").request.control
    assert (use.image, use.model, len(use.image_hash), len(use.model_hash)) == (
        *("lines.png", "sketch"),
        *(64, 64),
    )
    path.touch()
    house.once()
    assert len(house.pictures()) == 1
    draw(house.inbox / "lines.png", "blue")
    path.touch()
    house.once()
    assert len(house.pictures()) == 2


def test_no_hash_of_another_file_is_written_for_a_controlnet_that_was_replaced(
    house: House,
) -> None:
    """A1111's hash of what is there when the picture is published is not that of what drew it."""
    draw(house.inbox / "lines.png")
    shapes = original(DEMO_WIDTH) | {"zero_convs.1.0.weight": (1024, 1024, 1, 1)}
    path = write_model(house.models / "controlnet/sketch.safetensors", shapes)
    house.save("a.yaml", RECIPE)
    assert house.once(), house.error("a.yaml")
    hashed = f"Model: sketch [{old_hash(path)}]"
    assert hashed in read_texts(house.outbox / "a/0001-1.png")[PARAMETERS]
    held = HeldEngine(house, after=1)
    with house.running():
        house.save("b.yaml", RECIPE)
        held.wait_until_held()
        with path.open("r+b") as file:
            file.seek(1 << 20)
            file.write(b"other weights")
        assert old_hash(path) not in hashed
        held.release()
        wait_for(lambda: house.pictures("b"), "the picture")
    assert "Model: sketch, " in read_texts(house.outbox / "b/0001-1.png")[PARAMETERS]


def test_maps_are_written_beside_the_picture_and_are_no_pictures(house: House) -> None:
    """One for each entry that wants it, whatever the pictures' format."""
    draw(house.inbox / "lines.png")
    entry = "{image: lines.png, model: sketch, preview: true}"
    house.save("a.yaml", f"prompt: a corgi\nseed: 1\ncontrol: [{entry}, {entry}]\n")
    assert house.once(format="jpeg"), house.error("a.yaml")
    names = sorted(path.name for path in (house.outbox / "a").iterdir())
    assert names == ["0001-1.control-2.png", "0001-1.control.png", "0001-1.jpg"]
    assert [line["file"] for line in house.listed()] == ["a/0001-1.jpg"]
    with Image.open(house.outbox / "a/0001-1.control.png") as shown:
        assert shown.size == (128, 128)
    (house.outbox / ".picowatch/ledger.sqlite").unlink()
    house.save("a.yaml", f"prompt: a corgi\nseed: 1\ncontrol: [{entry}, {entry}]\n")
    assert house.once(format="jpeg")
    assert len(house.listed()) == 1


def test_what_a_picture_says_of_its_controlnets_makes_it_again(house: House) -> None:
    """By `show` and by `from`."""
    draw(house.inbox / "frames/1.png")
    draw(house.inbox / "frames/2.png", "blue")
    house.save(
        "a.yaml",
        "".join(
            "---\nprompt: a corgi\nseed: 1\nresize: fit\ncontrol:\n"
            f"- {{image: {name}, model: sketch, preprocess: canny, low: 50, weight: 0.5}}\n"
            for name in ("frames/1.png", "frames/2.png")
        ),
    )
    assert house.once(batch_size=1), house.error("a.yaml")
    first, second = (house.chunk(one).request for one in house.pictures("a"))
    assert [one.control[0].image for one in (first, second)] == ["frames/1.png", "frames/2.png"]
    assert first.batch_key == second.batch_key
    house.save("shown.yaml", recipe_yaml(first))
    house.save("again.yaml", "from: a/0002-1.png\n")
    assert house.once(), (house.error("shown.yaml"), house.error("again.yaml"))
    assert house.chunk("shown/0001-1.png").request.digest == first.digest
    assert house.chunk("again/0001-1.png").request.digest == second.digest


def test_a_controlnet_may_follow_the_pictures_that_are_dropped(house: House) -> None:
    """`image: picture` leads a picture there; without it the picture is the start image, too.

    A renamed picture is still the same request.
    """
    folders = {
        "follow": "size: picture\ncontrol: {image: picture, model: sketch}\n",
        "both": "image: picture\ncontrol: [{image: picture, model: sketch}]\n",
        "start": "control: {model: sketch}\n",
        "other": "control: {image: lines.png, model: sketch}\n",
    }
    draw(house.inbox / "lines.png", "green")
    for folder, text in folders.items():
        house.save(f"{folder}/_pictures.yaml", f"prompt: a corgi\nseed: 1\n{text}")
        draw(house.inbox / folder / "1.png")
    assert house.once(), [*house.outbox.rglob("*.error.txt")]
    used = {
        folder: (request.image, request.control[0].image, request.width)
        for folder in folders
        for request in [house.chunk(f"{folder}/1.png").request]
    }
    assert used == {
        "follow": ("", "follow/1.png", 64),
        "both": ("both/1.png", "both/1.png", 128),
        "start": ("start/1.png", "start/1.png", 128),
        "other": ("other/1.png", "lines.png", 128),
    }
    for folder in folders:
        (house.inbox / folder / "1.png").rename(house.inbox / folder / "2.png")
    assert house.once()
    for folder in folders:
        (house.inbox / folder / "2.png").touch()
    assert house.once()
    assert house.pictures() == sorted(f"{folder}/1.png" for folder in folders)
