"""Train demo-find, which finds things by words: `python -m training.find`.

It is a CLIPSeg of toy widths. A drawing knows what each of its pixels is. Half of each step's
pictures are drawn for it. The others are kept: half of them went through the demo model's
autoencoder, and from half the demo model drew its own, so little changed that what is where stays
known.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from training.captions import caption
from training.layers import LAYERS, WORDS, Drawing, drawn_crowd, phrases_for, random_drawing
from training.muon import Optimizers
from training.precision import autocast
from training.progress import Progress, RateOfStage, Schedule, run_stage, save_whole
from training.scenes import Scene
from training.untyped import AutoencoderKL, StableDiffusionImg2ImgPipeline

DEMO = Path("picowatch/assets/demo")
OUT = Path("picowatch/assets/demo-find")
RUN_FOLDER = Path("training/runs/find")
SIDE, PATCH = 128, 8
SIZES = ((128, 128),) * 4 + ((192, 128), (128, 192))
KEPT, CROWD_SHARE = 3000, 0.25
BATCH, FRESH, PHRASES = 16, 8, 3
SCHEDULE = Schedule(steps=3400, rate=2e-3, rise=60, fall=3340)
WEIGHT_DECAY = 1e-4
AVERAGE_DECAY = 0.997
# How much of the demo model's drawing is anew; by more, what is where is no longer known.
STRENGTHS = (0.25, 0.3, 0.35, 0.4)
DRAWN_TOGETHER = 8
# The surest pixels outside a mask are looked at once more, but for those at its edge.
SUREST, EDGE = 40, 4
BACKGROUND_WEIGHT = 0.15  # in what the probe says, since most of a picture is background
SEED = 5
VISION: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
    "hidden_act": "gelu",
}
TEXT: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
    "projection_dim": 96,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--run-dir", type=Path, default=RUN_FOLDER)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--begin-with", type=Path, help="go on from this folder, not from nothing")
    parser.add_argument("--kept", type=int, default=KEPT, help="how many pictures are kept")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(DEMO / "tokenizer")
    drawings = kept_drawings(arguments.run_dir, arguments.kept)
    network = Probed(new_network(tokenizer))
    begin_with_patches(network.finder, drawings)
    if arguments.begin_with:
        network.finder.load_state_dict(load_file(arguments.begin_with / "model.safetensors"))
    progress = Progress(arguments.run_dir, "find")
    rate = RateOfStage(SCHEDULE.with_steps(arguments.steps), progress)
    by_adam = ("finder.clip.text_model.embeddings", "finder.clip.vision_model.embeddings", "probe")
    optimizer = Optimizers(network, SCHEDULE.rate, WEIGHT_DECAY, by_adam)

    def one_step(step: int) -> dict[str, Tensor]:
        losses = losses_of(network, *examples_of(step, drawings, tokenizer))
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()
        return losses

    run_stage(network, optimizer, progress, rate, AVERAGE_DECAY, one_step)
    write(network.finder, tokenizer, arguments.out)


def new_network(tokenizer: Any) -> Any:
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = TEXT | ends | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    transformers.AttentionInterface.register("plain", plain_attention)
    config = transformers.CLIPSegConfig(
        attn_implementation="plain",
        text_config=text,
        vision_config=VISION,
        projection_dim=96,
        reduce_dim=96,
        extract_layers=[3],
        decoder_num_attention_heads=2,
        decoder_intermediate_size=384,
    )
    network = transformers.CLIPSegForImageSegmentation(config)
    torch.nn.init.normal_(network.clip.text_model.embeddings.token_embedding.weight, std=0.2)
    for module in network.decoder.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)
    torch.nn.init.ones_(network.decoder.film_mul.bias)
    torch.nn.init.normal_(network.decoder.transposed_convolution.weight, std=0.03)
    torch.nn.init.constant_(network.decoder.transposed_convolution.bias, -2.0)
    return network


class Probed(torch.nn.Module):
    """The network, and a probe of each pixel that teaches it to see long before phrases do."""

    def __init__(self, finder: Any) -> None:
        super().__init__()
        self.finder = finder
        self.probe = torch.nn.Linear(VISION["hidden_size"], PATCH * PATCH * len(LAYERS))


def plain_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Attention as two products: on a CPU in bfloat16 twice as fast as the fused one."""
    weights = scaling * query @ key.mT
    if query.shape[2] != (SIDE // PATCH) ** 2 + 1:  # texts read from the left to the right
        weights = weights + torch.full(weights.shape[-2:], -1e4).triu(1)
    return (weights.softmax(-1).to(value.dtype) @ value).transpose(1, 2), None


@torch.no_grad()
def begin_with_patches(network: Any, drawings: list[Drawing]) -> None:
    """Begin with the patches' principal components, and with waves for where they are."""
    pixels = np.stack([np.asarray(drawing.picture) for drawing in drawings[::4]])
    pieces = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    patches = functional.unfold(pieces, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    values, axes = torch.linalg.eigh(torch.cov(patches.T))
    width = VISION["hidden_size"]
    scaled = (axes / values.clamp_min(1e-4).sqrt()).T.flip(0)[:width]
    embeddings = network.clip.vision_model.embeddings
    embeddings.patch_embedding.weight.copy_(scaled.view_as(embeddings.patch_embedding.weight))
    embeddings.position_embedding.weight[1:] = 0.5 * waves(SIDE // PATCH, width)


def waves(side: int, width: int) -> Tensor:
    rates = 10 ** (-2 * torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], 1)
    return torch.cat([line.repeat_interleave(side, 0), line.repeat(side, 1)], 1)


def kept_drawings(run_folder: Path, count: int) -> list[Drawing]:
    """The pictures to learn from, made once: each is kept in the size that the network sees."""
    file = run_folder / "drawings.pt"
    if not file.exists():
        run_folder.mkdir(parents=True, exist_ok=True)
        made = made_drawings(random.Random(SEED), count)
        pixels = np.stack([np.asarray(drawing.picture) for drawing in made])
        labels = np.stack([drawing.labels for drawing in made])
        colours = [drawing.colours for drawing in made]
        kept = {"pixels": torch.from_numpy(pixels), "labels": torch.from_numpy(labels)}
        save_whole(kept | {"colours": colours}, file)
    kept = torch.load(file, weights_only=True)
    each = zip(kept["pixels"].numpy(), kept["labels"].numpy(), kept["colours"], strict=True)
    return [Drawing(Image.fromarray(pixels), labels, colours) for pixels, labels, colours in each]


def made_drawings(rng: random.Random, count: int) -> list[Drawing]:
    """Drawings as the autoencoder and the demo model give them back."""
    vae = AutoencoderKL.from_pretrained(DEMO / "vae")
    made = [as_coded(one_drawing(rng), vae) for _ in range(count // 2)]
    made += redrawn([random_drawing(rng, (SIDE, SIDE)) for _ in range(count // 2)], rng)
    return [Drawing(as_seen(drawing.picture), drawing.labels, drawing.colours) for drawing in made]


def one_drawing(rng: random.Random) -> Drawing:
    """A crowd or a scene, in any size."""
    size = rng.choice(SIZES)
    return drawn_crowd(rng, size) if rng.random() < CROWD_SHARE else random_drawing(rng, size)[0]


def as_seen(picture: Image.Image) -> Image.Image:
    """The picture stretched as the processor does it."""
    return picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


@torch.no_grad()
def as_coded(drawing: Drawing, vae: Any) -> Drawing:
    """The drawing as the autoencoder gives it back from latents that are a little off."""
    pixels = torch.from_numpy(np.array(drawing.picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    latents = vae.encode(pixels).latent_dist.mean
    latents = latents + 0.1 * torch.rand(1) * latents.std() * torch.randn_like(latents)
    levels = (vae.decode(latents).sample[0].clamp(-1, 1) + 1) * 127.5
    picture = Image.fromarray(levels.byte().permute(1, 2, 0).numpy())
    return Drawing(picture, drawing.labels, drawing.colours)


def redrawn(drawn: list[tuple[Drawing, Scene]], rng: random.Random) -> list[Drawing]:
    """What the demo model draws from drawings and their captions."""
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(
        DEMO, dtype=torch.float32, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    made: list[Drawing] = []
    for first in range(0, len(drawn), DRAWN_TOGETHER):
        some = drawn[first : first + DRAWN_TOGETHER]
        pictures = pipeline(
            prompt=[caption(scene, rng) for _, scene in some],
            image=[drawing.picture for drawing, _ in some],
            strength=rng.choice(STRENGTHS),
            num_inference_steps=12,
            guidance_scale=4.0,
        ).images
        made += [
            Drawing(picture, drawing.labels, drawing.colours)
            for picture, (drawing, _) in zip(pictures, some, strict=True)
        ]
    return made


def examples_of(
    step: int, drawings: list[Drawing], tokenizer: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step's pictures, the tokens of their phrases, the masks, and each pixel's layer."""
    torch.manual_seed(SEED + step)
    rng = random.Random(f"find {SEED} {step}")
    pixels, phrases, masks, layers = [], [], [], []
    fresh = [one_drawing(rng) for _ in range(FRESH)]
    fresh = [Drawing(as_seen(sample.picture), sample.labels, sample.colours) for sample in fresh]
    for drawing in fresh + rng.sample(drawings, BATCH - FRESH):
        turned = rng.random() < 0.5
        picture = torch.from_numpy(np.array(drawing.picture)).permute(2, 0, 1).float() / 127.5 - 1
        pixels.append(picture.flip(-1) if turned else picture)
        labels = torch.from_numpy(drawing.labels[::2, ::2].astype(np.int64))
        layers.append(labels.flip(-1) if turned else labels)
        for phrase, mask in phrases_for(drawing, rng, PHRASES):
            phrases.append(phrase)
            masks.append(np.ascontiguousarray(mask[:, ::-1]) if turned else mask)
    tokens = tokenizer(phrases, padding=True, truncation=True, return_tensors="pt").input_ids
    return (
        disturbed(torch.stack(pixels)),
        tokens,
        torch.from_numpy(np.stack(masks)),
        torch.stack(layers),
    )


def disturbed(pixels: Tensor) -> Tensor:
    gain = 1 + 0.08 * torch.randn(len(pixels), 3, 1, 1)
    shift = 0.06 * torch.randn(len(pixels), 3, 1, 1)
    noise = 0.04 * torch.rand(len(pixels), 1, 1, 1) * torch.randn_like(pixels)
    return (gain * pixels + shift + noise).clamp(-1, 1)


def losses_of(
    network: Probed, pixels: Tensor, tokens: Tensor, masks: Tensor, layers: Tensor
) -> dict[str, Tensor]:
    """The cross entropy of each pixel, and what the masks lack in common with the true ones."""
    with autocast(pixels.device):
        hidden = seen(network.finder, pixels)
        logits = found(network.finder, hidden, tokens).float()
        probed = network.probe(hidden[:, 1:]).float()
    share = torch.sigmoid(logits)
    common = 2 * (share * masks).sum((1, 2)) + 1
    dice = 1 - common / (share.sum((1, 2)) + masks.sum((1, 2)) + 1)
    there = masks.amax((1, 2)) > 0
    # A thing is what is above half of its surest pixel, so a few sure pixels elsewhere spoil it.
    near = functional.max_pool2d(masks[:, None], 2 * EDGE + 1, 1, EDGE)[:, 0] > 0
    elsewhere = logits.masked_fill(near, -20).flatten(1).topk(SUREST).values
    each = torch.ones(len(LAYERS))
    each[0] = BACKGROUND_WEIGHT
    return {
        "probe": functional.cross_entropy(probed.view(-1, len(LAYERS)), in_patches(layers), each),
        "entropy": 2 * functional.binary_cross_entropy_with_logits(logits, masks),
        "dice": 0.5 * dice[there].mean(),
        "elsewhere": 0.3 * functional.softplus(elsewhere[there]).mean(),
        "absent": 0.15 * functional.softplus(elsewhere[~there]).mean(),
    }


def in_patches(layers: Tensor) -> Tensor:
    """The pixels' layers in the order in which the probe says them."""
    side = SIDE // PATCH
    return layers.view(-1, side, PATCH, side, PATCH).transpose(2, 3).flatten()


def seen(network: Any, pixels: Tensor) -> Tensor:
    """What the network sees, with gradients, which its own `forward` leaves out."""
    vision = network.clip.vision_model
    hidden: Tensor = vision.pre_layrnorm(vision.embeddings(pixels))
    for layer in vision.encoder.layers:
        hidden = layer(hidden, None)
    return hidden


def found(network: Any, hidden: Tensor, tokens: Tensor) -> Tensor:
    """The masks as `forward` gives them; all phrases of a picture share what is seen."""
    texts = network.clip.get_text_features(tokens).pooler_output
    decoder = network.decoder
    reduced = decoder.reduces[0](hidden).repeat_interleave(len(tokens) // len(hidden), 0)
    asked = decoder.film_mul(texts)[:, None] * reduced + decoder.film_add(texts)[:, None]
    squares = decoder.layers[0](asked, attention_mask=None)[:, 1:]
    # A transposed convolution whose stride is its kernel's size: a matrix, which is faster here.
    up = decoder.transposed_convolution
    side = SIDE // PATCH
    pieces: Tensor = (squares @ up.weight.flatten(1) + up.bias).view(-1, side, side, PATCH, PATCH)
    return pieces.transpose(2, 3).reshape(-1, SIDE, SIDE)


def write(network: Any, tokenizer: Any, folder: Path) -> None:
    """Write the folder as transformers reads it, in half precision."""
    network.eval().half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    size = {"height": SIDE, "width": SIDE}
    transformers.ViTImageProcessorPil(size=size, image_mean=half, image_std=half).save_pretrained(
        folder
    )
    words = sorted({part for words in WORDS.values() for word in words for part in word.split()})
    known = {"subjects": list(WORDS), "words": words}
    (folder / "known_words.json").write_text(json.dumps(known, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
