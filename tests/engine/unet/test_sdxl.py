"""Stable Diffusion XL: our own loop gives what diffusers' pipelines give for the same folder."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image
from safetensors.torch import load_file

from picowatch.catalog import Catalog
from picowatch.engine import latents as vaes
from picowatch.engine.checkpoints import Checkpoints
from picowatch.engine.conditions import Conditions
from picowatch.engine.devices import choose_target
from picowatch.engine.memory import LADDER, Ladders, MemoryLadder, Rung
from picowatch.engine.prompts import PromptEncoder
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import EmbeddingUse, ImageRequest, LoraUse
from tests.engine.adapters import Tensors, kohya_lora, write
from tests.engine.ldm import ldm_vae, write_single_file
from tests.engine.pictures import circle, keep
from tests.engine.requests import ignore_steps, pixels, request
from tests.engine.tiny_models import FIRST, SECOND, tiny_renderer, tiny_sdxl

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the tiny checkpoint."""
    models = tmp_path_factory.mktemp("models")
    (models / "checkpoints").mkdir()
    (models / "checkpoints/tiny").symlink_to(tiny_sdxl())
    return models


@pytest.fixture(scope="module")
def ours(models: Path) -> Renderer:
    """Single files are as small as the folder."""
    return tiny_renderer(models, "sdxl", tiny_sdxl())


