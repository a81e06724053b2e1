"""Pictures that are enlarged and not drawn, from their save to their metadata."""

from PIL import Image, PngImagePlugin

from picowatch.metadata import read_texts
from tests.daemon.test_start_images import draw
from tests.house import House

ALONE = "image: start.png\nupscale: demo-compact\n"


def test_a_picture_without_a_prompt_is_enlarged_once(house: House) -> None:
    """Nothing is random about it: the same save again makes nothing, another picture does."""
    draw(house.inbox / "start.png", "red")
    path = house.save("a.yaml", ALONE)
    assert house.once(), house.error("a.yaml")
    (picture,) = house.pictures("a")
    request = house.chunk(picture).request
    assert (request.width, request.height, request.checkpoint) == (64, 64, "")
    assert len(request.upscaler_hash) == len(request.image_hash) == 64
    path.write_text(ALONE + "# again\n")
    house.once()
    assert len(house.pictures("a")) == 1
    draw(house.inbox / "start.png", "blue")
    path.write_text(ALONE + "# another picture\n")
    house.once()
    assert len(house.pictures("a")) == 2


def test_what_drew_the_picture_stays_with_it(house: House) -> None:
    """As in A1111's tab "Extras"; each key once: our own text says what was done now."""
    texts = PngImagePlugin.PngInfo()
    drawn = "a corgi\nSteps: 20, Sampler: Euler a, Seed: 7, Size: 64x64"
    enlarged = ', Postprocess upscale by: 2, Postprocess upscaler: "a, b"'
    texts.add_text("parameters", drawn + enlarged)
    Image.new("RGB", (64, 64), "red").save(house.inbox / "start.png", pnginfo=texts)
    house.save("a.yaml", ALONE)
    assert house.once(), house.error("a.yaml")
    (picture,) = house.pictures("a")
    found = read_texts(house.outbox / picture)["parameters"]
    assert found == f"{drawn}, Postprocess upscale by: 4, Postprocess upscaler: demo-compact"
    house.save("b.yaml", f"from: {picture}\n")
    assert house.once(), house.error("b.yaml")
    (again,) = house.pictures("b")
    assert house.chunk(again).request == house.chunk(picture).request


def test_what_drew_a_dropped_picture_stays_with_it(house: House) -> None:
    """Also where a batch is still being written when the copies of its pictures are deleted."""
    house.save("large/_pictures.yaml", "upscale: demo-compact\n")  # nothing more: an upscaler
    for number in range(6):
        texts = PngImagePlugin.PngInfo()
        texts.add_text("parameters", f"corgi {number}\nSteps: 20, Sampler: Euler a, Seed: 7")
        picture = Image.new("RGB", (64, 64), (40 * number, 0, 0))
        picture.save(house.inbox / f"large/{number}.png", pnginfo=texts)
    assert house.once(batch_size=3)
    assert not house.chunk("large/2.png").request.draws
    found = [read_texts(house.outbox / file)["parameters"] for file in house.pictures()]
    assert [text.partition("\n")[0] for text in found] == [f"corgi {n}" for n in range(6)]
