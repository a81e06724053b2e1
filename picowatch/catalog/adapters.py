"""Recognises LoRAs and embeddings: which can be used, and what the others are.

Formats: LoRAs of kohya's sd-scripts, diffusers and peft, LyCORIS' LoHa and LoKr; others, as DoRA
and cloneofsimo's, are named and refused. Embeddings: A1111's and diffusers'.
"""

import re
from collections import Counter

from picowatch.catalog.headers import Header, small_json
from picowatch.catalog.lora_families import family_of_lora
from picowatch.errors import ModelRefused
from picowatch.families import DEMO_WIDTH, FAMILY_OF_WIDTH

LORA_MARKS = (
    *(".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".lora.down.", ".lora.up."),
    *("_lora.down.", "_lora.up.", ".lora_linear_layer.", "_lora1.", "_lora2."),
    *(".hada_", ".lokr_"),
)
# Parts of tensor names in formats that are not supported.
_OTHER_FORMATS = {
    ".dora_scale": "a DoRA",
    ".lora_magnitude_vector": "a DoRA",
    ".lora_B.bias": "a LoRA with biases (lora_bias)",
    ".lora_mid.": "a LyCORIS around a kernel (Tucker)",
    ".hada_t": "a LyCORIS around a kernel (Tucker)",
    ".lokr_t": "a LyCORIS around a kernel (Tucker)",
    ".oft_": "an OFT adapter",
    ".boft_": "a BOFT adapter",
    ".on_input": "an (IA)^3 adapter",
    ".ia3_l": "an (IA)^3 adapter",
}
# Black Forest Labs' LoRAs for depth and edges also hold new weights of norms.
_CONTROL = ".query_norm.scale"
# LoRAs that ComfyUI extracts have such tensors, too, many of them zero: the engine looks.
_DIFFERENCES = (".diff", ".diff_b")
_CLONEOFSIMO = re.compile(r"^(?:unet|text_encoder):\d+:")
_MOST_WORDS = 5
_MOST_LETTERS = 100
_MOST_COUNTED = 1_000_000


def is_lora(header: Header) -> bool:
    """Whether it is a LoRA or its kin, usable or not, by its key names."""
    if header.has("lora_unet_") or header.has("lora_te"):
        return True
    marks = (*LORA_MARKS, *_OTHER_FORMATS)
    return any(
        _CLONEOFSIMO.match(name)
        or name.endswith(_DIFFERENCES)
        or any(mark in name for mark in marks)
        for name in header.shapes
    )


def lora_family(header: Header) -> str:
    """The family of a plain LoRA, "" where the header does not say; or ModelRefused."""
    for name in header.shapes:
        if name.endswith(_CONTROL):
            raise ModelRefused("is a LoRA that guides FLUX.1 by depth or edges: not supported.")
        if _CLONEOFSIMO.match(name):
            raise ModelRefused(
                "is a LoRA in cloneofsimo's old format: get it in kohya's or diffusers'."
            )
        for mark, what in _OTHER_FORMATS.items():
            if mark in name:
                raise _of_another_format(what)
    if all(name.endswith(_DIFFERENCES) for name in header.shapes):
        raise _of_another_format("a file of whole differences")
    return family_of_lora(header)


def _of_another_format(what: str) -> ModelRefused:
    return ModelRefused(f"is {what}: picowatch supports LoRA, LoHa and LoKr.")


def base_model(header: Header) -> str:
    """The checkpoint a LoRA was trained on, by kohya's or Stability's metadata; "" if unsaid."""
    for key in ("ss_sd_model_name", "ss_base_model_version", "modelspec.architecture"):
        name = _line(header.metadata.get(key))
        if name and name != "None":
            return name
    return ""


def trained_as(header: Header) -> str:
    """The name that kohya's trainer gave the file, by which A1111 calls it; "" if unsaid."""
    name = _line(header.metadata.get("ss_output_name"))
    return "" if name == "None" else name


def trigger_words(header: Header) -> tuple[str, ...]:
    """The trainer's trigger phrase, else the five tags that most training pictures had."""
    phrase = _line(header.metadata.get("modelspec.trigger_phrase"))
    if phrase:
        return (phrase,)
    counts: Counter[str] = Counter()
    try:
        for tags in small_json(header.metadata.get("ss_tag_frequency", "{}")).values():
            counts.update({str(tag): min(int(count), _MOST_COUNTED) for tag, count in tags.items()})
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError):
        return ()
    words = (_line(tag) for tag, _ in counts.most_common(_MOST_WORDS))
    return tuple(word for word in words if word)


def _line(text: object) -> str:
    """A stranger's text as one short printable line."""
    words = "".join(c if c.isprintable() else " " for c in str(text or "")[:1000]).split()
    return " ".join(words)[:_MOST_LETTERS]


def is_embedding(header: Header) -> bool:
    """Textual inversion: A1111's `emb_params`, `clip_l`, SDXL's pair, diffusers' one tensor."""
    if header.has("emb_params") or {"clip_l", "clip_g"} & set(header.shapes):
        return True
    return len(header.shapes) == 1 and all(
        "." not in name and len(shape) in (1, 2) and shape[-1] in (DEMO_WIDTH, 768, 1024, 1280)
        for name, shape in header.shapes.items()
    )


def embedding_family(header: Header) -> str:
    """The family of an embedding; ModelRefused for one of an unknown form.

    Stable Diffusion XL's holds two tensors, the vectors of each of its text encoders.
    """
    if "clip_g" in header.shapes:
        return _embedding_pair(header)
    name = next((one for one in ("emb_params", "clip_l") if one in header.shapes), None)
    shape = header.shapes[name] if name else next(iter(header.shapes.values()))
    if len(shape) not in (1, 2) or 0 in shape:
        raise ModelRefused("is an embedding of an unknown form.")
    family = FAMILY_OF_WIDTH.get(shape[-1], "")
    if not family:
        raise ModelRefused(
            f"is an embedding with {shape[-1]} numbers a vector; Stable Diffusion 1.x has 768, "
            "2.x has 1024."
        )
    return family


def _embedding_pair(header: Header) -> str:
    one, two = header.shapes.get("clip_l", ()), header.shapes["clip_g"]
    if len(one) != 2 or len(two) != 2 or one[0] != two[0] or 0 in (*one, *two):
        raise ModelRefused(
            "is an embedding of an unknown form: Stable Diffusion XL's has clip_l and clip_g, "
            "with as many vectors each."
        )
    return "sdxl"
