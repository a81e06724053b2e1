"""`picowatch check`: what recipes would render, and what is wrong with them, as a run would say."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image

from picowatch.inbox.names import why_path_skipped
from picowatch.recipe.fields import ROWS, ImageFields
from tests.commands.picowatch import picowatch


def save(folder: Path, files: dict[str, str | bytes]) -> None:
    """Write files; a picture for each name of one that has no content."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png") and not content:
            Image.new("RGB", (64, 64)).save(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_check_lists_the_images_a_recipe_would_render(tmp_path: Path) -> None:
    """As lines for people, and as JSON with every resolved field."""
    save(tmp_path, {"a.yaml": "prompt: a corgi\nsampler: euler_a\ncount: 2\nseed: 4294967295\n"})
    result = picowatch(tmp_path, "check", "a.yaml")
    assert (result.returncode, result.stdout.splitlines()[0]) == (0, "a.yaml: 2 images")
    images = json.loads(picowatch(tmp_path, "check", "--json", "a.yaml").stdout)
    assert [image["seed"] for image in images] == [4294967295, 0]
    expected = {
        "recipe": "a.yaml", "entry_index": 0, "priority": 0, "prompt": "a corgi",
        "negative_prompt": "", "unexpanded_prompt": "", "checkpoint": "demo", "vae": "baked",
        "sampler": "Euler a", "schedule_type": "uniform", "steps": 24, "cfg_scale": 4.0,
        "width": 128, "height": 128, "clip_skip": 1, "image": "", "hires": None, "loras": [],
        "exact": False,
    }  # fmt: skip
    assert images[0] | expected == images[0]
    shown = {field.name for field in fields(ImageFields) if not ROWS[field.name].needs}
    assert shown <= set(images[0])


def test_check_draws_no_wildcard_without_its_seed(tmp_path: Path) -> None:
    """Another word would be drawn than the one that was shown."""
    save(tmp_path, {"a.txt": "a {cat|dog}\na {cat|dog} --seed 3\na {cat} --negative {x|y}\n"})
    found = json.loads(picowatch(tmp_path, "check", "--json", "a.txt").stdout)
    first, second, third = [(image["prompt"], image["negative_prompt"]) for image in found]
    assert (first, third) == (("a {cat|dog}", ""), ("a {cat}", "{x|y}"))
    assert second in [("a cat", ""), ("a dog", "")]
    shown = picowatch(tmp_path, "check", "a.txt").stdout.splitlines()
    assert shown[1].endswith("seed random  negative_prompt none  a {cat|dog}")


def test_check_tells_images_apart(tmp_path: Path) -> None:
    """Each line has what is not the same in all: of a sweep, or several recipes."""
    sweep = "{image: [fr/f1.png, fr/f2.png], denoising_strength: [0.25, 1]}"
    entries = "- prompt: a\n- prompt: a\n  hires: true\n- prompt: b\n"
    save(tmp_path, {"fr/f1.png": "", "fr/f2.png": "", "b.yaml": entries})
    save(tmp_path, {"a.yaml": f"prompt: a corgi\nsweep: {sweep}\n"})
    shown = picowatch(tmp_path, "check", "a.yaml", "b.yaml").stdout.splitlines()
    assert [line.partition("seed random  ")[2] for line in shown if " seed " in line] == [
        "image fr/f1.png  denoising_strength 0.25  a corgi",
        "image fr/f1.png  denoising_strength 1  a corgi",
        "image fr/f2.png  denoising_strength 0.25  a corgi",
        "image fr/f2.png  denoising_strength 1  a corgi",
        "a",
        "hires scale 2, steps 0, denoising_strength 0.7, upscaler Latent  a",
        "b",
    ]


def test_check_shows_what_a_recipe_does_beyond_its_text(tmp_path: Path) -> None:
    """Pictures that it starts from, what is done afterwards, and the size of the result."""
    entries = {
        "prompt: a\n  size: 64x64\n  hires: {scale: 1.5}\n  upscale: {scale: 2}": (
            "64x64 to 192x192",
            "hires scale 1.5, steps 0, denoising_strength 0.7, upscaler Latent  "
            "upscale model demo-compact, scale 2",
        ),
        "prompt: a\n  image: i.png\n  mask: m.png\n  cutout: true": (
            "128x128",
            "image i.png  denoising_strength 0.75  mask m.png  cutout demo-cutout",
        ),
        "prompt: a\n  image: i.png\n  mask: {find: hat, grow: 0}": (
            "128x128",
            "mask find hat, grow 0, model demo-find",
        ),
        "image: i.png\n  detail: hat": ("64x64", "image i.png  detail find hat, model demo-find"),
        "image: i.png\n  upscale: {scale: 2}": ("64x64 to 128x128", ""),
        "prompt: a": ("128x128", ""),
    }
    save(tmp_path, {"i.png": "", "m.png": ""})
    save(tmp_path, {"a.yaml": "".join(f"- {text}\n" for text in entries)})
    _, *lines = picowatch(tmp_path, "check", "a.yaml").stdout.splitlines()
    for line, (size, words) in zip(lines, entries.values(), strict=True):
        assert line.startswith(f"  {size}  ")
        assert words in line
    assert lines[-1] == "  128x128  demo  DPM++ 2M karras  24 steps  cfg_scale 4  seed random  a"


def test_check_warns_of_a_mask_that_selects_nothing_or_everything(tmp_path: Path) -> None:
    """As rendering does, for a recipe and for a dropped picture's own mask."""
    save(tmp_path, {"i.png": "", "m.png": "", "a.yaml": "prompt: a\nimage: i.png\nmask: m.png\n"})
    save(tmp_path, {TEMPLATE: "prompt: a\n", "inbox/d/a.png": "", "inbox/d/a.mask.png": ""})
    for file, mask in (("a.yaml", "m.png"), ("inbox/d/a.png", "d/a.mask.png")):
        result = picowatch(tmp_path, "check", file)
        why = f"The mask '{mask}' has no white, so nothing is redrawn."
        assert (result.returncode, result.stderr) == (0, f"{file}: warning: {why}\n")


TWO = "- {prompt: a, image: no.png, mask: text.png}\n- {prompt: b, clip_skip: 3}\n"
BAD_DEFAULTS = "stesp: 3\ncfg_scale: 100\n"
ABOUT_DEFAULTS = "_defaults.yaml, line 1, column 1\n", "Did you mean 'steps'?", "cfg_scale"
TEMPLATE = "inbox/d/_pictures.yaml"


@pytest.mark.parametrize(
    ("file", "files", "words"),
    [
        ("bad.yaml", {"bad.yaml": "prompt: a corgi\nwidth: 500\nheigth: 512\n"},
         ("./bad.yaml, line 2, column 8", "496 or 504 would do", "Did you mean 'height'?")),
        ("inbox/a.txt", {"inbox/a.txt": "a corgi --stesp 3\n"}, ("a.txt, line 1, column 9\n",)),
        ("none.txt", {}, ("picowatch: none.txt: No such file or directory\n",)),
        ("a.png", {"a.png": ""}, ("names of recipes end in .yaml, .yml, .json, .csv, .txt.",)),
        # What a run refuses once it looks at pictures and models.
        ("inbox/a.yaml", {"inbox/a.yaml": TWO, "inbox/text.png": "no picture"},
         ("line 2, column 26\n", "clip_skip 3 is too much for the checkpoint 'demo'")),
        ("inbox/a.yaml", {"inbox/a.yaml": TWO.splitlines()[0], "inbox/text.png": "no picture"},
         ("column 22\n", "There is no picture 'no.png'.", "column 36\n", "not a picture that")),
        ("inbox/a.yaml", {"inbox/a.yaml": "prompt: a\nimage: no.png\nmask: hat\n"},
         ("There is no picture 'hat'.", "For what words find, write mask: {find: hat}.")),
        ("new/a.yaml", {"inbox/b.txt": "", "new/a.yaml": "prompt: a\nimage: start.png\n",
                        "new/start.png": "no picture"}, ("not a picture that can be read",)),
        ("a.yaml", {"a.yaml": "prompt: a star A{ND|ND} a cat\nseed: 1\n"},
         ("a.yaml, line 1, column 9\n", "with seed 1 this becomes: a star AND a cat\nAND ")),
        ("inbox/d/a.png", {TEMPLATE: "prompt: a\n", "inbox/d/a.png": "",
                           "inbox/d/a.yaml": "prompt: b\nmask: no.png\n"},
         ("There is no picture 'no.png'.",)),
        ("inbox/d/a.png", {TEMPLATE: "prompt: a AND b\n", "inbox/d/a.png": "",
                           "inbox/d/a.yaml": "prompt: c\n"},
         ("AND (composing prompts) is not supported",)),
        ("_defaults.yaml", {"_defaults.yaml": BAD_DEFAULTS}, ABOUT_DEFAULTS),
        ("inbox/b/_defaults.yaml", {"inbox/b/_defaults.yaml": BAD_DEFAULTS}, ABOUT_DEFAULTS),
    ],
)  # fmt: skip
def test_check_says_what_is_wrong_and_goes_on(
    tmp_path: Path, file: str, files: dict[str, str | bytes], words: tuple[str, ...]
) -> None:
    """With the file as it was named, and nothing that is not wrong; exit code 1."""
    save(tmp_path, {**files, "good.txt": "a corgi\n"})
    result = picowatch(tmp_path, "check", file, "good.txt")
    assert result.returncode == 1
    for text in words:
        assert text in result.stderr
    if "defaults" in file:
        assert "prompt" not in result.stderr
    assert result.stdout.startswith("good.txt: 1 image\n")
    listed = picowatch(tmp_path, "check", "--json", file, "good.txt")
    assert (listed.returncode, len(json.loads(listed.stdout))) == (1, 1)


def test_check_reads_as_the_daemon_would(tmp_path: Path) -> None:
    """A folder's defaults hold in the inbox; elsewhere, pictures may lie beside the recipe."""
    save(tmp_path, {"inbox/_defaults.yaml": "steps: 9\n", "inbox/pets/a.txt": "a corgi\n"})
    save(tmp_path, {"new/a.yaml": "prompt: a\nimage: start.png\n", "new/start.png": ""})
    result = picowatch(tmp_path, "check", "--json", "inbox/pets/a.txt", "new/a.yaml")
    assert [image["steps"] for image in json.loads(result.stdout)] == [9, 24]
    good = picowatch(tmp_path, "check", "inbox/_defaults.yaml")
    said = "inbox/_defaults.yaml: defaults of the recipes in this folder and below\n"
    assert (good.returncode, good.stdout, good.stderr) == (0, said, "")


@pytest.mark.parametrize("name", ["_defaults.yml", "a (conflicted copy).yaml", ".old/a.yaml"])
def test_check_names_files_in_the_inbox_that_are_never_run(tmp_path: Path, name: str) -> None:
    """Elsewhere the same names are only drafts."""
    why = why_path_skipped(name) or "recipes and their folders have other names"
    save(tmp_path, {f"{folder}/{name}": "prompt: a corgi\n" for folder in ("inbox", "drafts")})
    drafted = picowatch(tmp_path, "check", f"drafts/{name}")
    assert (drafted.returncode, drafted.stderr) == (0, "")
    checked = picowatch(tmp_path, "check", f"inbox/{name}")
    said = f"inbox/{name}: warning: this file in the inbox is never run: {why}.\n"
    assert (checked.returncode, checked.stderr) == (0, said)


@pytest.mark.parametrize(
    ("defaults", "others", "image"),
    [
        ("a/_defaults.yaml", {"a/ref.png": ""}, "a/ref.png"),
        ("a/_defaults.yaml", {"a/ref.png": "", "a/b/ref.png": ""}, "a/ref.png"),
        ("_defaults.yaml", {"ref.png": ""}, "ref.png"),
        ("_defaults.yaml", {"ref.png": "", "a/b/ref.png": ""}, "inbox/ref.png"),
        ("a/b/_defaults.yaml", {"ref.png": "", "a/b/ref.png": ""}, "ref.png"),
    ],
)
def test_a_path_in_a_folders_defaults_is_beside_them(
    defaults: str, others: dict[str, str | bytes], image: str, tmp_path: Path
) -> None:
    """Also for recipes in subfolders, and if a picture of the same name is beside the recipe."""
    inbox = tmp_path / "inbox"
    save(inbox, {defaults: "image: ref.png\n", "a/b/corgi.yaml": "prompt: a corgi\n", **others})
    found = json.loads(picowatch(tmp_path, "check", "--json", "inbox/a/b/corgi.yaml").stdout)
    assert [one["image"] for one in found] == [image]


def test_a_template_of_references_names_the_word_that_is_wrong(tmp_path: Path) -> None:
    """Not a picture that nobody has saved."""
    save(tmp_path / "inbox", {"a/_pictures.yaml": "prompt: a corgi\nreferences: picture\n"})
    result = picowatch(tmp_path, "check", "inbox/a/_pictures.yaml")
    assert result.returncode == 1
    assert "inbox/a/_pictures.yaml, line 2, column 13" in result.stderr + result.stdout
    assert "any.png" not in result.stderr + result.stdout
