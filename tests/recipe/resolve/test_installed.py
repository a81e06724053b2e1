"""The installed checkpoint or VAE that a name means."""

import json
from dataclasses import replace

import pytest

from picowatch.recipe import Checkpoint, Inventory
from picowatch.recipe.inventory import ControlNet
from tests.metadata.requests import CORGI
from tests.recipe.reading import DEMO, PicturesWith, messages, read_one

DREAM = Checkpoint("dreamshaper_8", 512)
REAL = Checkpoint("sd15/RealisticVision", 768)
INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(DREAM, REAL, Checkpoint("dream", 512), Checkpoint("realm", 512)),
    vaes=("vae-ft-mse", "vae-ft-ema"),
    refused={"checkpoint": {"old.ckpt": "a .ckpt can run code; convert it to .safetensors."}},
    default_checkpoint="realm",
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("demo", "demo"),
        ("dreamshaper_8", "dreamshaper_8"),
        ("DREAMSHAPER_8.SafeTensors", "dreamshaper_8"),
        ("dreams", "dreamshaper_8"),
        ("dream", "dream"),
        ("sd15/RealisticVision", "sd15/RealisticVision"),
        ("realisticvision", "sd15/RealisticVision"),
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


def test_the_setting_decides_where_a_recipe_is_silent() -> None:
    """The setting `checkpoint` may be as short as in a recipe."""
    assert read_one("prompt: a", inventory=INVENTORY).checkpoint == "realm"


def test_the_only_installed_checkpoint_needs_no_naming() -> None:
    """The only one installed is preferred to the demo."""
    assert (
        read_one("prompt: a", inventory=Inventory(demo=DEMO, checkpoints=(DREAM,))).size
        == "512x512"
    )


AVAILABLE = "Available: dreamshaper_8, sd15/RealisticVision, dream, realm and demo."
FETCH = f"picowatch never downloads: fetch its .safetensors file into that folder. {AVAILABLE}"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "checkpoint: sdxl",
            "no checkpoint 'sdxl' in models/checkpoints. Available: dreamshaper_8, "
            "sd15/RealisticVision, dream, realm and demo.",
        ),
        (
            "checkpoint: dreamshapr_8",
            "no checkpoint 'dreamshapr_8' in models/checkpoints. Did you mean 'dreamshaper_8'? "
            "Available: dreamshaper_8, sd15/RealisticVision, dream, realm and demo.",
        ),
        (
            "checkpoint: d",
            "the checkpoint 'd' could be dreamshaper_8, dream or demo. Write more of the name.",
        ),
        (
            "checkpoint: old",
            "the checkpoint 'old.ckpt' cannot be used: a .ckpt can run code; convert it to "
            ".safetensors.",
        ),
        (
            "checkpoint: Lykon/photon-1",
            "no checkpoint 'Lykon/photon-1' in models/checkpoints. picowatch never downloads. If "
            "it is a repository, fetch it once: hf download Lykon/photon-1 --local-dir "
            f"models/checkpoints/photon-1, and write 'checkpoint: photon-1'. {AVAILABLE}",
        ),
        (
            "checkpoint: https://civitai.com/models/4384",
            f"no checkpoint 'https://civitai.com/models/4384' in models/checkpoints. {FETCH}",
        ),
        (
            "vae: vae-ft-msi",
            "no VAE 'vae-ft-msi' in models/vae. Did you mean 'vae-ft-mse'? Available: vae-ft-mse, "
            "vae-ft-ema and baked.",
        ),
    ],
)
def test_names_that_mean_nothing_are_explained(written: str, message: str) -> None:
    """Messages list the installed and similar names, and say why a file cannot be used."""
    assert messages(f"prompt: a\n{written}", inventory=INVENTORY) == [message]


def test_several_checkpoints_and_no_setting_is_an_error_that_lists_them() -> None:
    """Which one is meant is never guessed."""
    inventory = Inventory(demo=DEMO, checkpoints=(DREAM, REAL))
    assert messages("prompt: a", inventory=inventory) == [
        "no checkpoint is named, and several are installed: dreamshaper_8 and "
        "sd15/RealisticVision. Write 'checkpoint: …' here, or name one in the settings "
        "(picowatch.yaml)."
    ]


@pytest.mark.parametrize("checkpoint", ["flux1-dve", "old"])
def test_what_another_checkpoint_cannot_do_is_no_mistake_beside_a_wrong_name(
    checkpoint: str,
) -> None:
    """The abilities of the unknown checkpoint are unknown, so no field is reported."""
    inventory = Inventory(
        demo=replace(DEMO, text_layers=2, family="Stable Diffusion 1.x"),
        refused=INVENTORY.refused,
        controlnets=(ControlNet("depth-xl", "Stable Diffusion XL"),),
        loras=("ink-xl",),
        lora_families={"ink-xl": "Stable Diffusion XL"},
    )
    (message,) = messages(
        f"prompt: a\ncheckpoint: {checkpoint}\nguidance: 3\nclip_skip: 3\nloras: [ink-xl]\n"
        "image: x.png\ncontrol: {model: depth-xl}",
        inventory=inventory,
    )
    assert f"'{checkpoint}" in message


@pytest.mark.parametrize(
    ("name", "hash_", "warning"),
    [
        ("dreamshaper_8", "879db523c3", ""),
        ("dreamshaper_8", "879DB523C3", ""),
        ("dream", "879db523c3", ""),
        ("dreamshaper_8", "0123456789", "'dreamshaper_8' is another file than the picture's: its "
         "hash begins 879db523c3, the picture's 0123456789"),
        ("dream", "0123456789", "is another file than the picture's"),
        ("dream", "01234567", "the picture's checkpoint 'dream' is taken for 'dreamshaper_8'"),
        ("dream", "", "the picture's checkpoint 'dream' is taken for 'dreamshaper_8'"),
    ],
)  # fmt: skip
def test_a_pictures_checkpoint_is_compared_by_its_hash(name: str, hash_: str, warning: str) -> None:
    """A name may be the beginning of another, or now belong to another file."""
    inventory = Inventory(demo=DEMO, checkpoints=(replace(DREAM, hash="879db523c3" + "0" * 54),))
    request = replace(CORGI, checkpoint=name, checkpoint_hash=hash_, embeddings=(), loras=())
    chunk = json.dumps({"format": 1, "request": request.as_dict()})
    pictures = PicturesWith(lambda _: {"picowatch": chunk})
    recipe = read_one("from: a.png\nprompt: a", inventory=inventory, pictures=pictures)
    assert recipe.checkpoint == "dreamshaper_8"
    assert len(recipe.warnings) == bool(warning)
    assert all(warning in one for one in recipe.warnings)
    own = read_one(
        "from: a.png\nprompt: a\ncheckpoint: dream", inventory=inventory, pictures=pictures
    )
    assert own.warnings == ()
