"""`picowatch check`: what recipes would render, and what is wrong with them, as a run would say."""

import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image

from picowatch.commands.check import Code, FoundProblem
from picowatch.recipe.fields import ROWS, ImageFields
from tests.commands.picowatch import PROJECT, picowatch_here, ran
from tests.daemon.processes import without_privileges
from tests.fault_points import preceded_by, wrap

PUT = "To have it enlarged or edited, put it into a folder"


def save(folder: Path, files: dict[str, str | bytes]) -> None:
    """Write files; a picture for each name of one that has no content."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png") and not content:
            Image.new("RGB", (64, 64)).save(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def as_json(folder: Path, *files: str) -> dict[str, Any]:
    """The object that `check --json` prints; nothing else is said, and the exit code fits it."""
    result = picowatch_here(folder, "check", "--json", *files)
    found: dict[str, Any] = json.loads(result.stdout)
    assert (result.returncode, result.stderr) == (0 if found["ok"] else 1, "")
    return found


def test_check_lists_the_images_a_recipe_would_render(tmp_path: Path) -> None:
    """As lines for people, and as JSON with every resolved field."""
    save(tmp_path, {"a.yaml": "prompt: a corgi\nsampler: euler_a\ncount: 2\nseed: 4294967295\n"})
    result = picowatch_here(tmp_path, "check", "a.yaml")
    assert (result.returncode, result.stdout.splitlines()[0]) == (0, "a.yaml: 2 images")
    images = as_json(tmp_path, "a.yaml")["images"]
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
    assert not [name for name in images[0] if name.startswith("_")]


def test_check_draws_no_wildcard_without_its_seed(tmp_path: Path) -> None:
    """Another word would be drawn than the one that was shown."""
    save(tmp_path, {"a.txt": "a {cat|dog}\na {cat|dog} --seed 3\na {cat} --negative {x|y}\n"})
    found = as_json(tmp_path, "a.txt")["images"]
    first, second, third = [(image["prompt"], image["negative_prompt"]) for image in found]
    assert (first, third) == (("a {cat|dog}", ""), ("a {cat}", "{x|y}"))
    assert second in [("a cat", ""), ("a dog", "")]
    shown = picowatch_here(tmp_path, "check", "a.txt").stdout.splitlines()
    assert shown[1].endswith("seed random  negative_prompt none  a {cat|dog}")


def test_check_warns_of_lines_that_a_random_seed_may_draw(tmp_path: Path) -> None:
    """Such a recipe would be refused at random, unseen."""
    fine = "oil\n" * 50
    lines = {"style": f"{fine}<lora:gone:1> ink\n__sub__\n", "sub": f"{fine}a AND b\nc AND d\n"}
    save(tmp_path, {f"models/wildcards/{name}.txt": text for name, text in lines.items()})
    save(tmp_path, {"a.yaml": "prompt: a __style__\n", "b.yaml": "prompt: a __sub__\nseed: 1\n"})
    found = picowatch_here(tmp_path, "check", "a.yaml", "b.yaml")
    assert found.returncode == 0
    lora, composed = found.stderr.splitlines()
    start = "a.yaml: warning: if a seed draws "
    assert lora.startswith(
        f"{start}'<lora:gone:1> ink' from models/wildcards/style.txt, this recipe"
    )
    assert lora.endswith("Put its file there, or write the prompt without the tag.")
    assert composed.startswith(f"{start}'a AND b' from models/wildcards/sub.txt, this recipe is")


@pytest.mark.parametrize(("lines", "code"), [("oil\na AND b\n", 0), ("a AND b\n", 1)])
def test_check_refuses_only_what_no_seed_can_draw(tmp_path: Path, lines: str, code: int) -> None:
    """Of two lines, the first seed that is tried draws the wrong one."""
    save(tmp_path, {"models/wildcards/w.txt": lines, "a.yaml": "prompt: __w__\n"})
    found = picowatch_here(tmp_path, "check", "a.yaml")
    assert (found.returncode, found.stdout.startswith("a.yaml: 1 image\n")) == (code, not code)
    seen = "this becomes: a AND b" if code else "a.yaml: warning: if a seed draws 'a AND b'"
    assert seen in found.stderr


def test_check_reads_a_wildcard_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever prompts combine it with: else a file of prompts would take minutes."""
    lines: list[str] = []
    note = preceded_by(lambda text, _: lines.append(text))
    wrap("picowatch.recipe.prompts.drawing:files_in", note, monkeypatch.setattr)
    for name in "abc":
        save(tmp_path, {f"models/wildcards/{name}.txt": f"{name} line"})
    save(tmp_path, {"a.txt": "__a__ __b__\n__b__ __c__\n__a__\n__c__\n"})
    assert picowatch_here(tmp_path, "check", "a.txt").returncode == 0
    assert sorted(lines) == ["a line", "b line", "c line"]


