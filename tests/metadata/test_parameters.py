"""A picture's texts: A1111's `parameters` as A1111 writes it, and our chunk beside it."""

import json
import re
import zlib
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from PIL import Image
from sd_parsers import ParserManager

from picowatch.errors import PictureUnreadable
from picowatch.files.decoding import Original
from picowatch.metadata.embedded_text import PARAMETERS, PICOWATCH, texts_in
from picowatch.outbox.encoding import encode_png
from picowatch.recipe.a1111.writer import parameters_text
from picowatch.recipe.chunk import Chunk, picowatch_json, read_chunk
from picowatch.recipe.fields import ZERO_SNR
from picowatch.recipe.messages.other_programs import probable_mistakes
from picowatch.recipe.parts import Hires, Upscale
from picowatch.recipe.passes import samplings
from picowatch.recipe.request import EmbeddingUse, ImageRequest, LoraUse
from picowatch.recipe.resolve.advice import checkpoint_advice
from tests.fuzz.hostile import chunk as png_chunk
from tests.fuzz.hostile import png
from tests.metadata.requests import CORGI, PROMPTS, image_requests, inventory_for
from tests.recipe.reading import hash_of, read_one

LORAS = (LoraUse("style/pixel", "b" * 64, 1.0), LoraUse("x", "a" * 64, 0.5))
BEGIN = (
    "Steps: 24, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 42, Size: 512x768"
)
CPU = "RNG: CPU"
MODEL = "Model hash: 879db523c3, Model: dreamshaper_8"
END = "Version: picowatch 0.1.0"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, f"a corgi\nNegative prompt: blurry, dim\n{BEGIN}, {MODEL}, {CPU}, {END}"),
        # sd-prompt-reader needs a line above `Steps:`.
        ({"prompt": "", "negative_prompt": ""}, f"\n{BEGIN}, {MODEL}, {CPU}, {END}"),
        (
            {"negative_prompt": "", "vae": "mse", "vae_hash": "735e4c3a44" + "0" * 54,
             "sampler": "Euler a", "schedule_type": "sgm_uniform", "cfg_scale": 7.0,
             "clip_skip": 2},
            "a corgi\nSteps: 24, Sampler: Euler a, Schedule type: SGM Uniform, CFG scale: 7, "
            f"Seed: 42, Size: 512x768, {MODEL}, VAE hash: 735e4c3a44, VAE: mse.safetensors, Module "
            f"1: mse, Clip skip: 2, {CPU}, {END}",
        ),
        (
            {"negative_prompt": "", "sampler": "Euler", "schedule_type": "simple",
             "cfg_scale": 1.0, "guidance": 3.5, "noise": "nvidia"},
            "a corgi\nSteps: 24, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled "
            f"CFG Scale: 3.5, Seed: 42, Size: 512x768, {MODEL}, RNG: NV, {END}",
        ),
        # The names that A1111 has.
        (
            {"sampler": "PNDM", "schedule_type": "uniform", "negative_prompt": ""},
            "a corgi\nSteps: 24, Sampler: PLMS, Schedule type: Uniform, CFG scale: 7.5, Seed: 42, "
            f"Size: 512x768, {MODEL}, {CPU}, {END}",
        ),
        (
            {"prompt": "a <lora:x:0.5> corgi", "negative_prompt": "", "loras": LORAS,
             "embeddings": (EmbeddingUse("neg/badhands", "e" * 64),),
             "hires": Hires(1.5, 12, 0.4, "Latent (nearest)"),
             "upscale": Upscale("x/RealESRGAN_x4plus", 4.0)},
            f"a <lora:x:0.5> corgi <lora:pixel:1>\n{BEGIN}, {MODEL}, Denoising strength: 0.4, "
            f"Hires upscale: 1.5, Hires steps: 4, Hires upscaler: Latent (nearest), {CPU}, Lora "
            f'hashes: "pixel: 0123456789ab", TI hashes: "badhands: eeeeeeeeeeee", Postprocess '
            f"upscale by: 4, Postprocess upscaler: R-ESRGAN 4x+, {END}",
        ),
        (
            {"image": "a.png", "image_hash": "1" * 64, "denoising_strength": 0.3, "resize": "crop",
             "mask": "b.png", "mask_hash": "2" * 64, "mask_blur": 8, "mask_padding": 16,
             "negative_prompt": "", "prediction": "v_zero_snr"},
            f"a corgi\n{BEGIN}, {MODEL}, Denoising strength: 0.3, Mask blur: 8, Inpaint area: Only "
            "masked, Masked area padding: 16, Noise Schedule: "
            f"Zero Terminal SNR, {CPU}, {END}",
        ),
    ],
)  # fmt: skip
def test_the_text_is_a1111s(changes: dict[str, Any], text: str) -> None:
    """All lines are equal; defaults are left out, and LoRAs have A1111's kind of hash."""
    hashes = {"style/pixel": "0123456789abcdef"}
    assert parameters_text(replace(CORGI, **changes), "0.1.0", hashes) == text


