"""Private names of torch and diffusers, each with the reason why no public name does the same.

Each was checked with the version in brackets. tests/engine/test_private.py, or a test that it
names, fails where a library changes a name or its meaning, and tests/test_architecture.py where a
name is used elsewhere.
"""

from collections.abc import Callable, Collection, Mapping
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading
from diffusers.models.transformers import transformer_cosmos
from torch.utils import _pytree

# Arguments of diffusers' models are nested; torch has no public functions for that (torch 2.13).
pytree = _pytree

# Lets group offloading take a changed module's weights, of which it has copies. diffusers does this
# only after changes of its own (diffusers 0.42).
renew_group_offloading = _maybe_remove_and_reapply_group_offloading

# Returns where a pipeline computes: with offloading, `device` is "cpu" (diffusers 0.42).
execution_device: Callable[[Any], torch.device] = attrgetter("_execution_device")

# Returns the parts that a pipeline's loader of LoRAs takes; it has no public list (0.42).
parts_for_loras: Callable[[Any], Collection[str]] = attrgetter("_lora_loadable_modules")

# FLUX.1 Kontext's argument for whether references get a size of its own; the pipeline documents
# it under this name (diffusers 0.42).
AUTO_RESIZE = "_auto_resize"


def computes_bfloat16() -> bool:
    """Return whether the CPU has instructions for bfloat16; otherwise it is slower than float32."""
    # No public function tells; older torch lacks this, too (torch 2.13).
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return probe is not None and bool(probe())


def allow_recompiling(limit: int) -> None:
    """Let a compiled function have so many forms; torch 2.6 has no public name (torch 2.13)."""
    torch._dynamo.config.recompile_limit = limit


def kept_in_float32(kind: Any) -> Collection[str]:
    """Return the layers that only `from_pretrained` keeps in float32 (0.42, transformers 5.23)."""
    return kind._keep_in_fp32_modules or ()


def rename_old_keys(model: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Rename old keys of a VAE's attention, as only `from_pretrained` does (diffusers 0.42)."""
    model._fix_state_dict_keys_on_load(tensors)


def renewing_offloading(pipeline: Any) -> dict[str, Any]:
    """Return the argument for which the loaders of LoRAs for a part renew its offloading."""
    # The public `load_lora_weights` passes it, but reads the file for all parts (diffusers 0.42).
    return {"_pipeline": pipeline}


def without_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's values that its file names; `config` has all (diffusers 0.42)."""
    defaults = config.get("_use_default_values", ())
    return {key: config[key] for key in config if key not in {*defaults, "_use_default_values"}}


def replace_beta_levels(scheduler: Any, levels: Callable[..., Any]) -> None:
    """Let a scheduler with `use_beta_sigmas` call `levels(in_sigmas, num_inference_steps)`."""
    # diffusers has no place for levels of others, and its own need scipy (diffusers 0.42).
    scheduler._convert_to_beta = levels


def begin_steps(scheduler: Any, timestep: torch.Tensor) -> None:
    """Set a scheduler's step for a subclass with another `step`, which has to (diffusers 0.42)."""
    scheduler._init_step_index(timestep)


def count_step(scheduler: Any) -> None:
    """Count a step; the public `step_index` is read-only (diffusers 0.42)."""
    scheduler._step_index += 1


def pad_without_torchvision() -> None:
    """Let Cosmos scale the mask of its padding without torchvision, from which it takes a function.

    Nearest neighbours are torch's own; it has no other way without the library (diffusers 0.42).
    """
    scale = torch.nn.functional.interpolate
    if not hasattr(transformer_cosmos, "transforms"):
        vars(transformer_cosmos)["transforms"] = SimpleNamespace(
            functional=SimpleNamespace(
                resize=lambda mask, size, interpolation: scale(mask, size, mode=interpolation)
            ),
            InterpolationMode=SimpleNamespace(NEAREST="nearest"),
        )


def lumina2_embeds(pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
    """Encode a prompt as it is; Lumina 2's `encode_prompt` adds a preamble (diffusers 0.42)."""
    embeds, mask = pipeline._get_gemma_prompt_embeds(prompt)
    return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


def forget_hooked_forward(module: Any) -> None:
    """Remove accelerate's `forward` for cache-dit, which calls the hook itself.

    It would take the `forward` below the hook, and not what it has put in its place for Chroma
    (accelerate 1.15, cache-dit 1.5). tests/engine/test_step_cache.py fails without this.
    """
    for name in ("forward", "_old_forward"):
        vars(module).pop(name, None)


def set_guidance_scale(pipeline: Any, scale: float) -> None:
    """Change the guidance between steps, as diffusers documents it with this name (0.42)."""
    # https://huggingface.co/docs/diffusers/using-diffusers/callback
    pipeline._guidance_scale = scale


def ideogram4_embeds(pipeline: Any, prompt: str) -> torch.Tensor:
    """Return what Ideogram 4 reads of a prompt, without padding.

    It reads layers that no output of the encoder has. Its `encode_prompt` fails where the encoder's
    layers come to a card in turn, and reads on the CPU where whole parts do (diffusers 0.42).
    """
    encoder, words, device = pipeline.text_encoder, pipeline.tokenizer, execution_device(pipeline)
    if hook := getattr(encoder, "_hf_hook", None):  # accelerate's, for calls of the whole encoder
        hook.pre_forward(encoder)
    talk = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
    text = words.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    ids = words(text, return_tensors="pt", add_special_tokens=False)["input_ids"].to(device)
    places = torch.arange(ids.shape[1], device=device)[None]
    read = pipeline._get_text_encoder_hidden_states
    with torch.no_grad():
        layers = read(encoder, ids, torch.ones_like(ids), places)
    return torch.stack(layers, dim=-1).flatten(2)


def ideogram4_inputs(
    pipeline: Any, texts: torch.Tensor, rows: int, columns: int
) -> list[torch.Tensor]:
    """Return what Ideogram 4's `encode_prompt` returns for encoded texts of the same length.

    It takes no embeddings, and places are counted by this method only (diffusers 0.42).
    """
    count, tokens, width = texts.shape
    places = pipeline._prepare_ids([tokens] * count, rows, columns, tokens, texts.device)
    return [torch.cat([texts, texts.new_zeros(count, rows * columns, width)], dim=1), *places]
