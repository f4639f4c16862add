"""Our own model files: safetensors that hold their spec, class names and preprocessing.

The header's `__metadata__` holds JSON under `spec`, `preprocessing`, `provenance` and `versions`: enough to
use the weights without this code. `kind` is "classifier" for a classifier, and absent for a detector.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gcnet.console import listed, shown
from gcnet.context.insertion import inserted_blocks
from gcnet.errors import GCNetError
from gcnet.files import write_atomically
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.spec import ClassifierSpec, ModelSpec
from gcnet.ops.images import PAD_MULTIPLE
from gcnet.version import __version__
from gcnet.weights.archives import open_safetensors

INTERPOLATIONS = {  # by the rule of `gcnet.ops.images.resize_image`
    "opencv": "bilinear without antialiasing, on 8-bit values (OpenCV's INTER_LINEAR)",
    "torchvision": "bilinear without antialiasing, on 32-bit floats (OpenCV's INTER_LINEAR)",
    "pillow": "bilinear with antialiasing, on 8-bit values (Pillow's BILINEAR)",
}
DRAWING = (Tensor.normal_, Tensor.uniform_)
SPARE = 1 << 20  # a model may have twice the numbers of its file, and so many more
DTYPES = {  # in a header
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
FORMAT = 1  # of the metadata; files from before it was written count as 1


@dataclass(frozen=True)
class ModelFile:
    """The contents of one of our model files.

    `spec` is what the model is made of, with its class names in the order of the labels; `provenance` where
    its weights come from; `metadata` all that its header says.
    """

    path: Path
    spec: ModelSpec | ClassifierSpec
    provenance: dict[str, Any]
    metadata: dict[str, str]
    tensors: dict[str, Tensor]


def save_model(
    model: Detector | Classifier, path: str | Path, *, provenance: Mapping[str, Any] | None = None
) -> None:
    """Saves weights, spec and provenance to `path`, a .safetensors file. It is written whole or not at all.

    Args:
        provenance: entries to add to `model.provenance` in the file.

    Raises:
        GCNetError: the model has context blocks that its spec does not describe.
        OSError: the disk is full or the folder does not exist; an older file at `path` is untouched.
    """
    check_describable(model)
    path = Path(path)
    tensors = model.state_dict()
    metadata = {
        "format": "gcnet",
        "format_version": str(FORMAT),
        "spec": json.dumps(asdict(model.spec)),
        "preprocessing": json.dumps(describe_preprocessing(model.spec)),
        "provenance": json.dumps(model.provenance | dict(provenance or {})),
        "versions": json.dumps({"gcnet": __version__, "torch": str(torch.__version__)}),
    }
    if isinstance(model, Classifier):
        metadata["kind"] = "classifier"
    write_atomically(path, lambda file: _write(file, tensors, metadata))


def check_describable(model: Detector | Classifier) -> None:
    """Raises GCNetError if the model has inserted blocks that are not its spec's: no file could be read."""
    own = [f"backbone.parts.{name}" for name in getattr(getattr(model, "backbone", None), "blocks", ())]
    if foreign := [name for name in inserted_blocks(model) if name not in own]:
        raise GCNetError(
            f"the model's spec does not describe the blocks that were inserted ({listed(foreign, 1)}), so "
            "its file could not be read: train with add_context=, or by a loop that saves its state_dict"
        )


