"""Anima, Ideogram 4, LongCat-Image, Ovis-Image, Lumina 2, and Z-Image with its architecture."""

from picowatch.families import row

# Qwen3 reads the prompt. `text_conditioner` maps what it makes of it, by the ids of T5's
# vocabulary, to the texts that Cosmos was trained with.
ANIMA = row.Family(
    key="anima",
    name="Anima",
    pipelines=row.Pipelines(text="AnimaModularPipeline", image="AnimaModularPipeline"),
    guidance=row.GUIDER,
    lacks=row.GUIDER_LACKS | {"mask": "its pipeline has none"},
    variants={
        # All look alike. Its card has 30 to 50 steps and 4 to 5.
        "Turbo": row.flow_variant(10, guided=False, like="", word="turbo"),
        "Aesthetic": row.flow_variant(50, 4, like="", word="aesthetic"),
        "": row.flow_variant(50, 4),
    },
    hub="circlestone-labs/Anima-Base-v1.0-Diffusers",
    # T5's ids count as much as what Qwen3 makes of the prompt, and are more.
    texts=row.Reading(encode="blocks", reads={"t5_tokenizer": 512}),
    parts={
        **row.parts_of("CosmosTransformer3DModel", row.KL_QWEN, ("Qwen3Model", row.QWEN_WORDS)),
        "t5_tokenizer": row.T5_WORDS,
        "text_conditioner": ("AnimaTextConditioner",),
    },
    signs=("llm_adapter.",),
    encoders={"text_encoder": "Qwen3 0.6B"},
    vaes=(row.QWEN_VAE,),
    vae_assets="anima",
    vae_file="Qwen-Image's VAE (qwen_image_vae.safetensors)",
    alike=True,
    lora_blocks={
        ("blocks", "transformer_blocks"): """
            self_attn_q_proj=attn1_to_q self_attn_k_proj=attn1_to_k self_attn_v_proj=attn1_to_v
            self_attn_output_proj=attn1_to_out_0 cross_attn_q_proj=attn2_to_q
            cross_attn_k_proj=attn2_to_k cross_attn_v_proj=attn2_to_v
            cross_attn_output_proj=attn2_to_out_0 mlp_layer1=ff_net_0_proj mlp_layer2=ff_net_2
            adaln_modulation_self_attn_1=norm1_linear_1 adaln_modulation_self_attn_2=norm1_linear_2
            adaln_modulation_cross_attn_1=norm2_linear_1 adaln_modulation_mlp_1=norm3_linear_1
            adaln_modulation_cross_attn_2=norm2_linear_2 adaln_modulation_mlp_2=norm3_linear_2
        """,
        ("llm_adapter_blocks", "text_conditioner_blocks"): """
            self_attn_q_proj self_attn_k_proj self_attn_v_proj self_attn_o_proj cross_attn_q_proj
            cross_attn_k_proj cross_attn_v_proj cross_attn_o_proj mlp_0 mlp_2
        """,
        row.OUTSIDE: """
            x_embedder_proj_1=patch_embed_proj final_layer_linear=proj_out
            final_layer_adaln_modulation_1=norm_out_linear_1
            final_layer_adaln_modulation_2=norm_out_linear_2
            llm_adapter_out_proj=text_conditioner_out_proj
            t_embedder_1_linear_1=time_embed_t_embedder_linear_1
            t_embedder_1_linear_2=time_embed_t_embedder_linear_2
        """,
    },
    lora_sides=(1024,),  # of its texts: other sides and all names are LTX-Video's, too
    lora_marks=("anima",),
)

_TRANSFORMER = "Ideogram4Transformer2DModel"

