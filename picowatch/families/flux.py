"""FLUX.1, Chroma, which was made from it, FLUX.2 and FLUX.3."""

from dataclasses import replace
from typing import Any

from picowatch.families import row

_DOUBLE = f"""
    {row.DOUBLE} img_mlp_0=ff_net_0_proj img_mlp_2=ff_net_2
    txt_mlp_0=ff_context_net_0_proj txt_mlp_2=ff_context_net_2
"""
_SINGLE = f"""
    linear1={row.QKV},proj_mlp processor_qkv={row.QKV} linear2=proj_out processor_proj=proj_out
"""


def _sign(theirs: str, ours: str, inputs: int) -> str:
    """Return the sign of what a FLUX.1 embeds, and of the width of the image's latents."""
    return f"{theirs} img_in.weight:{inputs} | time_text_embed.{ours} x_embedder.weight:{inputs}"


# https://huggingface.co/lodestones/Chroma: FLUX.1 schnell with T5 alone, and guidance.
CHROMA = row.Family(
    key="chroma",
    name="Chroma",
    pipelines=row.all_three("Chroma"),
    lacks=row.LACKS,
    variants={"": row.flow_variant(40, 3)},
    hub="lodestones/Chroma1-HD",
    texts=row.Reading(options=row.ALONE, results=("prompt_embeds", "", "prompt_attention_mask")),
    parts=row.parts_of("ChromaTransformer2DModel", row.KL, row.T5),
    signs=("distilled_guidance_layer.",),
    encoders={"text_encoder": "T5 XXL"},
    vaes=row.FLUX_VAES,
    # A network computes what FLUX.1's modulations do.
    lora_blocks={
        ("double_blocks", "transformer_blocks"): _DOUBLE,
        ("single_blocks", "single_transformer_blocks"): _SINGLE,
        ("distilled_guidance_layer_layers",) * 2: "in_layer=linear_1 out_layer=linear_2",
        row.OUTSIDE: f"""
            {row.AROUND_BLOCKS} distilled_guidance_layer_in_proj distilled_guidance_layer_out_proj
        """,
    },
    lora_sides=(5120,),  # of what guides it: other layers are FLUX.1's
    lora_marks=("chroma",),
)

# CLIP's pooled text and T5 read the prompt; dev was trained with guidance as an input.
FLUX = row.Family(
    key="flux",
    name="FLUX.1",
    pipelines=row.all_three("Flux"),
    guidance={**row.GUIDANCE, **row.TRUE_CFG_SCALE},
    lacks=row.FLOW_LACKS,
    variants={
        # Krea and Kontext look like dev, which has what embeds guidance, too.
        "dev": row.flow_variant(
            28,
            guidance=3.5,
            hub="black-forest-labs/FLUX.1-dev",
            sign=_sign("guidance_in.", "guidance_embedder.", 64),
            config={"transformer/guidance_embeds": True},
        ),
        "Krea": row.flow_variant(28, guidance=4.5, like="dev", word="krea"),
        "schnell": row.flow_variant(
            4,
            guided=False,
            lacks=row.NO_GUIDANCE,
            tokens=256,  # half as many as dev (its model card)
            sign=_sign("vector_in.", "text_embedder.", 64),
        ),
        "Fill": row.flow_variant(
            50,
            guidance=30,
            lacks={"cfg_scale": "Fill follows the prompt by guidance alone"},
            fills=True,
            starts=row.NOISE,
            hub="black-forest-labs/FLUX.1-Fill-dev",
            pipelines=row.Pipelines(text="FluxFillPipeline", mask="FluxFillPipeline"),
            sign=_sign("guidance_in.", "guidance_embedder.", 384),
        ),
        "Kontext": row.flow_variant(
            28,
            guidance=2.5,
            lacks=row.ONLY_EDITS,
            references=row.References(most=1, required=True),
            configs="dev",
            hub="black-forest-labs/FLUX.1-Kontext-dev",
            pipelines=row.Pipelines(text="FluxKontextPipeline", edit="FluxKontextPipeline"),
            like="dev",
            word="kontext",
            config={},
        ),
    },
    hub="black-forest-labs/FLUX.1-schnell",
    texts=row.Reading(  # CLIP gives only the pooled output, from the first 77 tokens
        options={"max_sequence_length": 512},
        results=("prompt_embeds", "pooled_prompt_embeds"),
        reads={"tokenizer_2": 512},
    ),
    parts=row.parts_of("FluxTransformer2DModel", row.KL, row.CLIP, row.T5),
    signs=("double_blocks.0.img_attn.", "single_transformer_blocks.0.proj_mlp."),
    encoders={"text_encoder": "CLIP L", "text_encoder_2": "T5 XXL"},
    vaes=row.FLUX_VAES,
    vae_assets="flux",
    vae_file=row.FLUX_VAE_FILE,
    alike=True,
    lora_blocks={
        ("double_blocks", "transformer_blocks"): f"""
            {_DOUBLE} img_mod_lin=norm1_linear txt_mod_lin=norm1_context_linear
        """,
        ("single_blocks", "single_transformer_blocks"): f"{_SINGLE} modulation_lin=norm_linear",
        row.OUTSIDE: f"""
            {row.AROUND_BLOCKS} final_layer_adaLN_modulation_1=norm_out_linear
            time_in_in_layer=time_text_embed_timestep_embedder_linear_1
            time_in_out_layer=time_text_embed_timestep_embedder_linear_2
            guidance_in_in_layer=time_text_embed_guidance_embedder_linear_1
            guidance_in_out_layer=time_text_embed_guidance_embedder_linear_2
            vector_in_in_layer=time_text_embed_text_embedder_linear_1
            vector_in_out_layer=time_text_embed_text_embedder_linear_2
        """,
    },
    lora_sides=(3072,),
    lora_marks=("flux",),
)

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


