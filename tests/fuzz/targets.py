"""What picowatch promises of bytes from strangers, as one function a way in: bytes to nothing.

Each target gives bytes to the code that meets them and fails unless there is a result, or the
documented error with a text that can be shown to people. Hypothesis and the coverage-guided
runner (`python -m tests.fuzz.run`) drive the same targets.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image

from picowatch.catalog import Catalog
from picowatch.catalog.headers import read_header
from picowatch.catalog.models import FOLDERS
from picowatch.errors import ModelRefused, PictureUnreadable
from picowatch.files.decoding import Original, decode_mask, decode_picture
from picowatch.files.pictures import check_picture
from picowatch.metadata.embedded_text import texts_in
from picowatch.metadata.recipe_yaml import others_yaml, recipe_yaml
from picowatch.metadata.xmp import Xmp
from picowatch.outbox.encoding import How
from picowatch.outbox.photo_metadata import DRAWN, NO_PLACE, photo_metadata
from picowatch.recipe.chunk import read_chunk
from picowatch.recipe.files import NO_PICTURES, Pictures
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.messages.problems import RecipeInvalid, error_text
from picowatch.recipe.reading import DefaultsFile, read_recipes
from picowatch.recipe.recipe import no_hash
from tests.catalog.files import safetensors
from tests.recipe.reading import PicturesWith

Target = Callable[[bytes], None]

WILDCARDS = {"x": ("a", "{b|__y__}"), "y": ("c",)}
INVENTORY = Inventory(
    demo=Checkpoint("demo", 128), loras=("x",), embeddings=("a",), wildcards=WILDCARDS
)
RECIPE_OF_PICTURE = b"from: a.png"


def check_recipe(
    name: str,
    content: bytes,
    pictures: Pictures = NO_PICTURES,
    inventory: Inventory = INVENTORY,
    defaults: tuple[DefaultsFile, ...] = (),
) -> None:
    """Nothing but recipes, or RecipeInvalid with texts that can be shown and name each place."""
    try:
        recipes = read_recipes(name, content, inventory, defaults, pictures=pictures)
    except RecipeInvalid as invalid:
        check_invalid(invalid)
        return
    for recipe in recipes:
        recipe.digest(no_hash)
        for warning in recipe.warnings:
            assert_shown(warning)
        try:
            recipe.image_requests(no_hash, 0)
        except RecipeInvalid as invalid:
            check_invalid(invalid)


def check_invalid(invalid: RecipeInvalid) -> None:
    """The error is for people: it can be shown, and says where each problem is."""
    text = error_text(invalid)
    assert invalid.problems
    assert_shown(text.replace("\n", ""))
    assert_shown(str(invalid))
    first = invalid.problems[0]
    assert f"line {first.line}, column {first.column}" in text
    for problem in invalid.problems:
        assert problem.line >= 1 and problem.column >= 1
        assert problem.column <= len(problem.source_line) + 1, "points beyond its line"


def assert_shown(text: str) -> None:
    """One line, of characters that a terminal shows; the joiner is inside of emoji."""
    assert text, "an empty message"
    assert text.replace("\N{ZERO WIDTH JOINER}", "").isprintable(), repr(text[:200])


def defaults_file(data: bytes) -> None:
    check_recipe("a.yaml", b"prompt: a", defaults=(DefaultsFile("_defaults.yaml", data),))


def picture_with_settings(data: bytes) -> None:
    """The file that `from:` names, and the one that `picowatch show` gets."""
    with suppress(PictureUnreadable):
        _show(texts_in(BytesIO(data)))
    check_recipe("a.yaml", RECIPE_OF_PICTURE, PicturesWith(lambda _: texts_in(BytesIO(data))))


def png_texts(data: bytes) -> None:
    """A PNG's texts: keyword and text in turns, parted by NUL bytes."""
    parts = data.decode("utf-8", "surrogateescape").split("\0")
    texts = dict(zip(parts[::2], parts[1::2], strict=False))
    with suppress(PictureUnreadable):
        _show(texts)
    check_recipe("a.yaml", RECIPE_OF_PICTURE, PicturesWith(lambda _: texts))


def _show(texts: Mapping[str, str]) -> None:
    """`picowatch show`: the picture's recipe is one that can be read, or refused in words."""
    try:
        if "picowatch" in texts:
            recipe = recipe_yaml(read_chunk(texts["picowatch"]).request)
        else:
            recipe = others_yaml(texts, INVENTORY)
    except PictureUnreadable as error:
        assert_shown(str(error))
        return
    assert_shown(recipe.replace("\n", ""))
    check_recipe("a.yaml", recipe.encode())


def _decoded(decode: Callable[[bytes], Image.Image], mode: str, data: bytes) -> None:
    """A start image or a mask: what the daemon accepts, the engine can decode."""
    try:
        check_picture(BytesIO(data))
    except PictureUnreadable as error:
        assert_shown(str(error))
        return
    assert decode(data).mode == mode


