"""Batches of image requests, and their expected pictures.

`python -m tests.engine.reference.requests [NAME …]` writes those pictures anew: all, or the named.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from picowatch.engine.drawing.renderer import Renderer
from tests.engine.reference.models import Models, Values
from tests.engine.requests import DEMO_CONTROLNET, DEMO_UPSCALER, Pixels, draw, pixels

PICTURES = Path(__file__).parent / "pictures"
CORGI = "a corgi with a red hat on a blue background"
SUN = "a yellow sun above a house on a white background"
LONG = (
    "a large orange cat wearing a green hat and sunglasses, masterpiece, best quality, sharp, "
    "happy cute kitten, flat illustration, in the middle of a pink background, next to a purple "
    "balloon, a small yellow star at the top left, a tiny black heart at the bottom right, "
    "a crescent moon over the house, a muffin under the tree, painting of a party, high quality, "
    "a violet ring beside a white box"
)
XL: Values = {"checkpoint": "tiny-sdxl", "sampler": "Euler", "schedule_type": "leading", "steps": 5}
SD2: Values = {**XL, "checkpoint": "tiny-sd2"}
LCM: Values = {"sampler": "LCM", "schedule_type": "uniform", "steps": 4}
SMALL: Values = {"width": 64, "height": 64}
NOISY = "Euler a"


def values(prompt: str = CORGI, **given: Any) -> Values:
    return {"prompt": prompt, "steps": 8, "width": 104, "height": 104, **given}


def sampled(sampler: str, schedule_type: str, **given: Any) -> Values:
    return values(sampler=sampler, schedule_type=schedule_type, **given)


def changed(
    strength: float, prompt: str = CORGI, image: str = "circle.png", **given: Any
) -> Values:
    return values(prompt, image=image, denoising_strength=strength, **given)


def redrawn(strength: float, mask: str = "half.png", **given: Any) -> Values:
    return changed(strength, **{"image": "corgi.png", "mask": mask, "mask_blur": 0, **given})


def sketched(prompt: str = "a red circle on a blue background", **given: Any) -> Values:
    """Return a picture that the demo's own ControlNet follows."""
    sketch = {"image": "sketch.png", "model": DEMO_CONTROLNET, "preprocess": "invert", **given}
    return values(prompt, control=[sketch])


def random_control(**given: Any) -> Values:
    return {"image": "lower sketch.png", "model": "random", "weight": 0.8, **given}


def larger(upscaler: str, strength: float = 0.6, **given: Any) -> Values:
    hires = {"scale": 1.25, "denoising_strength": strength, "upscaler": upscaler}
    return {**values(steps=6, height=96), "hires": hires, **given}


SAMPLED = {
    "euler": [sampled("Euler", "uniform")],
    "euler-a": [sampled("Euler a", "uniform")],
    "heun": [sampled("Heun", "uniform")],
    "lms": [sampled("LMS", "uniform")],
    "dpm2": [sampled("DPM2", "karras")],
    "dpm2-a": [sampled("DPM2 a", "karras")],
    "dpmpp-2m": [sampled("DPM++ 2M", "karras")],
    "dpmpp-2m-sde": [sampled("DPM++ 2M SDE", "exponential")],
    "dpmpp-2m-sde-heun": [sampled("DPM++ 2M SDE Heun", "exponential")],
    "dpmpp-sde": [sampled("DPM++ SDE", "karras")],
    "ddim": [sampled("DDIM", "uniform")],
    "ddpm": [sampled("DDPM", "uniform")],
    "sa-solver": [sampled("SA-Solver", "linspace")],
    "deis": [sampled("DEIS", "linspace")],
    "unipc": [sampled("UniPC", "linspace")],
    "pndm": [sampled("PNDM", "uniform")],
    "lcm": [sampled("LCM", "uniform", cfg_scale=1.5)],
    "tcd": [sampled("TCD", "uniform", cfg_scale=1.5)],
    "one-step": [sampled("Euler", "sgm_uniform", steps=1)],
    "zero-snr-euler": [sampled("Euler", "sgm_uniform", prediction="v_zero_snr", cfg_rescale=0.7)],
    "zero-snr-ddim": [sampled("DDIM", "sgm_uniform", prediction="v_zero_snr")],
    "ensd": [sampled(NOISY, "uniform", ensd=31337)],
}

