"""Flow families: a recipe's picture is the one that a plain script with diffusers makes."""

from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from picowatch.catalog import Catalog
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.errors import EngineStopped, RenderFailed
from picowatch.recipe.request import ImageRequest
from tests.engine.pictures import circle, keep
from tests.engine.requests import ignore_steps, pixels
from tests.engine.tiny_flows import tiny_flow
from tests.engine.tiny_models import folder_until_exit
from tests.kinds import one_of_each_kind
from tests.recipe.reading import read

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),  # Chroma's
]
_D: Any = diffusers
SIDE = 64


@dataclass(frozen=True)
class Case:
    """A family: its pipelines in diffusers, and what a script calls them with.

    `guided` is what `cfg_scale: 4` and a negative prompt mean there, `plain` what the family's
    defaults mean, `both` what belongs to each call. `recipe` is what each recipe has to say,
    `without` the parts that the folder lacks, `reads` how many tokens of a prompt count.
    `solved`: other samplers can make its steps.
    """

    from_text: Any = None
    from_image: Any = None
    from_mask: Any = None
    plain: dict[str, Any] = field(default_factory=dict)
    guided: dict[str, Any] | None = None
    both: dict[str, Any] = field(default_factory=dict)
    recipe: str = ""
    without: tuple[str, ...] = ()
    reads: int = 512
    solved: bool = True


def sd3(cfg_scale: float, **more: Any) -> Case:
    """A variant of Stable Diffusion 3.x."""
    return Case(
        _D.StableDiffusion3Pipeline,
        _D.StableDiffusion3Img2ImgPipeline,
        _D.StableDiffusion3InpaintPipeline,
        plain={"guidance_scale": cfg_scale},
        guided={"guidance_scale": 4.0, "negative_prompt": "blur"},
        **{"reads": 256, **more},
    )


