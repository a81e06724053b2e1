"""LoRAs and embeddings: in the field, in the prompts, and in requests."""

from dataclasses import replace

import pytest

from picowatch.metadata.recipe_yaml import recipe_yaml
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.reading import read_recipes
from picowatch.recipe.request import EmbeddingUse, LoraUse
from tests.metadata.requests import CORGI
from tests.recipe.reading import (
    DEMO,
    check_refused,
    check_warned,
    chunk_of,
    hash_of,
    of_family,
    read_one,
    request_of,
)

INVENTORY = Inventory(
    demo=DEMO,
    loras=("add_detail", "style/pixel art", "styles"),
    embeddings=("EasyNegative", "hands"),
    wildcards={"style": ("<lora:pixel:0.5> pixels", "EasyNegative look")},
    refused={"checkpoint": {"old.ckpt": "a .ckpt can run code; convert it to .safetensors."}},
)


@pytest.mark.parametrize(
    ("written", "loras"),
    [
        ("loras: {add: 0.8, pixel: -1}", (("add_detail", 0.8), ("style/pixel art", -1.0))),
        ("lora: add_detail.safetensors", (("add_detail", 1.0),)),
        ("loras: [add, pixel art]", (("add_detail", 1.0), ("style/pixel art", 1.0))),
        ("loras: 'add:0.5, pixel art'", (("add_detail", 0.5), ("style/pixel art", 1.0))),
        ("loras:\n- add: 0.5\n- {name: pixel, weight: '2'}\n",
         (("add_detail", 0.5), ("style/pixel art", 2.0))),
        ("loras: []", ()),
        ("loras: none", ()),
    ],
)  # fmt: skip
def test_loras_are_a_mapping_a_list_or_text(
    written: str, loras: tuple[tuple[str, float], ...]
) -> None:
    """Names are as forgiving as those of checkpoints; without a weight it is 1."""
    assert read_one(f"prompt: a\n{written}", inventory=INVENTORY).loras == loras


def test_a_lightning_lora_says_its_steps() -> None:
    """This holds for families with its noise levels; the recipe may override the steps."""
    qwen = of_family("qwen", "qwen_image", size=1328)
    loras = ("add_detail", "Edit-Lightning-4steps-V1")
    inventory = Inventory(demo=DEMO, checkpoints=(qwen,), loras=loras)
    for checkpoint, text, expected in (
        ("qwen", "prompt: a\nloras: {Edit-Lightning-4steps-V1: 1}", (4, 1.0)),
        ("qwen", "prompt: a\nloras: {add_detail: 1}", (50, 4.0)),
        ("qwen", "prompt: a\nloras: {Edit-Lightning-4steps-V1: 0}", (50, 4.0)),
        ("qwen", "prompt: a <lora:Edit-Lightning-4steps-V1:0>", (50, 4.0)),
        ("qwen", "prompt: a <lora:Edit-Lightning-4steps-V1>\nsteps: 8\ncfg: 1.5", (8, 1.5)),
        ("qwen", "prompt: a <lora:Edit-Lightning-4steps-V1>", (4, 1.0)),
        ("demo", "prompt: a\nloras: {Edit-Lightning-4steps-V1: 1}", (24, 7.5)),
    ):
        recipe = read_one(f"{text}\ncheckpoint: {checkpoint}", inventory=inventory)
        assert (recipe.steps, recipe.cfg_scale) == expected


def test_a_recipe_may_say_which_family_a_lora_is_for() -> None:
    """Chroma's look like FLUX.1's. A request keeps it, and so what its picture says, both ways."""
    for written in (
        "loras: {add: {weight: 0.8, family: chroma}, pixel: 2}",
        "loras: {add: {weight: 0.8, family: Chroma}, pixel: {weight: 2}}",
        "loras: [{name: add, weight: 0.8, family: chroma}, {pixel: 2}]",
    ):
        request = request_of(f"prompt: a\nseed: 1\n{written}", inventory=INVENTORY)
        uses = [(use.name, use.weight, use.family) for use in request.loras]
        assert uses == [("add_detail", 0.8, "chroma"), ("style/pixel art", 2.0, "")]
        assert request_of(recipe_yaml(request), inventory=INVENTORY) == request
        again = read_one("from: a.png", inventory=INVENTORY, texts=chunk_of(request))
        assert (again.image_requests(hash_of), again.warnings) == ([request], ())