PROMPTED = {
    "narrow": [values(SUN, width=64, height=192)],
    "odd-size": [values(SUN, width=136, height=72)],
    "weights": [
        values("a [red] square and a (blue:1.4) star on a ((white)) background"),
        values("a (red:0.6) heart and a (blue:1.5) star on a white background"),
    ],
    "break": [values("a red heart BREAK a blue background")],
    "long-prompt": [values(LONG, negative_prompt="blurry, low quality")],
    "mixed-lengths": [
        values("a cat", negative_prompt="red"),
        values(LONG, seed=2),
        values("a yellow star BREAK a green background BREAK a cupcake", seed=3),
    ],
    "clip-skip": [values(clip_skip=2)],
    "editing-step": [values("a cat wearing a [hat::3] on a [pink background:4]")],
    "editing-alternating": [values("a [cat|corgi] on a [green|blue|red] background")],
    "editing-hires": [larger("Latent", prompt="a [heart:star:1.4] on a [pink|blue] background")],
    "cfg-interval": [values(cfg_start=0.2, cfg_end=0.7, sampler="Heun", schedule_type="uniform")],
    "cfg-rescale": [values(cfg_scale=12, cfg_rescale=0.7)],
}

NOISED = {
    "seeds": [values(SUN, seed=seed) for seed in (0, 2**32 - 1)],
    "variations": [
        values(SUN, seed=4, variation_seed=9, variation_strength=share) for share in (0.1, 0.5)
    ],
    "variations-start-image": [
        changed(0.7, seed=4, variation_seed=9, variation_strength=share) for share in (0.2, 0.6)
    ],
}

CHANGED = {
    "start-image-weak": [changed(0.3, width=128, height=128)],
    "start-image-strong": [changed(0.8)],
    "start-image-none": [changed(0.0)],
    "start-image-noisy": [changed(0.6, sampler=NOISY, schedule_type="uniform")],
    "start-image-pndm": [changed(0.6, sampler="PNDM", schedule_type="uniform")],
    "start-image-unipc": [changed(0.6, sampler="UniPC", schedule_type="linspace")],
    "start-images-resized": [
        changed(0.5, image="wide.png", resize=resize, width=96)
        for resize in ("crop", "fit", "stretch")
    ],
    "mask-whole": [redrawn(1.0)],
    "mask-blurred": [redrawn(0.8, mask_blur=8)],
    "mask-inverted": [redrawn(0.8, mask_invert=True, mask_blur=4)],
    "mask-heun": [redrawn(0.7, sampler="Heun", schedule_type="uniform")],
    "masks-resized": [
        redrawn(0.8, "grey ring.png", image="wide.png", resize=resize, mask_blur=2, width=96)
        for resize in ("crop", "fit", "stretch")
    ],
}

LARGER = {
    "hires-latent": [larger("Latent")],
    "hires-latent-nearest": [larger("Latent (nearest)")],
    "hires-latent-bicubic-antialiased": [larger("Latent (bicubic antialiased)")],
    "hires-lanczos": [larger("Lanczos", 0.4)],
    "hires-model": [larger(DEMO_UPSCALER, 0.4)],
    "hires-steps": [
        {
            **larger("Lanczos"),
            "hires": {"scale": 1.1, "steps": 4, "denoising_strength": 0.5, "upscaler": "Lanczos"},
        }
    ],
    "hires-noisy": [larger("Latent", sampler=NOISY, schedule_type="uniform", ensd=3)],
    "hires-mask": [{**redrawn(0.8, mask_blur=2), **larger("Lanczos", 0.5)}],
    "upscale": [values(upscale={"model": DEMO_UPSCALER, "scale": 1.25})],
    "tiling": [values(tiling=True)],
    "tiling-hires": [larger("Latent", tiling=True)],
}

