"""Flow families: a recipe's picture is the one that a plain script with diffusers makes."""

from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache, partial
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from picowatch.catalog import Catalog
from picowatch.catalog.parts import parts_of
from picowatch.engine.drawing.latents import COLOURS
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.families import built, pipeline_class
from picowatch.engine.networks.upscale import enlarged
from picowatch.engine.protocol import RgbPicture
from picowatch.errors import EngineStopped, RenderFailed
from picowatch.families import FAMILIES, FLOWS
from picowatch.families.row import FLUX2_VAE, FLUX_VAE, QWEN_VAE
from picowatch.files.decoding import Original
from tests.engine.flow_requests import (
    SIDE,
    flow_models,
    flow_renderer,
    hash_of,
    requests_of,
    scripted,
    square,
)
from tests.engine.part_files import ANIMA
from tests.engine.requests import Pixels, circle, draw, pixels, progress_of
from tests.engine.rungs import interrupt
from tests.engine.test_previewer import assert_shows
from tests.engine.tiny_flows import FOLDERS, GENERAL, checkpoints_of, tiny_flow
from tests.engine.tiny_modular import called_modular
from tests.kinds import one_of_each_kind

_D: Any = diffusers


@dataclass(frozen=True)
class Case:
    """The arguments with which a script calls the pipelines of a folder.

    `plain` is what the family's defaults mean there, `guided` what `cfg_scale: 4` and a negative
    prompt mean, `both` what belongs to each call. `reads` is how many tokens of a prompt count; 0
    where the pipeline reads prompts itself. `solved`: other samplers can make its steps.
    """

    plain: dict[str, Any]
    guided: dict[str, Any] | None = None
    both: dict[str, Any] = field(default_factory=dict)
    reads: int = 512
    solved: bool = True


def scaled(scale: float, **more: Any) -> Case:
    return Case({"guidance_scale": scale}, **more)


WHOLE = {"use_resolution_binning": False}  # sizes as requested
GUIDED = {"guidance_scale": 4.0, "negative_prompt": "blur"}
GUIDED_BY_3 = GUIDED | {"guidance_scale": 3.0}
TRUE = {"true_cfg_scale": 4.0, "negative_prompt": "blur"}
CASES = {
    "Z-Image-Turbo": scaled(0.0, guided=GUIDED_BY_3, reads=504),
    "FLUX.1-dev": scaled(3.5, guided=TRUE | {"guidance_scale": 3.5}),
    "FLUX.1-Krea-dev": scaled(4.5),
    "FLUX.1-schnell": Case({}, both={"max_sequence_length": 256}, reads=256),
    "FLUX.1-Fill-dev": scaled(30.0),
    "Qwen-Image": Case(TRUE | {"negative_prompt": " "}, guided=TRUE),
    "Qwen-Image-2.1": Case({"true_cfg_scale": 1.0}, guided=TRUE, reads=0),
    "ERNIE-Image": scaled(4.0, guided=GUIDED, reads=100),
    "ERNIE-Image-Turbo": scaled(1.0, reads=100),
    "Krea-2-Raw": scaled(3.5, guided=GUIDED_BY_3, reads=507),
    "Krea-2-Turbo": scaled(0.0, reads=507),
    "FLUX.2-dev": scaled(4.0),
    "FLUX.2-klein": scaled(1.0, reads=509),
    "FLUX.2-klein-kv": Case({}, reads=509),
    "FLUX.2-klein-base": scaled(4.0, guided=GUIDED, reads=509),
    # The length for inpainting is less by default.
    "Chroma1-HD": scaled(3.0, both={"max_sequence_length": 512}, guided=GUIDED),
    "Lumina-Image-2.0": scaled(4.0, guided=GUIDED, reads=256),
    "sd3-medium": scaled(7.0, guided=GUIDED, reads=77),
    "sd3.5-medium": scaled(4.5, guided=GUIDED, reads=256),
    # Recognised by its 38 layers, which take their time.
    "sd3.5-large-turbo": scaled(0.0, reads=256),
    "FLUX.3-klein": Case({}, reads=8184, solved=False),
    "FLUX.3-klein-base": scaled(4.0, guided=GUIDED, reads=8184),
    "Ovis-Image-7B": scaled(5.0, guided=GUIDED, reads=247),
    "LongCat-Image": scaled(4.5, guided=GUIDED, both={"enable_prompt_rewrite": False}),
    "Ideogram-4": scaled(7.0, both={"guidance_schedule": None}, reads=2040),
    "Anima": scaled(4.0, guided=GUIDED),
    "Anima-Turbo": scaled(1.0),
    "AuraFlow": scaled(3.5, guided=GUIDED, reads=0),
    "CogView4": scaled(5.0, guided=GUIDED, reads=0),
    "Sana": scaled(4.5, guided=GUIDED, both=WHOLE, reads=0, solved=False),
    "Sana-Sprint": scaled(4.5, both=WHOLE, reads=0, solved=False),
    "PixArt-Sigma": scaled(
        4.5, guided=GUIDED, both=WHOLE | {"clean_caption": False}, reads=0, solved=False
    ),
    "Z-Image-Omni": scaled(5.0, guided=GUIDED, reads=0),
    "HunyuanImage-2.1": Case({"distilled_guidance_scale": 3.25}, reads=0),
    "FIBO": scaled(5.0, guided=GUIDED, reads=0),
    "Nucleus-Image": scaled(4.0, guided=GUIDED, reads=0),
    "HunyuanDiT": scaled(5.0, guided=GUIDED, both=WHOLE, reads=0, solved=False),
}


