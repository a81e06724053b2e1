"""LongCat-Image and LongCat-Image-Edit, by Meituan."""

from picowatch.families.row import (
    FLUX_VAE,
    KL,
    LACKS,
    NO_CACHE,
    NO_PICTURES,
    ONLY_EDITS,
    QWEN_VL,
    SIXTEEN,
    Family,
    Pipelines,
    Reading,
    References,
    flow_variant,
    parts_of,
)

_EDIT = "LongCatImageEditPipeline"

# Qwen2.5-VL reads the prompt, quotations letter by letter, and sees the reference.
LONGCAT_IMAGE = Family(
    key="longcat_image",
    name="LongCat-Image",
    pipelines=Pipelines(text="LongCatImagePipeline"),
    lacks=LACKS | NO_CACHE,
    # Otherwise Qwen2.5-VL would write another prompt first.
    inputs={"enable_prompt_rewrite": False},
    variants={
        "Edit": flow_variant(
            50,
            4.5,
            lacks=ONLY_EDITS,
            references=References(most=1, required=True, stretched=True, alone=True),
            hub="meituan-longcat/LongCat-Image-Edit",
            pipelines=Pipelines(text=_EDIT, edit=_EDIT),
            config={},
        ),
        "": flow_variant(50, 4.5, lacks=NO_PICTURES),
    },
    hub="meituan-longcat/LongCat-Image",
    preview="flux",
    texts=Reading(
        results=("prompt_embeds", ""), answers=True, count="longcat", sees=True, halves=True
    ),
    parts={
        **parts_of("LongCatImageTransformer2DModel", KL, QWEN_VL),
        "text_processor": ("Qwen2VLProcessor", "Qwen2_5_VLProcessor"),
    },
    vaes=(SIXTEEN, FLUX_VAE),
    loras=False,
    lora_marks=("longcat",),
)
