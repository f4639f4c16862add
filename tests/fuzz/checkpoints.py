"""Damaged and hostile checkpoints, model files, hub folders and run folders, turned into our file.

What `gcnet convert` writes has to be readable again.
"""

from __future__ import annotations

import collections
import io
import json
import os
import random
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch  # noqa: F401 (slow: before the forks)
import torch

from gcnet.cli import main
from gcnet.engine.checkpoint import read_checkpoint as read_state
from gcnet.models.detector import Detector
from gcnet.models.spec import ContextSpec, ModelSpec, ResNetSpec, RoISpec
from gcnet.weights.files import read_model_file, save_model
from gcnet.weights.hub import FILE
from gcnet.weights.mmdet_keys import mmdet_key

NAMES = ("cat", "dog")
SPEC = ModelSpec(
    "small",
    NAMES,
    ResNetSpec((1, 1, 1, 1), stem_channels=8, base_channels=8, context=ContextSpec(ratio=1 / 8)),
    fpn_channels=8,
    roi=RoISpec(box_channels=8, mask_channels=8, mask_convs=1),
)
CONFIG = """
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
stds = [0.1, 0.1, 0.2, 0.2]
model = dict(
    type='MaskRCNN',
    backbone=dict(type='ResNet', style='caffe', frozen_stages=-1, norm_eval=True),
    rpn_head=dict(
        type='RPNHead',
        anchor_generator=dict(scales=[8], ratios=[0.5, 1, 2], strides=[4, 8, 16, 32, 64]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[1.0, 1.0, 1.0, 1.0])),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_head=dict(type='Shared2FCBBoxHead', bbox_coder=dict(target_stds=stds))),
    test_cfg=dict(rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)))
test_pipeline = [dict(type='Resize', scale=(1333, 800), keep_ratio=True)]
"""
NUMBERS = (
    0,
    -1,
    1,
    2,
    0.5,
    1e7,
    1e18,
    1e300,
    2**31,
    2**63,
    -(2**63),
    10**30,
    10**400,
    float("nan"),
    float("inf"),
)
WORDS = (
    "",
    "cat",
    "\x1b[31mred",
    "bolt [m8]",
    "nut [/m8]",
    "a\nb",
    "x" * 5000,
    "\u202e",
    "../../etc/passwd",
    "\0",
)
TEXTS = (
    *("1e999", "-1", "0", "[]", "None", "[[[1]]]", "dict()", "'\\x1b[31m'", "os.system('id')", "10**400"),
    *(
        "9**9**9",
        "'x' * 10**9",
        "[0] * 10**9",
        "*a",
        "lambda: 0",
        "(" * 300 + ")" * 300,
        "_base_",
        "f'{x}'",
        "\0",
    ),
)
GLOBALS = (
    *("os system", "posix system", "builtins eval", "builtins getattr", "subprocess Popen", "torch load"),
    *("numpy dtype", "numpy.core.multiarray scalar", "numpy._core.multiarray _reconstruct", "_codecs encode"),
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch FloatStorage"),
    *("collections OrderedDict", "collections defaultdict", "numpy.core.numeric _frombuffer", "torch Size"),
    *(
        "torch.nn.modules.linear Linear",
        "mmcv.utils.config ConfigDict",
        "builtins bytearray",
        "copyreg _reconstructor",
    ),
)


def _sound() -> Detector:
    torch.manual_seed(0)
    return Detector(SPEC).eval()