def kind_of(name: str, kind: str) -> Any:
    """The pipeline for "text", "image" or "mask", or None: FLUX.1 Fill cannot draw from text."""
    row = FAMILIES[FOLDERS[name].family]
    variant = row.variant(FOLDERS[name].variant)
    return None if variant.fills and kind != "mask" else pipeline_class(row, variant, kind)


# The first of those with the same pipelines and encoders.
ONE_EACH = {
    (kind_of(name, "mask") or kind_of(name, "text"), FOLDERS[name].without, case.reads): name
    for name, case in reversed(CASES.items())
}.values()
# Text encoders that give lists, pooled text, instructions and several; a transformer that reads
# the start image.
FAMILIES_IN_EACH_RUN = (
    *("Z-Image-Turbo", "FLUX.1-dev", "FLUX.1-Fill-dev", "FLUX.2-klein", "Sana", "sd3.5-medium"),
)


def those(able: Callable[[str], Any], names: Collection[str] = CASES.keys()) -> list[Any]:
    """Return the families that have an ability, for `parametrize`."""
    able_ones = [name for name in names if able(name)]
    return one_of_each_kind(able_ones, [flow for flow in able_ones if flow in FAMILIES_IN_EACH_RUN])


@pytest.fixture(scope="module")
def ours() -> Callable[[str], Renderer]:
    """A renderer for each family, which has loaded its checkpoint once for all tests."""
    return cache(lambda name: flow_renderer(flow_models(name)))


Ours = Callable[[str], Renderer]
CUBE = "prompt: a red cube"


def drawn(ours: Ours, name: str, *texts: str) -> list[Pixels]:
    wanted = [request for text in texts for request in requests_of(flow_models(name), name, text)]
    return [pixels(image) for image in draw(ours(name), *wanted)]


def expected(kind: Any, name: str, **values: Any) -> Any:
    """A plain script's picture with seed 7; `scheduler` makes one of the folder's own."""
    pipeline = loaded(kind, name)
    own = pipeline.scheduler
    pipeline.scheduler = values.pop("scheduler", lambda own: own)(deepcopy(own))
    try:
        return called(pipeline, CASES[name].both | values)
    finally:
        pipeline.scheduler = own


def scripted_here(kind: Any, name: str) -> Any:
    if name == "FLUX.2-klein-kv":  # the engine draws from text by klein's
        kind = _D.Flux2KleinKVPipeline
    pipeline = scripted(kind, name, dtype=torch.float32, **dict.fromkeys(FOLDERS[name].without))
    if kind is _D.ChromaInpaintPipeline:  # looks for a setting of FLUX.1
        pipeline.transformer.register_to_config(guidance_embeds=False)
    return pipeline