def test_check_tells_images_apart(tmp_path: Path) -> None:
    """Each line has what is not the same in all: of a sweep, or several recipes."""
    sweep = "{image: [fr/f1.png, fr/f2.png], denoising_strength: [0.25, 1]}"
    entries = "- prompt: a\n- prompt: a\n  hires: true\n- prompt: b\n"
    save(tmp_path, {"inbox/fr/f1.png": "", "inbox/fr/f2.png": "", "b.yaml": entries})
    save(tmp_path, {"a.yaml": f"prompt: a corgi\nsweep: {sweep}\n"})
    shown = picowatch_here(tmp_path, "check", "a.yaml", "b.yaml").stdout.splitlines()
    assert [line.partition("seed random  ")[2] for line in shown if " seed " in line] == [
        "image fr/f1.png  denoising_strength 0.25  a corgi",
        "image fr/f1.png  denoising_strength 1  a corgi",
        "image fr/f2.png  denoising_strength 0.25  a corgi",
        "image fr/f2.png  denoising_strength 1  a corgi",
        "a",
        "hires {scale: 2, steps: 0, denoising_strength: 0.7, upscaler: Latent}  a",
        "b",
    ]


def test_check_shows_what_a_recipe_does_beyond_its_text(tmp_path: Path) -> None:
    """Pictures that it starts from, what is done afterwards, and the size of the result."""
    entries = {
        "prompt: a\n  size: 64x64\n  hires: {scale: 1.5}\n  upscale: {scale: 2}": (
            "64x64 to 192x192",
            "hires {scale: 1.5, steps: 0, denoising_strength: 0.7, upscaler: Latent}  "
            "upscale {model: demo-compact, scale: 2}",
        ),
        "prompt: a\n  image: i.png\n  mask: m.png\n  cutout: true": (
            "128x128",
            "image i.png  denoising_strength 0.75  mask m.png  cutout demo-cutout",
        ),
        "prompt: a\n  image: i.png\n  mask: {find: hat, grow: 0}": (
            "128x128",
            "mask {find: hat, grow: 0, model: demo-find}",
        ),
        "image: i.png\n  detail: hat": (
            "64x64",
            "image i.png  detail [{find: hat, model: demo-find, size: 128x128}]",
        ),
        "image: i.png\n  upscale: {scale: 2}": ("64x64 to 128x128", ""),
        "prompt: a": ("128x128", ""),
    }
    save(tmp_path / "inbox", {"i.png": "", "m.png": ""})
    save(tmp_path, {"a.yaml": "".join(f"- {text}\n" for text in entries)})
    _, *lines = picowatch_here(tmp_path, "check", "a.yaml").stdout.splitlines()
    for line, (size, words) in zip(lines, entries.values(), strict=True):
        assert line.startswith(f"  {size}  ")
        assert words in line
    assert lines[-1] == "  128x128  demo  DPM++ 2M karras  24 steps  cfg_scale 4  seed random  a"


