"""Qwen-Image, and Krea 2 and ERNIE-Image."""

import math
from typing import Any

from picowatch.families import row


def _qwen_edit(steps: int, name: str, most: int, hub: str, **more: Any) -> row.Variant:
    """Return a Qwen-Image that edits: pictures are rendered in one megapixel, as in training."""
    return row.flow_variant(
        steps,
        hub=f"Qwen/Qwen-Image-{hub}",
        like="",
        word=f"image-{hub.lower()}",
        cfg_scale=4,
        lacks=row.ONLY_EDITS,
        references=row.References(most=most, required=True, multiple=32, stretched=True),
        pipelines=row.Pipelines(text=f"{name}Pipeline", edit=f"{name}Pipeline"),
        **more,
    )


_TIME = "time_text_embed_timestep_embedder_linear_1 time_text_embed_timestep_embedder_linear_2"
_MM_BLOCKS = "transformer_blocks", "transformer_blocks"
_KREA2_LAYERS = """
    attn_wq=attn_to_q attn_wk=attn_to_k attn_wv=attn_to_v attn_wo=attn_to_out_0
    attn_gate=attn_to_gate mlp_gate=ff_gate mlp_up=ff_up mlp_down=ff_down
"""

# Qwen3-VL reads the prompt and sees the references; its VAE has transparency.
QWEN_IMAGE_21 = row.Family(
    key="qwen_image_21",
    name="Qwen-Image 2.1",
    pipelines=row.Pipelines(text="QwenImage21Pipeline", edit="QwenImage21Pipeline"),
    guidance=row.TRUE_CFG_SCALE,
    size_multiple=32,
    lacks=row.LACKS | row.ONLY_EDITS | row.NO_CACHE,
    variants={
        "": row.flow_variant(
            40,
            guided=False,
            references=row.References(most=10, multiple=32, stretched=True, alpha=True),
        )
    },
    hub="Qwen/Qwen-Image-2.1",
    parts={
        **row.parts_of("QwenImage21Transformer2DModel", row.KL_QWEN21),
        "text_encoder": ("Qwen3VLForConditionalGeneration",),
        "processor": ("Qwen3VLProcessor",),
    },
    # Its tokenizer is the processor's, and its pipeline cuts no prompt off.
    texts=row.Reading(reads={}, sees=True),
    # With noise levels of its own the pipeline would ignore the recipe's steps.
    settings={"sample_sigmas": None},
    signs=("txt_in.text_norm.",),
    vaes=(row.QWEN21_VAE,),
    lora_blocks={
        _MM_BLOCKS: f"{row.ATTENTION} img_mlp_gate_up=img_mlp_gate_layer,img_mlp_proj img_mlp_out",
        row.OUTSIDE: f"""
            {_TIME} txt_in_in_layer txt_in_out_layer img_in modulation_1 norm_out_linear proj_out
        """,
    },
    lora_sides=(12288, 24576),  # its attention's are those of FLUX.2 klein 9B
    lora_marks=("qwen-image-2.1", "qwen_image_2.1", "qwenimage21", "qwen-image-21"),
)

# https://arxiv.org/abs/2508.02324: Qwen2.5-VL reads the prompt.
QWEN_IMAGE = row.Family(
    key="qwen_image",
    name="Qwen-Image",
    pipelines=row.all_three("QwenImage"),
    guidance=row.TRUE_CFG_SCALE,
    native_size=1328,
    lacks=row.LACKS,
    variants={
        # All look alike except 2511, which some files show; names of Lightning files have both.
        "Edit 2511": _qwen_edit(
            *(40, "QwenImageEditPlus", 3, "Edit-2511"),
            sign="__index_timestep_zero__",
            config={"transformer/zero_cond_t": True},
        ),
        "Edit 2509": _qwen_edit(40, "QwenImageEditPlus", 3, "Edit-2509", config={}),
        "Edit": _qwen_edit(50, "QwenImageEdit", 1, "Edit", config={}),
        "": row.flow_variant(50, 4),
    },
    hub="Qwen/Qwen-Image",
    # A space where there is no negative prompt, as its card has it.
    texts=row.Reading(options={"max_sequence_length": 512}, empty=" ", sees=True),
    optional=("processor",),
    parts={
        **row.parts_of("QwenImageTransformer2DModel", row.KL_QWEN, row.QWEN_VL),
        "processor": ("Qwen2VLProcessor", "Qwen2_5_VLProcessor"),
    },
    signs=("txt_norm.",),
    encoders={"text_encoder": "Qwen2.5-VL 7B"},
    vaes=(row.QWEN_VAE,),
    lora_blocks={
        _MM_BLOCKS: f"""
            {row.ATTENTION} {row.ADDED} img_mlp_net_0_proj img_mlp_net_2 txt_mlp_net_0_proj
            txt_mlp_net_2 img_mod_1 txt_mod_1
        """,
        row.OUTSIDE: f"{_TIME} img_in txt_in norm_out_linear proj_out",
    },
    lora_sides=(3072,),
    lora_marks=("qwen",),
    # https://github.com/ModelTC/Qwen-Image-Lightning (generate_with_diffusers.py)
    lightning={
        "use_dynamic_shifting": True,
        "base_shift": math.log(3),
        "max_shift": math.log(3),
        "shift_terminal": None,
    },
)