loaded = cache(scripted_here)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def called(pipeline: Any, values: dict[str, Any]) -> Any:
    """Return a pipeline's picture as numbers up to 255."""
    given = {
        "prompt": "a red cube",
        "num_inference_steps": 2,
        "width": SIDE,
        "height": SIDE,
        "generator": seeded(7),
        "output_type": "np",
    }
    given |= values
    if "negative_prompt" in given and "Klein" in type(pipeline).__name__:  # takes embeddings alone
        given["negative_prompt_embeds"], _ = pipeline.encode_prompt(given.pop("negative_prompt"))
    if isinstance(pipeline, _D.ModularPipeline):
        return (called_modular(pipeline, given)[0] * 255).round()
    return (pipeline(**given).images[0][..., :3] * 255).round()


def same(picture: Any, theirs: Any) -> bool:
    """Return whether pictures are equal except for rounding; asserts that they are not empty."""
    assert theirs.std() > 1
    return float(np.abs(picture - theirs).max()) <= 1


def part_of(picture: Image.Image, resampling: Any = Image.Resampling.LANCZOS) -> Image.Image:
    """Return the mask's white part with four pixels around it, in the picture's size."""
    return picture.crop((12, 12, 52, 52)).resize((SIDE, SIDE), resampling)


# What a recipe says, and what a script calls the pipeline of this kind with.
LATER = {"strength": 0.6, "num_inference_steps": 4}
PART = part_of(square(), Image.Resampling.BOX)
START = "image: start.png\ndenoising_strength: 0.6\nsteps: 4\n"
WAYS: dict[str, tuple[str, str, Callable[[Case], Any]]] = {
    "size and seed": (
        "text",
        f"size: {2 * SIDE}x{SIDE}\nseed: 8",
        lambda case: case.plain | {"width": 2 * SIDE, "generator": seeded(8)},
    ),
    "guided": ("text", "negative_prompt: blur\ncfg_scale: 4", lambda case: case.guided),
    "image": ("image", START, lambda case: case.plain | LATER | {"image": circle(SIDE)}),
    "mask": (
        "mask",
        f"{START}mask: mask.png\nmask_blur: 0",
        lambda case: case.plain | LATER | {"image": circle(SIDE), "mask_image": square()},
    ),
    "masked part": (
        "mask",
        f"{START}mask: mask.png\nmask_blur: 0\nmask_padding: 4",
        lambda case: case.plain | LATER | {"image": part_of(circle(SIDE)), "mask_image": PART},
    ),
}
ALL = [
    (name, way)
    for way, (kind, _, values) in WAYS.items()
    for name, case in CASES.items()
    if kind_of(name, kind) and values(case) is not None
]
IN_EACH_RUN = [pair for pair in ALL if pair[0] in FAMILIES_IN_EACH_RUN]


def test_each_flow_family_is_compared_with_diffusers(tmp_path: Path) -> None:
    """A row of a new one has a case here, and a tiny folder that is recognised with all parts."""
    families = {*FLOWS, *(tiny.family for tiny in GENERAL.values())}
    assert {FOLDERS[name].family for name in CASES} == families
    folders = {name: tiny_flow(name) for name in FOLDERS}
    found = Catalog(checkpoints_of(tmp_path / "models", **folders)).scan()
    assert not found.refused
    assert {model.family for model in found.models} == families
    for model in found.models:
        row = FAMILIES[model.family]
        assert model.variant in row.variants
        assert {part.name for part in parts_of(model)} >= row.parts.keys() - {*row.optional}


@pytest.mark.parametrize(("name", "way"), one_of_each_kind(ALL, IN_EACH_RUN))
def test_a_picture_is_diffusers_picture(ours: Ours, name: str, way: str) -> None:
    """With guidance, whatever a pipeline calls it; outside a mask the start image's own bytes."""
    kind, lines, values = WAYS[way]
    (picture,) = drawn(ours, name, f"{CUBE}\n{lines}")
    theirs = expected(kind_of(name, kind), name, **values(CASES[name]))
    if way == "masked part":
        part = Image.fromarray(theirs.astype(np.uint8)).resize((40, 40), Image.Resampling.LANCZOS)
        theirs[12:52, 12:52] = np.asarray(part)
    if kind == "mask":
        outside = np.asarray(square()) == 0
        theirs[outside] = np.asarray(circle(SIDE))[outside]
        assert (picture[outside] == theirs[outside]).all()
    assert same(picture, theirs)


