"""Pictures that picowatch and other programs both make, and the checkpoints they come from."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

from benchmarks.random_weights import write_checkpoint
from picowatch.catalog import Catalog
from picowatch.recipe.request import ImageRequest
from tests.catalog.files import sd15_shapes, sdxl_shapes

ASSETS = Path(__file__).parents[1] / "picowatch" / "assets"
NEGATIVE_PROMPT = "blurry"
CFG_SCALE = 7.5
HASHES = "hashes.sqlite"  # in a models folder: the hashes that are known
# Where the full-size checkpoints are kept between runs: 2.1 GB each, that of SDXL 6.9 GB.
KEPT = Path(tempfile.gettempdir()) / "sd15"
SD15_WORDS, XL_WORDS = "full-size Stable Diffusion 1.5", "full-size Stable Diffusion XL"

XL_PIPELINE = "StableDiffusionXLPipeline"
_XL_PARTS = {
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}

_KLEIN_PARTS = {
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen3ForCausalLM"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "Flux2Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLFlux2"],
}

_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "pink")
_THINGS = ("circle", "square", "triangle", "star", "heart", "ring")
_BACKGROUNDS = ("white", "blue", "green", "black")


@dataclass(frozen=True, slots=True)
class Picture:
    prompt: str
    seed: int
    steps: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as recipes and tables name it; `configs` are those of a single file."""

    name: str
    path: Path
    configs: Path
    words: str
    pipeline: str = "StableDiffusionPipeline"

    def install(self, models: Path) -> None:
        """Make it known to a picowatch with this models folder; the demo model always is."""
        place = models / "checkpoints" / f"{self.name}{self.path.suffix}"
        if self != DEMO and not place.is_symlink():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(self.path)


DEMO = Checkpoint("demo", ASSETS / "demo", ASSETS / "demo", "the demo model")


@dataclass(frozen=True, slots=True)
class Job:
    """Pictures of one checkpoint and size, in DPM++ 2M Karras."""

    checkpoint: Checkpoint
    size: int
    pictures: tuple[Picture, ...]
    device: str = "cpu"

    def write(self, file: Path, pictures: Path) -> None:
        """Write the job as other programs read it; their pictures go into the folder `pictures`."""
        file.write_text(json.dumps(self.asked() | {"out": str(pictures)}))

    def asked(self) -> dict[str, Any]:
        return {
            "checkpoint": str(self.checkpoint.path),
            "configs": str(self.checkpoint.configs),
            "pipeline": self.checkpoint.pipeline,
            "device": self.device,
            "size": self.size,
            "cfg_scale": CFG_SCALE,
            "negative_prompt": NEGATIVE_PROMPT,
            "pictures": [
                {"prompt": picture.prompt, "seed": picture.seed, "steps": picture.steps}
                for picture in self.pictures
            ],
        }

    def requests(self, models: Path, **values: Any) -> list[ImageRequest]:
        """Requests to an engine with this models folder; `values` are other fields."""
        self.checkpoint.install(models)
        catalog = Catalog(models, models / HASHES)
        model = catalog.find("checkpoint", self.checkpoint.name)
        given: dict[str, Any] = {
            "negative_prompt": NEGATIVE_PROMPT,
            "checkpoint": model.name,
            "checkpoint_hash": catalog.sha256(model),
            "sampler": "DPM++ 2M",
            "schedule_type": "karras",
            "cfg_scale": CFG_SCALE,
            "width": self.size,
            "height": self.size,
        } | values
        return [
            ImageRequest(prompt=picture.prompt, seed=picture.seed, steps=picture.steps, **given)
            for picture in self.pictures
        ]

    def recipe(self, picture: Picture) -> str:
        return (
            f"prompt: {picture.prompt}\nnegative_prompt: {NEGATIVE_PROMPT}\n"
            f"checkpoint: {self.checkpoint.name}\nsampler: DPM++ 2M Karras\n"
            f"steps: {picture.steps}\ncfg_scale: {CFG_SCALE}\n"
            f"size: {self.size}x{self.size}\nseed: {picture.seed}\n"
        )


def pictures(count: int, steps: int) -> tuple[Picture, ...]:
    texts = islice(_prompts(), count)
    return tuple(Picture(text, seed, steps) for seed, text in enumerate(texts, start=1))


def _prompts() -> Iterator[str]:
    """Prompts without end, the same again after all combinations."""
    for ground, colour, thing in cycle(product(_BACKGROUNDS, _COLOURS, _THINGS)):
        yield f"a {colour} {thing} on a {ground} background"