@pytest.fixture(scope="module")
def theirs() -> Any:
    """diffusers' pipeline for the same folder."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        tiny_sdxl(), dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def style(models: Path, theirs: Any) -> tuple[LoraUse, Tensors]:
    """A LoRA for the UNet and both text encoders, and its tensors."""
    encoders = (theirs.text_encoder, theirs.text_encoder_2)
    tensors = kohya_lora(theirs.unet, *encoders, seed=3, alpha=4.0)
    write(models / "loras/style.safetensors", tensors)
    return LoraUse("style", hash_of(models, "lora", "style"), 0.8), tensors


@pytest.fixture(scope="module")
def dog(models: Path, theirs: Any) -> Path:
    """An embedding with the vectors of the word "corgi"."""
    tokens = theirs.tokenizer("corgi", add_special_tokens=False)["input_ids"]
    vectors = {
        key: encoder.get_input_embeddings().weight[tokens].detach().clone()
        for key, encoder in (("clip_l", theirs.text_encoder), ("clip_g", theirs.text_encoder_2))
    }
    assert [one.shape[1] for one in vectors.values()] == [FIRST, SECOND]
    return write(models / "embeddings/dog.safetensors", vectors)


def hash_of(models: Path, kind: Any, name: str) -> str:
    catalog = Catalog(models)
    return catalog.sha256(catalog.find(kind, name))


def asked(models: Path, prompt: str = "a corgi", checkpoint: str = "tiny", **values: Any) -> Any:
    given = {
        "checkpoint": checkpoint,
        "checkpoint_hash": hash_of(models, "checkpoint", checkpoint),
        "sampler": "Euler",
        "schedule_type": "leading",
        "steps": 3,
        "width": 64,
        "height": 96,
        "exact": True,
    }
    return request(prompt, **(given | values))


def guiding(prompts: PromptEncoder, wanted: ImageRequest) -> Conditions:
    """What guides the first step."""
    (schedule,) = prompts.schedules([wanted], 1)
    return schedule.images[0][0]


def rendered(ours: Renderer, *requests: Any) -> list[Any]:
    return [pixels(image) for image in ours.render(requests, ignore_steps)]


def expected(pipeline: Any, wanted: Any, **values: Any) -> Any:
    """As docs/moving.md calls it; an empty negative prompt is none."""
    given = {
        "prompt": wanted.prompt,
        "negative_prompt": wanted.negative_prompt or None,
        "num_inference_steps": wanted.steps,
        "guidance_scale": wanted.cfg_scale,
        "width": wanted.width,
        "height": wanted.height,
        "generator": [torch.Generator("cpu").manual_seed(wanted.seed)],
    }
    picture = pipeline(**(given | values), output_type="np").images[0]
    return (picture * 255).round()


@pytest.mark.parametrize("negative", ["", "a cat"])
def test_a_picture_is_diffusers_picture(
    models: Path, ours: Renderer, theirs: Any, negative: str
) -> None:
    """Two text encoders, the summary, the size; zeros for an empty negative prompt."""
    wanted = asked(models, negative_prompt=negative)
    (picture,) = rendered(ours, wanted)
    assert np.abs(picture - expected(theirs, wanted)).max() <= 1
    assert picture.std() > 5


def test_prompt_editing_changes_words_and_summaries(
    models: Path, ours: Renderer, theirs: Any
) -> None:
    """As diffusers' callback does; A1111's first words hold for an evaluation more.

    An empty negative prompt that was another before is encoded, not zeros.
    """
    before, after = (
        theirs.encode_prompt(prompt, negative_prompt=negative)
        for prompt, negative in (("a corgi", "a cat"), ("a star", ""))
    )

    def change(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step != 1:
            return {}
        return {
            "prompt_embeds": torch.cat([after[1], after[0]]),
            "add_text_embeds": torch.cat([after[3], after[2]]),
        }

    guided: dict[str, Any] = {"cfg_scale": 30.0, "steps": 5}
    wanted = asked(models, "a [corgi:star:1]", negative_prompt="[a cat::1]", **guided)
    (picture,) = rendered(ours, wanted)
    names = ("prompt_embeds", "negative_prompt_embeds")
    pooled = ("pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    given = dict(zip((*names, *pooled), before, strict=True))
    given |= {"prompt": None, "negative_prompt": None, "callback_on_step_end": change}
    given["callback_on_step_end_tensor_inputs"] = ["prompt_embeds", "add_text_embeds"]
    assert np.abs(picture - expected(theirs, wanted, **given)).max() <= 1
    (plain,) = rendered(ours, asked(models, "a corgi", negative_prompt="a cat", **guided))
    assert np.abs(picture - plain).max() > 5


def test_without_guidance_there_is_no_negative_half(
    models: Path, ours: Renderer, theirs: Any
) -> None:
    """As few-step checkpoints need it."""
    wanted = asked(models, cfg_scale=1.0)
    (picture,) = rendered(ours, wanted)
    assert np.abs(picture - expected(theirs, wanted)).max() <= 1


def test_pictures_of_a_batch_are_those_made_alone(models: Path, ours: Renderer) -> None:
    """Each with its own summary."""
    wanted = [
        asked(models, prompt, seed=seed, exact=False)
        for seed, prompt in enumerate(("a corgi", "a cat", "a red star", "x"))
    ]
    together = rendered(ours, *wanted)
    alone = [rendered(ours, one)[0] for one in wanted]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one - other).max() <= 1
    assert np.abs(together[0] - together[1]).max() > 5


def test_two_chunks_are_encoded_one_after_the_other(
    models: Path, ours: Renderer, theirs: Any
) -> None:
    """The summary is the first one's; an empty negative prompt is zeros of both lengths."""
    wanted = asked(models, "a corgi BREAK a red star")
    encoded = [
        theirs.encode_prompt(text, do_classifier_free_guidance=False)
        for text in ("a corgi", "a red star")
    ]
    states = torch.cat([one[0] for one in encoded], dim=1)
    pooled = encoded[0][2]
    picture = theirs(
        prompt_embeds=states,
        pooled_prompt_embeds=pooled,
        negative_prompt_embeds=torch.zeros_like(states),
        negative_pooled_prompt_embeds=torch.zeros_like(pooled),
        num_inference_steps=3,
        guidance_scale=5.0,
        width=64,
        height=96,
        generator=[torch.Generator("cpu").manual_seed(1)],
        output_type="np",
    ).images[0]
    (found,) = rendered(ours, wanted)
    assert np.abs(found - (picture * 255).round()).max() <= 1


def test_clip_skip_one_and_two_are_as_trained(models: Path, ours: Renderer, theirs: Any) -> None:
    """And 3 is one layer earlier in both text encoders, which diffusers calls 1."""
    one, two, three = (rendered(ours, asked(models, clip_skip=skip))[0] for skip in (1, 2, 3))
    assert np.array_equal(one, two)
    wanted = asked(models, clip_skip=3)
    assert np.abs(three - expected(theirs, wanted, clip_skip=1)).max() <= 1
    assert np.abs(three - one).max() > 5


def test_a_single_file_gives_the_pictures_of_its_folder(models: Path, ours: Renderer) -> None:
    """In the original's names: the second text encoder in OpenCLIP's."""
    write_single_file(tiny_sdxl(), models / "checkpoints/single.safetensors", torch.float32)
    folder, single = (
        rendered(ours, asked(models, checkpoint=name))[0] for name in ("tiny", "single")
    )
    assert np.array_equal(folder, single)