CASES = {
    "Z-Image-Turbo": Case(
        _D.ZImagePipeline,
        _D.ZImageImg2ImgPipeline,
        _D.ZImageInpaintPipeline,
        plain={"guidance_scale": 0.0},
        guided={"guidance_scale": 3.0, "negative_prompt": "blur"},
    ),
    "FLUX.1-dev": Case(
        _D.FluxPipeline,
        _D.FluxImg2ImgPipeline,
        _D.FluxInpaintPipeline,
        plain={"guidance_scale": 3.5},
        guided={"guidance_scale": 3.5, "true_cfg_scale": 4.0, "negative_prompt": "blur"},
    ),
    "FLUX.1-Krea-dev": Case(_D.FluxPipeline, plain={"guidance_scale": 4.5}),
    "FLUX.1-schnell": Case(_D.FluxPipeline, both={"max_sequence_length": 256}, reads=256),
    "FLUX.1-Fill-dev": Case(
        from_mask=_D.FluxFillPipeline,
        plain={"guidance_scale": 30.0},
        recipe="image: start.png\nmask: mask.png",
    ),
    "Qwen-Image": Case(
        _D.QwenImagePipeline,
        _D.QwenImageImg2ImgPipeline,
        _D.QwenImageInpaintPipeline,
        plain={"true_cfg_scale": 4.0, "negative_prompt": " "},
        guided={"true_cfg_scale": 4.0, "negative_prompt": "blur"},
    ),
    "ERNIE-Image": Case(
        _D.ErnieImagePipeline,
        plain={"guidance_scale": 4.0},
        guided={"guidance_scale": 4.0, "negative_prompt": "blur"},
        reads=100,
    ),
    "ERNIE-Image-Turbo": Case(_D.ErnieImagePipeline, plain={"guidance_scale": 1.0}, reads=100),
    "Ovis-Image-7B": Case(
        _D.OvisImagePipeline,
        plain={"guidance_scale": 5.0},
        guided={"guidance_scale": 4.0, "negative_prompt": "blur"},
        reads=0,
    ),
    "Krea-2-Raw": Case(
        _D.Krea2Pipeline,
        plain={"guidance_scale": 3.5},
        guided={"guidance_scale": 3.0, "negative_prompt": "blur"},
        reads=507,
    ),
    "Krea-2-Turbo": Case(_D.Krea2Pipeline, plain={"guidance_scale": 0.0}, reads=507),
    "FLUX.2-klein": Case(
        _D.Flux2KleinPipeline,
        from_mask=_D.Flux2KleinInpaintPipeline,
        plain={"guidance_scale": 1.0},
        reads=509,
    ),
    "FLUX.2-klein-base": Case(
        _D.Flux2KleinPipeline,
        from_mask=_D.Flux2KleinInpaintPipeline,
        plain={"guidance_scale": 4.0},
        guided={"guidance_scale": 4.0, "negative_prompt": "blur"},
        reads=509,
    ),
    "Chroma1-HD": Case(
        _D.ChromaPipeline,
        _D.ChromaImg2ImgPipeline,
        _D.ChromaInpaintPipeline,
        both={"max_sequence_length": 512},  # that of inpainting is less by default
        plain={"guidance_scale": 3.0},
        guided={"guidance_scale": 4.0, "negative_prompt": "blur"},
    ),
    "AuraFlow": Case(
        _D.AuraFlowPipeline,
        plain={"guidance_scale": 3.5},
        guided={"guidance_scale": 4.0, "negative_prompt": "blur"},
        reads=0,
    ),
    "Sana": Case(
        _D.SanaPipeline,
        both={"use_resolution_binning": False},
        plain={"guidance_scale": 4.5},
        guided={"guidance_scale": 4.0, "negative_prompt": "blur"},
        reads=0,
        solved=False,
    ),
    "PixArt-Sigma": Case(
        _D.PixArtSigmaPipeline,
        both={"use_resolution_binning": False, "clean_caption": False},
        plain={"guidance_scale": 4.5},
        guided={"guidance_scale": 4.0, "negative_prompt": "blur"},
        reads=0,
        solved=False,
    ),
    "CogView4": Case(
        _D.CogView4Pipeline,
        plain={"guidance_scale": 3.5},
        guided={"guidance_scale": 4.0, "negative_prompt": "blur"},
        reads=0,
    ),
    "Lumina-Image-2.0": Case(
        _D.Lumina2Pipeline,
        plain={"guidance_scale": 4.0},
        guided={"guidance_scale": 4.0, "negative_prompt": "blur"},
        reads=256,
    ),
    "sd3-medium": sd3(7.0, without=("text_encoder_3", "tokenizer_3"), reads=77),
    "sd3.5-medium": sd3(4.5),
    # Recognised by its 38 layers, which take their time.
    "sd3.5-large-turbo": Case(
        _D.StableDiffusion3Pipeline, plain={"guidance_scale": 0.0}, reads=256
    ),
}
NAMES = list(CASES)
# The first of those with the same pipelines and encoders.
ONE_EACH = {
    (case.from_text or case.from_mask, case.without, case.reads): name
    for name, case in reversed(CASES.items())
}.values()
# Text encoders that give lists, pooled text, instructions and several; a transformer that reads
# the start image.
FAMILIES_IN_EACH_RUN = (
    *("Z-Image-Turbo", "FLUX.1-dev", "FLUX.1-Fill-dev", "FLUX.2-klein", "Sana", "sd3.5-medium"),
)


def those(able: Callable[[Case], Any], names: Collection[str] = NAMES) -> list[Any]:
    """The families that can do something, for `parametrize`."""
    able_ones = [name for name in names if able(CASES[name])]
    return one_of_each_kind(able_ones, [one for one in able_ones if one in FAMILIES_IN_EACH_RUN])


def any_case(_: Case) -> bool:
    """For what all can do."""
    return True


@cache
def models_with(name: str) -> Path:
    """A models folder with one of them, and a start image with a mask."""
    models = folder_until_exit("flow-")
    (models / "checkpoints").mkdir()
    (models / "checkpoints" / name).symlink_to(tiny_flow(name))
    circle(SIDE).save(models / "start.png")
    square().save(models / "mask.png")
    return models


