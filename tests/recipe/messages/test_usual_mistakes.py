"""Frequent mistakes, also with other programs' words: each has one message with its remedy."""

import pytest

from picowatch.recipe.fields import FIRST_NAME_OF
from picowatch.recipe.messages.other_programs import words_of_others
from picowatch.recipe.messages.wording import MAX_WARNINGS
from picowatch.recipe.read.flags import THEIRS_ALONE
from tests.recipe.reading import check_refused, check_warned, messages, read_one

SEED = "seed must be a whole number from 0 to 4294967295, random, a range like 1..8, or a list …"
STRENGTH = "denoising_strength has no effect without image or hires. Add it, or remove …"
BOTH_SIZES = "size together with width or height: keep one of them."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps: 151", "steps must be a whole number from 1 to 150, not 151."),
        ("seed: 0..4294967295", "this file requests 4,294,967,296 images; one save may …"),
        ("seed: 1..8 step 0", "a range's step must not be 0."),
        ("seed: 1..8\ncount: 2", "count and several seeds together: each … Remove count."),
        ("seed: 12,345", "seed 12,345 is one number, or several? Write 12345 … or [12, 345] …"),
        ("hires: {scale: 1,5}", "hires has no '5'. A comma ends a number here; …, like 1.5. Its …"),
        ("seed: -2", f"{SEED}, not -2."),
        ("seed: 4294967296", f"{SEED}, not 4294967296."),
        ("seed: [1, random]", "seed must be a whole number from 0 to 4294967295, not 'random'."),
        ("size: 512x2056", "height must be … from 64 to 2048, not 2056. … hires: {scale: 2} …"),
        ("size: big", "size must be text like 512x768, not 'big'."),
        ("size: 512x512\nwidth: 512", BOTH_SIZES),
        ("exact: maybe", "exact must be true or false, not 'maybe'."),
        ("steps: 3\nsteps: 4", "'steps' is given twice: already on line 2. Keep one."),
        ("Negative-Promt: x", "unknown field 'Negative-Promt'. Did you mean 'negative_prompt'?"),
        ("positive_prompt: x", "unknown field 'positive_prompt'. Write prompt."),
        ("brush: red", "unknown field 'brush'. docs/recipes.md lists all fields; …"),
        ("sampler: DPM++ 2M Karras\nschedule_type: beta",
         "the sampler's name says karras, schedule_type says beta. Keep one."),
        ("sampler: karras", "…'karras' is a schedule type, not a sampler. Write schedule_type: …"),
        ("sampler: DPM+ 2M Karas", "…Did you mean 'DPM++ 2M Karras'?…"),
        ("prediction: v_zero_snrr", "unknown prediction … Did you mean 'v_zero_snr'? The …"),
        ("prediction: [v]", "prediction must be …, not [v]. … sweep: {prediction: [v]}"),
        ('negative: "a\\x1b"', "negative_prompt contains the … U+001B. Remove it."),
        ("cfg: 0", "cfg_scale must be a number from 1 to 30, not 0. 1 switches guidance off."),
        ("seed: None", f"{SEED}, not 'None'. Leave out seed for the default."),
        ("seed: 1 to 8", f"{SEED}. Write 1..8 for a range."),
        ("seed: [1..4, 9]", "seed must be a whole number from 0 to 4294967295, not '1..4'."),
        ("count: 1,000", "count must be a whole … Write 1000, without a comma."),
        ("size: 16:9", "size is … Write size: 672x384 for SD 1.5, 1344x768 for SDXL …"),
        ("aspect_ratio: portrait", "… Write size: 416x640 for SD 1.5, …"),
        ("steps: “20”", "steps must be … from 1 to 150. Write 20, without curly quotes."),
        ("face_restoration: true", "… does not restore faces. Remove it, or write detail: face …"),
        ("refiner: sd_xl_refiner", "… SDXL's refiner is not supported. Remove it; hires: …"),
        ("ipadapter: a.png", "… IP-Adapter … not supported. To follow a picture, write image …"),
        ("size: ٦٤x٦٤", "size must be text like 512x768, not '٦٤x٦٤'."),
        ("cutout: 2", "no cutout model '2' in models/cutout. Only demo-… Put its file there."),
        ("loras: '0,'", "no LoRA '0' … None is installed. A comma ends a number here; … like 1.5."),
        ("loras: {1: 0.5}", "no LoRA '1' in models/loras. None is installed. Put its file there."),
        ("5: 3", "unknown field '5'. docs/recipes.md lists all fields; …"),
        ("image: a.png\nextend: {left: 5, Left: 6}", "extend has left twice. Keep one."),
        ("hires: {denoise: 0.5}", "hires has no 'denoise'. Write denoising_strength. Its fields …"),
        ("size: 1024", "size must be text like 512x768. Write 1024x1024."),
        ("image: a.png\nkeep_exif: maybe", "keep_exif must be all, no_place or none, not 'maybe'."),
        ("img2img: a.png", "… Write image: picture.png, and denoising_strength."),
        ("image: none\nstrength: 0.5", STRENGTH),
        ("hires: {scale: 9}\nstrength: 0.4", "hires scale must be a number from 1 to 4, not 9."),
        ("hires: {strength: 0.3}\ndenoising_strength: 0.9",
         "'denoising_strength' is given twice: already on line 2 as 'strength'. Keep one."),
        ("mask: a.png", "mask has no effect without image or references. Add it, or remove mask."),
        ("extend: 2:1", "extend has no effect without image. …"),
        ("image: a.png\nmask_blur: 3", "mask_blur has no effect without mask or extend. Add it, …"),
        ("sweep: [steps]", "sweep must be a mapping like {steps: … not [steps]."),
        ("batch_size: 4", "unknown field 'batch_size'. Write count for … In picowatch.yaml, …"),
        ("scheduler: karras\nschedule_type: beta", "'schedule_type' is … 'scheduler'…"),
        ("image: [a.png, b.png]", "image must be text, not … write a recipe for each."),
        ("image: c.png\nmask:\n- a.png\n- b.png", "mask must be a path, … not - a.png. For sev…"),
        ("control: {image: {a: 1}}", "control image must be text, not {a: 1}."),
        ("sweep: {size: [64x64], width: [64]}", BOTH_SIZES),
        ("hires: 2x", "hires must be true, … a number like 2, or … Write 2, without a unit."),
        ("hires: x1.5", "hires must be true, … or a mapping … Write 1.5, without a unit."),
        ("steps: 30,", "steps must be … from 1 to 150. Write 30, without a comma at the end."),
        ("size: 512 x 768 px", "size must be text like 512x768. Write 512x768."),
        ("size: [512, 768]", "size must be text like 512x768. Write 512x768."),
        ("size: 512,768", "size must be text like 512x768. Write 512x768."),
        ("image: a.png\nstrength: 75%", "denoising_strength must be … from 0 to 1. Write 0.75."),
        ("aspect_ratio: 1152*896", "… Write size: 1152x896."),
        ("scale: 2", "… It is a part of hires or upscale: indent it below that line, or write …"),
        ("upscale: 4x", "no upscaler '4x' in models/upscalers. For the scale, write 4. Only …"),
        ("sidecar: txt", "… write it into picowatch.yaml, like sidecar: txt."),
        ("image: a.png\nmask:", "mask has no value. Write a path, alpha, or a mapping like …"),
        ("format: bmp", "format must be png, jpeg, webp, avif, tiff or same, not 'bmp'."),
        ("format: same", "… Add image or references, or write png, jpeg, webp, avif or tiff."),
        ("format: jpg\nquality: lossless", "… Use webp or png, or a quality from 1 to 100."),
        ("quality: 101", "… must be a whole number from 1 to 100, lossless, or auto, not 101."),
        ("upscale: {scale: 0.5}", "upscale scale must be … to 8, not 0.5. It only enlarges. …"),
        ("upscale: {size: 1600x1600}", "upscale has no 'size'. Write scale, or resize_to beside …"),
        ("image: a.png\nresize: 1600", "resize must be … not 1600. … write resize_to: 1600."),
        ("upscale: {model: Lanczos}", "no upscaler 'Lanczos' … Lanczos is for hires: …"),
        ("upscale: {model:demo-compact}",
         "… A space is missing after the colon: write model: demo-compact. Its fields are …"),
        ("images: [a.png, b.png]", "… A recipe has one image. Write a recipe for each, or …"),
        ("crop: 4:5", "… For a shape, write resize: crop and size: 448x576 …"),
        ("recipes: [a]", "… Write the list alone: a line '- prompt: …' for each recipe."),
        ("_defaults: {steps: 3}", "… Write its fields here, or into the file _defaults.yaml."),
        ("title: x", "unknown field 'title'. … a note's name begins with _, like _title."),
        ("name: foo", "… add {stem}, … pictures have none: write _name for a note, or …"),
        ("count: 3 images", "count must be a whole number … Write 3, without a unit."),
        ("image: a.png\nextend: 16x9", "extend takes …, or a shape like 16:9. Write 16:9."),
    ],
)  # fmt: skip
def test_a_usual_mistake_has_its_remedy(text: str, expected: str) -> None:
    """No second message follows from the first."""
    check_refused(f"prompt: a\n{text}\n", expected)