def test_a_single_file_of_diffusers_script_gives_the_pictures_of_its_folder(
    models: Path, ours: Renderer
) -> None:
    """It left the projection of the summary in the name and order of transformers."""
    path = models / "checkpoints/scripted.safetensors"
    write_single_file(tiny_sdxl(), path, torch.float32)
    tensors = load_file(path)
    projection = tensors.pop("conditioner.embedders.1.model.text_projection")
    tensors["conditioner.embedders.1.model.text_projection.weight"] = projection.T
    write(path, tensors)
    folder, single = (
        rendered(ours, asked(models, checkpoint=name))[0] for name in ("tiny", "scripted")
    )
    assert np.array_equal(folder, single)


def test_a_start_image_is_diffusers_start_image(models: Path, ours: Renderer, theirs: Any) -> None:
    """From the mode of the VAE's distribution."""
    wanted = asked(
        models,
        steps=5,
        image="it.png",
        image_hash=keep(models, circle(96)),
        denoising_strength=0.6,
        width=96,
    )
    (picture,) = rendered(ours, wanted)
    kind: Any = StableDiffusionXLImg2ImgPipeline
    pipeline = kind(**theirs.components)
    pipeline.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        latents = vaes.encode(theirs.vae, np.asarray(circle(96)), torch.device("cpu"))
    found = pipeline(
        "a corgi",
        image=latents,
        strength=0.6,
        num_inference_steps=5,
        guidance_scale=5.0,
        generator=[torch.Generator("cpu").manual_seed(1)],
        output_type="np",
    ).images[0]
    assert np.abs(picture - (found * 255).round()).max() <= 1


def test_a_mask_changes_only_its_inside(models: Path, ours: Renderer) -> None:
    """Byte for byte outside."""
    mask = Image.new("L", (96, 96))
    mask.paste(255, (48, 0, 96, 96))
    wanted = asked(
        models,
        image="it.png",
        image_hash=keep(models, circle(96)),
        mask="mask.png",
        mask_hash=keep(models, mask),
        denoising_strength=0.9,
        mask_blur=0,
        width=96,
    )
    (picture,) = rendered(ours, wanted)
    assert np.array_equal(picture[:, :48], np.asarray(circle(96))[:, :48])
    assert np.abs(picture[:, 48:] - np.asarray(circle(96), np.int16)[:, 48:]).max() > 5


def test_hires_tells_the_second_pass_its_own_size(models: Path, ours: Renderer) -> None:
    """Height and width, nothing cropped, and both again: as A1111 does."""
    told: list[tuple[float, ...]] = []

    def listen(module: Any, given: Any, named: dict[str, Any]) -> None:
        told.extend(map(tuple, named["added_cond_kwargs"]["time_ids"].tolist()))

    unet = ours._checkpoints.load(asked(models)).unet
    hook = unet.register_forward_pre_hook(listen, with_kwargs=True)
    hires = Hires(scale=2.0, denoising_strength=0.5, upscaler="Latent")
    (picture,) = rendered(ours, asked(models, hires=hires))
    hook.remove()
    assert list(dict.fromkeys(told)) == [(96, 64, 0, 0, 96, 64), (192, 128, 0, 0, 192, 128)]
    assert picture.shape == (192, 128, 3)


def test_hires_is_diffusers_two_passes(models: Path, ours: Renderer, theirs: Any) -> None:
    """The first one's latents, enlarged, as start image; the seed's numbers begin anew."""
    hires = Hires(scale=1.5, steps=4, denoising_strength=0.5, upscaler="Latent")
    (picture,) = rendered(ours, asked(models, width=64, height=64, hires=hires))
    given: dict[str, Any] = {"prompt": "a corgi", "guidance_scale": 5.0}
    first = theirs(
        **given,
        width=64,
        height=64,
        num_inference_steps=3,
        generator=[torch.Generator("cpu").manual_seed(1)],
        output_type="latent",
    ).images
    kind: Any = StableDiffusionXLImg2ImgPipeline
    pipeline = kind(**theirs.components)
    pipeline.set_progress_bar_config(disable=True)
    larger = torch.nn.functional.interpolate(first, size=(12, 12), mode="bilinear")
    second = pipeline(
        **given,
        image=larger,
        strength=0.5,
        num_inference_steps=4,
        generator=[torch.Generator("cpu").manual_seed(1)],
        output_type="np",
    ).images[0]
    assert np.abs(picture - (second * 255).round()).max() <= 1