LOOKS = those(
    lambda name: [kind_of(name, kind) is None for kind in ("text", "image", "mask")] == [0, 1, 0]
)


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_a_start_image_that_is_looked_at(ours: Ours, name: str, strength: float) -> None:
    """It works as with a white mask; with pure noise it is plain editing."""
    kind = kind_of(name, "text")
    values: dict[str, Any] = {"image": [circle(SIDE)], "num_inference_steps": 4}
    if strength < 1:
        kind = kind_of(name, "mask")
        values |= {"strength": strength, "mask_image": [Image.new("L", (SIDE, SIDE), 255)]}
    text = f"{CUBE}\nimage: start.png\ndenoising_strength: {strength}\nsteps: 4"
    assert same(drawn(ours, name, text)[0], expected(kind, name, **CASES[name].plain, **values))


@pytest.mark.parametrize("name", those(bool, ONE_EACH))
def test_pictures_of_a_batch_are_those_made_alone(ours: Ours, name: str) -> None:
    """Prompts of different lengths, and start images of different pictures, too."""
    prompts = ("a red cube", "two blue balls on grass", "a red cube")
    batch = [f"prompt: {text}\nexact: false\nseed: {seed}" for seed, text in enumerate(prompts)]
    batches = [batch]
    if kind_of(name, "mask"):
        other = circle(SIDE).transpose(Image.Transpose.TRANSPOSE).resize((80, 48))
        other.save(flow_models(name) / "other.png")
        batches.append([f"{batch[0]}\nimage: start.png", f"{batch[1]}\nimage: other.png"])
    for texts in batches:
        alone = [drawn(ours, name, text)[0] for text in texts]
        assert all(map(same, drawn(ours, name, *texts), alone))
        assert (drawn(ours, name, texts[0])[0] == alone[0]).all()


@pytest.mark.parametrize("name", those(lambda name: kind_of(name, "image")))
def test_hires_draws_again_from_the_enlarged_picture(ours: Ours, name: str) -> None:
    """The second pass is diffusers' img2img, with the same seed as the first."""
    case, size = CASES[name], (128, 128)
    first = expected(kind_of(name, "text"), name, **case.plain)
    small = Image.fromarray(first.astype(np.uint8))
    upscalers = {"Lanczos": small.resize(size, Image.Resampling.LANCZOS)}
    if name == "FLUX.1-dev":  # a model may enlarge, as for Stable Diffusion
        model = "demo-compact"
        digest = hash_of(flow_models(name), "upscaler", model)
        larger = partial(enlarged, given=Original(small), size=size, before_tile=lambda: None)
        upscalers[model] = ours(name)._networks.use(
            "upscaler", model, digest, lambda network, _: larger(network).picture
        )
    for upscaler, picture in upscalers.items():
        hires = f"{{scale: 2, denoising_strength: 0.5, upscaler: {upscaler}}}"
        values = {"image": picture, "strength": 0.5, "width": 128, "height": 128}
        theirs = expected(kind_of(name, "image"), name, **case.plain, **values)
        assert same(drawn(ours, name, f"{CUBE}\nhires: {hires}")[0], theirs)


SOLVERS = {"DPM++ 2M": _D.DPMSolverMultistepScheduler, "UniPC": _D.UniPCMultistepScheduler}


@pytest.mark.parametrize("sampler", SOLVERS)
def test_another_sampler_is_diffusers_own(ours: Ours, sampler: str) -> None:
    """FLUX.1's pipeline lets a script replace the sampler: the noise levels are the same."""
    name = "FLUX.1-dev"
    theirs = expected(
        kind_of(name, "text"),
        name,
        **CASES[name].plain,
        num_inference_steps=8,
        scheduler=lambda own: SOLVERS[sampler].from_config(
            own.config, use_flow_sigmas=True, prediction_type="flow_prediction"
        ),
    )
    assert same(drawn(ours, name, f"{CUBE}\nsampler: {sampler}\nsteps: 8")[0], theirs)


@pytest.mark.parametrize("name", those(lambda name: CASES[name].solved, ONE_EACH))
def test_another_sampler_goes_the_same_way(ours: Ours, name: str) -> None:
    """This includes start images and masks, where diffusers' own samplers fail."""
    sampler = [*SOLVERS][[*CASES].index(name) % len(SOLVERS)]
    texts = [CUBE] if kind_of(name, "text") else []
    texts += [f"{CUBE}\nimage: start.png"] if kind_of(name, "image") else []
    texts += [f"{CUBE}\nimage: start.png\nmask: mask.png"] if kind_of(name, "mask") else []
    for text in texts:
        euler, other = (
            drawn(ours, name, f"{text}\nsteps: 4\nsampler: {solver}")[0].astype(float)
            for solver in ("Euler", sampler)
        )
        assert 0 < np.abs(euler - other).mean() < euler.std() / 2