def test_several_values_in_a_field_are_told_to_be_a_sweep() -> None:
    for text in ("cfg_scale: [5, 7]", "steps: 10..12"):
        (message,) = messages(f"prompt: a\n{text}")
        sweep = message.partition("For an image with each value, write ")[2]
        assert read_one(f"prompt: a\n{sweep}").image_count > 1


@pytest.mark.parametrize(
    ("prompt", "warning"),
    [
        ("a (corgi:1,2)", "'(corgi:1,2)' is drawn as plain text: … Write (corgi:1.2)."),
        ("a (corgi:1.2 wearing a hat", "the bracket of '(corgi:1.2 wearing a hat' is never …"),
        ("“a corgi”", "the quotes around the prompt are part of it. Remove them if …"),
        ("a corgi::2 b", "'corgi::2' is drawn … weight of Midjourney. Write (corgi:1.2)."),
        ("a dog /steps 30", "'/steps 30' is drawn as plain text. Write it as a field in …"),
        ("a dog, steps 30", "'steps 30' is drawn as plain text. Write it as a field in …"),
        ("a dog | a cat", "'a dog | a cat' is drawn … write {a|b}; for a picture of each, write …"),
        ("a hat++", "'hat++' is drawn … weight of InvokeAI. Write (word:1.2)."),
        ("a (red)1.3 hat", "'(red)1.3' is drawn … weight of InvokeAI. Write (word:1.2)."),
        ("https://a.b/c.png as art", "'https://a.b/c.png' is drawn … picowatch downloads nothing…"),
        ("a dog on $(date +%A)", "'$(date +%A)' is drawn … no shell reads this file. …"),
        ("a dog $COLOUR", "'$COLOUR' is drawn … no shell reads this file. …"),
        ("a corgi\\n at sea", "'\\n' is drawn … printf writes line breaks; echo does not."),
        ("1. a corgi", "'1.' is drawn as part of the prompt. Remove the numbers and …"),
        ("a [cat:dog:0.5 hat", "the bracket of '[cat:dog:0.5 hat' is never closed, … less weight…"),
        ("a (red|blue) cat", "'(red|blue)' is drawn as plain text, … write {red|blue}."),
        ("a {red|blue hat", "'{red|blue hat' is drawn as plain text: its …"),
        ("a {{{fluffy}}} cat", "'{{{fluffy}}}' is drawn … of NovelAI. Write (fluffy:1.15)."),
        ("a [cat:dog:50%]", "'[cat:dog:50%]' is drawn as plain … 0 to 1. Write [cat:dog:0.50]."),
        ("a [cat:big dog]", "'[cat:big dog]' is drawn … when … Write [cat:big dog:0.5]."),
        ("a [cat:dog:1.5]", "the words of '[cat:dog:1.5]' never … Write an earlier step, or …"),
        ("a [cat:dog:24]", "the words of '[cat:dog:24]' never change: …"),
        ("a (cat:99)", "the weight of '(cat:99)' distorts …: from 0.7 to 1.4 are usual."),
        ("a (cat:1.3:1.2)", "'(cat:1.3' has a second weight after it, and the first …"),
    ],
)  # fmt: skip
def test_what_was_hardly_meant_is_a_warning(prompt: str, warning: str) -> None:
    """The picture is drawn as written."""
    for text, name in ((f"prompt: {prompt}", "corgi.yaml"), (prompt, "corgi.txt")):
        recipe = read_one(text, name)
        assert recipe.prompt == prompt
        check_warned(recipe, warning)
    check_warned(read_one(f"prompt: a\nnegative_prompt: {prompt}"), warning)


