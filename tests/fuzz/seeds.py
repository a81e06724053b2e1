"""Where fuzzing starts from: what users really write, and the words that formats are made of."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from itertools import chain
from pathlib import Path

from PIL import Image

from picowatch.files.decoding import Original
from picowatch.metadata.embedded_text import texts_in
from picowatch.outbox.encoding import How
from picowatch.outbox.names import FORMATS
from picowatch.recipe.a1111.writer import parameters_text
from picowatch.recipe.chunk import Chunk, picowatch_json
from picowatch.recipe.fields import FIRST_NAME_OF
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import LoraUse
from tests.catalog.files import Shapes, safetensors
from tests.catalog.test_gguf import gguf
from tests.metadata.requests import CORGI
from tests.metadata.test_iptc import dataset
from tests.metadata.test_xmp import packet, regions
from tests.outbox.test_photo_files import jpeg, png, raw_profile, segment
from tests.pictures import encoded
from tests.recipe.read.test_other_programs_pictures import PICTURES

ROOT = Path(__file__).parents[2]
_EXAMPLES = ROOT / "picowatch" / "assets" / "examples"

_MUCH = replace(
    CORGI,
    prompt="a corgi <lora:x:0.5>",
    loras=(LoraUse("x", "a" * 64, 0.8),),
    image="a.png",
    image_hash="1" * 64,
    denoising_strength=0.5,
    hires=Hires(2.0, 12, 0.7, "Latent"),
)
HEADER = (
    b'{"__metadata__": {"ss_base_model_version": "sd_v1", "modelspec.trigger_phrase": "a dog", '
    b'"ss_tag_frequency": "{\\"1_dog\\": {\\"dog\\": 3}}"}, '
    b'"lora_unet_x.attn2_to_k.lora_down.weight": '
    b'{"dtype": "F16", "shape": [1, 768], "data_offsets": [0, 1536]}}'
)
CHUNK = picowatch_json(
    Chunk(request=_MUCH, recipe="a.yaml", save_digest="0" * 64, entry_index=0, image_index=0)
)
PARAMETERS = parameters_text(_MUCH, "0.1.0", {"x": "a" * 64})


@cache
def seeds(target: str) -> tuple[bytes, ...]:
    return tuple(_SEEDS[target]())


@cache
def words() -> tuple[bytes, ...]:
    """What mutations may insert: fields, marks of YAML, keys of every format read here."""
    plain = [name.encode() for name in FIRST_NAME_OF]
    return (*plain, *_WORDS, *re.findall(rb"[A-Za-z_.]{4,}", HEADER + CHUNK.encode()))


_WORDS = [
    *(b": ", b"- ", b"---\n", b"\n  ", b"&a ", b"*a", b"<<: *a", b"!!int ", b"|-\n  ", b">\n  "),
    *(b"0x", b"0b", b"1e3", b"1:30", b".nan", b"-.inf", b"1_000", b"NaN", b"Infinity", b"1e999"),
    *(b'"\\ud800"', b"\\x1b[31m", b"\xe2\x80\xae", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc2\x85"),
    *(b" --steps 3", b' --negative_prompt "', b"\\\n", b"BREAK", b"(a:1.2)", b"[a:b:0.5]"),
    *(b"<lora:x:1>", b"__x__", b"{a|b}", b"{2$$", b"$$", b"0.5::", b"Negative prompt: "),
    *(b"Steps: 3, Sampler: Euler", b"Model hash: abc", b"4..10 step 2", b"'prompt: a': [b]"),
    *(b"IHDR", b"IDAT", b"IEND", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"UNICODE\0"),
    *(b'"__metadata__"', b'"shape":[1]', b'"data_offsets":[0,2]', b'"dtype":"F16"', b'{"a":'),
    *(b"parameters\0", b"picowatch\0", b"generator\0picodiffusion", b'"sample_size":64'),
]


def _recipes(ending: str, fence: str) -> Iterator[bytes]:
    """The examples of this kind, and those in the docs."""
    yield from (path.read_bytes() for path in sorted(_EXAMPLES.rglob(f"*{ending}")))
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in re.findall(rf"```{fence}\n(.*?)```", page.read_text(), re.DOTALL):
            yield block.encode()


def _yaml() -> Iterator[bytes]:
    yield from _recipes(".yaml", "yaml")
    yield b"- &a {prompt: a, steps: 3}\n- <<: *a\n  seed: [1, 2]\n"
    yield b"prompt: a [b] (c:1.2) {d|e} __x__ <lora:x:0.5>\nhires: {scale: 2}\nsize: 512x768\n"
    yield b"prompt: a\nsweep: {steps: [1, 2], cfg_scale: 4..10 step 2, 'prompt: a': [b, c]}\n"
    yield "prompt: |\n  a\n  b\nloras: {x: 0.5}\n".encode("utf-16")


def _json() -> Iterator[bytes]:
    yield b'[{"prompt": "a [b] (c:1.2)", "loras": {"x": 0.5}}, {"prompt": "a", "seed": [1, 2e0]}]'
    yield b'{"prompt": "a\\ud83d\\ude00\\n__x__", "hires": {"scale": 2}, "grid": true, "vae": null}'
    yield b'{"3": {"class_type": "KSampler"}}'
    yield b'{"prompt": "a", // b\n}'


def _txt() -> Iterator[bytes]:
    yield from _recipes(".txt", "text")
    yield PARAMETERS.encode()
    yield b"---\nsteps: 3\n---\n# comment\na corgi \\\n  at sea --steps 3 --seed 1, 2\nb --exact\n"
    yield b"a corgi \\\n  at sea [a:b:0.5]\n"
    yield b'a --negative_prompt "b \\" c" --size 512x512 --n_iter 2 --batch_size 2\n'


def _encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    return encoded(Image.new(mode, (4, 3)), kind, **options)


def _pictures_with_settings() -> Iterator[bytes]:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + PARAMETERS.encode("utf-16-be")
    for kind in ("JPEG", "WEBP", "AVIF", "PNG"):
        yield _encoded(kind, exif=exif)
    for name in FORMATS:
        texts = {"parameters": PARAMETERS, "picowatch": CHUNK}
        how = How(f"a{FORMATS[name].ending}", texts)
        yield how.encode(Original(Image.new("RGB", (4, 3))))
    yield from (picture.content for picture in PICTURES.values())


def _png_texts() -> Iterator[bytes]:
    for picture in PICTURES.values():
        yield "\0".join(chain(*texts_in(BytesIO(picture.content)).items())).encode()
    yield f"picowatch\0{CHUNK}".encode()
    yield f"picowatch\0{json.dumps({'format': 1, 'request': CORGI.as_dict()})}".encode()
    for field in ("sampler", "schedule_type", "checkpoint", "format", "steps"):
        values = json.loads(CHUNK)
        values["request"][field] = "a\nprompt: b \ud800 \x1b[31m"
        yield f"picowatch\0{json.dumps(values)}".encode()
    yield f"parameters\0{PARAMETERS}".encode()
    yield b'parameters\0a\nSteps: 3, Seed: 1, Denoising strength: "\\ud800", Sampler: Euler'
    yield b"generator\0picoDiffusion\0prompt\0a\0steps\x003\0cfg\x007\0lora\0x\0lora_weight\x001"


def _pictures() -> Iterator[bytes]:
    for kind in ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF"):
        yield _encoded(kind)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield from (_encoded(kind, exif=exif) for kind in ("JPEG", "PNG"))
    for kind, mode in (("PNG", "RGBA"), ("PNG", "I;16"), ("TIFF", "F")):
        yield _encoded(kind, mode)
    yield _encoded("TIFF", "CMYK", compression="tiff_lzw")
    yield _encoded("WEBP", "RGBA", lossless=True)


def _photos() -> Iterator[bytes]:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x011A] = "Canon", 6, 300.0
    exif.get_ifd(0x8769)[0x829A] = 0.25
    exif.get_ifd(0x8825)[1] = "N"
    xmp = packet(regions(), 'drone-dji:GpsLatitude="1"').encode()
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        yield _encoded(kind, exif=exif, xmp=xmp)
    titles = dataset(5, b"Title") + dataset(55, b"20240506") + dataset(60, b"070809+0200")
    resources = b"8BIM\x04\x04\0\0" + len(titles).to_bytes(4) + titles
    yield jpeg(segment(b"Photoshop 3.0\0" + resources, 0xED))
    profiles = {"exif": exif.tobytes(), "xmp": xmp, "iptc": resources}
    yield png(*(raw_profile(*profile) for profile in profiles.items()), behind=True)


def _headers() -> Iterator[bytes]:
    yield HEADER
    tensor = '{"dtype": "F16", "shape": [2, %d], "data_offsets": [0, %d]}'
    for name in ("emb_params", "first_stage_model.decoder.conv_in.weight", "unet:0:up", "a.hada_b"):
        yield f'{{"{name}": {tensor % (768, 3072)}}}'.encode()


def _files() -> Iterator[bytes]:
    yield from (safetensors(header, weights=8) for header in _headers())
    yield from (b"version https://git-lfs", b"<!doctype html>", b"PK\x03\x04", b"GGUF")


def _pickles() -> Iterator[bytes]:
    """Tensors alone, inside what trainers write, and beside a program."""
    import torch  # which the other targets do without

    numbers = torch.arange(6.0)
    tensors = {"x": numbers.reshape(2, 3), "y": numbers[3:]}
    for content in (tensors, {"params_ema": tensors}, {**tensors, "z": print}):
        file = BytesIO()
        torch.save(content, file)
        yield file.getvalue()


def _gguf_files() -> Iterator[bytes]:
    z_image: Shapes = {"cap_pad_token": (1, 8), "layers.0.adaLN_modulation.0.weight": (2, 256)}
    language_model: Shapes = {"token_embd.weight": (2, 256)}
    for shapes in (z_image, language_model):
        head, size = gguf(shapes)
        yield head + bytes(size - len(head))


def _folders() -> Iterator[bytes]:
    unet = b'{"in_channels": 4, "sample_size": 64, "cross_attention_dim": 768}'
    vae = b'{"_class_name": "AutoencoderKL", "latent_channels": 4}'
    index = (
        b'{"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"],'
        b'"unet": ["diffusers", "UNet2DConditionModel"],'
        b'"scheduler": ["diffusers", "DDIMScheduler"],'
        b'"tokenizer": ["transformers", "CLIPTokenizer"],'
        b'"text_encoder": ["transformers", "CLIPTextModel"]}'
    )
    yield b"\0".join([index, unet, vae])
    for side in (b"7", b"64.0", b"true", b"1" + b"0" * 400):
        yield b"\0".join([index, unet.replace(b"64", side), vae])
    yield b"\0".join([index.replace(b"Stable", b"\\b"), unet, vae.replace(b"4}", b'"\\n"}')])


def _csv() -> Iterator[bytes]:
    yield b'prompt,steps,seed\na corgi,3,7\n"a ""red""\ncat",,1..3\n'
    yield b"\xef\xbb\xbfPrompt;cfg scale;x\na;7,5;\n;;\n"
    yield b'prompt\tsize\na\t64x64\t\t\n"b'


_SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "yaml_recipe": _yaml,
    "json_recipe": _json,
    "csv_recipe": _csv,
    "txt_recipe": _txt,
    "defaults_file": _yaml,
    "picture_with_settings": _pictures_with_settings,
    "png_texts": _png_texts,
    "picture": _pictures,
    "mask": _pictures,
    "photo": _photos,
    "safetensors_file": _files,
    "safetensors_header": _headers,
    "pickled_model": _pickles,
    "gguf_file": _gguf_files,
    "model_folder": _folders,
    "wildcard_file": lambda: iter([b"# colours\nred\nblue\n{green|__x__}\n<lora:x:1>\n"]),
}
