"""FLUX.2 dev and klein."""

from dataclasses import replace
from typing import Any

from picowatch.families import row

_KV = "Flux2KleinKVPipeline"


def _reads(width: int) -> str:
    """Return the sign of a transformer that reads texts of this width."""
    return f"txt_in.weight:{width} | context_embedder.weight:{width}"


def _klein(size: str, steps: int, base: str = "", **more: Any) -> row.Variant:
    """Return FLUX.2 klein of a size, "" for unpublished sizes, or the `base` it was made from."""
    width = {"4B": 7680, "9B": 12288}.get(size, 0)  # of the texts
    config: dict[str, Any] = {"transformer/joint_attention_dim": width} if size else {}
    if size:
        more |= {"hub": f"black-forest-labs/FLUX.2-klein-{base and 'base-'}{size}"}
        more |= {"encoders": {"text_encoder": "Qwen3 4B" if size == "4B" else "Qwen3 8B"}}
    if base:
        more |= {"like": f"klein {size}".strip(), "word": base}
    else:
        config["is_distilled"] = True
        more |= {"sign": _reads(width) if size else "", "guided": False}
    more |= {"references": row.LOOKS_AT_TEN, "most_start_pixels": 1024 * 1024}
    return row.flow_variant(steps, starts=row.NOISE, config=config, **more)


_BLOCKS: row.Blocks = {
    ("double_blocks", "transformer_blocks"): f"""
        {row.DOUBLE} img_mlp_0=ff_linear_in img_mlp_2=ff_linear_out
        txt_mlp_0=ff_context_linear_in txt_mlp_2=ff_context_linear_out
    """,
    ("single_blocks", "single_transformer_blocks"): """
        linear1=attn_to_qkv_mlp_proj linear2=attn_to_out
    """,
    row.OUTSIDE: f"""
        {row.AROUND_BLOCKS} final_layer_adaLN_modulation_1=norm_out_linear
        single_stream_modulation_lin=single_stream_modulation_linear
        double_stream_modulation_img_lin=double_stream_modulation_img_linear
        double_stream_modulation_txt_lin=double_stream_modulation_txt_linear
        time_in_in_layer=time_guidance_embed_timestep_embedder_linear_1
        time_in_out_layer=time_guidance_embed_timestep_embedder_linear_2
        guidance_in_in_layer=time_guidance_embed_guidance_embedder_linear_1
        guidance_in_out_layer=time_guidance_embed_guidance_embedder_linear_2
    """,
}

# FLUX.2 dev: Mistral 3 reads the prompt; the transformer is twice as wide as klein 4B's.
FLUX2_DEV = row.Family(
    key="flux2_dev",
    name="FLUX.2 dev",
    pipelines=row.Pipelines(text="Flux2Pipeline", edit="Flux2Pipeline"),
    guidance=row.GUIDANCE,
    lacks=row.FLOW_LACKS | row.BY_GUIDANCE | row.ONLY_EDITS | row.NO_NEGATIVE,
    variants={
        "": row.flow_variant(50, guidance=4, references=row.LOOKS_AT_TEN, sign=_reads(15360))
    },
    hub="black-forest-labs/FLUX.2-dev",
    texts=row.Reading(count="flux2_dev"),
    encoder_layers=31,  # of 40
    # Its tokenizer/ has a whole processor, of which only the tokenizer is loaded.
    parts=row.parts_of(
        "Flux2Transformer2DModel",
        row.KL_FLUX2,
        ("Mistral3ForConditionalGeneration", ("PixtralProcessor", *row.ANY_WORDS)),
    ),
    signs=("single_stream_modulation.",),
    vaes=(row.FLUX2_VAE,),
    lora_blocks=_BLOCKS,
    lora_sides=(6144,),
    lora_marks=("flux2-dev", "flux2_dev", "flux.2-dev", "flux-2-dev"),
)

# FLUX.2 klein: Qwen3 reads the prompt, and the transformer sees start images.
FLUX2 = row.Family(
    key="flux2",
    name="FLUX.2",
    pipelines=row.Pipelines(
        text="Flux2KleinPipeline", mask="Flux2KleinInpaintPipeline", edit="Flux2KleinPipeline"
    ),
    lacks=row.LACKS | {"hires": "diffusers has no second pass for it"},
    variants={
        # It keeps what the first step made of the references.
        "klein KV": replace(
            _klein("9B", 4),
            lacks=row.ONLY_EDITS | {"cfg_scale": "its pipeline has no guidance"},
            pipelines=row.Pipelines(text="Flux2KleinPipeline", edit=_KV),
            hub="black-forest-labs/FLUX.2-klein-9b-kv",
            configs="klein 9B",
            sign="",
            config={"_class_name": _KV},
            like="klein 9B",
            word="-kv",
        ),
        "klein 4B": _klein("4B", 4),
        "klein 9B": _klein("9B", 4),
        "klein": _klein("", 4),
        "klein base 4B": _klein("4B", 50, "base", cfg_scale=4),
        "klein base 9B": _klein("9B", 50, "base", cfg_scale=4, configs="klein 9B"),
        "klein base": _klein("", 50, "base", cfg_scale=4),
    },
    hub="black-forest-labs/FLUX.2-klein-4B",
    texts=row.Reading(reads={"tokenizer": 512 - 3}),  # the chat template begins with three tokens
    encoder_layers=28,  # of 36
    more_folders=(_KV,),
    parts=row.parts_of(
        "Flux2Transformer2DModel", row.KL_FLUX2, ("Qwen3ForCausalLM", row.QWEN_WORDS)
    ),
    signs=("single_stream_modulation.",),
    vaes=(row.FLUX2_VAE,),
    vae_assets="flux2",
    vae_file="a VAE with 32 latent channels (such as flux2-vae.safetensors)",
    lora_blocks=_BLOCKS,
    lora_sides=(4096, 27648),  # klein 4B's are FLUX.1's, except for what its single blocks give
    lora_marks=("flux2", "flux.2", "flux-2"),
)