def _bytes(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


MODEL = _sound()
STATE = {mmdet_key(name): tensor for name, tensor in MODEL.state_dict().items()}
with tempfile.TemporaryDirectory() as _folder:
    save_model(MODEL, Path(_folder) / FILE)
    OURS = (Path(_folder) / FILE).read_bytes()


def write(chance: random.Random, folder: Path) -> Path:
    return chance.choice(KINDS)(chance, folder)


def _mutated(chance: random.Random, folder: Path) -> Path:
    """A checkpoint with a few odd things in it, saved whole; sometimes damaged after that."""
    meta: dict[str, Any] = {"CLASSES": NAMES, "epoch": 3, "config": CONFIG}
    content: Any = {
        "meta": meta,
        "state_dict": dict(STATE),
        "optimizer": {"state": {0: {"a": torch.zeros(2)}}},
    }
    if chance.random() < 0.4:
        meta["config"] = _other_text(chance, CONFIG)
    for _ in range(chance.randint(0, 3)):
        _change(chance, content, lambda: _object(chance))
    if chance.random() < 0.05:
        content["self"] = content
    content = chance.choice((content, content, content.get("state_dict", 3), [content]))
    legacy, protocol = chance.random() < 0.3, chance.choice((2, 2, 3, 4, 5))
    data = _bytes(content, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    if chance.random() < 0.3:
        data = _damaged(chance, data)
    return _file(folder, chance.choice(("x.pth", "x.pth", "x.pt", "x.pkl", "x.bin", "caffe_32x8d.pth")), data)


def _zipped(chance: random.Random, folder: Path) -> Path:
    """An archive with odd members."""
    source = zipfile.ZipFile(io.BytesIO(_bytes({"state_dict": STATE, "meta": {"CLASSES": NAMES}})))
    members = {name: source.read(name) for name in source.namelist()}
    for _ in range(chance.randint(1, 3)):
        name = chance.choice([*members, *["archive/data.pkl"] * 20])
        data = members.pop(name, b"")
        if chance.random() < 0.9:
            members |= _odd_members(chance, name, data)
    file = io.BytesIO()
    packed = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(file, "w", packed) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    data = file.getvalue()
    return _file(folder, "x.pth", _damaged(chance, data) if chance.random() < 0.3 else data)


def _odd_members(chance: random.Random, name: str, data: bytes) -> dict[str, bytes]:
    """What an archive may have in place of one of its members."""
    return chance.choice(
        (
            {name: _damaged(chance, data)},
            {name: _program(chance)},
            {f"/{name}": data, f"../{name}": data},
            {name: data} | {f"archive/data/{number}": b"" for number in range(3000)},
            {name: b"\0" * 30_000_000},
            {name: data, "archive/byteorder": chance.choice((b"big", b"", b"\xff"))},
            {"other/data.pkl": data, "archive/code/x.py": b""},
        )
    )


def _hostile_program(chance: random.Random, folder: Path) -> Path:
    """A plain pickle, or one in an archive, that is a program of random operations."""
    program = _program(chance)
    if chance.random() < 0.3:
        return _file(folder, "x.pkl", program)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", b"\0" * 64)
        archive.writestr("archive/version", b"3\n")
    return _file(folder, "x.pth", file.getvalue())


def _program(chance: random.Random) -> bytes:
    """Values, names of functions, and operations on them, mostly in an order that a stack allows."""
    out = [b"\x80\x02"]
    for _ in range(chance.randint(1, 40)):
        module, name = chance.choice(GLOBALS).split()
        length = chance.choice((0, 3, 8, 2**31 - 1, 2**32 - 1))
        out.append(
            chance.choice(
                (
                    b"c" + f"{module}\n{name}\n".encode(),
                    b"(" + b"K\x01K\x02t",
                    b")R",
                    b"\x85R",
                    b"\x86R",
                    b"}b",
                    b"(K\x03X\x01\0\0\0<N(NNK\x08K\x08K\x10tb",
                    b"X" + struct.pack("<I", len(name)) + name.encode(),
                    b"X" + struct.pack("<I", length) + b"abc",
                    b"\x8e" + struct.pack("<Q", 2**40) + b"x",
                    b"\x96" + struct.pack("<Q", 2**40) + b"x",
                    b"\x8a\xff" + b"\x7f" * 255,
                    b"I" + b"9" * 5000 + b"\n",
                    b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"
                    + b"0X\x03\0\0\0cpuJ\xff\xff\xff\x7ftQ",
                    b"(J\0\0\0\x7fJ\0\0\0\x7ft(K\0K\0t\x89}t",
                    b"(" * 2000,
                    b"]" * 2000 + b"a" * 1999,
                    b"q\x00h\x00h\x00",
                    b"}(X\x01\0\0\0aN",
                    *(b"u", b"s", b"a", b"e", b"t", b"l", b"d", b"0", b"2", b"1", b"N", b"\x88", b"]", b"}"),
                    bytes([chance.randrange(256)]),
                )
            )
        )
    return b"".join(out) + b"."


def _safetensors(chance: random.Random, folder: Path) -> Path:
    """Our file with a few odd things in its header; sometimes damaged after that."""
    length = int.from_bytes(OURS[:8], "little")
    header, rest = json.loads(OURS[8 : 8 + length]), OURS[8 + length :]
    metadata = header["__metadata__"]
    spec: Any = asdict(SPEC)
    for _ in range(chance.randint(0, 3)):
        target = chance.choice((spec, spec, spec, metadata, header))
        _change(
            chance,
            target,
            lambda: chance.choice((*NUMBERS, *WORDS, None, True, [], {}, [[]], _nested(1, 300))),
        )
    if isinstance(metadata, dict) and "spec" in metadata and chance.random() < 0.95:
        metadata["spec"] = json.dumps(spec)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    if chance.random() < 0.1:
        text = chance.choice(
            (b"{" * 100_000, b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"{}", b'"', b"")
        )
    length = chance.choice((*[len(text)] * 12, 0, 2**40, 2**63, 100 << 20, 3))
    data = length.to_bytes(8, "little") + text + rest
    return _file(folder, FILE, _damaged(chance, data) if chance.random() < 0.2 else data)


def _hub_folder(chance: random.Random, folder: Path) -> Path:
    """A folder of the hub's layout, whose files lead elsewhere or say something else."""
    _safetensors(chance, folder)
    path = folder / FILE
    words = (*WORDS, "[" * 3000, '{"spec": {"name": "../../x"}}', '{"weight_map": {"a": "/etc/passwd"}}')
    (folder / "config.json").write_text(chance.choice(words), encoding="utf-8")
    (folder / "model.safetensors.index.json").write_text(chance.choice(words), encoding="utf-8")
    if chance.random() < 0.4:
        path.unlink()
        chance.choice(
            (
                lambda: path.symlink_to(
                    chance.choice(("/etc/passwd", "/dev/zero", "../..", FILE, "nowhere"))
                ),
                path.mkdir,
                lambda: os.mkfifo(path),
                lambda: None,
                lambda: path.write_bytes(_bytes({"state_dict": STATE, "meta": {"CLASSES": NAMES}})),
            )
        )()
    return folder


def _run_folder(chance: random.Random, folder: Path) -> Path:
    """A run folder: its model, and the state that `--resume` reads."""
    _safetensors(chance, folder).rename(folder / chance.choice(("best.safetensors", "last.safetensors")))
    state: Any = {"model": dict(MODEL.state_dict()), "iteration": 3, "optimizer": {"state": {0: {"a": 1.0}}}}
    for _ in range(chance.randint(0, 3)):
        _change(chance, state, lambda: _object(chance))
    data = chance.choice((lambda: _bytes(state), lambda: _program(chance), lambda: b""))()
    (folder / "last.ckpt").write_bytes(_damaged(chance, data) if chance.random() < 0.5 else data)
    return folder


KINDS: tuple[Callable[[random.Random, Path], Path], ...] = (
    *(_mutated, _mutated, _mutated, _zipped, _zipped, _hostile_program),
    *(_safetensors, _safetensors, _safetensors, _hub_folder, _run_folder),
)


def _object(chance: random.Random) -> Any:
    """What may stand in a checkpoint, and sometimes should not."""
    tensor = torch.zeros(chance.choice(((), (0,), (3,), (2, 3), (1, 1, 1, 1), (81, 1024))))
    return chance.choice(
        (
            *(chance.choice(NUMBERS), chance.choice(WORDS), None, True, [], {}, (), _nested(tensor, 200)),
            *(
                tensor,
                tensor.half(),
                tensor.long(),
                tensor.to(torch.complex64),
                tensor.bool(),
                tensor.bfloat16(),
            ),
            torch.zeros(1).expand(chance.choice((2**40, 2**31, 2**20))),
            torch.zeros(1).expand(*[1] * 60, 7),
            tensor.to("meta"),
            torch.eye(3).to_sparse(),
            torch.full((3,), float("nan")),
            tensor.numpy(),
            collections.Counter("abc"),
            {chance.choice(WORDS): tensor},
            {0: tensor, None: tensor, b"a": tensor, (1, 2): tensor},
        )
    )


def _change(chance: random.Random, tree: Any, value: Callable[[], Any]) -> None:
    """Puts something else in one place of a tree, takes it away, or gives it another name."""
    spots: list[tuple[Any, Any]] = []

    def look(part: Any, deepest: int) -> None:
        keys = list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
        for key in keys:
            spots.append((part, key))
            if deepest:
                look(part[key], deepest - 1)

    look(tree, 4)
    if not spots:
        return
    holder, key = chance.choice(spots)
    if isinstance(holder, dict) and chance.random() < 0.2:
        old = holder.pop(key)
        if chance.random() < 0.5:
            holder[chance.choice((*WORDS, f"module.{key}", f"{key}.x", "ema_model"))] = old
    else:
        holder[key] = value()


def _other_text(chance: random.Random, text: str) -> str:
    """A configuration with other values, or another text."""
    for _ in range(chance.randint(1, 4)):
        marks = [place for place, sign in enumerate(text) if sign in "=,(["]
        at = chance.choice(marks) + 1
        text = text[:at] + chance.choice(TEXTS) + text[at + chance.choice((0, 1, 5)) :]
    bomb = "\n".join(f"{b} = [{', '.join([a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    return chance.choice(
        (*[text] * 8, "a = 1\n" + bomb, "(" * 5000, "-" * 100_000 + "1", "x = [" + "1," * 90_000 + "]")
    )


def _damaged(chance: random.Random, data: bytes) -> bytes:
    """Bytes changed, cut, doubled, or made extreme."""
    whole = bytearray(data)
    for _ in range(chance.choice((1, 1, 3, 20))):
        if not whole:
            break
        at = min(
            chance.choice((chance.randrange(len(whole)), chance.randrange(min(len(whole), 400)))), len(whole)
        )
        match chance.randrange(5):
            case 0:
                whole[at] = chance.randrange(256)
            case 1:
                del whole[at:]
            case 2:
                del whole[at : at + chance.choice((1, 8, 1000))]
            case 3:
                whole[at : at + 8] = struct.pack("<Q", chance.choice((0, 2**31, 2**32 - 1, 2**63, 2**64 - 1)))
            case _:
                whole[at:at] = whole[at : at + chance.choice((1, 64, 5000))]
    return bytes(whole)


def _nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def read(path: Path) -> int:
    """Reads what a run goes on from, if there is such a file, and converts the model."""
    state = path / "last.ckpt"
    if state.is_file():
        read_state(state)
    folder = Path(tempfile.mkdtemp())
    try:
        code = main(["convert", str(path), str(folder / FILE)])
        if code == 0:
            read_model_file(folder / FILE)
        return code
    finally:
        shutil.rmtree(folder)