@pytest.fixture
def models(name: str) -> Path:
    """The models folder of the family that the test names."""
    return models_with(name)


def square() -> Image.Image:
    """A mask with a white square in the middle."""
    mask = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(mask).rectangle((16, 16, 47, 47), fill=255)
    return mask


@pytest.fixture(scope="module")
def renderers() -> dict[Path, Renderer]:
    """Each has loaded its checkpoint once for all tests."""
    return {}


@pytest.fixture
def ours(models: Path, renderers: dict[Path, Renderer]) -> Renderer:
    """In this process, on one thread."""
    if models not in renderers:
        renderers[models] = Renderer(
            EngineOptions(
                models=models, device="cpu", precision="float32", threads=1, start_images=models
            )
        )
    return renderers[models]


def requests_of(models: Path, checkpoint: str, text: str) -> list[ImageRequest]:
    """What a recipe for this checkpoint requests, small, exact and in two steps."""
    usual = {"steps": "2", "seed": "7", "exact": "true", "size": f"{SIDE}x{SIDE}"}
    lines = [f"{name}: {value}" for name, value in usual.items() if f"\n{name}:" not in text]
    own = CASES[checkpoint].recipe.split("\n")
    lines += [line for line in own if f"\n{line.partition(':')[0]}:" not in text]
    recipe = "\n".join([f"checkpoint: {checkpoint}", *lines, text])
    (found,) = read(recipe, inventory=catalog_of(models).inventory())
    return found.image_requests(lambda kind, name: hash_of(models, kind, name))


def hash_of(models: Path, kind: Any, name: str) -> str:
    if kind in ("image", "mask"):
        return keep(models, Image.open(models / Path(name).name))
    catalog = catalog_of(models)
    return catalog.sha256(catalog.find(kind, name))


@cache
def catalog_of(models: Path) -> Catalog:
    """One for each folder: it reads again what has changed, which is hardly ever anything."""
    return Catalog(models)


def rendered(ours: Renderer, *requests: ImageRequest) -> list[RenderedImage]:
    return ours.render(requests, ignore_steps)


def expected(kind: Any, checkpoint: str, case: Case, **values: Any) -> Any:
    """A plain script's picture with seed 7; `scheduler` and `vae` replace the folder's own."""
    pipeline = loaded(kind, checkpoint, case.without)
    own = pipeline.scheduler, pipeline.vae
    pipeline.scheduler = values.pop("scheduler", lambda own: own)(deepcopy(pipeline.scheduler))
    pipeline.vae = values.pop("vae", pipeline.vae)
    try:
        return called(pipeline, case.both | values)
    finally:
        pipeline.scheduler, pipeline.vae = own


@cache
def loaded(kind: Any, checkpoint: str, without: tuple[str, ...]) -> Any:
    """diffusers' pipeline for the same folder."""
    pipeline = kind.from_pretrained(
        tiny_flow(checkpoint), dtype=torch.float32, local_files_only=True, **dict.fromkeys(without)
    )
    pipeline.set_progress_bar_config(disable=True)
    if kind is _D.ChromaInpaintPipeline:  # looks for a setting of FLUX.1
        pipeline.transformer.register_to_config(guidance_embeds=False)
    return pipeline


def called(pipeline: Any, values: dict[str, Any]) -> Any:
    """The picture, as numbers up to 255."""
    given = {
        "prompt": "a red cube",
        "num_inference_steps": 2,
        "width": SIDE,
        "height": SIDE,
        "generator": torch.Generator("cpu").manual_seed(7),
        "output_type": "np",
    }
    given |= values
    if "negative_prompt" in given and "Klein" in type(pipeline).__name__:  # takes embeddings alone
        given["negative_prompt_embeds"], _ = pipeline.encode_prompt(given.pop("negative_prompt"))
    return (pipeline(**given).images[0] * 255).round()


def apart(image: RenderedImage, theirs: Any) -> float:
    """The largest difference of any channel, after seeing that there is a picture at all."""
    assert theirs.std() > 1
    return float(np.abs(pixels(image) - theirs).max())


