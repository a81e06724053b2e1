"""`from:`: a recipe that starts from a picture's settings."""

from PIL import ExifTags, Image

from tests.house import House


def test_a_recipe_starts_from_a_picture_of_the_outbox(house: House) -> None:
    """Its own fields override; the rest is the picture's, the seed too."""
    house.save("a.yaml", "prompt: a corgi\nseed: 7\nsteps: 9\ncfg_scale: 4\n")
    house.once()
    house.save("b.yaml", "from: a/0001-7.png\nsteps: 10\n")
    assert house.once()
    (picture,) = house.pictures("b")
    one, other = (house.chunk(file).request for file in ("a/0001-7.png", picture))
    assert other.steps == 10
    assert (other.prompt, other.seed, other.cfg_scale) == (one.prompt, one.seed, one.cfg_scale)


def test_the_comment_of_a_jpeg_is_read(house: House) -> None:
    """Where A1111 puts its text, in either byte order."""
    text = "a star\nSteps: 8, Sampler: Euler a, CFG scale: 5, Seed: 3, Size: 128x128"
    for order in ("utf-16-le", "utf-16-be"):
        exif = Image.Exif()
        comment = b"UNICODE\0" + text.encode(order)
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
        Image.new("RGB", (16, 16)).save(house.inbox / f"{order}.jpg", exif=exif)
        house.save(f"{order}.yaml", f"from: {order}.jpg\n")
    assert house.once()
    for order in ("utf-16-le", "utf-16-be"):
        (picture,) = house.pictures(order)
        request = house.chunk(picture).request
        assert (request.prompt, request.steps, request.sampler) == ("a star", 8, "Euler a")


def test_what_a_recipe_cannot_honour_is_said_beside_the_result(house: House) -> None:
    """In the log and in a file, until the next save without it."""
    text = "a star\nSteps: 8, Sampler: Euler a, Seed: 3, Size: 128x128, Face restoration: GFPGAN"
    house.save("a.txt", text)
    assert house.once()
    assert len(house.pictures()) == 1
    warning = house.outbox / "a.txt.warning.txt"
    assert "Face restoration" in warning.read_text()
    assert "warning a.txt: " in house.log()
    house.save("a.txt", text.replace(", Face restoration: GFPGAN", ""))
    assert house.once()
    assert not warning.exists()


def test_a_picture_that_is_not_there_is_said_at_its_place(house: House) -> None:
    """With line and column."""
    house.save("a.yaml", "prompt: x\nfrom: none.png\n")
    assert not house.once()
    error = house.error("a.yaml") or ""
    assert "line 2, column 7" in error
    assert "none.png" in error