def test_values_that_would_be_torn_apart_are_json() -> None:
    for name in ("a, b", "a: b", '"quoted"', "猫: cat"):
        written = json.dumps(name, ensure_ascii=False)
        assert f"Model: {written}," in parameters_text(replace(CORGI, checkpoint=name), "0.1.0")


def _keeps_its_form(text: str) -> bool:
    """Return whether nothing is like A1111's own lines or a file's mark, or a line of spaces."""
    lines = text.split("\n")
    own = any(sign in text for sign in ("Negative prompt:", "\ufeff"))
    own |= any(line.startswith("Steps:") for line in lines)
    return not own and not any(line and not line.strip(" \t") for line in lines[1:-1])


PICTURES = ("image", "image_hash", "denoising_strength", "resize", "mask", "mask_hash",
            "mask_finder_hash", "mask_blur", "mask_invert", "mask_padding", "control")  # fmt: skip
WITHOUT_PICTURES: dict[str, Any] = {name: getattr(CORGI, name) for name in PICTURES}


@given(image_requests(prompts=PROMPTS.filter(_keeps_its_form)))
def test_our_own_reader_gets_every_value(request: ImageRequest) -> None:
    """Start image, mask and ControlNets, `exact`, `quantize`, `shrink_to_fit` and other predictions
    than zero terminal SNR's, which A1111 has no words for, are all that is not in the text.
    """
    text = parameters_text(request, "0.1.0")
    recipe = read_one(text, "shown.txt", inventory_for(request))
    (again,) = recipe.image_requests(hash_of)
    hires = request.hires
    if hires and again.hires:
        # Of the steps, the text has how many are taken.
        assert samplings(again)[1].evaluations == samplings(_as_a1111(request))[1].evaluations
        hires = replace(_as_a1111(request).hires, steps=again.hires.steps)
    assert again == replace(
        request,
        prompt=_with_tags(request),
        negative_prompt=request.negative_prompt.strip(),
        **WITHOUT_PICTURES,
        hires=hires,
        quantize="",
        shrink_to_fit=False,
        exact=False,
        prediction=request.prediction if request.prediction == ZERO_SNR else "",
    )
    about_prompts = [*probable_mistakes(recipe.prompt), *probable_mistakes(recipe.negative_prompt)]
    about_prompts += checkpoint_advice(recipe)
    left_out = [warning for warning in recipe.warnings if warning not in about_prompts]
    without = (request.image and not hires) or request.mask or request.detail
    assert bool(left_out) == bool(without)


def _as_a1111(request: ImageRequest) -> Any:
    """Return the request with A1111's one denoising strength, without start image."""
    hires = request.hires
    if hires and request.image:
        hires = replace(hires, denoising_strength=request.denoising_strength)
    return replace(request, image="", hires=hires)


def _with_tags(request: ImageRequest) -> str:
    """The prompt as the text has it: LoRAs that it does not name come after it."""
    text = parameters_text(replace(request, negative_prompt=""), "0.1.0")
    return text.rpartition("\nSteps:")[0].strip()


@pytest.mark.parametrize("prompt", ["a corgi, für\n(mich:1.2)", "ein Corgi 🐶, 猫"])
def test_a_whole_picture_is_read_by_sd_parsers(prompt: str) -> None:
    """The reader that other programs use; with both chunks, in Latin-1 and in UTF-8."""
    request = replace(CORGI, prompt=prompt, vae="mse", vae_hash="d" * 64, clip_skip=2)
    texts = {PARAMETERS: parameters_text(request, "0.1.0"), PICOWATCH: '{"a": "🐶"}'}
    picture = BytesIO(encode_png(Original(Image.new("RGB", (8, 8))), texts))
    parsers: Any = ParserManager()
    found = parsers.parse(picture)
    assert found.generator.value == "AUTOMATIC1111"
    (sampler,) = found.samplers
    assert [text.value for text in sampler.prompts] == [prompt]
    assert [text.value for text in sampler.negative_prompts] == ["blurry, dim"]
    model = sampler.model
    assert (sampler.name, model.name, model.hash) == ("DPM++ 2M", "dreamshaper_8", "879db523c3")
    values = {**sampler.parameters, **found.metadata}
    assert float(values["cfg_scale"]) == 7.5
    assert (int(values["steps"]), int(values["seed"]), values["Size"]) == (24, 42, "512x768")
    assert (values["scheduler"], values["Clip skip"], values["VAE"]) == (
        "Karras",
        "2",
        "mse.safetensors",
    )


