"""TAEF2: the files of its author become a VAE for the families of FLUX.2's."""

import pytest
import torch

from picowatch.catalog import Catalog
from picowatch.cli import main
from picowatch.engine.model.load import load_vae
from picowatch.engine.model.vae import TinyFlux2
from picowatch.engine.protocol import RgbPicture
from tests.engine.demo import CPU, read_part
from tests.engine.flow_requests import flow_models, flow_renderer, requests_of
from tests.engine.original_names import Tensors
from tests.engine.requests import ignore_progress
from tests.engine.tiny_flows import tiny_flow


def _halves() -> tuple[Tensors, Tensors]:
    """TAEF2's files as its author publishes them, with random weights."""
    torch.manual_seed(5)
    halves: tuple[Tensors, Tensors] = ({}, {})
    for name, tensor in TinyFlux2().state_dict().items():
        coder, _, rest = name.partition(".layers.")
        number, _, layer = rest.partition(".")
        if coder == "encoder":
            halves[0][rest] = tensor.half()
        elif coder == "decoder":  # its first layer, a clamp, has no weights
            halves[1][f"{int(number) + 1}.{layer}"] = tensor.half()
    return halves


def test_the_halves_of_a_tiny_vae_become_a_file_that_draws(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For the families of FLUX.2's VAE, whose statistics of latents it takes; never in tiles."""
    name = "FLUX.2-klein"
    models = flow_models(name, tiny_flow(name))
    folder = models / "vae"
    folder.mkdir()
    files = [folder / f"taef2_{coder}.pth" for coder in ("encoder", "decoder")]
    encoder, decoder = _halves()
    torch.save(encoder, files[0])
    assert main(["convert", str(files[0])]) == 1
    assert "is half of a tiny VAE. Put taef2_decoder.pth beside it." in capsys.readouterr().err
    torch.save(decoder, files[1])
    assert main(["convert", *map(str, reversed(files))]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("taef2.safetensors: 5.4 MB. It is a VAE: it belongs in models/vae/.")
    catalog = Catalog(models)
    vae, checkpoint = catalog.find("vae", "taef2"), catalog.find("checkpoint", name)
    assert vae.variant == "tiny, FLUX.2"
    made = load_vae(checkpoint, vae, CPU, CPU.device)
    full = read_part(checkpoint, "vae")
    assert made.bn.running_var.equal(full.bn.running_var)
    assert made.config.batch_norm_eps == full.config.batch_norm_eps
    assert made.encoder.layers[0].weight.half().equal(encoder["0.weight"])
    made.enable_tiling()
    assert not made.use_tiling
    encoded = made.encode(torch.zeros(1, 3, 64, 64)).latent_dist
    assert encoded.mode().shape == (1, 32, 8, 8)
    assert encoded.mode().equal(encoded.sample())
    text = "prompt: a red cube\nreferences: start.png"
    requests = requests_of(models, name, f"{text}\nvae: taef2")
    previews: list[RgbPicture] = []
    ours = flow_renderer(models, on_preview=previews.append, preview_seconds=1e-9)
    (drawn,) = ours.render(requests, ignore_progress)
    plain = flow_renderer(models).render(requests_of(models, name, text), ignore_progress)
    assert drawn.pixels != next(iter(plain)).pixels
    assert [(each.width, each.height) for each in previews] == [(8, 8)] * 2