@pytest.mark.parametrize(
    ("prompt", "more", "is_late"),
    [
        ("[a:b:1.5]", "hires: true", False),  # in the middle of its pass
        ("[a:b:2.5]", "hires: true", True),
        ("[a:b:23]", "steps: 40", False),
        ("[a:b:0.6]", "image: a.png\ndenoising_strength: 0.5", True),
        ("[a:b:0.4]", "image: a.png\ndenoising_strength: 0.5", False),
        ("[a|b], [a:b:0]", "", False),
        ("[a:b:1.0e999]", "hires: {denoising_strength: 0}", True),  # which draws nothing
        ("[a:b:9]", "image: a.png\ndenoising_strength: 0", False),
    ],
)
def test_words_that_change_in_a_pass_have_no_warning(prompt: str, more: str, is_late: bool) -> None:
    """A start image takes the first of the steps that are planned, as in A1111."""
    recipe = read_one(f"prompt: '{prompt}'\n{more}", texts={})
    check_warned(recipe, *["the words of … never change: …"] * is_late)


def test_a_prompt_has_a_limited_number_of_warnings() -> None:
    edits = " ".join(f"[a:b:{step}]" for step in range(30, 130))
    assert len(read_one(f"prompt: '{edits}'").warnings) == MAX_WARNINGS


