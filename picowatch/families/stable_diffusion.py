"""Stable Diffusion 1.x, 2.x, XL and 3.x, and the embedded model."""

from dataclasses import replace

from picowatch.families import row

# A Stable Diffusion with a UNet; the values are those of 1.x.
_UNET = row.Family(
    key="",
    name="",
    kind="unet",
    pipelines=row.Pipelines(text="StableDiffusionPipeline"),
    size_multiple=8,
    samplers=(),
    lacks=row.NO_GUIDANCE | {"step_cache": "it reuses blocks of transformers"},
    variants={"": row.Variant(options=row.NO_CHECKER)},
    more_folders=("LatentConsistencyModelPipeline",),
    texts=row.Reading(towers={"text_encoder": {}}),
    parts=row.unet_parts(row.CLIP),
    vaes=(row.SD_VAE,),
)

DEMO_MODEL = replace(
    _UNET,
    key=row.DEMO,
    name="the demo model",
    native_size=512,
    # With more, samplers that use earlier steps or add noise overshoot (assets/demo/README.md).
    variants={"": row.Variant(defaults={"cfg_scale": 4.0}, options=row.NO_CHECKER)},
    text_width=96,
)

SDXL = replace(
    _UNET,
    key="sdxl",
    name="Stable Diffusion XL",
    pipelines=row.Pipelines(text="StableDiffusionXLPipeline"),
    native_size=1024,
    # https://arxiv.org/abs/2307.01952: both are read at their last layer but one, without its norm.
    # Empty negative prompts are zeros, as in A1111 and in diffusers without a negative prompt.
    texts=row.Reading(
        towers={
            "text_encoder": {"least_skip": 2, "normed": False},
            "text_encoder_2": {"key": "clip_g", "padding": 0, "least_skip": 2, "normed": False},
        },
        zeros=True,
    ),
    more_folders=(),
    # If a library for it is installed, diffusers would add a watermark to pictures.
    variants={"": row.Variant(options={"add_watermarker": False})},
    parts=row.unet_parts(row.CLIP, row.PROJECTED),
    text_width=2048,
    text_layers=12,
    text_prefixes=("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
    lora_marks=("sdxl", "stable-diffusion-xl"),
)

SD1 = replace(
    _UNET,
    key="sd1",
    name="Stable Diffusion 1.x",
    native_size=512,
    text_width=768,
    text_layers=12,
    text_prefixes=("cond_stage_model.transformer.",),
    lora_marks=("sd_v1", "stable-diffusion-v1", "sd-v1"),
)

SD2 = replace(
    _UNET,
    key="sd2",
    name="Stable Diffusion 2.x",
    native_size=768,
    # OpenCLIP ViT-H, read at its last layer but one, with the final norm: diffusers' folders leave
    # the last layer out, so that this is the last one of 23. OpenCLIP pads with the token 0, "!".
    texts=row.Reading(towers={"text_encoder": {"padding": 0}}),
    text_width=1024,
    text_layers=23,  # those of OpenCLIP H without the last, which training did not use
    text_prefixes=("cond_stage_model.model.", "conditioner.embedders.0.model."),
    lora_marks=("sd_v2", "stable-diffusion-v2"),
)


def _positions(side: int) -> str:
    """Return the sign of a table of positions: the patches of a square picture's latents."""
    return f"pos_embed@{side**2} | pos_embed.pos_embed@{side**2}"


# https://arxiv.org/abs/2403.03206: two CLIPs and T5 read the prompt.
SD3 = row.Family(
    key="sd3",
    name="Stable Diffusion 3.x",
    pipelines=row.all_three("StableDiffusion3"),
    lacks=row.LACKS,
    variants={
        "3.5 Large": row.flow_variant(
            *(28, 3.5),
            largest=3072,
            hub="stabilityai/stable-diffusion-3.5-large",
            sign="joint_blocks.37. | transformer_blocks.37.",
            config={"transformer/num_layers": 38},
        ),
        "3.5 Large Turbo": row.flow_variant(
            4, guided=False, largest=3072, configs="3.5 Large", like="3.5 Large", word="turbo"
        ),
        "3.5 Medium": row.flow_variant(
            *(40, 4.5), sign=_positions(384), config={"transformer/pos_embed_max_size": 384}
        ),
        # Sides of the table of positions: 192 patches of 16 pixels.
        "3 Medium": row.flow_variant(28, 7, largest=3072, sign=_positions(192)),
    },
    hub="stabilityai/stable-diffusion-3.5-medium",
    parts=row.parts_of("SD3Transformer2DModel", row.KL, row.PROJECTED, row.PROJECTED, row.T5),
    texts=row.Reading(  # T5 reads further than CLIP; many omit it, since it is the largest part
        options={"prompt_2": None, "prompt_3": None, **row.ALONE},
        results=("prompt_embeds", "", "pooled_prompt_embeds"),
        reads={"tokenizer_3": 256, "tokenizer": 77},
    ),
    optional=("text_encoder_3", "tokenizer_3"),
    signs=("joint_blocks.", "pos_embed.pos_embed"),
    encoders={"text_encoder": "CLIP L", "text_encoder_2": "CLIP G", "text_encoder_3": "T5 XXL"},
    vaes=(row.SIXTEEN, row.SD3_VAE),
    vae_assets="sd3",
    vae_file="a VAE of Stable Diffusion 3 with sd3 in its name (such as sd3_vae.safetensors)",
    alike=True,
    lora_blocks={
        ("joint_blocks", "transformer_blocks"): f"""
            x_block_attn_qkv={row.QKV} x_block_attn2_qkv={row.QKV.replace("attn", "attn2")}
            context_block_attn_qkv={row.ADDED_QKV} x_block_attn_proj=attn_to_out_0
            x_block_attn2_proj=attn2_to_out_0 context_block_attn_proj=attn_to_add_out
            x_block_adaLN_modulation_1=norm1_linear
            context_block_adaLN_modulation_1=norm1_context_linear
            x_block_mlp_fc1=ff_net_0_proj x_block_mlp_fc2=ff_net_2
            context_block_mlp_fc1=ff_context_net_0_proj context_block_mlp_fc2=ff_context_net_2
        """,
        row.OUTSIDE: """
            context_embedder x_embedder_proj=pos_embed_proj final_layer_linear=proj_out
            final_layer_adaLN_modulation_1=norm_out_linear
            t_embedder_mlp_0=time_text_embed_timestep_embedder_linear_1
            t_embedder_mlp_2=time_text_embed_timestep_embedder_linear_2
            y_embedder_mlp_0=time_text_embed_text_embedder_linear_1
            y_embedder_mlp_2=time_text_embed_text_embedder_linear_2
        """,
    },
    lora_sides=(1536, 2432),
    lora_marks=("sd3", "stable-diffusion-3"),
)