@pytest.mark.parametrize("name", those(bool, ONE_EACH))
def test_steps_are_reported_and_a_batch_ends_within_one(ours: Ours, name: str) -> None:
    """It may end before the first step is done; the next batch is unaffected."""
    (before,) = drawn(ours, name, f"{CUBE}\nsteps: 3")
    wanted = requests_of(flow_models(name), name, f"{CUBE}\nsteps: 3")
    steps = [(now.done, now.total) for now in progress_of(ours(name), wanted)]
    assert steps == [(1, 3), (2, 3), (3, 3)]
    looks = iter([False] * 3 + [True] * 1000)
    steps.clear()
    with pytest.raises(EngineStopped):
        noted = lambda now: steps.append((now.done, now.total))  # noqa: E731
        list(ours(name).render(wanted, noted, looks.__next__))
    assert not any(done for done, _ in steps)
    assert (drawn(ours, name, f"{CUBE}\nsteps: 3")[0] == before).all()


@pytest.mark.parametrize("name", those(lambda name: CASES[name].reads, ONE_EACH))
def test_the_end_of_a_long_prompt_is_ignored_with_a_warning(ours: Ours, name: str) -> None:
    """The same holds for the negative prompt, if it is used."""
    case = CASES[name]
    long = "x" * (case.reads + 1)
    text, prompts = f"prompt: {long}\nsteps: 1\n", ["prompt"]
    if case.guided:
        text += f"cfg_scale: 2\nnegative_prompt: {long}"
        prompts.append("negative prompt")
    (image,) = draw(ours(name), *requests_of(flow_models(name), name, text))
    assert len(image.warnings) == len(prompts)
    for prompt, warning in zip(prompts, image.warnings, strict=True):
        assert warning.startswith(f"The {prompt} has ")
        assert warning.endswith(f"because this checkpoint reads {case.reads}.")
    (image,) = draw(ours(name), *requests_of(flow_models(name), name, CUBE))
    assert not image.warnings


def unpacked_by_ideogram(pipeline: Any, packed: torch.Tensor) -> torch.Tensor:
    """The channels of a place are together in its patches, unlike in FLUX.2's."""
    bn = pipeline.vae.bn
    packed = packed * (bn.running_var + bn.eps).sqrt() + bn.running_mean
    return packed.view(-1, 8, 4, 2, 2, 32).permute(0, 5, 1, 3, 2, 4).reshape(-1, 32, 16, 8)


# The channels, rows and columns in what diffusers gives to the VAE, and their colours.
UNPACKED: dict[str, tuple[Callable[[Any, torch.Tensor], torch.Tensor], str]] = {
    "Z-Image-Turbo": (lambda _, latents: latents, FLUX_VAE),
    "FLUX.1-dev": (
        lambda pipe, latents: pipe._unpack_latents(latents, 2 * SIDE, SIDE, 8),
        FLUX_VAE,
    ),
    "Ideogram-4": (unpacked_by_ideogram, FLUX2_VAE),
}
# The tiny VAE of Qwen-Image has fewer channels than its colours are for.
WITH_COLOURS = {
    name
    for name in CASES
    if FAMILIES[FOLDERS[name].family].preview in {*COLOURS} - {QWEN_VAE} and kind_of(name, "text")
}
SEEN_IN_EACH_RUN = {*UNPACKED} | ({*FAMILIES_IN_EACH_RUN} & WITH_COLOURS)