TWO = "- {prompt: a, image: no.png, mask: text.png}\n- {prompt: b, clip_skip: 3}\n"
BAD_DEFAULTS = "stesp: 3\ncfg_scale: 100\n"
ABOUT_DEFAULTS = "_defaults.yaml, line 1, column 1\n", "Did you mean 'steps'?", "cfg_scale"
TEMPLATE = "inbox/d/_pictures.yaml"


@pytest.mark.parametrize(
    ("file", "files", "words"),
    [
        ("bad.yaml", {"bad.yaml": "prompt: a corgi\nwidth: 500\nheigth: 512\n"},
         ("bad.yaml, line 2, column 8", "496 or 504 would do", "Did you mean 'height'?")),
        ("inbox/a.txt", {"inbox/a.txt": "a corgi --stesp 3\n"}, ("a.txt, line 1, column 9\n",)),
        ("none.txt", {}, ("picowatch: none.txt: No such file or directory\n",)),
        ("inbox/corgi", {"inbox/corgi.yaml": "prompt: a\n"},
         ("picowatch: inbox/corgi: No such file or directory. Did you mean 'corgi.yaml'?\n",)),
        ("inbox/crgi.png", {"inbox/corgi.png": "x"},
         ("picowatch: inbox/crgi.png: No such file or directory. Did you mean 'corgi.png'?\n",)),
        ("a.png", {"a.png": ""}, ("names of recipes end in .yaml, .yml, .json, .csv, .txt.",)),
        # What a run refuses once it looks at pictures and models.
        ("inbox/a.yaml", {"inbox/a.yaml": TWO, "inbox/text.png": "no picture"},
         ("line 2, column 26\n", "clip_skip 3 is too much for the checkpoint 'demo'")),
        ("inbox/a.yaml", {"inbox/a.yaml": TWO.splitlines()[0], "inbox/text.png": "no picture"},
         ("column 22\n", "There is no picture 'no.png'.", "column 36\n", "not a picture that")),
        ("inbox/a.yaml", {"inbox/a.yaml": "prompt: a\nimage: no.png\nmask: hat\n"},
         ("There is no picture 'hat'.", "For what words find, write mask: {find: hat}.")),
        # A save of these in the inbox would say the same.
        ("inbox/_pictures.yaml", {"inbox/_pictures.yaml": "prompt: a\n"},
         ("Pictures cannot be dropped into the inbox itself",)),
        ("inbox/d/a\tb.png", {TEMPLATE: "prompt: a\n", "inbox/d/a\tb.png": ""},
         ("has characters that a recipe cannot contain. Rename it.",)),
        ("a.yaml", {"a.yaml": "prompt: a star A{ND|ND} a cat\nseed: 1\n"},
         ("a.yaml, line 1, column 9\n", "with seed 1 this becomes: a star AND a cat\nAND ")),
        # Cameras name photos in Adobe RGB so: it is no file of defaults.
        ("inbox/d/_DSC1.png", {TEMPLATE: "prompt: a\n", "inbox/d/_DSC1.png": "",
                               "inbox/d/_DSC1.yaml": "prompt: b\nmask: no.png\n"},
         ("There is no picture 'no.png'.",)),
        ("inbox/d/a.png", {TEMPLATE: "prompt: a AND b\n", "inbox/d/a.png": "",
                           "inbox/d/a.yaml": "prompt: c\n"},
         ("AND (composing prompts) is not supported",)),
        (TEMPLATE, {TEMPLATE: "prompt: a\nreferences: picture\n"},
         (f"{TEMPLATE}, line 2, column 13",)),
        ("_defaults.yaml", {"_defaults.yaml": BAD_DEFAULTS}, ABOUT_DEFAULTS),
    ],
)  # fmt: skip
def test_check_says_what_is_wrong_and_goes_on(
    tmp_path: Path, file: str, files: dict[str, str | bytes], words: tuple[str, ...]
) -> None:
    """With the file as it was named, and nothing that is not wrong; exit code 1."""
    save(tmp_path, {**files, "good.txt": "a corgi\n"})
    result = picowatch_here(tmp_path, "check", file, "good.txt")
    assert result.returncode == 1
    for text in words:
        assert text in result.stderr
    assert "never run" not in result.stderr
    if "defaults" in file:
        assert "prompt" not in result.stderr
    assert "any.png" not in result.stderr, "the picture that stands for a template's"
    assert result.stdout.startswith("good.txt: 1 image\n")
    listed = as_json(tmp_path, file, "good.txt")
    assert (listed["ok"], len(listed["images"])) == (False, 1)
    for problem in listed["problems"]:
        assert problem["text"].splitlines()[0] in result.stderr