@pytest.mark.parametrize("name", those(lambda case: case.from_text))
def test_a_picture_is_diffusers_picture(models: Path, ours: Renderer, name: str) -> None:
    """With the family's own guidance."""
    (image,) = rendered(ours, *requests_of(models, name, "prompt: a red cube"))
    case = CASES[name]
    assert apart(image, expected(case.from_text, name, case, **case.plain)) <= 1


@pytest.mark.parametrize("name", those(any_case))
def test_a_picture_depends_on_its_prompt(models: Path, ours: Renderer, name: str) -> None:
    """Else the other tests would not see whether it was read."""
    one, two = (
        pixels(rendered(ours, *requests_of(models, name, f"prompt: {prompt}"))[0])
        for prompt in ("a red cube", "two blue balls on grass")
    )
    assert (one != two).any()


@pytest.mark.parametrize("name", those(lambda case: case.guided))
def test_cfg_scale_is_true_guidance(models: Path, ours: Renderer, name: str) -> None:
    """Whatever a pipeline calls it, and with a negative prompt."""
    text = "prompt: a red cube\nnegative_prompt: blur\ncfg_scale: 4"
    (image,) = rendered(ours, *requests_of(models, name, text))
    case = CASES[name]
    assert apart(image, expected(case.from_text, name, case, **(case.guided or {}))) <= 1


@pytest.mark.parametrize("name", those(lambda case: case.from_image))
def test_a_start_image(models: Path, ours: Renderer, name: str) -> None:
    """Half of the steps are left."""
    text = "prompt: a red cube\nimage: start.png\ndenoising_strength: 0.6\nsteps: 4"
    (image,) = rendered(ours, *requests_of(models, name, text))
    case = CASES[name]
    values = {"image": circle(SIDE), "strength": 0.6, "num_inference_steps": 4}
    assert apart(image, expected(case.from_image, name, case, **case.plain, **values)) <= 1


@pytest.mark.parametrize(
    "name", those(lambda case: case.from_text and case.from_mask and not case.from_image)
)
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_a_start_image_that_is_looked_at(
    models: Path, ours: Renderer, name: str, strength: float
) -> None:
    """As under a white mask; begun with pure noise it is the picture's plain editing."""
    text = f"prompt: a red cube\nimage: start.png\ndenoising_strength: {strength}\nsteps: 4"
    (image,) = rendered(ours, *requests_of(models, name, text))
    case, kind = CASES[name], CASES[name].from_text
    values: dict[str, Any] = {"image": [circle(SIDE)], "num_inference_steps": 4}
    if strength < 1:
        kind = case.from_mask
        values |= {"strength": strength, "mask_image": [Image.new("L", (SIDE, SIDE), 255)]}
    assert apart(image, expected(kind, name, case, **case.plain, **values)) <= 1


@pytest.mark.parametrize("name", those(lambda case: case.from_mask))
def test_a_mask(models: Path, ours: Renderer, name: str) -> None:
    """Inside the mask diffusers' picture; outside, the start image's own bytes."""
    mask = square()
    text = (
        "prompt: a red cube\nimage: start.png\nmask: mask.png\nmask_blur: 0\n"
        "denoising_strength: 0.6\nsteps: 4"
    )
    (image,) = rendered(ours, *requests_of(models, name, text))
    case = CASES[name]
    values = {"image": circle(SIDE), "mask_image": mask, "strength": 0.6, "num_inference_steps": 4}
    theirs = expected(case.from_mask, name, case, **case.plain, **values)
    inside = np.asarray(mask) > 0
    theirs[~inside] = np.asarray(circle(SIDE))[~inside]
    assert apart(image, theirs) <= 1
    assert (pixels(image)[~inside] == theirs[~inside]).all()


@pytest.mark.parametrize("name", those(any_case, ONE_EACH))
def test_pictures_of_a_batch_are_those_made_alone(models: Path, ours: Renderer, name: str) -> None:
    """Prompts of different lengths, too."""
    prompts = ("a red cube", "two blue balls on grass", "a red cube")
    wanted = [
        one
        for seed, prompt in enumerate(prompts)
        for one in requests_of(models, name, f"prompt: {prompt}\nexact: false\nseed: {seed}")
    ]
    together = rendered(ours, *wanted)
    alone = [rendered(ours, one)[0] for one in wanted]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 1