# Qwen3-VL reads the prompt, of which the transformer takes thirteen layers. A second transformer
# draws without the prompt, and guidance leads away from that.
IDEOGRAM4 = row.Family(
    key="ideogram4",
    name="Ideogram 4",
    pipelines=row.Pipelines(text="Ideogram4Pipeline"),
    native_size=2048,
    lacks=row.FROM_TEXT | row.NO_NEGATIVE | row.NO_CACHE,
    inputs={"guidance_schedule": None},  # its own is for 48 steps alone
    variants={"": row.flow_variant(48, 7)},
    hub="CalamitousFelicitousness/Ideogram-4-bf16-Diffusers",
    channels_last=True,
    # The chat template has eight tokens.
    texts=row.Reading(encode="ideogram4", answers=True, reads={"tokenizer": 2048 - 8}),
    # The features of a text are zeros over all places of the picture, and wide.
    drawing=1700,
    parts={
        **row.parts_of(_TRANSFORMER, row.KL_FLUX2, ("Qwen3VLModel", row.QWEN_WORDS)),
        row.UNCONDITIONAL: (_TRANSFORMER,),
    },
    vaes=(row.FLUX2_VAE,),
    lora_sides=(4608,),
    lora_blocks={
        ("layers", "layers"): """
            attention_qkv=attention_to_q,attention_to_k,attention_to_v adaln_modulation
            attention_o=attention_to_out_0 feed_forward_w1 feed_forward_w2 feed_forward_w3
        """,
        row.OUTSIDE: """
            input_proj llm_cond_proj adaln_proj final_layer_linear final_layer_adaln_modulation
            t_embedding_mlp_in t_embedding_mlp_out
        """,
    },
    lora_marks=("ideogram",),
)

_EDIT = "LongCatImageEditPipeline"

# Qwen2.5-VL reads the prompt, quotations letter by letter, and sees the reference.
LONGCAT_IMAGE = row.Family(
    key="longcat_image",
    name="LongCat-Image",
    pipelines=row.Pipelines(text="LongCatImagePipeline"),
    lacks=row.LACKS,
    inputs={"enable_prompt_rewrite": False},  # or Qwen2.5-VL would write another prompt first
    variants={
        "Edit": row.flow_variant(
            50,
            4.5,
            lacks=row.ONLY_EDITS,
            references=row.References(most=1, required=True, stretched=True, alone=True),
            hub="meituan-longcat/LongCat-Image-Edit",
            pipelines=row.Pipelines(text=_EDIT, edit=_EDIT),
            config={},
        ),
        "": row.flow_variant(50, 4.5, lacks=row.NO_PICTURES),
    },
    hub="meituan-longcat/LongCat-Image",
    texts=row.Reading(
        results=("prompt_embeds", ""), answers=True, count="longcat", sees=True, halves=True
    ),
    parts={
        **row.parts_of("LongCatImageTransformer2DModel", row.KL, row.QWEN_VL),
        "text_processor": ("Qwen2VLProcessor", "Qwen2_5_VLProcessor"),
    },
    vaes=row.FLUX_VAES,
    loras=False,
    lora_marks=("longcat",),
)

# Qwen3 reads the prompt, after an instruction.
OVIS_IMAGE = row.Family(
    key="ovis_image",
    name="Ovis-Image",
    pipelines=row.Pipelines(text="OvisImagePipeline"),
    lacks=row.FROM_TEXT,
    # Its default, "", would be a second negative prompt beside the prompt that was read.
    inputs={"negative_prompt": None},
    variants={"": row.flow_variant(50, 5)},
    hub="AIDC-AI/Ovis-Image-7B",
    # The chat template ends with nine tokens, and the instruction before the prompt is left out.
    texts=row.Reading(options=row.ALONE, reads={"tokenizer": 256 - 9}),
    parts=row.parts_of("OvisImageTransformer2DModel", row.KL, row.QWEN3_ANY),
    vaes=row.FLUX_VAES,
    loras=False,
    lora_marks=("ovis-image", "ovis_image"),
)