def test_check_reads_as_the_daemon_would(tmp_path: Path) -> None:
    """A folder's defaults hold in the inbox; a file elsewhere is read as `make` puts it there."""
    save(tmp_path, {"inbox/_defaults.yaml": "steps: 9\n", "inbox/pets/a.txt": "a corgi\n"})
    save(tmp_path, {"inbox/pets/_defaults.yaml": "steps: 8\n", "inbox/start.png": ""})
    save(tmp_path, {"new/a.yaml": "prompt: a\nimage: start.png\n"})
    images = as_json(tmp_path, "inbox/pets/a.txt", "new/a.yaml")["images"]
    assert [image["steps"] for image in images] == [8, 9]
    good = picowatch_here(tmp_path, "check", "inbox/_defaults.yaml")
    said = "inbox/_defaults.yaml: defaults of the recipes in this folder and below\n"
    assert (good.returncode, good.stdout, good.stderr) == (0, said, "")


def test_check_and_make_agree_on_a_picture_beside_a_recipe_from_elsewhere(tmp_path: Path) -> None:
    """Only the recipe is put into the inbox."""
    save(tmp_path, {"new/a.yaml": "prompt: a\nimage: start.png\n", "new/start.png": ""})
    save(tmp_path, {"inbox/b.txt": "", "outbox/b.txt": ""})
    for command in ("check", "make"):
        result = picowatch_here(tmp_path, command, "new/a.yaml")
        why = "There is no picture 'start.png'. Put it into the inbox beside the recipe, or"
        assert (result.returncode, why in result.stderr) == (1, True), result.stderr


def test_check_of_what_lies_beside_a_picture_checks_the_picture(tmp_path: Path) -> None:
    texts: dict[str, str | bytes] = {"a.txt": "a star", "a.yaml": "steps: 5\n", "a.mask.png": ""}
    save(tmp_path, {TEMPLATE: "prompt: a\n", "inbox/d/a.png": "", "inbox/d/b.png": ""})
    save(tmp_path / "inbox/d", texts)
    for beside in texts:
        told = as_json(tmp_path, f"inbox/d/{beside}")
        (image,), said = told["images"], [problem["text"] for problem in told["problems"]]
        assert "The mask 'd/a.mask.png' has no white, so nothing is redrawn." in said, told
        found = [image[name] for name in ("recipe", "prompt", "steps", "mask")]
        assert found == ["inbox/d/a.png", "a star", 5, "d/a.mask.png"]


def test_a_picture_that_its_template_names_is_no_request(tmp_path: Path) -> None:
    names = ["m.png", "a.png", "a.mask.png", ".hidden.png"]
    save(tmp_path, {TEMPLATE: "prompt: a\nmask: m.png\n"})
    save(tmp_path / "inbox/d", dict.fromkeys(names, ""))
    problems = as_json(tmp_path, *(f"inbox/d/{name}" for name in names))["problems"]
    told = [row["file"] for row in problems if row["code"] == "never_run"]
    assert told == ["inbox/d/m.png"]


