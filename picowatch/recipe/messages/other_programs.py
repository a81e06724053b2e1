"""What users of other programs write, and what to write in a recipe instead.

These are names, of which those that mean exactly what a field means are its aliases; lines that are
not prompts; and parts of prompts that are valid, but hardly what was meant.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from picowatch.recipe.fields import MIN_SIDE
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean
from picowatch.recipe.messages.wording import DECIMAL_POINT
from picowatch.recipe.written import plain_name

SHAPE = "aspect_ratio"  # as other programs call it
_COUNT = "Write count for the number of images."
_HIRES = "Write hires: {scale: 2, steps: 20, denoising_strength: 0.5}."
_FACES = "picowatch does not restore faces. Remove it, or write detail: face to draw each again."
_MIDJOURNEY = "It is Midjourney's flag; {}."

# Words that mean the same, and the hint for them. Names that are flags only have hyphens.
# SIZES becomes sizes in the shape that is the value.
_WORDS = {
    "n num_images num_images_per_prompt n_samples n_iter batch_count image_number iterations": (
        _COUNT
    ),
    "batch_size": f"{_COUNT} In picowatch.yaml, batch_size limits how many render at once.",
    "enable_hr hr_scale hires_scale hires_upscale upscale_by hires_steps hr_second_pass_steps "
    "hr_upscaler hires_upscaler": _HIRES,
    "upscaler": "Write upscale: NAME for the finished picture, or hires: {upscaler: NAME}.",
    "scale": "It is a part of hires or upscale: indent it below that line, or write "
    "hires: {scale: 2}.",
    f"resolution {SHAPE} aspect ar dimensions": "Write size: SIZES.",
    "find mask.find mask:_find confidence grow": "It is a part of mask, detail or cutout: write "
    "mask: {find: the sky}.",
    "sep=": "Delete this line: the first row names fields.",
    "prompts": "A recipe has one prompt. Write a recipe for each, or "
    "sweep: {prompt: [a corgi, a cat]}.",
    "images photos pictures": "A recipe has one image. Write a recipe for each, or put them into a "
    "folder with a file _pictures.yaml.",
    "template": "A template is a file _pictures.yaml in the pictures' folder.",
    "output output_dir output_path outdir filename save_as save_to folder": "Pictures are "
    "called like their recipe's file and appear in the outbox. Rename that file.",
    "recipes": "Write the list alone: a line '- prompt: …' for each recipe.",
    "recipe defaults": "Write its fields alone, not indented. Those for all recipes of a folder "
    "belong into its _defaults.yaml.",
    "grayscale greyscale monochrome": "Pictures have colours. Write 'black and white photo' into "
    "the prompt.",
    "crop": "For a shape, write resize: crop and size: SIZES.",
    "dtype torch_dtype precision device models inbox outbox": "It is a setting: write it "
    "into picowatch.yaml, like precision: float16.",
    "embedding embeddings textual_inversion": "An embedding needs no field. Write its name into "
    "the prompt.",
    "img2img init start_image input_image": "Write image: picture.png, and denoising_strength.",
    "inpaint inpainting inpaint_mask mask_image": "Write image: picture.png, and mask: mask.png.",
    "restore_faces face_restore face_restoration codeformer gfpgan": _FACES,
    "refiner refiner_model refiner_checkpoint refiner_switch_at": "SDXL's refiner is not "
    "supported. Remove it; hires: {scale: 1.5} also draws finer details.",
    "ipadapter ip_adapter t2i_adapter": "IP-Adapter and T2I-Adapter are not supported. To follow a "
    "picture, write image or control, or references for checkpoints that edit.",
    "style styles": "picowatch has no styles. Write their words into the prompt, or into "
    "_defaults.yaml.",
    "script x_type x_values y_type y_values x/y/z_plot xyz_plot": "picowatch runs no scripts. For "
    "an X/Y/Z plot, write a sweep, like sweep: {steps: [10, 20]}.",
    "sidecar file_name when_done hooks memory compile executor max_images_per_save": "It is a "
    "setting for all pictures: write it into picowatch.yaml, like sidecar: txt.",
    "<<": "YAML's references (&, * and <<) are not supported. Write the fields again, or into "
    "_defaults.yaml.",
    "--v --niji": _MIDJOURNEY.format("choose a model with --checkpoint"),
    "--no": _MIDJOURNEY.format("write --negative_prompt"),
    "--ar --aspect": _MIDJOURNEY.format("write --size SIZES"),
    "--tile": _MIDJOURNEY.format("write --tiling"),
    "--s": "Midjourney's --s (stylize) has no counterpart; leave it out. For kohya's --s, write "
    "--steps.",
    "--stylize --chaos --q --iw --sref --cref": _MIDJOURNEY.format("leave it out"),
}
# Words that mean a field, and kohya's flags.
_FIELDS = {
    "denoising_strength": "denoise denoising",
    "negative_prompt": "neg",
    "prompt": "positive positive_prompt text",
    "checkpoint": "ckpt_name model_name base_model unet_name",
    "vae": "vae_name",
    "steps": "num_inference_steps sampling_steps performance",
    "sampler": "sampling_method",
    "seed": "generator",
}
_KOHYA = {
    "n": "negative_prompt", "w": "width", "h": "height", "d": "seed", "l": "cfg_scale",
    "t": "denoising_strength",
}  # fmt: skip
FIELDS_MEANT = {word: field for field, words in _FIELDS.items() for word in words.split()}
_HINTS = (
    {word: hint for words, hint in _WORDS.items() for word in words.split()}
    | {word: f"Write {field}." for word, field in FIELDS_MEANT.items()}
    | {f"--{flag}": f"It is kohya's flag; write --{field}." for flag, field in _KOHYA.items()}
)

# Values with which a setting is off, also as JSON or Python writes them.
OFF_WORDS = ("", "none", "null", "false", "0", "0.0", "-1", "[]", "{}", "()")


def words_for(name: str, fields: Iterable[str], value: str = "", before: str = "") -> str:
    """Return an unknown name's remedy, or the field that is meant; `before`: a flag's hyphens."""
    if name.isdigit() and not (before or value):
        return DECIMAL_POINT
    hint = _HINTS.get(before + plain_name(name)) if before else ""
    hint = hint or words_of_others(name)
    if not hint and len(name) > 2:  # everything is like two letters
        hint = did_you_mean(name, fields, before).rstrip()
    return hint.replace("SIZES", _sizes(value)) if "SIZES" in hint else hint


def _sizes(shape: str) -> str:
    """Return sizes of a shape like 16:9 for each kind of checkpoint; a size as it is."""
    sides = re.fullmatch(r"([1-9]\d{0,3}) *[:x×*/] *([1-9]\d{0,3})", shape.strip())
    width, height = map(int, sides.groups()) if sides else (2, 3)
    if min(width, height) >= MIN_SIDE:
        return f"{width}x{height}"
    across, down = round(16 * (width / height) ** 0.5), round(16 * (height / width) ** 0.5)
    kinds = {"SD 1.5": 32, "SDXL and later ones": 64}
    return ", ".join(f"{across * unit}x{down * unit} for {kind}" for kind, unit in kinds.items())


def words_of_others(name: str) -> str:
    """Return the remedy for another program's name; "" for any other."""
    return _HINTS.get(plain_name(name), "")


