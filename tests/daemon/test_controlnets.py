"""ControlNets and upscalers from save to picture: their input pictures are kept."""

import pytest
from PIL import Image, PngImagePlugin

from picowatch.families import DEMO_WIDTH
from picowatch.metadata import read_texts
from picowatch.metadata.recipe_yaml import recipe_yaml
from tests.catalog.files import write_model
from tests.catalog.shapes import controlnet
from tests.house import House

RECIPE = "prompt: a corgi\nseed: 1\ncontrol: {image: lines.png, model: sketch}\n"
ENLARGED = "image: lines.png\nupscale: demo-compact\n"


@pytest.fixture
def house(house: House) -> House:
    """Return a house with a ControlNet for the demo model and a picture to follow."""
    write_model(house.models / "controlnet/sketch.safetensors", controlnet(DEMO_WIDTH))
    house.draw("lines.png")
    return house


@pytest.mark.parametrize("recipe", [RECIPE, ENLARGED])
def test_another_picture_under_its_name_is_another_request(house: House, recipe: str) -> None:
    """It is one at the next save; the same save again requests no second enlarged picture."""
    path = house.save("a.yaml", recipe)
    assert house.once(), house.error("a.yaml")
    request = house.requests("a")[0]
    hashes = {request.upscaler_hash, request.image_hash}
    for use in request.control:
        assert (use.image, use.model) == ("lines.png", "sketch")
        hashes = {use.image_hash, use.model_hash}
    assert {len(one) for one in hashes} == {64}
    path.touch()
    house.once()
    assert len(house.pictures()) == 1
    house.draw("lines.png", "blue")
    path.touch()
    house.once()
    assert len(house.pictures()) == 2


def test_maps_are_written_beside_the_picture_and_are_no_pictures(house: House) -> None:
    """Each entry that wants one has one, in any format; a new ledger does not list them."""
    entry = "{image: lines.png, model: sketch, preview: true}"
    for _ in "twice":
        house.save("a.yaml", f"prompt: a corgi\nseed: 1\ncontrol: [{entry}, {entry}]\n")
        assert house.once(format="jpeg"), house.error("a.yaml")
        names = sorted(path.name for path in (house.outbox / "a").iterdir())
        assert names == ["0001-1.control-2.png", "0001-1.control.png", "0001-1.jpg"]
        assert [line["file"] for line in house.listed()] == ["a/0001-1.jpg"]
        (house.outbox / ".picowatch/ledger.sqlite").unlink()
    with Image.open(house.outbox / "a/0001-1.control.png") as shown:
        assert shown.size == (128, 128)


def test_what_a_picture_says_of_its_controlnets_makes_it_again(house: House) -> None:
    """`show` and `from` do it; pictures with a ControlNet share a batch."""
    house.draw("frames/1.png")
    house.draw("frames/2.png", "blue")
    house.save(
        "a.yaml",
        "".join(
            "---\nprompt: a corgi\nseed: 1\nresize: fit\ncontrol:\n"
            f"- {{image: {name}, model: sketch, preprocess: canny, low: 50, weight: 0.5}}\n"
            for name in ("frames/1.png", "frames/2.png")
        ),
    )
    assert house.once(batch_size=1), house.error("a.yaml")
    first, second = house.requests("a")
    assert [one.control[0].image for one in (first, second)] == ["frames/1.png", "frames/2.png"]
    assert first.batch_key == second.batch_key
    house.save("shown.yaml", recipe_yaml(first))
    house.save("again.yaml", "from: a/0002-1.png\n")
    assert house.once(), (house.error("shown.yaml"), house.error("again.yaml"))
    assert house.request("shown/0001-1.png").digest == first.digest
    assert house.request("again/0001-1.png").digest == second.digest


def test_a_controlnet_may_follow_the_pictures_that_are_dropped(house: House) -> None:
    """`image: picture` passes the picture to it; without that, it is the start image, too.

    A renamed picture is still the same request.
    """
    folders = {
        "follow": "size: picture\ncontrol: {image: picture, model: sketch}\n",
        "both": "image: picture\ncontrol: [{image: picture, model: sketch}]\n",
        "start": "control: {model: sketch}\n",
        "other": "control: {image: lines.png, model: sketch}\n",
    }
    for folder, text in folders.items():
        house.save(f"{folder}/_pictures.yaml", f"prompt: a corgi\nseed: 1\n{text}")
        house.draw(f"{folder}/1.png", "green")
    assert house.once(), [*house.outbox.rglob("*.error.txt")]
    used = {
        folder: (request.image, request.control[0].image, request.width)
        for folder in folders
        for request in [house.request(f"{folder}/1.png")]
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


def test_what_drew_an_enlarged_picture_stays_with_it(house: House) -> None:
    """A1111's tab "Extras" keeps it, too; each key is there once, our own text last."""
    drawn = "a corgi\nSteps: 20, Sampler: Euler a, Seed: 7, Size: 64x64"
    enlarged = ', Postprocess upscale by: 2, Postprocess upscaler: "a, b"'
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", drawn + enlarged)
    Image.new("RGB", (64, 64)).save(house.inbox / "lines.png", pnginfo=info)
    house.save("a.yaml", ENLARGED)
    assert house.once(), house.error("a.yaml")
    (picture,) = house.pictures("a")
    found = read_texts(house.outbox / picture)["parameters"]
    assert found == f"{drawn}, Postprocess upscale by: 4, Postprocess upscaler: demo-compact"
    house.save("b.yaml", f"from: {picture}\n")
    assert house.once(), house.error("b.yaml")
    (again,) = house.pictures("b")
    assert house.request(again) == house.request(picture)