@pytest.mark.parametrize("template", ["upscale: 2\n", "cutout: true\n"])
def test_what_says_nothing_to_a_picture_that_is_only_finished_is_named(
    tmp_path: Path, template: str
) -> None:
    """A note beside it and fields about drawing are warned of; in a recipe they are errors."""
    save(tmp_path, {TEMPLATE: template, "inbox/d/1.png": "", "inbox/d/1.txt": "for the client"})
    save(tmp_path, {"inbox/_defaults.yaml": "prompt: a star\nsteps: 9\nsize: 512x512\n"})
    found = as_json(tmp_path, TEMPLATE)
    assert "checkpoint" not in found["images"][0]
    note = "d/1.txt is no prompt: d/_pictures.yaml only finishes pictures. To have this one drawn,"
    assert f"{note} write 'prompt: …' into d/1.yaml." in {row["text"] for row in found["problems"]}
    save(tmp_path, {"inbox/d/1.yaml": "steps: 5\n"})
    drawn = as_json(tmp_path, TEMPLATE)
    assert [image["prompt"] for image in drawn["images"]] == ["for the client"]
    assert "1.txt" not in f"{drawn['problems']}"
    (tmp_path / "inbox/d/1.yaml").unlink()
    save(tmp_path, {TEMPLATE: f"{template}---\nsize: picture\n"})
    both = as_json(tmp_path, TEMPLATE)
    assert [image["prompt"] for image in both["images"]] == ["", "for the client"]
    assert "1.txt" not in f"{both['problems']}"
    for name in ("_defaults.yaml", "d/1.txt"):
        (tmp_path / "inbox" / name).unlink()
    idle = "size: 80x80\nresize: fit\nsteps: 9\ncfg_scale: 3\n"
    save(tmp_path, {TEMPLATE: template + idle, "inbox/d/2.png": ""})
    save(tmp_path, {"inbox/d/2.yaml": "width: 96\n", "inbox/d/1.yaml": "resize: crop\n"})
    save(tmp_path, {"inbox/d/2.mask.png": ""})
    found = as_json(tmp_path, TEMPLATE)
    names = {"size": (TEMPLATE, 2), "resize": ("inbox/d/1.yaml", 1), "steps": (TEMPLATE, 4),
             "cfg_scale": (TEMPLATE, 5), "width": ("inbox/d/2.yaml", 1)}  # fmt: skip
    said = {problem["text"] for problem in found["problems"]}
    for name, (file, line) in names.items():
        what = f"{name} has no effect without prompt. It was ignored."
        assert f"{what} (in {file.removeprefix('inbox/')}, line {line})" in said
    assert "mask has no effect without prompt. It was ignored. (in d/2.mask.png)" in said
    (tmp_path / "inbox/d/2.mask.png").unlink()
    assert (found["ok"], len(found["images"])) == (True, 2)
    save(tmp_path, {"inbox/d/1.yaml": "prompt: a star\n", "inbox/d/2.yaml": "prompt: a star\n"})
    assert not as_json(tmp_path, TEMPLATE)["problems"]