# -- prompts

FENCE = "``` marks a text in chats and web pages. Delete the lines that contain it."
MERGED = "a merge has left both versions here. Keep one, and delete the lines that Git added."
# Patterns, and what is said of what they find: {0} is all of it, {1} its first group.
_NO_PROMPT = {
    r"\A```": FENCE,
    # Also InvokeAI's prompts, and Midjourney's in a chat.
    r"\A(?:(?:\S*/)?(?:sd|sd-cli|sd\.exe|python3?|invoke\.py|txt2img\.py)|[$>])"
    r"(?=\s(?:.*\s)?--?[A-Za-z])|\Aecho\s(?=.*>)|\A/imagine\b(?:\s*prompt:?)?"
    r"|\A(?:invoke|dream)>": (
        "'{0}' begins a command line. Write the prompt first, and then its flags: a corgi "
        "--steps 30 --width 512."
    ),
    r"\A//": "'//' does not begin a comment: # does, in a line of its own.",
    r"\A(?:<{7}|={7}|>{7})(?:\s.*)?\Z": MERGED,
    r"(?i)(\bnegative[ _]prompt|\Anegative): *(.*)": (
        "'{1}:' inside a prompt would be part of its text. Write --negative_prompt {2} after "
        "the prompt."
    ),
}
# What begins with a sign goes on after _PLAIN.
_PLAIN = "'{0}' is drawn as plain text"
_UNLIKELY = {
    r"\A\s*(?:[“„«][^“”„«»]*[”“»]|\"[^\"]*\")\s*\Z": (
        "the quotes around the prompt are part of it. Remove them if they are not meant."
    ),
    r"(\([^()\[\]:]{1,200}:\s*\d{1,2}),(\d{1,3}\s*\))": (
        ": a weight has a decimal point. Write {1}.{2}."
    ),
    # For wildcards, as people write them who know other programs' syntax.
    r"(?<!\\)\((\w[^()\[\]{}|:]*(?:\|[^()\[\]{}|:]+)+)\)": (
        ", with more weight. To draw one of them at random, write {{{1}}}."
    ),
    r"(?<!\\)\{[^{}|]*\|[^{}]*\Z": (
        ": its brace is never closed. To draw one of them at random, close it."
    ),
    r"(?<!\w)(\w+)::(-?\d[\d.]{0,5})(?![\d.\s]*\])": (
        ": it is a weight of Midjourney. Write ({1}:1.2)."
    ),
    r"(?<!\w)(?=\w*[a-z])\w+\+\+(?=[\s,]|\Z)|\([^()]{1,200}\)(?:\d\.\d+|\++)"
    r"|\)\.(?:blend|and)\(": (": it is a weight of InvokeAI. Write (word:1.2)."),
    r"(?<!\{)\{{2,9}([^{}|]{1,200})\}{2,9}": (
        "'{0}' is drawn without weight: braces are a weight of NovelAI. Write ({1}:1.15)."
    ),
    r"(?<!\\)\[([^\[\](){}|]{0,200}:)(\d\d) ?%\]": (
        ": a share of the steps is from 0 to 1. Write [{1}0.{2}]."
    ),
    r"(?<!\\)\[(\w[^\[\](){}|:]{0,99}:(?=[^\]]{0,99}[^\W\d])[^\[\](){}|:]{1,99})\]": (
        ": it does not say when to change. Write [{1}:0.5]."
    ),
    r"(?<!\\)\([^()\[\]:]{1,200}:\s*(?:[5-9]|\d\d)(?:\.\d*)?\s*\)": (
        "the weight of '{0}' distorts the picture: from 0.7 to 1.4 are usual."
    ),
    r"(?<!\\)(\([^()\[\]]{1,200}?):(\s*\d?\.\d+)(?=\s*:\s*[\d.]+\s*\))": (
        "'{0}' has a second weight after it, and the first is drawn as text. Keep one."
    ),
    r"https?://\S+": (
        ": picowatch downloads nothing. Save the picture beside the recipe, and name it in image."
    ),
    r"\$\([^()]{0,200}\)|(?<![\w$])\$[A-Z_]{2,}": (
        ": no shell reads this file. Use double quotes in the command that writes it."
    ),
    r"\\n(?=\s|[A-Za-z]+:)": ". printf writes line breaks; echo does not.",
    r"\A(?:\d{1,3}[.)]|[-*•])\s": (
        "'{0}' is drawn as part of the prompt. Remove the numbers and bullets of lists."
    ),
    r"(?im)^(?:Negative prompt:|Steps:? \d+,).*": ". Write fields, in YAML.",
    r"(?i)(?:(?<=[ ,])/?|\A/)(?:steps|cfg|cfg[ _]scale|seed)[ :=]{1,3}\d+(?![\w.])": (
        ". Write it as a field in YAML, or in a .txt recipe as a flag."
    ),
    r"\A[^{}|\[\]()]*\w \| \w[^{}\[\]()]*\Z": (
        ". To draw one of them at random, write {{a|b}}; for a picture of each, write a sweep."
    ),
    r"(?<!\S)--([A-Za-z][\w-]*)(?=[ =]|\Z)": (
        ": flags are for the lines of .txt recipes. Write {1} as a field of its own."
    ),
}
_BRACKETS = re.compile(r"\\.|[()\[\]]", re.DOTALL)


def _said(text: str, said: Mapping[str, str]) -> Iterator[str]:
    for pattern, words in said.items():
        for found in re.finditer(pattern, text):
            parts = (found[0], *found.groups(""))
            words = _PLAIN + words if words[0] in ":,." else words
            yield words.format(*(shown(part.strip()) for part in parts))


def why_no_prompt(line: str) -> str:
    """Return the message about a line that is not a prompt; "" for a prompt."""
    return next(_said(line, _NO_PROMPT), "")


def probable_mistakes(text: str) -> Iterator[str]:
    """Yield a sentence for each part that is hardly meant; the picture is drawn as written."""
    yield from _said(text, _UNLIKELY)
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for bracket in _BRACKETS.finditer(text):
        if bracket[0] in opened:
            opened[bracket[0]].append(bracket.start())
        elif starts := opened.get({")": "(", "]": "["}.get(bracket[0], "")):
            starts.pop()
    for sign, starts in opened.items():
        if starts:
            yield (
                f"the bracket of '{shown(text[starts[0] :], 30)}' is never closed, so everything "
                f"after it gets {'more' if sign == '(' else 'less'} weight. Close it, or write "
                f"\\{sign} for the character."
            )
