"""LongCat-Image and LongCat-Image-Edit, by Meituan."""

from picowatch.families import row

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