def test_what_several_entries_ask_for_is_made_once(tmp_path: Path) -> None:
    """And both `check` and the daemon say so; entries with random seeds are different."""
    sizes = "resize_to: 60\nname: '{stem}-small'\n---\nresize_to: 60\nname: '{stem}-copy'\n"
    rows = "_id,prompt,seed\n1,a star,1\n2,a star,2\n3,a star,1\n4,a star,\n5,a star,\n"
    save(tmp_path, {TEMPLATE: sizes, "inbox/d/1.png": "", "inbox/a.csv": rows})
    save(tmp_path, {"inbox/b.txt": "a star --seed 1\n" * 2})
    counts = "a star --seed 1 --count 3\na moon --count 3\na star --seed 2 --count 4\n"
    varied = "a star --seed 1 --variation_strength 0.2 --variation_seed"
    save(tmp_path, {"inbox/c.txt": f"{counts}a star --seed 6\n"})
    save(tmp_path, {"inbox/e.txt": f"{varied} 3 --count 3\n{varied} 5\n"})
    found = as_json(tmp_path, "inbox")
    assert len(found["images"]) == 1 + 4 + 1 + (3 + 3 + 2 + 1) + 3
    said = "the same image, which is made once"
    own = f"{said}, with the name and notes of entry 1."
    assert [(each["file"], each["text"]) for each in found["problems"]] == [
        ("inbox/a.csv", f"entries 1 and 3 ask for {own}"),
        ("inbox/b.txt", f"entries 1 and 2 ask for {said}."),
        ("inbox/c.txt", "entries 1 and 3 ask for the same 2 images, which are made once."),
        (TEMPLATE, f"entries 1 and 2 ask for {own}"),
        ("inbox/e.txt", f"entries 1 and 2 ask for {said}."),
    ]


def test_check_of_a_folder_checks_all_that_is_in_it_and_sums_up(tmp_path: Path) -> None:
    """Recipes and photos, with a line for each recipe and template; exit code 1 if any is bad."""
    save(tmp_path, {TEMPLATE: "upscale: 2\n", "inbox/d/1.png": "", "inbox/d/2.png": "no picture"})
    save(tmp_path, {"inbox/d/e/3.png": "", "inbox/d/1.yaml": "keep_exif: none\n"})
    save(
        tmp_path, {"inbox/a.txt": "a star\na moon\n", "inbox/p/b.yaml": "prompt: a\nimage: s.png\n"}
    )
    save(tmp_path, {"inbox/p/s.png": "", "inbox/run.sh": "", "inbox/_defaults.yaml": "steps: 9\n"})
    result = picowatch_here(tmp_path, "check", "inbox")
    assert (result.returncode, result.stdout.splitlines()) == (1, [
        "inbox/a.txt: 2 images", f"{TEMPLATE}: 2 images", "inbox/p/b.yaml: 1 image",
        "inbox: 6 files, 5 images, 1 with problems, 1 never run",
    ])  # fmt: skip
    assert result.stderr.count("picowatch: inbox/d/2.png: ") == 1
    assert "inbox/run.sh: warning: this file is never run: recipes are .yaml" in result.stderr
    assert result.stderr.count("never run") == 1, "a recipe names s.png"
    below = picowatch_here(tmp_path, "check", "inbox/d/e/", "inbox/p")
    assert (below.returncode, below.stdout.splitlines()) == (0, [
        "inbox/d/e/3.png: 1 image", "inbox/d/e: 1 file, 1 image",
        "inbox/p/b.yaml: 1 image", "inbox/p: 1 file, 1 image",
    ])  # fmt: skip
    save(tmp_path, {"drafts/a.yaml": "stesp: 1\n", "drafts/b/c.txt": "a star\n"})
    drafts = picowatch_here(tmp_path, "check", "drafts")
    said = "drafts/b/c.txt: 1 image\ndrafts: 2 files, 1 image, 1 with problems\n"
    assert (drafts.returncode, drafts.stdout) == (1, said)
    assert drafts.stderr.startswith("drafts/a.yaml, line 1, column 1\n")


