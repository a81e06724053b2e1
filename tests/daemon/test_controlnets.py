"""ControlNets and upscalers from save to picture: their input pictures are kept."""

from collections.abc import Callable

import pytest
from PIL import Image

from picowatch.families import DEMO_WIDTH
from picowatch.metadata.embedded_text import read_texts
from tests.catalog.files import kohya_lora_shapes, write_model
from tests.catalog.shapes import controlnet
from tests.house import House
from tests.pictures import picture_with

RECIPE = "prompt: a corgi\nseed: 1\ncontrol: {image: lines.png, model: sketch}\n"
ENLARGED = "image: lines.png\nupscale: demo-compact\n"


@pytest.fixture
def house(house: House) -> House:
    """Return a house with a ControlNet for the demo model and a picture to follow."""
    write_model(house.models / "controlnet/sketch.safetensors", controlnet(DEMO_WIDTH))
    house.draw("lines.png")
    return house


def another_lora(house: House) -> None:
    with (house.models / "loras/c.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"7")


@pytest.mark.parametrize(
    ("recipe", "images", "change"),
    [
        (RECIPE, 1, lambda house: house.draw("lines.png", "blue")),
        (ENLARGED, 1, lambda house: house.draw("lines.png", "blue")),
        ("prompt: a\nseed: 1\nsize: 64x64\nsweep: {loras: [b, c]}\n", 2, another_lora),
    ],
)
def test_another_file_under_its_name_is_another_request(
    house: House, recipe: str, images: int, change: Callable[[House], object]
) -> None:
    """It is one at the next save; the same save again requests no second picture."""
    for name in "bc":
        write_model(house.models / f"loras/{name}.safetensors", kohya_lora_shapes())
    path = house.save("a.yaml", recipe)
    assert house.once(), house.error("a.yaml")
    request = house.request(house.listed()[0]["file"])
    hashes = {request.upscaler_hash, request.image_hash, *(use.hash for use in request.loras)}
    for use in request.control:
        hashes |= {use.image_hash, use.model_hash}
    assert {len(digest) for digest in hashes - {""}} == {64}
    path.touch()
    house.once()
    assert len(house.listed()) == images
    change(house)
    path.touch()
    house.once()
    assert len(house.listed()) == images + 1


def test_maps_are_written_beside_the_picture_and_are_no_pictures(house: House) -> None:
    """Each entry that wants one has one, in any format; a new ledger does not list them."""
    entry = "{image: lines.png, model: sketch, preview: true}"
    for _ in range(2):
        house.save("a.yaml", f"prompt: a corgi\nseed: 1\ncontrol: [{entry}, {entry}]\n")
        assert house.once(format="jpeg"), house.error("a.yaml")
        names = sorted(path.name for path in (house.outbox / "a").iterdir())
        assert names == ["0001-1.control-2.png", "0001-1.control.png", "0001-1.jpg"]
        assert [line["file"] for line in house.listed()] == ["a/0001-1.jpg"]
        house.ledger.unlink()
    with Image.open(house.outbox / "a/0001-1.control.png") as shown:
        assert shown.size == (128, 128)


def test_a_controlnet_may_follow_the_pictures_that_are_dropped(house: House) -> None:
    """`image: picture` passes it; without that, the picture is the start image, too."""
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
    picture_with(house.inbox / "lines.png", "parameters", drawn + enlarged)
    house.save("a.yaml", ENLARGED)
    assert house.once(), house.error("a.yaml")
    (picture,) = house.pictures("a")
    found = read_texts(house.outbox / picture)["parameters"]
    assert found == f"{drawn}, Postprocess upscale by: 4, Postprocess upscaler: demo-compact"
    house.save("b.yaml", f"from: {picture}\n")
    assert house.once(), house.error("b.yaml")
    (again,) = house.pictures("b")
    assert house.request(again) == house.request(picture)


@pytest.mark.parametrize(
    ("length", "why"),
    [(36_000, "it is too long for a JPEG."), (4 << 20, "its texts are too long to be settings.")],
)
def test_what_drew_a_picture_goes_alone_if_too_long(house: House, length: int, why: str) -> None:
    """With a warning; our own text stays."""
    drawn = f"a {'x' * length}\nSteps: 20, Sampler: Euler a, Seed: 7, Size: 64x64"
    picture_with(house.inbox / "p/a.png", "parameters", drawn)
    house.save("p/_pictures.yaml", "format: jpeg\n")
    assert house.once()
    assert house.request("p/a.jpg").image == "p/a.png"
    assert not read_texts(house.outbox / "p/a.jpg").get("parameters")
    told = (house.outbox / "p/_pictures.yaml.warning.txt").read_text()
    assert f"The picture lacks the A1111 text of p/a.png: {why}" in told