def test_a_lora_is_also_known_by_its_trainers_name() -> None:
    """As in A1111; a file's whole name comes before it, the beginning of one after."""
    names = {"detail_41": "add.detail", "last": "noir", "noir_v2": "last"}
    trained = Inventory(demo=DEMO, loras=tuple(names), lora_names=names)
    for written, meant in {"Add.Detail": "detail_41", "noir": "last", "last": "last"}.items():
        request = request_of(f"prompt: a <lora:{written}:0.5>", inventory=trained)
        assert [use.name for use in request.loras] == [meant]


@pytest.mark.timeout(20)
def test_a_file_of_lines_finds_the_trainers_names_among_thousands() -> None:
    """The names of all files are not taken apart again for each tag."""
    names = [f"group {number % 30}/lora-{number:04}" for number in range(4000)]
    trained = {name: f"trained {name[-4:]}" for name in names}
    inventory = Inventory(demo=DEMO, loras=tuple(names), lora_names=trained)
    lines = [f"a corgi {number} <lora:trained {number:04}:1>" for number in range(1000)]
    assert len(read_recipes("a.txt", "\n".join(lines).encode(), inventory)) == 1000


TWICE = "the LoRA 'add_detail' is listed twice. Keep one, with its weight."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loras: {add: 11}", "the weight of 'add' must be a number from -10 to 10, not 11."),
        ("loras: {add: {family: chrome}}", "the family of 'add' must be one of …, not 'chrome'."),
        ("loras: [{name: add, name: pixel}]", "'name' is given twice: already on line 2. Keep …"),
        ("loras: {add: {strength: 1}}", "a LoRA has no 'strength'. Write {name: add, weight: …"),
        ("loras:", "loras has no value. Write a mapping like {name: 0.8}, or a list of names, …"),
        ("loras: [add, add_detail]", TWICE),
        ("prompt: a <lora:add:1>\nlora: add_detail", TWICE),
        ("prompt: a <lora:add:1> <lora:add_detail:0.5>", TWICE),
        ("negative: <lora:add:1>", "a LoRA acts on the whole picture and cannot be used in neg…"),
    ],
)  # fmt: skip
def test_loras_that_mean_nothing_are_explained(text: str, message: str) -> None:
    """Messages list the installed ones, and the remedy; whether weights add up is not guessed."""
    prompt = "" if text.startswith("prompt") else "prompt: a\n"
    check_refused(f"{prompt}{text}\n", message, inventory=INVENTORY)


def test_a_tag_of_a_lora_that_is_missing_may_be_left_out() -> None:
    """An ambiguous or refused one has another remedy."""
    missing = "no LoRA 'xl' in models/loras. None is installed. Put its file there, or write the …"
    check_refused("a corgi <lora:xl:1>", missing, name="a.txt")
    for tag, other in (("st", "could be style/pixel art or …"), ("old", "'old.ckpt' cannot be …")):
        check_refused(f"a <lora:{tag}:1>", f"the LoRA …{other}", name="a.txt", inventory=INVENTORY)


def test_a_request_holds_loras_and_embeddings_with_their_hashes() -> None:
    """Also those that prompt editing names; the prompt keeps its tags, they are metadata."""
    prompt = "a [<lora:add:0.8>corgi:(easynegative:1.2) cat:0.5]"
    text = f"prompt: '{prompt}'\nnegative: (hands)\nloras: {{pixel: 0.5}}"
    request = request_of(text, inventory=INVENTORY)
    assert request.prompt == prompt
    weights = [("style/pixel art", 0.5), ("add_detail", 0.8)]
    assert request.loras == tuple(LoraUse(name, "a" * 64, weight) for name, weight in weights)
    names = ("EasyNegative", "hands")
    assert request.embeddings == tuple(EmbeddingUse(name, "e" * 64) for name in names)


def test_a_recipe_needs_the_hash_of_all_that_its_prompts_name_as_written() -> None:
    """Both alternatives count, but not lines of wildcard files: changing those is no request."""
    hashed: list[tuple[str, str]] = []

    def noted(kind: str, name: str) -> str:
        hashed.append((kind, name))
        return ""

    text = "prompt: a {<lora:add>|hands} __style__\nseed: 1\ncount: 20"
    recipe = read_one(text, inventory=INVENTORY)
    recipe.digest(noted)
    assert hashed == [("checkpoint", "demo"), ("embedding", "hands"), ("lora", "add_detail")]
    requests = recipe.image_requests(hash_of)
    named = {lora.name for request in requests for lora in request.loras}
    assert named == {"add_detail", "style/pixel art"}