@pytest.mark.parametrize(
    ("closed", "mode", "checked"),
    [
        ("inbox/ben", 0o300, ["inbox/ben", "inbox/ben/a"]),
        ("drafts", 0o300, ["drafts"]),
        ("inbox", 0o311, ["inbox", "inbox/ben"]),
    ],
)
def test_check_passes_no_folder_that_may_not_be_searched(
    tmp_path: Path, closed: str, mode: int, checked: list[str]
) -> None:
    """A run would not find what is in it; an inbox it refuses, in the same words."""
    save(tmp_path, dict.fromkeys(("drafts/a.txt", "inbox/ben/a/b.txt", "inbox/c.txt"), "a star\n"))
    (tmp_path / closed).chmod(mode)
    program = [*without_privileges(), sys.executable, "-m", "picowatch"]
    refused = ran(tmp_path, *program, "check", "--json", *checked)
    said = "Permission denied"
    if closed == "inbox":
        once = ran(tmp_path, *program, "run", "--once")
        assert once.returncode == 2
        said = once.stderr.strip().removeprefix("picowatch: ")
        assert said.startswith(f"The inbox {tmp_path}/inbox cannot be read.")
    (tmp_path / closed).chmod(0o755)
    found = json.loads(refused.stdout)
    assert (refused.returncode, found["ok"], found["images"]) == (1, False, [])
    assert [(each["file"], each["code"]) for each in found["problems"]] == [
        (name, "unusable") for name in checked
    ]
    assert all(said in each["text"] for each in found["problems"])
    whole = picowatch_here(tmp_path, "check", *checked)
    assert (whole.returncode, whole.stderr) == (0, "")


def test_check_lists_problems_as_json(tmp_path: Path) -> None:
    """Each with its place, a code and its text; warnings do not make the exit code 1."""
    files: dict[str, str | bytes] = {
        "a.yaml": "prompt: a\nwidth: 500\n",
        "b.yaml": "prompt: a\nmask_blur: 3\n- c\n",
        "c.yaml": "stesp: 1\nprompt: a\n",
        "d/_pictures.yaml": "upscale: 2\n",
        "d/1.png": b"no picture",
        "w.txt": "a star\nSteps: 20, Sampler: Euler a, Hypernet: x\n",
        "run.sh": "ls\n",
    }
    save(tmp_path / "inbox", files)
    found = as_json(tmp_path, "inbox", "none.txt")
    places = [tuple(problem.values())[:4] for problem in found["problems"]]
    assert places[:2] == [("inbox/a.yaml", 2, 8, "mistake"), ("inbox/b.yaml", 3, 1, "mistake")]
    assert places[2:] == [
        ("inbox/c.yaml", 1, 1, "mistake"), ("inbox/d/1.png", 0, 0, "unusable"),
        ("inbox/w.txt", 0, 0, "warning"), ("inbox/run.sh", 0, 0, "never_run"),
        ("none.txt", 0, 0, "unusable"),
    ]  # fmt: skip
    assert found["problems"][0]["text"].startswith("width must be a multiple of 8")
    assert found["problems"][-1]["text"] == "No such file or directory"
    assert as_json(tmp_path, "inbox/w.txt")["ok"]


def test_the_page_of_commands_has_what_check_prints_as_json() -> None:
    """Every key and every code, and no other."""
    page = (PROJECT / "docs/commands.md").read_text()
    section = page[page.index("\n## check\n") + 1 :].partition("\n## ")[0]
    keys = {*(field.name for field in fields(FoundProblem)), "ok", "images", "problems"}
    named = {name for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
             for name in re.findall(r"`(\w+)`", row)}  # fmt: skip
    assert named == keys | {*get_args(Code)}


def test_check_says_of_files_that_are_not_taken_what_the_daemon_says(tmp_path: Path) -> None:
    """tests/inbox/test_reasons.py has all reasons; elsewhere such names are only drafts."""
    where = "with a _pictures.yaml, such as inbox/upscale/"
    said = {
        "inbox/_defaults.yml": "never run: to use it as _defaults.yaml, rename it",
        "inbox/.old/a.yaml": "never run: recipes and their folders have other names",
        "inbox/beach.JPE": f"a picture here is used only if a recipe names it. {PUT} {where}",
        "inbox/raw.cr2": "files that end in .cr2 are not read. Develop it: ",
        "inbox/upscale/note.txt": "it belongs to no picture: ",
        "inbox/out.yaml": "it is a link out of the inbox",
        "outbox/beach.jpg": f"this is where results appear. {PUT} {where}",
        "outbox/a.yaml": "this is where results appear. Put it into inbox/",
    }
    drafts = ("drafts/_defaults.yml", "drafts/.old/a.yaml")
    save(tmp_path, dict.fromkeys((*drafts, *said, "elsewhere.yaml"), b"prompt: a\n"))
    save(tmp_path, {"inbox/upscale/_pictures.yaml": b"upscale: 2\n"})
    (tmp_path / "inbox/out.yaml").unlink()
    (tmp_path / "inbox/out.yaml").symlink_to("../elsewhere.yaml")
    checked_drafts = picowatch_here(tmp_path, "check", *drafts)
    assert (checked_drafts.returncode, checked_drafts.stderr) == (0, "")
    checked = picowatch_here(tmp_path, "check", *said).stderr
    for file, why in said.items():
        lines = [line for line in checked.splitlines() if f"{file}: " in line]
        assert any(why in line for line in lines), (file, checked)


