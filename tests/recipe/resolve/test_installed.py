"""The installed checkpoint or VAE that a name means."""

from dataclasses import replace

import pytest

from picowatch.recipe.inventory import Checkpoint, ControlNet, Inventory
from tests.metadata.requests import CORGI
from tests.recipe.reading import DEMO, check_refused, check_warned, chunk_of, read_one

DREAM = Checkpoint("dreamshaper_8", 512)
REAL = Checkpoint("sd15/RealisticVision", 768)
INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(DREAM, REAL, Checkpoint("dream", 512), Checkpoint("realm", 512)),
    vaes=("vae-ft-mse", "vae-ft-ema", "Flux", "flux"),
    refused={"checkpoint": {"old.ckpt": "a .ckpt can run code; convert it to .safetensors."}},
    default_checkpoint="realm",
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("demo", "demo"),
        ("DREAMSHAPER_8.SafeTensors", "dreamshaper_8"),
        ("dream", "dream"),
        ("Stable-diffusion/sd15/RealisticVision.safetensors", "sd15/RealisticVision"),
        ("sd15\\RealisticVision.safetensors", "sd15/RealisticVision"),
        ("dreamshaper_8.safetensors [879db523c3]", "dreamshaper_8"),
    ],
)
def test_names_of_checkpoints_are_forgiving(written: str, meant: str) -> None:
    """Ending optional, any case, a unique beginning; a whole name beats a beginning."""
    assert read_one(f"prompt: a\ncheckpoint: {written}", inventory=INVENTORY).checkpoint == meant


def test_accents_are_the_same_however_a_file_system_writes_them() -> None:
    """macOS decomposes them; editors do not."""
    inventory = Inventory(demo=DEMO, checkpoints=(Checkpoint("cafe\u0301", 512),))
    assert read_one("prompt: a\nmodel: caf\u00e9", inventory=inventory).checkpoint == "cafe\u0301"


def test_a_recipe_that_names_no_checkpoint_has_the_settings_or_the_only_one() -> None:
    """The setting may be as short as in a recipe; which of several is meant is never guessed."""
    assert read_one("prompt: a", inventory=INVENTORY).checkpoint == "realm"
    one, two = (Inventory(demo=DEMO, checkpoints=files) for files in ((DREAM,), (DREAM, REAL)))
    assert read_one("prompt: a", inventory=one).size == "512x512"
    check_refused(
        "prompt: a",
        "no checkpoint is named, and several are installed: dreamshaper_8 and "
        "sd15/RealisticVision. Write 'checkpoint: …' here, or name one in the settings "
        "(picowatch.yaml).",
        inventory=two,
    )


AVAILABLE = "Available: dreamshaper_8, sd15/RealisticVision, dream, realm and demo."


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("checkpoint: sdxl", f"no checkpoint 'sdxl' in models/checkpoints. {AVAILABLE} Put its …"),
        ("checkpoint: dreamshapr_8", "no checkpoint … Did you mean 'dreamshaper_8'? Available: …"),
        ("checkpoint: d", "the checkpoint 'd' could be dreamshaper_8, dream or demo. Write the …"),
        ("vae: FLUX", "the VAE 'FLUX' could be Flux or flux. Write the whole name exactly so."),
        ("checkpoint: old", "the checkpoint 'old.ckpt' cannot be used: a .ckpt can run code; …"),
        ("checkpoint: Lykon/photon-1",
         "no checkpoint … hf download Lykon/photon-1 --local-dir models/checkpoints/photon-1, …"),
        ("checkpoint: https://civitai.com/models/4384",
         f"no checkpoint 'https://civitai.com/models/4384' in … picowatch never … {AVAILABLE}"),
    ],
)  # fmt: skip
def test_names_that_mean_nothing_are_explained(written: str, message: str) -> None:
    """Messages list the installed and similar names, and say why a file cannot be used."""
    check_refused(f"prompt: a\n{written}", message, inventory=INVENTORY)


def test_what_another_checkpoint_cannot_do_is_no_mistake_beside_a_wrong_name() -> None:
    """The abilities of the unknown checkpoint are unknown, so no field is reported."""
    inventory = Inventory(
        demo=replace(DEMO, text_layers=2, family="Stable Diffusion 1.x"),
        refused=INVENTORY.refused,
        controlnets=(ControlNet("depth-xl", "Stable Diffusion XL"),),
        loras=("ink-xl",),
        lora_families={"ink-xl": ("Stable Diffusion XL",)},
    )
    others = "guidance: 3\nclip_skip: 3\nloras: [ink-xl]\nimage: x.png\ncontrol: {model: depth-xl}"
    for checkpoint in ("flux1-dve", "old"):
        text = f"prompt: a\ncheckpoint: {checkpoint}\n{others}"
        check_refused(text, f"…'{checkpoint}…", inventory=inventory)


@pytest.mark.parametrize(
    ("name", "hash_", "warning"),
    [
        ("dreamshaper_8", "879db523c3", ""),
        ("dreamshaper_8", "879DB523C3", ""),
        ("dreamshaper_8", "0123456789", "…: its hash begins 879db523c3, the picture's 0123456789…"),
        ("dream", "01234567", "the picture's checkpoint 'dream' is taken for 'dreamshaper_8'…"),
        ("dream", "", "the picture's checkpoint 'dream' is taken for 'dreamshaper_8'…"),
        ("", "0123456789", "The model with the hash 0123456789 has no name; the default…"),
    ],
)  # fmt: skip
def test_a_pictures_checkpoint_is_compared_by_its_hash(name: str, hash_: str, warning: str) -> None:
    """A name may be the beginning of another, or now belong to another file."""
    inventory = Inventory(demo=DEMO, checkpoints=(replace(DREAM, hash="879db523c3" + "0" * 54),))
    request = replace(CORGI, checkpoint=name, checkpoint_hash=hash_)
    model = (f", Model: {name}" if name else "") + (f", Model hash: {hash_}" if hash_ else "")
    pasted = {"parameters": f"a\nSteps: 3, Sampler: Euler{model}"}
    for texts in [pasted, chunk_of(request)] if name else [pasted]:
        recipe = read_one("from: a.png\nprompt: a", inventory=inventory, texts=texts)
        assert recipe.checkpoint == "dreamshaper_8"
        check_warned(recipe, *filter(None, [warning]))
        own = "from: a.png\nprompt: a\ncheckpoint: dreams"
        check_warned(read_one(own, inventory=inventory, texts=texts))