_FLUX2_BLOCKS: row.Blocks = {
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
    lora_blocks=_FLUX2_BLOCKS,
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
    lora_blocks=_FLUX2_BLOCKS,
    lora_sides=(4096, 27648),  # klein 4B's are FLUX.1's, except for what its single blocks give
    lora_marks=("flux2", "flux.2", "flux-2"),
)

_DISTILLED = "Flux3DistilledModularPipeline"

_FLUX3_LAYERS = f"""
    qkv={row.QKV} q_proj=attn_to_q k_proj=attn_to_k v_proj=attn_to_v attn_out=attn_to_out_0
    mlp_in=ff_linear_in mlp_out=ff_linear_out
"""
# Qwen3-VL reads the prompt, and the transformer takes eight of its layers and the references.
FLUX3 = row.Family(
    key="flux3",
    name="FLUX.3",
    pipelines=row.Pipelines(text="Flux3ModularPipeline", edit="Flux3ModularPipeline"),
    guidance=row.GUIDER,
    lacks=row.GUIDER_LACKS | row.ONLY_EDITS | row.NO_CACHE,
    variants={
        # It was distilled to jump from one noise level to the next.
        "klein": row.flow_variant(
            16,
            guided=False,
            lacks=dict.fromkeys(("cfg_scale", *row.OF_GUIDER), "it draws without guidance"),
            references=row.LOOKS_AT_TEN,
            samplers=("Euler",),
            pipelines=row.Pipelines(text=_DISTILLED, edit=_DISTILLED),
            sign="ref_time_in. | target_timestep_embedder.",
            config={"transformer/flow_map": True},
        ),
        "klein base": row.flow_variant(
            50,
            4,
            references=row.LOOKS_AT_TEN,
            hub="black-forest-labs/flux-3-image-klein-base",
            config={},
        ),
    },
    hub="black-forest-labs/flux-3-image-klein",
    # The chat template has eight tokens.
    texts=row.Reading(encode="blocks", reads={"tokenizer": 8192 - 8}, count="processor"),
    encoder_layers=33,  # of 36
    parts=row.parts_of(
        "Flux3Transformer2DModel",
        row.KL_FLUX2,
        ("Qwen3VLForConditionalGeneration", ("Qwen3VLProcessor", *row.QWEN_WORDS)),
    ),
    optional=("scheduler",),  # its folders have none, because its pipeline has its own
    signs=("early_stream_modulations.image.",),
    vaes=(row.FLUX2_VAE,),
    lora_blocks={
        ("content_mode_blocks_image", "mode_blocks_image"): _FLUX3_LAYERS,
        ("content_mode_blocks_image_cond", "mode_blocks_image_cond"): _FLUX3_LAYERS,
        ("txt_mode_blocks", "txt_mode_blocks"): _FLUX3_LAYERS,
        ("single_blocks", "single_transformer_blocks"): _FLUX3_LAYERS,
        row.OUTSIDE: """
            emb_in_image=x_embedders_image emb_in_image_cond=x_embedders_image_cond
            txt_in=context_embedder final_layer_image_linear=proj_out
            final_layer_image_adaLN_modulation_1=norm_out_linear
            time_in_in_layer=timestep_embedder_linear_1 time_in_out_layer=timestep_embedder_linear_2
            ref_time_in_in_layer=target_timestep_embedder_linear_1
            ref_time_in_out_layer=target_timestep_embedder_linear_2
        """
        + " ".join(
            f"{stream}_stream_modulations_{mode}_lin={stream}_stream_modulations_{mode}_linear"
            for stream in ("early", "single")
            for mode in ("image", "image_cond", "txt")
        ),
    },
    lora_sides=(3072,),
    lora_marks=("flux3", "flux.3", "flux-3"),
)
