"""ControlNets in A1111's `parameters` text, a key for each: `ControlNet 0: "Module: canny, …"`.

As A1111's extension writes them (https://github.com/Mikubill/sd-webui-controlnet,
internal_controlnet/args.py, ControlNetUnit.serialize). The inverse is recipe/read/controlnet.py.
The picture that is followed is not in it.
"""

from collections.abc import Mapping

from picowatch.recipe.request import ControlUse, ImageRequest

MODULES = {
    "invert": "invert (from white bg & black line)",
    "lineart": "lineart_standard (from white bg & black line)",
    "blur": "blur_gaussian",
    "luminance": "recolor_luminance",
    "tile": "tile_resample",
    "depth": "depth_anything_v2",
    "inpaint": "inpaint_global_harmonious",
}
_MODES = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
}
_RESIZE = {"crop": "Crop and Resize", "fit": "Resize and Fill", "stretch": "Just Resize"}
# What its sliders say that a preprocessor does not have.
_NO_THRESHOLD = 0.5


def controlnet_values(request: ImageRequest, hashes: Mapping[str, str]) -> dict[str, str]:
    """The values by key. `hashes` are A1111's own of the models, by name.

    Names with commas and colons are left out, as there: they would be read as other values.
    """
    units = {
        f"ControlNet {index}": _unit(use, request, hashes)
        for index, use in enumerate(request.control)
    }
    return {
        key: ", ".join(f"{name}: {value}" for name, value in unit.items())
        for key, unit in units.items()
        if not any(sign in value for value in unit.values() for sign in ",:")
    }


def _unit(use: ControlUse, request: ImageRequest, hashes: Mapping[str, str]) -> dict[str, str]:
    model = use.model.rpartition("/")[2]
    if short := hashes.get(use.model):
        model += f" [{short}]"
    first, second = _thresholds(use)
    return {
        "Module": MODULES.get(use.preprocess, use.preprocess),
        "Model": model,
        "Weight": str(use.weight),
        "Resize Mode": _RESIZE[request.resize],
        "Processor Res": str(min(request.width, request.height)),
        "Threshold A": str(float(first)),
        "Threshold B": str(float(second)),
        "Guidance Start": str(use.start),
        "Guidance End": str(use.end),
        "Pixel Perfect": "True",
        "Control Mode": _MODES[use.mode],
    }


def _thresholds(use: ControlUse) -> tuple[float, float]:
    match use.preprocess:
        case "canny":
            return use.low, use.high
        case "threshold":
            return use.threshold, _NO_THRESHOLD
        case "blur":
            return use.radius, _NO_THRESHOLD
    return _NO_THRESHOLD, _NO_THRESHOLD