AT_1 = "{} has no effect at cfg_scale 1."
NO_STEP = "{} leaves no step with guidance: cfg_start has to be below cfg_end."
REPEATED = "seed repeats a value: equal seeds make one image."


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ("format: png\nquality: 80",
         ["quality has no effect in png and tiff: it is for jpeg, webp and avif."]),
        ("sweep: {format: [tiff, png]}\nquality: 80", ["quality has no effect in png and tiff: …"]),
        ("cfg_scale: 1\ncfg_rescale: 0.5", [AT_1.format("cfg_rescale")]),
        ("cfg_scale: 1\ncfg_start: 0.2", [AT_1.format("cfg_start")]),
        ("cfg_scale: 1\ncfg_end: 0.5", [AT_1.format("cfg_end")]),
        ("cfg_end: 0.4\ncfg_start: 0.5\ncfg_rescale: 0.5",
         [*map(NO_STEP.format, ("cfg_end", "cfg_start")), "cfg_rescale has no effect without …"]),
        ("seed: [1, 1, 1]", [REPEATED]),
        ("sweep: {format: [tiff, webp]}\nquality: 80", []),
        *((f"format: png\nquality: {quality}", []) for quality in ("lossless", "auto")),
        ("cfg_start: 0.4\ncfg_end: 0.5\ncfg_rescale: 0.5", []),
        ("cfg_scale: 1\ncfg_start: 0\ncfg_end: 1\ncfg_rescale: 0", []),
        ("variation_strength: 0\nvariation_seed: 5", []),  # it is off on purpose
        *((text, []) for text in ("quality: 80", "cfg_end: 0", "seed: 1..8", "seed: [5]")),
    ],
)  # fmt: skip
def test_what_does_nothing_beside_another_value_is_named(text: str, warnings: list[str]) -> None:
    """As the recipe itself says it; a folder's defaults are for other recipes, too."""
    check_warned(read_one(f"prompt: a\n{text}"), *warnings)
    check_warned(read_one("prompt: a", defaults=text))