def _write(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a .safetensors tensor by tensor: the library's own function would copy all of them.

    The format: the length of a header of JSON, that header, and the tensors, those of long numbers first, so
    that each begins at a multiple of its numbers' size.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    place = 0
    for name in names:
        tensor, begin = tensors[name], place
        place += tensor.nbytes
        kind = DTYPES[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, place]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        file.write(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def keep_in_file(path: str | Path, **values: Any) -> None:
    """Adds to the provenance of the model file at `path`; its weights stay as they are.

    Raises GCNetError if it cannot be read, or is not one of ours.
    """
    held = read_model_file(path)
    metadata = held.metadata | {"provenance": json.dumps(held.provenance | values)}
    write_atomically(Path(path), lambda file: _write(file, held.tensors, metadata))


def read_model_file(path: str | Path) -> ModelFile:
    """The content of the model file at `path`.

    Raises GCNetError if the file is missing, damaged, not one of ours, or of a later format.
    """
    path = Path(path)
    if not path.is_file():
        raise GCNetError(f"there is no model file {path}")
    try:
        with open_safetensors(path) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return _with_metadata(path, file.metadata() or {}, tensors)
    except GCNetError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise GCNetError(
            f"{path} is damaged or not a safetensors file ({shown(str(error), 90)}); get it again"
        ) from error


def describe_preprocessing(spec: ModelSpec | ClassifierSpec) -> dict[str, Any]:
    """How an image becomes the network's input, in words and numbers."""
    mean, std = list(spec.image_mean), list(spec.image_std)
    both = {
        "input": "RGB, 0 to 255",
        "normalise": {"formula": "(pixel - mean) / std", "mean": mean, "std": std},
    }
    first, second = spec.image_size
    if isinstance(spec, ClassifierSpec):
        return both | {
            "resize": {
                "short_side": first,
                "new_side": "floor(side * short_side / shorter side)",
                "interpolation": "on 8-bit values: mean over the area where it shrinks (OpenCV's "
                "INTER_AREA), bilinear where it enlarges (INTER_LINEAR)",
            },
            "crop": {"square": second, "offset": "round((side - square) / 2)"},
        }
    return both | {
        "resize": {
            "fit": {"long_side": first, "short_side": second},
            "scale": "min(long_side / longer side, short_side / shorter side)",
            "new_side": "floor(side * scale)"
            if spec.resize == "torchvision"
            else "floor(side * scale + 0.5)",
            "interpolation": INTERPOLATIONS[spec.resize],
        },
        "pad": {"multiple": PAD_MULTIPLE, "value": 0, "where": "right and bottom, after normalising"},
    }


def _with_metadata(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor]) -> ModelFile:
    if metadata.get("format") != "gcnet":
        raise GCNetError(f"{path} was not saved by gcnet: it does not say which model it holds")
    if (version := int(metadata.get("format_version", FORMAT))) > FORMAT:
        raise GCNetError(
            f"{path} has format {version} and this gcnet reads up to {FORMAT}: update gcnet, or save it again"
        )
    kind = ClassifierSpec if metadata.get("kind") == "classifier" else ModelSpec
    spec = kind.from_dict(json.loads(metadata["spec"]))
    return ModelFile(path, spec, json.loads(metadata.get("provenance", "{}")), metadata, tensors)


class building(TorchFunctionMode):
    """A model is built inside: unless `draw`, without its random initialisation, its memory as it was found.

    For models that `fill_weights` fills whole. Where some of a model stays random, it may depend on the seed
    that others were built before it: those are drawn. With the tensors that it is for, a model may not be
    many times larger: a few bytes can describe a network of any size. Other threads are not affected.
    """

    def __init__(self, tensors: Mapping[str, Tensor] | None = None, *, draw: bool = False) -> None:
        super().__init__()
        self.draw = draw
        self.left = math.inf if tensors is None else SPARE + 2 * sum(t.numel() for t in tensors.values())

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Initialisers return their tensor as it is: `torch.nn.init`'s, or the methods that these call."""
        kwargs = kwargs or {}
        if not self.draw and (func in DRAWING or getattr(func, "__module__", "") == "torch.nn.init"):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func is torch.empty:
            self.left -= math.prod(args[0] if isinstance(args[0], Sequence) else args)
            if self.left < 0:
                raise ValueError("it is many times larger than its weights")
        return func(*args, **kwargs)


def build_model(spec: ModelSpec | ClassifierSpec) -> Detector | Classifier:
    """The network that `spec` describes, with random weights."""
    return Classifier(spec) if isinstance(spec, ClassifierSpec) else Detector(spec)


def build_for(
    spec: ModelSpec | ClassifierSpec, tensors: Mapping[str, Tensor] | None, *, source: str, draw: bool = False
) -> Detector | Classifier:
    """The network that a file describes, for its `tensors` if it describes it itself; see `building`.

    Raises GCNetError if there can be no such network, or it is of another size than the tensors.
    """
    try:
        with building(tensors, draw=draw):
            return build_model(spec)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GCNetError(f"{source} describes a model that cannot be built: {reason}") from error


def fill_weights(
    module: nn.Module, tensors: Mapping[str, Tensor], *, source: str, take: bool = False
) -> None:
    """Copies `tensors` into `module`; a 1x1 convolution's weight may fill a linear layer's.

    With `take` they become its own, for callers that need them no more: no second copy where one is whole.

    Raises GCNetError if names or shapes differ; nothing has been copied then. All are counted, three listed.
    """
    own = module.state_dict()
    problems = {
        # Files from before batch counts were stored lack them; nothing here depends on them.
        "missing": [
            f"missing {n}" for n in own if n not in tensors and not n.endswith("num_batches_tracked")
        ],
        "unexpected": [f"unexpected {n}" for n in tensors if n not in own],
        "of another shape": [
            f"{n} is {_shape(tensors[n])} there and {_shape(own[n])} here"
            for n in own
            if n in tensors and not _fits(tensors[n], own[n])
        ],
    }
    if any(problems.values()):
        counts = ", ".join(f"{len(each)} {kind}" for kind, each in problems.items() if each)
        in_turn = [shown(one, 58) for turn in zip_longest(*problems.values()) for one in turn if one]
        raise GCNetError(f"{source} does not fit this model (tensors: {counts}): {listed(in_turn, 3, '; ')}")
    if take:
        module.load_state_dict(_taken(tensors, own), strict=False, assign=True)
        return
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor.reshape(own[name].shape))


def _taken(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the shapes and types of `own`, each in memory of its own."""
    taken: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.reshape(own[name].shape).to(own[name].dtype)
        alone = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
        taken[name] = tensor if alone else tensor.clone(memory_format=torch.contiguous_format)
    pointers = [tensor.data_ptr() for tensor in taken.values()]
    shared = {pointer for pointer in pointers if pointers.count(pointer) > 1}
    return {name: tensor.clone() if tensor.data_ptr() in shared else tensor for name, tensor in taken.items()}


def _fits(theirs: Tensor, own: Tensor) -> bool:
    """Equal shapes. A 1x1 convolution's (P, C, 1, 1) also fits a linear layer, or with P = 1 a vector."""
    sides = list(theirs.shape)
    while len(sides) > own.dim() and sides[-1] == 1:
        sides.pop()
    if len(sides) > own.dim() and sides[0] == 1:
        sides = sides[1:]
    return sides == list(own.shape)


def _shape(tensor: Tensor) -> str:
    return shown("x".join(map(str, tensor.shape)), 30) or "a scalar"