RENDERED = {"device": "cpu", "timings": {"denoise": 0.5}, "versions": {"torch": "2.9.0"}}
PLACE: dict[str, Any] = {
    "recipe": "pets/corgi.yaml",
    "save_digest": "5" * 64,
    "entry_index": 1,
    "image_index": 2,
}


def test_the_chunk_holds_everything_that_made_the_picture() -> None:
    """As the documentation lists it; beside the drawn prompt, the one before wildcards."""
    drawn = replace(CORGI, prompt="a cat", unexpanded_prompt="a {cat|dog}")
    for request, prompt in ((CORGI, "a corgi"), (drawn, "a {cat|dog}")):
        text = picowatch_json(Chunk(request=request, **PLACE, rendered=RENDERED))
        assert json.loads(text) == PLACE | {
            "format": 1,
            "request": request.as_dict(),
            "digest": request.digest,
            "unexpanded_prompt": prompt,
            "hashes": {"loras": {}, "embeddings": {}, "start_images": {}},
            "rendered": RENDERED,
        }
        chunk = read_chunk(text)
        assert (chunk.request, chunk.rendered) == (request, RENDERED)
        assert (chunk.recipe, chunk.entry_index, chunk.image_index) == ("pets/corgi.yaml", 1, 2)


def _chunk(request: dict[str, object] | None = None, **changes: object) -> str:
    values = json.loads(picowatch_json(Chunk(request=CORGI, **PLACE, rendered=RENDERED)))
    values["request"] |= request or {}
    return json.dumps(values | changes)


LORA = {"name": "a", "hash": "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "contains no request"),
        ('{"request": 3}', "contains no request"),
        (_chunk(format=2), "has format 2; this version reads format 1. A newer picowatch"),
        (_chunk({"steps": "many"}), "is damaged: request.steps: "),
        (_chunk(entry_index=None), "is damaged: entry_index: "),
        (_chunk({"styles": []}), "request.styles: this version does not know it."),
        (_chunk({"loras": [LORA | {"w": 1}]}), "is damaged: request.loras.0.weight: "),
        (_chunk({"loras": [LORA | {"weight": 1, "evil": 1}]}), "0.evil: this version does not"),
    ],
)
def test_what_is_no_chunk_of_ours_is_an_error_that_says_so(text: str, message: str) -> None:
    """Never a KeyError, never a picture with half its settings."""
    with pytest.raises(PictureUnreadable, match=re.escape(message)) as refused:
        read_chunk(text)
    assert "__" not in str(refused.value)
    assert "argument" not in str(refused.value)


def test_latin1_goes_into_text_chunks_and_the_rest_into_international_ones() -> None:
    """tEXt is Latin-1 without NUL, and no text that would be taken for UTF-8; iTXt is UTF-8."""
    for text, kind in (("für\n", b"tEXt"), ("猫", b"iTXt"), ("a\0b", b"iTXt"), ("cafÃ©", b"iTXt")):
        content = encode_png(Original(Image.new("RGB", (1, 1))), {"parameters": text})
        assert kind + b"parameters" in content
        assert texts_in(BytesIO(content)) == {"parameters": text}


PIXELS = png_chunk(b"IDAT", zlib.compress(bytes(4)))
PACKED = zlib.compress(bytes(5_000_000))


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (png(png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"caf\xe9")), PIXELS),
         {"parameters": "café"}),
        (png(png_chunk(b"tEXt", b"parameters\0a"), PIXELS)[:-20], {"parameters": "a"}),
        (png(png_chunk(b"tEXt", "parameters\0é, 猫".encode()), PIXELS), {"parameters": "é, 猫"}),
        (png(png_chunk(b"zTXt", b"parameters\0\0not packed"), PIXELS), {}),
        (png(png_chunk(b"iTXt", b"parameters\0\0\0\0\0\xff"), PIXELS), {}),
    ],
)  # fmt: skip
def test_a_damaged_text_is_no_setting(content: bytes, texts: dict[str, str]) -> None:
    """Part of a prompt would make another picture. Stability Matrix writes UTF-8 where it does."""
    assert texts_in(BytesIO(content)) == texts


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (png(png_chunk(b"tEXt", b"parameters\0a")[:-1] + b"?", PIXELS), "not a picture"),
        (b"not a picture", "not a picture"),
        (png(PIXELS, width=2**15, height=2**15), "too many pixels"),
        (png(png_chunk(b"tEXt", b"parameters\0" + b"a" * 5_000_000), PIXELS), "too long"),
        (png(png_chunk(b"zTXt", b"parameters\0\0" + PACKED), PIXELS), "too long"),
    ],
    ids=["checksum", "text", "size", "long", "packed"],
)
def test_what_cannot_be_read_is_an_error_in_words(content: bytes, why: str) -> None:
    """From the beginning of the file, before anything large is unpacked."""
    with pytest.raises(PictureUnreadable, match=why):
        texts_in(BytesIO(content))