@pytest.mark.parametrize(
    "text",
    [
        *(f"{name}: a corgi in the park" for name in ("promt", "text", "positive_prompt")),
        *("recipe: {prompt: a}", "defaults:\n  prompt: a", "recipes: [a]"),
    ],
)
def test_an_unknown_field_that_may_be_meant_as_the_prompt_is_one_error(text: str) -> None:
    """Or that has one inside; beside any other, a prompt is missing."""
    check_refused(text, f"unknown field '{text.partition(':')[0]}'. …")
    assert len(messages("when_done: keep")) == 2


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("corgi.yaml", "Write 'prompt: …'."),
        ("pets/defaults.yaml", "… To use the file for its folder, call it _defaults.yaml."),
        ("pictures.yaml", "… To use the file for its folder, call it _pictures.yaml."),
        ("picowatch.yaml", "… Settings of picowatch belong beside the inbox, not into it."),
    ],
)
def test_a_missing_prompt_is_not_all_that_a_file_for_others_is_told(name: str, remedy: str) -> None:
    check_refused("steps: 3", f"a prompt is missing. {remedy}", name=name)


def test_settings_in_the_prompt_of_another_kind_of_file_are_a_warning() -> None:
    """What a .txt would take for flags or A1111's settings is text in YAML."""
    check_warned(read_one("prompt: a --steps 30"), "'--steps' is drawn … Write steps as a field …")
    pasted = "prompt: |\n  a corgi\n  Negative prompt: dim\n  Steps: 20, Sampler: Euler a"
    negative = "'Negative prompt: dim' is drawn as plain text. Write fields, in YAML."
    check_warned(read_one(pasted), negative, "'Steps: 20, Sampler: Euler a' is drawn as plain …")


@pytest.mark.parametrize(
    ("prompt", "remedy"),
    [
        ("[a corgi, a cat]",
         "one prompt. For several pictures, write a recipe for each, or sweep: {prompt: [a …"),
        ("\n- a corgi\n- a cat", "one prompt. For several pictures, write a recipe for each."),
        ("{positive: a, negative: b}", "… Write prompt: and negative_prompt: as two fields."),
        ("\n  positive: a", "… Write prompt: and negative_prompt: as two fields."),
        ("{red|blue}", "… For text, put it in quotes: prompt: '{red|blue}'"),
    ],
)  # fmt: skip
def test_several_prompts_in_one_are_told_to_be_several(prompt: str, remedy: str) -> None:
    """Quotes would make them one text, with less weight on all of it."""
    check_refused(f"prompt: {prompt}", f"prompt must be text, not …{remedy}")


def test_references_of_yaml_are_told_once() -> None:
    """What they refer to, and their use, would be further mistakes."""
    for text in ("x: &x {steps: 3}\nprompt: a\n<<: *x", "- &x\n  prompt: a\n- <<: *x\n  steps: 3"):
        check_refused(text, "YAML's references (&, * and <<) are not supported. Write …")


@pytest.mark.parametrize(
    "prompt",
    [
        *("a (corgi:1.2), (b)", "((a))", r"a \(b", "“a” and “b”", "”", "(a, b:1.2)"),
        *("at 1,2 (or 3)", "a)", "{a", r"\{a|b", "a|b}", "{a|{b|c}}", "a -blurry", "a -steps"),
        *("[a::10]", "a [dog::0.5] b", "std::vector", "a C++ book", "DPM++ 2M", "$100"),
        *("{2$$RED|BLUE}", "{1-2$$ $$RED|BLUE}"),
        *("a dog and/or steps", "a [cat:dog:0.5]", "a {red|blue} hat, {x"),
        *("a [dog:10]", "a [cat::10]", "(at 10:30:1.2)", "(dim:2), (c:4.5)", "a //b", "{{a}|{b}}"),
    ],
)
def test_what_was_meant_is_no_warning(prompt: str) -> None:
    assert read_one(prompt, "corgi.txt").warnings == ()


def test_no_field_is_told_as_another_programs() -> None:
    """When a name becomes a field, its hint and its flag have to be removed."""
    names = {*FIRST_NAME_OF}
    assert not [name for name in names if words_of_others(name)]
    assert not names & {*THEIRS_ALONE}