def test_weights_act_in_both_text_encoders(models: Path, ours: Renderer) -> None:
    """Each one's chunk keeps its own mean, as in A1111; the summary is without weights."""
    prompts = ours._checkpoints.load(asked(models)).prompts
    with torch.inference_mode():
        plain, weighed = (
            guiding(prompts, asked(models, text)).positive for text in ("b", "(b:1.5)")
        )
    assert plain.pooled is not None and weighed.pooled is not None
    assert torch.equal(plain.pooled, weighed.pooled)
    for tower in (slice(0, FIRST), slice(FIRST, FIRST + SECOND)):
        before, after = plain.states[..., tower], weighed.states[..., tower]
        assert float(after.mean()) == pytest.approx(float(before.mean()), abs=1e-6)
        ratio = (after / before)[0].mean(dim=1)
        assert float(ratio[1] / ratio[0]) == pytest.approx(1.5, abs=1e-4)


def test_a_lora_acts_on_both_text_encoders_and_the_unet(
    models: Path, ours: Renderer, theirs: Any, style: tuple[LoraUse, Tensors]
) -> None:
    """As if up x down had been added to every weight."""
    lora, tensors = style
    wanted = asked(models, loras=(lora,))
    (picture,) = rendered(ours, wanted)
    (plain,) = rendered(ours, asked(models))
    merged = StableDiffusionXLPipeline.from_pretrained(
        tiny_sdxl(), dtype=torch.float32, local_files_only=True
    )
    merged.set_progress_bar_config(disable=True)
    parts = {"unet": merged.unet, "te1": merged.text_encoder, "te2": merged.text_encoder_2}
    for part, model in parts.items():
        for name, module in model.named_modules():
            flat = name.removeprefix("text_model.").replace(".", "_")
            key = f"lora_{part}_{'' if part == 'unet' else 'text_model_'}{flat}"
            if f"{key}.lora_down.weight" in tensors:
                up, down = tensors[f"{key}.lora_up.weight"], tensors[f"{key}.lora_down.weight"]
                module.weight.data += 0.8 * (up.flatten(1) @ down.flatten(1)).view_as(module.weight)
    assert np.abs(picture - expected(merged, wanted)).max() <= 1
    assert np.abs(picture - plain).max() > 5


def test_an_embedding_has_vectors_for_both_text_encoders(
    models: Path, ours: Renderer, dog: Path
) -> None:
    """With the vectors of "corgi" the word means a corgi."""
    use = EmbeddingUse("dog", hash_of(models, "embedding", dog.stem))
    (picture,) = rendered(ours, asked(models, "a dog", embeddings=(use,)))
    (word,) = rendered(ours, asked(models, "a corgi"))
    assert np.array_equal(picture, word)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_v_prediction_and_zero_snr_are_told_by_the_files_marks(
    models: Path, ours: Renderer, theirs: Any, zero_snr: bool
) -> None:
    """Tensors named `v_pred` and `ztsnr`: NoobAI's and others' convention."""
    name = f"v{'zero' if zero_snr else ''}"
    marks = {"v_pred": torch.zeros(1)} | ({"ztsnr": torch.zeros(1)} if zero_snr else {})
    path = models / f"checkpoints/{name}.safetensors"
    write_single_file(tiny_sdxl(), path, torch.float32, marks)
    schedule_type = "sgm_uniform" if zero_snr else "leading"
    wanted = asked(models, checkpoint=name, schedule_type=schedule_type)
    (picture,) = rendered(ours, wanted)
    before = theirs.scheduler
    changed: dict[str, Any] = {"prediction_type": "v_prediction"}
    if zero_snr:
        changed |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    kind: Any = EulerDiscreteScheduler
    theirs.scheduler = kind.from_config(before.config, **changed)
    try:
        assert np.abs(picture - expected(theirs, wanted)).max() <= 1
    finally:
        theirs.scheduler = before