_REFINED = [(blocks, blocks) for blocks in ("layers", "noise_refiner", "context_refiner")]
_Z_IMAGE_LAYERS = """
    attention_qkv=attention_to_q,attention_to_k,attention_to_v attention_out=attention_to_out_0
    feed_forward_w1 feed_forward_w2 feed_forward_w3 adaLN_modulation_0
"""
_LUMINA2_LAYERS = f"""
    attention_qkv={row.QKV} attention_out=attn_to_out_0 feed_forward_w1=feed_forward_linear_1
    feed_forward_w2=feed_forward_linear_2 feed_forward_w3=feed_forward_linear_3
    adaLN_modulation_1=norm1_linear
"""

# https://arxiv.org/abs/2511.22699: Qwen3 reads the prompt.
Z_IMAGE = row.Family(
    key="z_image",
    name="Z-Image",
    pipelines=row.all_three("ZImage"),
    guidance=row.CFG_SCALE_LESS_ONE,
    lacks=row.LACKS,
    variants={
        "Turbo": row.flow_variant(8, guided=False, like="Base", word="turbo"),
        "Base": row.flow_variant(50, 5),  # its card's guidance of 4 counts from 0
    },
    hub="Tongyi-MAI/Z-Image-Turbo",
    # The chat template has eight tokens.
    texts=row.Reading(options=row.ALONE, reads={"tokenizer": 512 - 8}),
    drawing=540,
    parts=row.parts_of("ZImageTransformer2DModel", row.KL, row.QWEN3_ANY),
    signs=("layers.0.adaLN_modulation.0.", "cap_pad_token"),
    encoders={"text_encoder": "Qwen3 4B"},
    vaes=row.FLUX_VAES,
    vae_assets="flux",
    vae_file=row.FLUX_VAE_FILE,
    alike=True,
    lora_blocks={
        **dict.fromkeys(_REFINED, _Z_IMAGE_LAYERS),
        row.OUTSIDE: """
            t_embedder_mlp_0 t_embedder_mlp_2 cap_embedder_1 x_embedder=all_x_embedder_2-1
            final_layer_linear=all_final_layer_2-1_linear
            final_layer_adaLN_modulation_1=all_final_layer_2-1_adaLN_modulation_1
        """,
    },
    lora_sides=(3840,),
    lora_marks=("zimage", "z-image"),
)

# https://arxiv.org/abs/2503.21758: Gemma 2 reads the prompt.
LUMINA2 = row.Family(
    key="lumina2",
    name="Lumina 2",
    pipelines=row.Pipelines(text="Lumina2Pipeline"),
    variants={"": row.flow_variant(50, 4, sign="!cap_pad_token")},
    hub="Alpha-VLLM/Lumina-Image-2.0",
    texts=row.Reading(
        # diffusers' default, which it writes before prompts, but not before negative prompts.
        preamble=(
            "You are an assistant designed to generate superior images with the superior degree of "
            "image-text alignment based on textual prompts or user prompts. <Prompt Start> "
        ),
        encode="lumina2",
        reads={"tokenizer": 256},
    ),
    more_folders=("Lumina2Text2ImgPipeline",),  # diffusers' first name for it
    parts=row.parts_of("Lumina2Transformer2DModel", row.KL, row.GEMMA2),
    signs=("cap_embedder.", "time_caption_embed.caption_embedder."),
    encoders={"text_encoder": "Gemma 2 2B"},
    vaes=row.FLUX_VAES,
    lora_blocks={
        **dict.fromkeys(_REFINED, _LUMINA2_LAYERS),
        row.OUTSIDE: """
            x_embedder cap_embedder_1=time_caption_embed_caption_embedder_1
            t_embedder_mlp_0=time_caption_embed_timestep_embedder_linear_1
            t_embedder_mlp_2=time_caption_embed_timestep_embedder_linear_2
            final_layer_adaLN_modulation_1=norm_out_linear_1 final_layer_linear=norm_out_linear_2
        """,
    },
    lora_sides=(2304,),
    lora_marks=("lumina",),
)