# Qwen3-VL reads the prompt, and the transformer takes twelve of its layers.
KREA2 = row.Family(
    key="krea2",
    name="Krea 2",
    pipelines=row.Pipelines(text="Krea2Pipeline"),
    guidance=row.CFG_SCALE_LESS_ONE,
    variants={
        # Its noise levels do not depend on the size.
        "Turbo": row.flow_variant(
            8,
            guided=False,
            hub="krea/Krea-2-Turbo",
            options={"is_distilled": True},
            config={"is_distilled": True},
            like="Raw",
            word="turbo",
        ),
        "Raw": row.flow_variant(52, 4.5),  # its authors' guidance of 3.5 counts from 0
    },
    hub="krea/Krea-2-Raw",
    parts=row.parts_of("Krea2Transformer2DModel", row.KL_QWEN, ("Qwen3VLModel", row.QWEN_WORDS)),
    # The chat template ends with five tokens.
    texts=row.Reading(
        results=("prompt_embeds", "prompt_embeds_mask"), reads={"tokenizer": 512 - 5}
    ),
    settings={"patch_size": 2, "text_encoder_select_layers": [*range(2, 36, 3)]},
    signs=("txtfusion.", "text_fusion."),
    vaes=(row.QWEN_VAE,),
    lora_blocks={
        ("blocks", "transformer_blocks"): _KREA2_LAYERS,
        ("txtfusion_layerwise_blocks", "text_fusion_layerwise_blocks"): _KREA2_LAYERS,
        ("txtfusion_refiner_blocks", "text_fusion_refiner_blocks"): _KREA2_LAYERS,
        row.OUTSIDE: """
            first=img_in last_linear=final_layer_linear tproj_1=time_mod_proj
            tmlp_0=time_embed_linear_1 tmlp_2=time_embed_linear_2 txtmlp_1=txt_in_linear_1
            txtmlp_3=txt_in_linear_2 txtfusion_projector=text_fusion_projector
        """,
    },
    lora_sides=(6144,),
    lora_marks=("krea2", "krea-2"),
)

# Mistral 3 reads the prompt as it is written: no model rewrites it before.
ERNIE_IMAGE = row.Family(
    key="ernie_image",
    name="ERNIE-Image",
    pipelines=row.Pipelines(text="ErnieImagePipeline"),
    variants={
        "Base": row.flow_variant(50, 4),
        "Turbo": row.flow_variant(
            8, guided=False, hub="baidu/ERNIE-Image-Turbo", like="Base", word="turbo"
        ),
    },
    hub="baidu/ERNIE-Image",
    texts=row.Reading(encode="ernie", reads={"tokenizer": 0}),
    parts=row.parts_of(
        "ErnieImageTransformer2DModel", row.KL_FLUX2, ("Mistral3Model", row.ANY_WORDS)
    ),
    signs=("layers.0.adaLN_sa_ln.",),
    vaes=(row.FLUX2_VAE,),
    lora_blocks={
        ("layers", "layers"): f"""
            {row.ATTENTION.replace("attn", "self_attention")} mlp_gate_proj mlp_up_proj
            mlp_linear_fc2
        """,
        row.OUTSIDE: """
            x_embedder_proj text_proj time_embedding_linear_1 time_embedding_linear_2
            adaLN_modulation_1 final_norm_linear final_linear
        """,
    },
    lora_sides=(3072,),
    lora_marks=("ernie",),
)