def test_check_warns_once_for_a_file_of_what_a_run_tells_of_each_picture(tmp_path: Path) -> None:
    """Another format than the setting or a template says, and a smaller size than the picture's."""
    settings = "format: jpeg\nmax_picture_megapixels: 1\n"
    save(tmp_path, {"picowatch.yaml": settings, TEMPLATE: "cutout: true\nformat: same\n"})
    save(tmp_path, {"inbox/a.txt": "a --cutout true\nb --cutout true\nc --format png\n"})
    save(tmp_path, {"inbox/b.yaml": "prompt: a\nimage: big.png\nsize: picture\ncount: 2\n"})
    Image.new("RGB", (64, 64)).save(tmp_path / "inbox/d/1.jpg")
    Image.new("RGB", (1200, 1200)).save(tmp_path / "inbox/big.png")
    is_png = "It may be transparent, which JPEG cannot store, so it is a PNG."
    for file, text in {"inbox/a.txt": is_png, TEMPLATE: is_png, "inbox/b.yaml": "becomes"}.items():
        found = as_json(tmp_path, file)
        said = [row for row in found["problems"] if text in row["text"]]
        assert [(row["file"], row["code"]) for row in said] == [(file, "warning")]
        assert found["ok"]


def test_an_empty_photo_is_only_said_to_be_empty(tmp_path: Path) -> None:
    """As an empty recipe is: the daemon waits for its content."""
    save(tmp_path, {TEMPLATE: "upscale: 2\n", "inbox/d/1.png": "", "inbox/d/zero.jpg": ""})
    for name, images in {"inbox/d": 1, "inbox/d/zero.jpg": 0}.items():
        found = as_json(tmp_path, name)
        assert (found["ok"], len(found["images"])) == (True, images)
        said = [(problem["file"], problem["code"]) for problem in found["problems"]]
        assert said == [("inbox/d/zero.jpg", "never_run")]


BESIDE_DEFAULTS: list[tuple[str, dict[str, str | bytes], str]] = [
    ("a/_defaults.yaml", {"a/ref.png": "", "a/b/ref.png": ""}, "a/ref.png"),
    ("_defaults.yaml", {"ref.png": "", "a/b/ref.png": ""}, "inbox/ref.png"),
    ("a/b/_defaults.yaml", {"ref.png": "", "a/b/ref.png": ""}, "ref.png"),
]


def test_a_path_in_a_folders_defaults_is_beside_them(tmp_path: Path) -> None:
    """Also for recipes in subfolders, and if a picture of the same name is beside the recipe."""
    for number, (defaults, others, image) in enumerate(BESIDE_DEFAULTS):
        home = tmp_path / str(number)
        recipe: dict[str, str | bytes] = {"a/b/corgi.yaml": "prompt: a corgi\n"}
        save(home / "inbox", {defaults: "image: ref.png\n", **recipe, **others})
        found = as_json(home, "inbox/a/b/corgi.yaml")["images"]
        assert [picture["image"] for picture in found] == [image]