@pytest.mark.parametrize("name", those(lambda case: case.from_image or case.from_mask))
def test_a_batch_of_start_images(models: Path, ours: Renderer, name: str) -> None:
    """Each picture starts from its own."""
    circle(SIDE).transpose(Image.Transpose.TRANSPOSE).resize((80, 48)).save(models / "other.png")
    (one,) = requests_of(models, name, "prompt: a red cube\nexact: false\nimage: start.png")
    (two,) = requests_of(models, name, "prompt: a boat\nexact: false\nimage: other.png\nseed: 8")
    together = rendered(ours, one, two)
    alone = [rendered(ours, request)[0] for request in (one, two)]
    for image, other in zip(together, alone, strict=True):
        assert np.abs(pixels(image) - pixels(other)).max() <= 1


@pytest.mark.parametrize("name", those(lambda case: case.from_image))
def test_hires_draws_again_from_the_enlarged_picture(
    models: Path, ours: Renderer, name: str
) -> None:
    """The second pass is diffusers' img2img, with the same seed as the first."""
    text = "prompt: a red cube\nhires: {scale: 2, denoising_strength: 0.5}"
    (image,) = rendered(ours, *requests_of(models, name, text))
    case = CASES[name]
    first = expected(case.from_text, name, case, **case.plain)
    enlarged = Image.fromarray(first.astype(np.uint8)).resize((128, 128), Image.Resampling.LANCZOS)
    values = {"image": enlarged, "strength": 0.5, "width": 128, "height": 128}
    theirs = expected(case.from_image, name, case, **case.plain, **values)
    assert apart(image, theirs) <= 1


@pytest.mark.parametrize("name", ["FLUX.1-dev"])
def test_a_model_may_enlarge_for_hires(models: Path, ours: Renderer, name: str) -> None:
    """As for Stable Diffusion: reduced to the size of the second pass by Lanczos."""
    case = CASES[name]
    hires = "{scale: 2, denoising_strength: 0.5, upscaler: demo-compact}"
    (wanted,) = requests_of(models, name, f"prompt: a red cube\nhires: {hires}")
    (image,) = rendered(ours, wanted)
    first = expected(case.from_text, name, case, **case.plain)
    small, digest = Image.fromarray(first.astype(np.uint8)), wanted.hires_upscaler_hash
    size = (128, 128)
    enlarged = ours._upscalers.enlarged(small, "demo-compact", digest, size, lambda: None)
    values = {"image": enlarged, "strength": 0.5, "width": 128, "height": 128}
    theirs = expected(case.from_image, name, case, **case.plain, **values)
    assert apart(image, theirs) <= 1


SOLVERS = {
    "DPM++ 2M": _D.DPMSolverMultistepScheduler,
    "UniPC": _D.UniPCMultistepScheduler,
}


@pytest.mark.parametrize("sampler", SOLVERS)
@pytest.mark.parametrize("name", ["FLUX.1-dev"])
def test_another_sampler_is_diffusers_own(
    models: Path, ours: Renderer, name: str, sampler: str
) -> None:
    """Of FLUX.1, where diffusers lets a script exchange it: the noise levels are the same."""
    case = CASES[name]
    text = f"prompt: a red cube\nsampler: {sampler}\nsteps: 8"
    (image,) = rendered(ours, *requests_of(models, name, text))
    theirs = expected(
        case.from_text,
        name,
        case,
        **case.plain,
        num_inference_steps=8,
        scheduler=lambda own: SOLVERS[sampler].from_config(
            own.config, use_flow_sigmas=True, prediction_type="flow_prediction"
        ),
    )
    assert apart(image, theirs) <= 1