@pytest.mark.parametrize("name", one_of_each_kind(sorted(WITH_COLOURS), SEEN_IN_EACH_RUN))
def test_previews_are_the_picture_in_the_latents_colours(name: str) -> None:
    """Each latent is a pixel, whatever a scheduler knows of noise levels; the picture stays."""
    models, previews = flow_models(name), list[RgbPicture]()
    (wanted,) = requests_of(models, name, f"{CUBE}\nsteps: 3\nsize: {SIDE}x{2 * SIDE}")
    watched = flow_renderer(models, on_preview=previews.append, preview_seconds=1e-9)
    (image,) = draw(watched, wanted)
    assert len(previews) == 3
    if name in UNPACKED:
        (unseen,) = draw(flow_renderer(models), wanted)
        assert image.pixels == unseen.pixels
        assert {(view.width, view.height) for view in previews} == {(8, 16)}
        unpacked, colours = UNPACKED[name]
        pipeline, case = loaded(kind_of(name, "text"), name), CASES[name]
        given = {"num_inference_steps": 3, "width": SIDE, "height": 2 * SIDE, **case.plain}
        given |= case.both | {"generator": seeded(7), "output_type": "latent"}
        latents = unpacked(pipeline, pipeline("a red cube", **given).images)
        assert_shows(previews[-1], latents[0], COLOURS[colours])


def test_ideogram_reads_an_object_as_it_is_written(ours: Ours) -> None:
    """Brackets and braces of JSON are no weights and no alternatives."""
    name, text = "Ideogram-4", '{"high_level_description": "a (red) cube", "elements": ["{a|b}"]}'
    (picture,) = drawn(ours, name, f"prompt: '{text}'")
    assert same(picture, expected(kind_of(name, "text"), name, **CASES[name].plain, prompt=text))


def test_a_pipeline_that_draws_another_size_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kandinsky 5 and HiDream-I1 have sizes of their own."""
    name, kind = "AuraFlow", _D.AuraFlowPipeline
    call = kind.__call__

    def smaller(self: Any, *, width: int, height: int, **named: Any) -> Any:
        return call(self, width=width // 2, height=height, **named)

    smaller.__signature__ = signature(call)  # type: ignore[attr-defined]
    monkeypatch.setattr(kind, "__call__", smaller)
    wanted = requests_of(flow_models(name), name, "prompt: a red cube")
    with pytest.raises(RenderFailed, match="drew 32x64 instead of 64x64") as failed:
        draw(flow_renderer(flow_models(name)), *wanted)
    assert failed.value.remedy == "Write 'size: 32x64'."


# Modular pipelines: guiders, and what diffusers passes over in silence.
def test_guidance_has_a_beginning_an_end_and_a_rescale(ours: Ours) -> None:
    """As in Stable Diffusion, a step at exactly `cfg_end` is guided, one at `cfg_start` not yet."""
    cases: dict[str, tuple[dict[str, float], int]] = {
        "cfg_rescale: 0.7": ({"rescale": 0.7}, 8),
        "cfg_start: 0.25": ({"start": 0.5}, 6),
        "cfg_end: 0.4": ({"stop": 0.5}, 6),
        "cfg_start: 0.25\ncfg_end: 0.5": ({"start": 0.5, "stop": 0.75}, 5),
    }
    pipeline, calls = scripted(None, ANIMA), list[None]()
    pipeline.transformer.register_forward_hook(lambda *_: calls.append(None))
    for lines, (guider, evaluations) in cases.items():
        recipe = f"{CUBE}\nnegative_prompt: blur\ncfg_scale: 4\nsteps: 4\n{lines}"
        (picture,) = drawn(ours, ANIMA, recipe)
        values: dict[str, Any] = {f"guidance_{name}": value for name, value in guider.items()}
        values |= {"negative_prompt": "blur", "guidance_scale": 4.0, "num_inference_steps": 4}
        calls.clear()
        assert same(picture, called(pipeline, values)), lines
        assert len(calls) == evaluations, lines


def test_what_is_missing_or_unknown_is_named() -> None:
    """diffusers would draw without a word, or with None for a part."""
    row = FAMILIES["anima"]
    with pytest.raises(TypeError, match="AnimaModularPipeline needs a scheduler"):
        built(row, row.variant(""), "text", {"text_encoder": None})
    pipeline = built(row, row.variant(""), "text", scripted(None, ANIMA).components)
    with pytest.raises(TypeError, match="AnimaModularPipeline takes no stength"):
        pipeline(prompt=["a red cube"], stength=0.5)


def test_an_interrupted_batch_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """diffusers would log the traceback of every block around the step."""
    models = flow_models(ANIMA)
    interrupt(flow_renderer(models), requests_of(models, ANIMA, CUBE))
    assert not [record for record in caplog.records if record.name.startswith("diffusers")]