def test_the_tag_of_a_swept_lora_goes_where_a_wildcard_draws_it() -> None:
    """A tag in the prompt itself is removed, too."""
    text = "prompt: __style__ of a cat\nseed: 1..9\nsweep: {'lora: pixel': [0, 0.5]}\n"
    images = read_one(text, inventory=INVENTORY).image_requests(hash_of)
    assert {image.prompt for image in images} == {" pixels of a cat", "EasyNegative look of a cat"}
    weights = {(use.name, use.weight) for image in images for use in image.loras}
    assert weights == {("style/pixel art", 0.0), ("style/pixel art", 0.5)}


def test_a_tag_replaces_the_weight_that_a_folder_gives() -> None:
    """The nearest layer wins, as for every field, of which it replaces all."""
    defaults = "loras: {pixel: 1, add: 0.5}"
    for text, name, pixel in (
        ("prompt: a <lora:pixel:0.3>", "a.yaml", 0.3),
        ("prompt: a <lora:pixel:0.3>", "corgi_defaults.yaml", 0.3),  # a recipe like any other
        ("a cat <lora:pixel:0.3>", "a.txt", 0.3),
        ("prompt: a <lora:pixel:0.3>\nsweep: {'lora: pixel': [2]}", "a.yaml", 2),
    ):
        request = request_of(text, name, INVENTORY, defaults)
        weights = {use.name: use.weight for use in request.loras}
        assert weights == {"style/pixel art": pixel, "add_detail": 0.5}
    request = request_of("prompt: a\nloras: {pixel: 0.3}", "a.yaml", INVENTORY, defaults)
    assert [(use.name, use.weight) for use in request.loras] == [("style/pixel art", 0.3)]


SOME = Inventory(
    demo=DEMO,
    embeddings=("xl/negativeXL", "bad hands 5", "style(v2)"),
    refused={"embedding": {"old": "old.pt is a pickle file."}},
)


def missing(*names: str) -> list[str]:
    return [f"The prompt's '{name}' is used as plain words, because no …" for name in names]


def test_comfyuis_word_for_an_embedding_is_a_warning_without_one() -> None:
    """Wherever it stands; a wildcard may name one that is there."""
    recipe = read_one(
        "prompt: a cat, (embedding:lost.pt:1.2), embedding:bad hands 5, embedding:negativeXL.pt\n"
        "negative_prompt: embedding:{negativeXL|bad hands 5}, embedding:xl/negativeXL",
        inventory=SOME,
    )
    check_warned(recipe, *missing("embedding:lost.pt"))


def test_a1111s_text_names_embeddings_that_may_be_missing() -> None:
    """SD.Next has another key. What the prompt does not name was another image's."""
    text = "{}\nSteps: 3, Sampler: Euler, CFG scale: 1, {}: {}"
    names = '"easyneg: c74b4e810b03, negativeXL: 0123456789ab, old: 00, other: 11"'
    for key in ("TI hashes", "TI", "Embeddings"):
        pasted = text.format("(EasyNeg:1.2), negativeXL", key, names)
        check_warned(read_one(pasted, "corgi.txt", SOME), *missing("easyneg"))
    flow = of_family("dev", "flux", "dev")  # it has none
    pasted = text.format("a easyneg", "TI hashes", "easyneg")
    check_warned(read_one(pasted, "corgi.txt", replace(SOME, checkpoints=(flow,))))
    check_warned(read_one("prompt: an old cat", inventory=SOME), "…old.pt is a pickle file…")


def test_a_picture_of_picowatchs_own_says_which_embeddings_are_gone() -> None:
    """A file may have moved to another folder; a prompt of the recipe's own needs none of them."""
    uses = (EmbeddingUse("neg/easyneg", "a" * 64), EmbeddingUse("negativeXL", "b" * 64))
    request = replace(CORGI, prompt="a cat", negative_prompt="easyneg, negativeXL")
    chunk = chunk_of(replace(request, checkpoint="demo", embeddings=uses))
    for own, warnings in (("", missing("neg/easyneg")), ("negative_prompt: easyneg", [])):
        check_warned(read_one(f"from: a.png\n{own}", inventory=SOME, texts=chunk), *warnings)