@pytest.mark.parametrize("sampler", SOLVERS)
@pytest.mark.parametrize("name", ["FLUX.1-dev", "Qwen-Image"])
def test_another_sampler_comes_closer_to_the_flow(
    models: Path, ours: Renderer, name: str, sampler: str
) -> None:
    """With as many steps as Euler."""

    def drawn(sampler: str, steps: int) -> Any:
        text = f"prompt: a red cube\nsampler: {sampler}\nsteps: {steps}"
        return pixels(rendered(ours, *requests_of(models, name, text))[0]).astype(float)

    flow = drawn("Euler", 50)
    assert np.abs(drawn(sampler, 8) - flow).mean() < np.abs(drawn("Euler", 8) - flow).mean() / 1.5


@pytest.mark.parametrize("sampler", SOLVERS)
@pytest.mark.parametrize("name", those(lambda case: case.solved, ONE_EACH))
def test_another_sampler_goes_the_same_way(
    models: Path, ours: Renderer, name: str, sampler: str
) -> None:
    """From a start image and under a mask, too, where diffusers' own would not."""
    case = CASES[name]
    texts = ["prompt: a red cube"] if case.from_text else []
    texts += ["prompt: a red cube\nimage: start.png"] if case.from_image else []
    texts += ["prompt: a red cube\nimage: start.png\nmask: mask.png"] if case.from_mask else []
    for text in texts:
        images = [
            rendered(ours, *requests_of(models, name, f"{text}\nsteps: 4\nsampler: {one}"))[0]
            for one in ("Euler", sampler)
        ]
        euler, other = (pixels(image).astype(float) for image in images)
        assert 0 < np.abs(euler - other).mean() < euler.std() / 2


@pytest.mark.parametrize("name", those(any_case, ONE_EACH))
def test_steps_are_reported_and_a_batch_ends_within_one(
    models: Path, ours: Renderer, name: str
) -> None:
    """Before the first step is done, too; the next batch works."""
    wanted = requests_of(models, name, "prompt: a red cube\nsteps: 3")
    steps: list[tuple[int, int]] = []
    ours.render(wanted, lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    looks = iter([False] * 3 + [True] * 1000)
    steps.clear()
    with pytest.raises(EngineStopped):
        ours.render(wanted, lambda done, total: steps.append((done, total)), lambda: next(looks))
    assert not steps
    assert rendered(ours, *wanted)


@pytest.mark.parametrize("name", ["Z-Image-Turbo"])
def test_a_picture_that_is_white_all_over_is_no_failure(
    models: Path, ours: Renderer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the decoder goes beyond white; where it loses the picture, that is the reason."""
    (wanted,) = requests_of(models, name, "prompt: a red cube")
    rendered(ours, wanted)
    out = ours._checkpoints.held(wanted).vae.decoder.conv_out._parameters
    monkeypatch.setitem(out, "bias", out["bias"] + 9)
    assert (pixels(rendered(ours, wanted)[0]) == 255).all()
    for part in ("weight", "bias"):
        monkeypatch.setitem(out, part, torch.zeros_like(out[part]))
    with pytest.raises(RenderFailed, match="one single colour"):
        rendered(ours, wanted)


@pytest.mark.parametrize("name", those(lambda case: case.reads, ONE_EACH))
def test_the_end_of_a_long_prompt_is_ignored_with_a_warning(
    models: Path, ours: Renderer, name: str
) -> None:
    """Of the negative prompt, too, when it is computed."""
    case = CASES[name]
    long = "x" * (case.reads + 1)
    text, prompts = f"prompt: {long}\nsteps: 1\n", ["prompt"]
    if case.guided:
        text += f"cfg_scale: 2\nnegative_prompt: {long}"
        prompts.append("negative prompt")
    (image,) = rendered(ours, *requests_of(models, name, text))
    assert len(image.warnings) == len(prompts)
    for prompt, warning in zip(prompts, image.warnings, strict=True):
        assert warning.startswith(f"The {prompt} has ")
        assert warning.endswith(f"because this checkpoint reads {case.reads}.")
    (image,) = rendered(ours, *requests_of(models, name, "prompt: a red cube"))
    assert not image.warnings
