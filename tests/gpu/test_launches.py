"""Full-size denoisers start so many kernels a call: a library that starts more shows here.

Counted on torch's meta device, which computes nothing: operations that make a tensor, without
views. On a card a step of a single picture takes as long as the processor needs to start them.
"""

import json
from typing import Any

import diffusers
import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from picowatch.catalog.parts import ASSETS
from tests.kinds import one_of_each_kind

_VIEWS = (
    *("view", "reshape", "transpose", "permute", "expand", "unsqueeze", "squeeze", "slice"),
    *("split", "chunk", "detach", "t.default", "alias", "select", "unbind", "_unsafe_view"),
    *("empty", "as_strided", "sym_", "lift"),
)
_TYPE = torch.bfloat16


class _Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    count = 0

    def __torch_dispatch__(self, function: Any, _: Any, given: Any = (), named: Any = None) -> Any:
        self.count += not str(function).removeprefix("aten.").startswith(_VIEWS)
        return function(*given, **(named or {}))


def unet_call(side: int, width: int) -> dict[str, Any]:
    return {"sample": (2, 4, side, side), "encoder_hidden_states": (2, 77, width), "timestep": ()}


def flow_call(channels: int, width: int, *batch: int) -> dict[str, Any]:
    places = {"img_ids": (*batch, 4096, 3 + len(batch)), "txt_ids": (*batch, 512, 3 + len(batch))}
    tokens = {"hidden_states": (1, 4096, channels), "encoder_hidden_states": (1, 512, width)}
    return tokens | places | {"timestep": (1,)}


XL = {"text_embeds": (2, 1280), "time_ids": (2, 6)}
FLUX = {"guidance": (1,), "pooled_projections": (1, 768)}
_CALLS = {
    "sd15/unet": (728, unet_call(64, 768)),
    "sdxl/unet": (1_866, unet_call(128, 2048) | {"added_cond_kwargs": XL}),
    "flux/transformer": (3_737, flow_call(64, 4096) | FLUX),
    "flux2/transformer": (1_484, flow_call(128, 7680, 1)),
}


def tensors_of(shapes: Any) -> Any:
    if isinstance(shapes, dict):
        return {name: tensors_of(shape) for name, shape in shapes.items()}
    if isinstance(shapes, list):
        return [tensors_of(shape) for shape in shapes]
    return torch.empty(shapes, dtype=_TYPE, device="meta")


def real(folder: str, class_name: str = "") -> Any:
    """A model without memory, by a config of the package or, without one, its class' settings."""
    config = json.loads((ASSETS / folder / "config.json").read_text()) if folder else {}
    kind = getattr(diffusers, class_name or config["_class_name"])
    with torch.device("meta"):
        return kind.from_config(config).to(_TYPE).eval()


def attention(query: Any = None, *_: Any, **named: Any) -> Any:
    """Make one tensor, as a card's attention does: elsewhere torch computes it in several."""
    return torch.mul(query, query)


@pytest.mark.parametrize("name", one_of_each_kind(_CALLS, ("sd15/unet", "flux2/transformer")))
def test_a_call_starts_no_more_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    most, shapes = _CALLS[name]
    denoiser = real(name)
    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)
    with torch.no_grad(), _Launches() as counted:  # type: ignore[no-untyped-call]
        denoiser(**tensors_of(shapes), return_dict=False)
    assert most * 0.97 < counted.count <= most