def full_size(seed: int = 1) -> Checkpoint:
    """Stable Diffusion 1.5 with random weights, written once; each seed is another content."""
    path = _kept(
        f"random{seed}.safetensors", lambda file: write_checkpoint(file, sd15_shapes(), seed)
    )
    return Checkpoint(f"random{seed}", path, ASSETS / "sd15", SD15_WORDS)


def full_size_xl() -> Checkpoint:
    path = _kept("randomxl.safetensors", lambda file: write_checkpoint(file, sdxl_shapes()))
    return Checkpoint("randomxl", path, _kept("configs-xl", _xl_configs), XL_WORDS, XL_PIPELINE)


def full_size_klein() -> Path:
    """FLUX.2 klein 4B, a diffusers folder with random weights (16 GB), written once."""
    return _kept("random-klein-4B", _write_klein)


def _write_klein(folder: Path) -> None:
    """Write the folder: the configs and the tokenizer that are embedded, and weights."""
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
    from torch import device
    from transformers import Qwen3Config, Qwen3ForCausalLM

    for part, (library, _) in _KLEIN_PARTS.items():
        configs = "qwen3" if library == "transformers" else "flux2"
        shutil.copytree(ASSETS / configs / part, folder / part)
    ours: dict[str, Any] = {"transformer": Flux2Transformer2DModel, "vae": AutoencoderKLFlux2}
    with device("meta"):
        models = {
            name: kind.from_config(kind.load_config(folder / name)) for name, kind in ours.items()
        }
        encoder = Qwen3ForCausalLM(Qwen3Config.from_pretrained(folder / "text_encoder"))
    for part, model in (*models.items(), ("text_encoder", encoder)):
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        shapes.pop("lm_head.weight", None)  # the embedding's
        name = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        write_checkpoint(folder / part / f"{name}.safetensors", shapes)
    index: dict[str, Any] = {"_class_name": "Flux2KleinPipeline", "is_distilled": True}
    (folder / "model_index.json").write_text(json.dumps(index | _KLEIN_PARTS))


def write_finders(folder: Path, *, tiny: bool) -> None:
    """Write random weights as clipseg-rd64-refined, grounding-dino-tiny, sam-vit-base and sam3."""
    import transformers
    from torch import manual_seed

    from tests.engine import tiny_find

    if tiny:
        for name in tiny_find.MAKERS:
            tiny_find.make(folder / name, name)
        return
    library: Any = transformers
    manual_seed(1)

    def square(side: int) -> Any:
        return library.ViTImageProcessorPil(size={"height": side, "width": side})

    vision = {"image_size": 352, "patch_size": 16}
    quick = {"initializer_range": 0.02}  # CPUs are slow with numbers as small as its default gives
    clipseg = library.CLIPSegConfig(vision_config=vision, use_complex_transposed_convolution=True)
    for name, kind, config, pixels in (
        ("clipseg", "CLIPSegForImageSegmentation", clipseg, square(352)),
        (
            "grounding-dino",
            "GroundingDinoForObjectDetection",
            library.GroundingDinoConfig(),
            library.GroundingDinoImageProcessorPil(
                size={"shortest_edge": 800, "longest_edge": 1333}
            ),
        ),
        ("sam", "SamModel", library.SamConfig(vision_config=quick), library.SamImageProcessorPil()),
        ("sam3", "Sam3Model", library.Sam3Config(), square(1008)),
    ):
        getattr(library, kind)(config).save_pretrained(folder / name)
        pixels.save_pretrained(folder / name)
        tiny_find.write_words(folder / name, name)


def tiny_xl(folder: Path) -> Checkpoint:
    if not folder.exists():
        from tests.engine.tiny_flows import tiny_unet  # imports torch and diffusers

        shutil.copytree(tiny_unet("sdxl"), folder)
    return Checkpoint("tinyxl", folder, folder, "a tiny Stable Diffusion XL", XL_PIPELINE)


def _kept(name: str, write: Callable[[Path], None]) -> Path:
    """The path of what is written once and kept between runs."""
    path = KEPT / name
    if not path.exists():
        print(f"writing {path}", flush=True)
        KEPT.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        write(unfinished)
        unfinished.rename(path)
    return path


def _xl_configs(folder: Path) -> None:
    """Write what diffusers reads beside a single file: an index, configs and tokenizers."""
    folder.mkdir()
    for part in (ASSETS / "sdxl").iterdir():
        (folder / part.name).symlink_to(part)
    tokenizer, second = ASSETS / "sd15/tokenizer", folder / "tokenizer_2"
    (folder / "tokenizer").symlink_to(tokenizer)
    second.mkdir()
    (second / "tokenizer.json").symlink_to(tokenizer / "tokenizer.json")
    config = json.loads((tokenizer / "tokenizer_config.json").read_text())
    (second / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "!"}))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": XL_PIPELINE} | _XL_PARTS))