CONTROLLED = {
    "control": [sketched()],
    "control-start-end": [sketched(start=0.25, end=0.7)],
    "control-canny": [sketched(image="corgi.png", prompt=CORGI, preprocess="canny")],
    "control-two": [
        {
            **sketched(),
            "control": [*sketched()["control"], random_control(model="random-folder", end=0.5)],
        }
    ],
    "control-prompt-mode": [sketched(mode="prompt")],
    "control-mode": [sketched(mode="control")],
    "control-shuffle": [values(control=[random_control(model="random-shuffle")])],
    "control-cfg-start": [{**sketched(), "cfg_start": 0.3}],
    "control-batch": [
        {**sketched(), "seed": 1},
        {**sketched(image="lower sketch.png"), "seed": 2},
        {**sketched(prompt="a yellow sun", image="lower sketch.png"), "seed": 3},
    ],
    "control-hires": [{**larger("Latent"), **sketched()}],
    "control-hires-canny": [
        {**larger("Lanczos", 0.5), **sketched(image="corgi.png", prompt=CORGI, preprocess="canny")}
    ],
    "control-tiling": [{**sketched(), "tiling": True}],
    "control-inpainting": [
        {**redrawn(0.9), "checkpoint": "demo-inpaint", "control": [random_control()]}
    ],
}

ADAPTED = {
    "lora-kernels": [values(loras={"with-kernels": 1.0})],
    "lora-two": [values(loras={"unet-only": 0.8, "both": 0.7})],
    "lora-tags": [values(f"{CORGI} <lora:unet-only:0.9> (large:1.3) <lora:text-only:0.6>")],
    "lora-batch": [
        values(prompt, seed=seed, loras={"both": 0.8}, negative_prompt="blurry")
        for seed, prompt in enumerate((CORGI, SUN))
    ],
    "lora-control": [{**sketched(), "loras": {"both": 0.8}}],
    "after-loras": [values()],
    "embedding-weight": [values("a corgi with (redhat:1.3)")],
    "vae": [values(vae="warm")],
}

OTHERS = {
    "sdxl": [values(**XL, width=64, height=96)],
    "sdxl-long": [values(LONG, **XL, **SMALL), values("a cat", **XL, **SMALL, seed=2)],
    "sdxl-weights": [values("a (red:1.4) [cat] BREAK blue", **XL, **SMALL, negative_prompt="sun")],
    "sdxl-editing": [values("a [cat:corgi:0.5] on [red|blue]", **XL, **SMALL)],
    "sdxl-clip-skip": [values(**XL, **SMALL, clip_skip=2)],
    "sdxl-cfg": [values(**XL, **SMALL, cfg_start=0.2, cfg_end=0.8, cfg_rescale=0.5)],
    "sdxl-hires": [{**larger("Latent"), **XL, "width": 64}],
    "sdxl-tiling": [values(**XL, **SMALL, tiling=True)],
    "sdxl-lora": [values(**XL, **SMALL, loras={"xl": 0.5})],
    "sdxl-control": [values(**XL, **SMALL, control=[random_control(model="xl")])],
    "sdxl-control-union": [
        values(**XL, **SMALL, control=[random_control(model="xl-union", kind="normals")])
    ],
    "sdxl-lcm": [values(**LCM, **SMALL, checkpoint="tiny-sdxl-lcm", cfg_scale=8)],
    "sd2-zero-snr": [
        values(**{**SD2, "schedule_type": "sgm_uniform"}, **SMALL, prediction="v_zero_snr")
    ],
    "sd2-lcm": [values(**LCM, **SMALL, checkpoint="tiny-sd2-lcm", cfg_scale=8)],
    "inpainting": [redrawn(0.9, checkpoint="demo-inpaint", mask_blur=4)],
    "inpainting-start-image": [changed(0.7, checkpoint="demo-inpaint")],
    "inpainting-hires": [larger("Latent", checkpoint="demo-inpaint")],
}

CASES: dict[str, list[Values]] = {
    **SAMPLED,
    **PROMPTED,
    **NOISED,
    **CHANGED,
    **LARGER,
    **CONTROLLED,
    **ADAPTED,
    **OTHERS,
}


def drawn(renderer: Renderer, models: Models, name: str) -> Pixels:
    images = draw(renderer, *(models.request(case) for case in CASES[name]))
    return np.concatenate([pixels(image) for image in images], axis=1)


def stored(name: str) -> Pixels:
    with Image.open(PICTURES / f"{name}.png") as picture:
        return np.asarray(picture).astype(np.int16)


def main(names: Sequence[str]) -> None:
    PICTURES.mkdir(exist_ok=True)
    for path in PICTURES.glob("*.png"):
        if path.stem not in CASES:
            path.unlink()
    with TemporaryDirectory() as folder:
        models = Models(Path(folder) / "models")
        renderer = Renderer(models.options)
        for name in names or CASES:
            picture = Image.fromarray(drawn(renderer, models, name).astype(np.uint8))
            picture.save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