def photo(data: bytes) -> None:
    """What a photo says: every picture made of it can be opened, and says no place."""
    try:
        said = photo_metadata(BytesIO(data), NO_PLACE, mark=DRAWN, size=(8, 8))
    except PictureUnreadable as error:
        assert_shown(str(error))
        return
    for warning in said.warnings:
        assert_shown(warning)
    assert Xmp(said.xmp).source_type == DRAWN and ExifTags.IFD.GPSInfo not in said.exif
    for kind in ("png", "jpg"):
        how = How(f"a.{kind}", {}, photo=said)
        with Image.open(BytesIO(how.encode(Original(Image.new("RGB", (8, 8)))))) as made:
            made.getexif().get_ifd(ExifTags.IFD.Exif)


def safetensors_file(data: bytes) -> None:
    """A file of any bytes in every folder of models/."""
    with _models() as models:
        for folder in ("checkpoints", "vae", "text_encoders", "loras", "embeddings"):
            (models / folder / "it.safetensors").write_bytes(data)
        _check_catalog(models)


def pickled_model(data: bytes) -> None:
    """What `picowatch convert` gets: a safetensors file that can be read, or a reason."""
    from picowatch.engine.networks.convert import (
        convert,  # torch, which the other targets do without
    )

    with _models() as models:
        (models / "it.pth").write_bytes(data)
        try:
            new = convert(models / "it.pth")
        except ModelRefused as refused:
            assert_shown(refused.message)
            return
        read_header(new)


def gguf_file(data: bytes) -> None:
    with _models() as models:
        (models / "checkpoints/it.gguf").write_bytes(data)
        _check_catalog(models)


def safetensors_header(data: bytes) -> None:
    """A file whose length is right and whose header's text is anything; weights as it says."""
    header = data.replace(b"\0", b"")
    safetensors_file(safetensors(header, weights=data.count(b"\0")))


def model_folder(data: bytes) -> None:
    """The configs of a diffusers folder and of a VAE's: index, NUL, UNet's, NUL, VAE's."""
    index, unet, vae, *_ = (*data.split(b"\0"), b"", b"")
    files = {
        "checkpoints/it/model_index.json": index,
        "checkpoints/it/unet/config.json": unet,
        "checkpoints/it/vae/config.json": vae,
        "checkpoints/it/text_encoder/config.json": b"{}",
        "checkpoints/it/scheduler/scheduler_config.json": b"{}",
        "checkpoints/it/tokenizer/vocab.json": b"{}",
        "vae/it/config.json": vae,
        "vae/it/diffusion_pytorch_model.safetensors": _WEIGHTS,
        **{
            f"checkpoints/it/{part}/model.safetensors": _WEIGHTS
            for part in ("unet", "vae", "text_encoder")
        },
    }
    with _models() as models:
        for name, content in files.items():
            (models / name).parent.mkdir(parents=True, exist_ok=True)
            (models / name).write_bytes(content)
        _check_catalog(models)


_WEIGHTS = safetensors(b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}', weights=2)
_NAMING_ALL = b"prompt: it\ncheckpoint: it\n---\nprompt: it\nvae: it\nloras: it\n"


def _check_catalog(models: Path) -> None:
    catalog = Catalog(models)
    found = catalog.scan()
    for refused in found.refused:
        assert_shown(refused.reason)
        assert_shown(refused.name)
    for model in found.models:
        assert_shown(" ".join((model.name, model.base_model, *model.trigger_words)))
    check_recipe("a.yaml", _NAMING_ALL, inventory=catalog.inventory())


def wildcard_file(data: bytes) -> None:
    with _models() as models:
        (models / "wildcards" / "x.txt").write_bytes(data)
        inventory = Catalog(models).inventory()
        for reason in inventory.refused_anywhere().values():
            assert_shown(reason)
        check_recipe("a.yaml", b"prompt: 'a __x__ {2$$__x__}'\ncount: 3", inventory=inventory)


@contextmanager
def _models() -> Iterator[Path]:
    # In memory where there is such a folder: a fuzzer writes thousands of files a second.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        for name in (*FOLDERS.values(), "wildcards"):
            (Path(folder) / name).mkdir()
        yield Path(folder)


TARGETS: dict[str, Target] = {
    "yaml_recipe": partial(check_recipe, "b/a.yaml"),
    "json_recipe": partial(check_recipe, "b/a.json"),
    "csv_recipe": partial(check_recipe, "a.csv"),
    "txt_recipe": partial(check_recipe, "a.txt"),
    "defaults_file": defaults_file,
    "picture_with_settings": picture_with_settings,
    "png_texts": png_texts,
    "picture": partial(_decoded, decode_picture, "RGB"),
    "mask": partial(_decoded, decode_mask, "L"),
    "photo": photo,
    "safetensors_file": safetensors_file,
    "safetensors_header": safetensors_header,
    "pickled_model": pickled_model,
    "gguf_file": gguf_file,
    "model_folder": model_folder,
    "wildcard_file": wildcard_file,
}