@pytest.mark.parametrize("prediction", ["v", "v_zero_snr"])
def test_a_file_without_marks_predicts_what_the_recipe_says(
    models: Path, ours: Renderer, prediction: str
) -> None:
    """The picture of the same file with marks; two passes, because each has a schedule."""
    marks = {"v": ["v_pred"], "v_zero_snr": ["v_pred", "ztsnr"]}[prediction]
    for name, tensors in (("marked", marks), ("unmarked", [])):
        path = models / f"checkpoints/{name}-{prediction}.safetensors"
        write_single_file(
            tiny_sdxl(), path, torch.float32, {one: torch.zeros(1) for one in tensors}
        )
    given: dict[str, Any] = {
        "schedule_type": "uniform",
        "hires": Hires(scale=1.5, denoising_strength=0.5),
    }
    marked, unmarked, said, unsaid = (
        rendered(ours, asked(models, checkpoint=f"{name}-{prediction}", **given, **more))[0]
        for name, more in (
            ("marked", {}),
            ("unmarked", {"prediction": prediction}),
            ("marked", {"prediction": "epsilon"}),
            ("unmarked", {}),
        )
    )
    assert np.array_equal(marked, unmarked)
    assert np.array_equal(said, unsaid)
    assert np.abs(said - marked).max() > 5


def test_weights_in_plain_fp8_are_used_as_they_are(models: Path, ours: Renderer) -> None:
    """Without scales they are numbers like others, only coarser."""
    write_single_file(tiny_sdxl(), models / "checkpoints/eight.safetensors", torch.float8_e4m3fn)
    folder, coarse = (
        rendered(ours, asked(models, checkpoint=name))[0] for name in ("tiny", "eight")
    )
    assert 0 < np.abs(folder - coarse).mean() < 30


def test_an_embedding_that_fits_one_text_encoder_does_not_shift_the_next(
    models: Path, ours: Renderer, dog: Path
) -> None:
    """A wildcard may name one of another family: it is refused, and the next one means itself."""
    narrow = write(models / "embeddings/narrow.safetensors", {"emb_params": torch.ones(2, FIRST)})
    refused = EmbeddingUse("narrow", sha256(narrow.read_bytes()).hexdigest())
    find = {"narrow": narrow, "puppy": dog}
    loaded = ours._checkpoints.load(asked(models))
    for tower in loaded.prompts._towers:
        tower.embeddings._find = lambda _, name, __: find[name]
    with torch.inference_mode():
        with pytest.raises(RenderFailed, match="its vectors have 32 numbers"):
            guiding(loaded.prompts, asked(models, "a narrow", embeddings=(refused,)))
        puppy = EmbeddingUse("puppy", sha256(dog.read_bytes() + b"again").hexdigest())
        named = guiding(loaded.prompts, asked(models, "a puppy", embeddings=(puppy,)))
        plain = guiding(loaded.prompts, asked(models, "a corgi"))
    assert torch.equal(named.positive.states, plain.positive.states)


@pytest.mark.parametrize(
    "rung",
    [pytest.param(rung, marks=[pytest.mark.heavy] * (rung != LADDER[-1])) for rung in LADDER[1:]],
    ids=lambda rung: rung.name,
)
def test_every_memory_saving_level_draws_the_same(
    rung: Rung, models: Path, ours: Renderer, style: tuple[LoraUse, Tensors]
) -> None:
    """With a LoRA; a CPU can do a GPU's, too. One tile of the VAE is the whole picture."""
    wanted = asked(models, loras=(style[0],), height=64)
    saving = tiny_renderer(models, "sdxl", tiny_sdxl())
    saving._ladder = MemoryLadder("full", Ladders([rung], []), None)
    (image,) = saving.render([wanted], ignore_steps)
    assert image.memory_rung == rung.name
    assert np.abs(pixels(image) - rendered(ours, wanted)[0]).max() <= 1


def test_a_vae_of_its_own_is_scaled_as_its_checkpoint_s_family(
    models: Path, ours: Renderer
) -> None:
    """A VAE file does not say which family it is for."""
    write(models / "vae/own.safetensors", ldm_vae(tiny_sdxl() / "vae"))
    wanted = asked(models, vae="own", vae_hash=hash_of(models, "vae", "own"))
    own, baked = (rendered(ours, one)[0] for one in (wanted, asked(models)))
    assert np.array_equal(own, baked)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("float16", (torch.float16, torch.float32)),
        ("bfloat16", (torch.bfloat16, torch.bfloat16)),
    ],
)
def test_the_vae_never_computes_in_float16(
    precision: Any, expected: tuple[torch.dtype, torch.dtype], models: Path
) -> None:
    """It says so itself (`force_upcast`): in float16 it overflows, in bfloat16 it does not."""
    loaded = Checkpoints(Catalog(models), choose_target("cpu", precision)).load(asked(models))
    assert (loaded.unet.dtype, loaded.vae.dtype) == expected
