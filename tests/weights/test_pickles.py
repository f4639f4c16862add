"""Other people's checkpoints: read if they hold weights, refused if they want to run code."""

from __future__ import annotations

import argparse
import collections
import datetime
import gzip
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gcnet.errors import GCNetError
from gcnet.weights import archives, checkpoints
from gcnet.weights.checkpoints import read_checkpoint

WEIGHTS = {"a.weight": torch.arange(3.0), "b": torch.tensor(1)}


class Attack:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_weights_are_found(wrapped: bool, legacy: bool, tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    content = (
        {"state_dict": WEIGHTS, "meta": {"epoch": 12}, "optimizer": {"state": {}}} if wrapped else WEIGHTS
    )
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    tensors = read_checkpoint(file).tensors
    assert tensors.keys() == WEIGHTS.keys()
    assert all(torch.equal(tensors[name], WEIGHTS[name]) for name in WEIGHTS)


def test_numpy_numbers_of_old_files_are_tolerated(tmp_path: Path) -> None:
    """Files written with numpy 1.x call the constructor by its old address."""
    file = tmp_path / "x.pth"
    torch.save({"meta": np.float64(0.02), "state_dict": WEIGHTS}, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    assert b"numpy._core.multiarray" in content
    # The old format is a plain pickle whose names end in a newline, so they may change length.
    file.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_checkpoint(file).tensors.keys() == WEIGHTS.keys()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
def test_code_is_refused_and_not_run(legacy: bool, tmp_path: Path) -> None:
    file, marker = tmp_path / "x.pth", tmp_path / "marker"
    content = {"state_dict": WEIGHTS, "meta": Attack(marker)}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(GCNetError, match="refused") as raised:
        read_checkpoint(file)
    assert not marker.exists()
    assert "\n" not in str(raised.value)
    assert "mkdir" in str(raised.value)
    torch.load(file, weights_only=False)  # the file is what it seems: a careless reader is had
    assert marker.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_bare_pickle_with_code_is_refused(tmp_path: Path) -> None:
    file, marker = tmp_path / "x.pth", tmp_path / "marker"
    file.write_bytes(pickle.dumps(Attack(marker)))
    with pytest.raises(GCNetError):
        read_checkpoint(file)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", b"PK\x03\x04 cut off", b"\x80\x02}", b"<html>404</html>"],
    ids=["empty", "text", "zip", "pickle", "web page"],
)
def test_what_is_not_a_checkpoint(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(content)
    with pytest.raises(GCNetError, match=r"x\.pth") as raised:
        read_checkpoint(file)
    assert "\n" not in str(raised.value)


def test_cut_off_download(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    torch.save({"state_dict": {"w": torch.zeros(1000)}}, file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(GCNetError, match="damaged"):
        read_checkpoint(file)


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, [torch.zeros(1)], torch.zeros(1), {"a": 1}])
def test_no_tensors_by_name(content: object, tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    torch.save(content, file)
    with pytest.raises(GCNetError, match="holds no tensors"):
        read_checkpoint(file)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "x.pth")
    with pytest.raises(GCNetError, match="there is no checkpoint"):
        read_checkpoint(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
def test_flipped_bytes_end_in_one_kind_of_error(legacy: bool, tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    torch.save(
        {"state_dict": WEIGHTS, "meta": {"a": [1.0, "x"]}}, file, _use_new_zipfile_serialization=not legacy
    )
    whole, generator = bytearray(file.read_bytes()), np.random.default_rng(0)
    messages = []
    for _ in range(150):
        damaged = whole.copy()
        for place in generator.integers(0, len(whole), 8):
            damaged[place] = generator.integers(256)
        file.write_bytes(damaged)
        try:
            read_checkpoint(file)
        except GCNetError as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert not any("\n" in message for message in messages)


@pytest.fixture
def upstream_classes(monkeypatch: pytest.MonkeyPatch):
    """Classes of modules that exist while a file is written and are gone when it is read."""
    made = []

    def make(path: str, base: type = object) -> type:
        module, name = path.rsplit(".", 1)
        parts = module.split(".")
        for count in range(1, len(parts) + 1):
            part = ".".join(parts[:count])
            if part not in sys.modules:
                sys.modules[part] = types.ModuleType(part)
                made.append(part)
        cls = type(name, (base,), {"__module__": module})
        setattr(sys.modules[module], name, cls)
        return cls

    def remove() -> None:
        while made:
            del sys.modules[made.pop()]

    yield make, remove
    remove()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
def test_training_state_of_mmengine(legacy: bool, upstream_classes, tmp_path: Path) -> None:
    make, remove = upstream_classes
    buffer = make("mmengine.logging.history_buffer.HistoryBuffer")()
    buffer.__dict__.update(_log_history=np.arange(5.0), _count_history=np.ones(5, int), max_length=1000000)
    config = make("mmengine.config.config.ConfigDict", dict)(a=[1])
    config.note = "an attribute beside the items"
    averaged = {"module." + name: tensor + 1 for name, tensor in WEIGHTS.items()}
    content = {
        "meta": {
            "dataset_meta": {"classes": ("resistor", "coil"), "palette": [(1, 2, 3)]},
            "cfg": "model = dict(type='MaskRCNN')",
            "mmengine_version": "0.10.4",
            "epoch": np.int64(12),
            "time": datetime.datetime(2024, 1, 2),
            "work_dir": Path("x"),
            "hooks": collections.defaultdict(list, a=[1], b=[2]),
            "recent": collections.deque([1.0, 2.0], maxlen=3),
            "options": config,
        },
        "state_dict": collections.OrderedDict(WEIGHTS),
        "message_hub": {"log_scalars": collections.OrderedDict(loss=buffer), "runtime_info": {}},
        "ema_state_dict": averaged | {"steps": torch.tensor(7)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.02}]},
    }
    file = tmp_path / "epoch_12.pth"
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    remove()
    checkpoint = read_checkpoint(file)
    assert {name: tensor.tolist() for name, tensor in checkpoint.tensors.items()} == {
        name: tensor.tolist() for name, tensor in WEIGHTS.items()
    }
    assert checkpoint.class_names == ("resistor", "coil")
    assert checkpoint.origin == {"mmengine_version": "0.10.4", "epoch": 12}
    assert checkpoint.config == "model = dict(type='MaskRCNN')"


@pytest.mark.parametrize("kind", ["made from a dictionary", "filled", "a whole configuration"])
@pytest.mark.parametrize("package", ["mmengine.config.config", "mmcv.utils.config"])
def test_configurations_that_are_stored_as_values(
    kind: str, package: str, upstream_classes, tmp_path: Path
) -> None:
    make, remove = upstream_classes
    values: Any = make(f"{package}.ConfigDict", dict)(model={"backbone": {"depth": 50}})
    if kind == "made from a dictionary":
        type(values).__reduce_ex__ = lambda self, _: (type(self), (dict(self.items()),))
    if kind == "a whole configuration":
        whole = make(f"{package}.Config")
        state = (values, "x.py", "a text", {})
        whole.__getstate__ = lambda _: state  # type: ignore[attr-defined]
        values = whole()
    torch.save({"meta": {"cfg": values}, "state_dict": WEIGHTS}, tmp_path / "x.pth")
    remove()
    assert read_checkpoint(tmp_path / "x.pth").config == {"model": {"backbone": {"depth": 50}}}


def test_a_configuration_is_not_copied(upstream_classes, tmp_path: Path) -> None:
    """However often it is made from the same dictionary, this takes the memory of one."""
    make, remove = upstream_classes
    shared = dict.fromkeys(map(str, range(3_000)), 0)
    config = make("mmengine.config.config.ConfigDict", dict)
    config.__reduce_ex__ = lambda self, _: (type(self), (shared,))  # type: ignore[assignment]
    torch.save({"state_dict": WEIGHTS, "many": [config() for _ in range(1_000)]}, tmp_path / "x.pth")
    remove()
    tracemalloc.start()
    read_checkpoint(tmp_path / "x.pth")
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({"CLASSES": ("person", "bicycle")}, ("person", "bicycle")),
        ({"CLASSES": ["person"]}, ("person",)),
        ({"CLASSES": "person"}, ("person",)),
        ({"CLASSES": None}, None),
        ({"CLASSES": ()}, None),
        ({"CLASSES": (1, 2)}, None),
        ({"dataset_meta": {"CLASSES": ("a",)}}, ("a",)),
        ({"dataset_meta": {"classes": ["a", "b"]}}, ("a", "b")),
        ({"dataset_meta": "a"}, None),
        ({"id2label": {0: "a", 1: "b"}}, ("a", "b")),
        ({"CLASSES": np.array(["größe", "b"])}, ("größe", "b")),
        ({"CLASSES": np.array(["a", "b"], object)}, ("a", "b")),
        ({b"CLASSES": (b"a",)}, ("a",)),
        ({"CLASSES": ("a", "x" * 999)}, None),
        ({}, None),
        (None, None),
        ("x", None),
    ],
)
def test_class_names(meta: object, names: tuple[str, ...] | None, tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "meta": meta}, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth").class_names == names


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "model.module."])
def test_wrappers_leave_no_trace(prefix: str, tmp_path: Path) -> None:
    wrapped = {prefix + name: tensor for name, tensor in WEIGHTS.items()}
    torch.save({"state_dict": wrapped | {"steps": torch.tensor(1)}}, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth").tensors.keys() == WEIGHTS.keys()


def test_a_model_of_one_part_named_model_is_not_mistaken(tmp_path: Path) -> None:
    torch.save({"model.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth").tensors.keys() == {"model.a", "b"}


def test_averaged_copies_of_mmcv_are_passed_over(tmp_path: Path) -> None:
    copies = {"ema_" + name.replace(".", "_"): tensor + 1 for name, tensor in WEIGHTS.items()}
    torch.save({"state_dict": WEIGHTS | copies}, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth").tensors.keys() == WEIGHTS.keys()


class Lookup:
    """Unpickling it looks up an attribute of something that is itself harmless."""

    def __init__(self, target: object, name: str) -> None:
        self.target, self.name = target, name

    def __reduce__(self):
        return getattr, (self.target, self.name)

    def __call__(self) -> None:
        pass


class LookupAndCall:
    """Unpickling it also calls what was found."""

    def __init__(self, *lookup: object) -> None:
        self.lookup = lookup

    def __reduce__(self):
        return Lookup(*self.lookup), ()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
def test_looking_something_up_gives_nothing_to_call(legacy: bool, tmp_path: Path) -> None:
    """mmengine's logs can look up methods; that must not become a way to run them."""
    file, lookup = tmp_path / "x.pth", (torch.Tensor, "numel")
    content = {"state_dict": WEIGHTS, "meta": {"epoch": Lookup(*lookup)}}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    assert read_checkpoint(file).origin == {}
    content["meta"] = {"epoch": LookupAndCall(*lookup)}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(GCNetError, match="refused"):
        read_checkpoint(file)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old format"])
def test_objects_of_other_packages_mean_nothing(legacy: bool, upstream_classes, tmp_path: Path) -> None:
    make, remove = upstream_classes
    arguments = make("somebody.training.Arguments")()
    arguments.__dict__.update(lr=0.1, weights=torch.zeros(2))
    content = {"args": argparse.Namespace(lr=0.1), "more": arguments, "model": WEIGHTS}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    remove()
    tensors = read_checkpoint(tmp_path / "x.pth").tensors
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"a.weight": [0, 1, 2], "b": 1}


def test_a_whole_model_is_no_weights(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(
        GCNetError, match=r"whole model and not its weights; save model.state_dict\(\) instead"
    ):
        read_checkpoint(tmp_path / "x.pth")


DETECTOR = {"backbone.conv1.weight": torch.arange(3.0), "rpn_head.rpn_cls.bias": torch.tensor(1)}
OTHER = {name: tensor + 1 for name, tensor in DETECTOR.items()}
FOUND = {
    "any prefix": {
        "state_dict": {f"trainer.wrapped.{name}": t for name, t in DETECTOR.items()} | {"loss.w": 3}
    },
    "what is beside it": {f"model.{name}": t for name, t in DETECTOR.items()} | {"map.a": torch.zeros(2)},
    "any wrapper": {"best": {"weights_of_it": DETECTOR}, "optimizer": {"state": {"a.b": torch.zeros(9)}}},
    "in a tuple": (3, {"state_dict": DETECTOR}),
    "bytes": {b"state_dict": {name.encode(): tensor for name, tensor in DETECTOR.items()}},
    "averaged of mmengine": {
        "state_dict": DETECTOR,
        "ema_state_dict": {f"module.{n}": t for n, t in OTHER.items()},
    },
    "averaged of others": {"model": OTHER, "ema_state_dict": {"state_dict": DETECTOR}},
    "averaged in one": {f"{p}.{n}": t for p, s in (("net", OTHER), ("ema", DETECTOR)) for n, t in s.items()},
    "what is no weight": DETECTOR
    | {"backbone.conv1.total_ops": torch.zeros(1), "backbone.fc.weight": torch.zeros(2)}
    | {"roi_head.bbox_head.loss_cls.class_weight": torch.ones(2), "_extra_state": {"a": 1}},
    "a loss beside it": {"state_dict": DETECTOR, "criterion": torch.nn.CrossEntropyLoss(torch.ones(2))},
    "Fortran's order": {"model": {"rpn.a": np.zeros(1), "backbone.a": np.asfortranarray([[1, 2], [3, 4]])}},
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("kind", FOUND)
def test_a_detector_is_found_wherever_it_is(kind: str, protocol: int, tmp_path: Path) -> None:
    torch.save(FOUND[kind], tmp_path / "x.pth", pickle_protocol=protocol)
    found = {name: t.tolist() for name, t in read_checkpoint(tmp_path / "x.pth").tensors.items()}
    if kind == "Fortran's order":
        assert found == {"rpn.a": [0], "backbone.a": [[1, 2], [3, 4]]}
    else:
        assert found == {name: tensor.tolist() for name, tensor in DETECTOR.items()}


def test_of_two_detectors_somebody_has_to_say_which(tmp_path: Path) -> None:
    torch.save({"day": DETECTOR, "night": OTHER}, tmp_path / "x.pth")
    with pytest.raises(GCNetError, match=r"several models \(day, night\): say which with --part"):
        read_checkpoint(tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth", part="night").tensors["rpn_head.rpn_cls.bias"] == 2
    with pytest.raises(GCNetError, match="has no part noon"):
        read_checkpoint(tmp_path / "x.pth", part="noon")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_files_of_another_kind_say_which(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "inner.pth")
    with zipfile.ZipFile(tmp_path / "outer.pth", "w") as outer:
        outer.write(tmp_path / "inner.pth", "epoch_12.pth")
    (tmp_path / "packed.pth").write_bytes(gzip.compress((tmp_path / "inner.pth").read_bytes()))
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "program.pth")
    for name, words in (
        ("outer", r"archive of other files \(epoch_12\.pth\): unpack it"),
        ("packed", "is compressed: unpack it"),
        ("program", r"TorchScript program: save model\.state_dict\(\)"),
    ):
        with pytest.raises(GCNetError, match=words):
            read_checkpoint(tmp_path / f"{name}.pth")


WRAPPED = {
    "model": {"model": WEIGHTS, "optimizer": {"state": {0: {"step": torch.zeros(1)}}}, "epoch": 3},
    "model_state_dict": {"model_state_dict": WEIGHTS},
    "of a wrapper": {"checkpoint": 1, "state_dict": {"model": WEIGHTS}},
    "averaged": {"model": {name: t + 1 for name, t in WEIGHTS.items()}, "model_ema": WEIGHTS},
    "averaged, by prefix": {"ema_model." + name: t for name, t in WEIGHTS.items()}
    | {"online_model." + name: t + 1 for name, t in WEIGHTS.items()}
    | {"initted": torch.tensor(True)},
    "compiled": {"_orig_mod." + name: t for name, t in WEIGHTS.items()},
    "lightning": {"state_dict": {"net.module." + name: t for name, t in WEIGHTS.items()}},
    "teacher alone": {"teacher." + name: t for name, t in WEIGHTS.items()},
    "an averaged object that is none": {"ema": {"decay": 0.9}, "model": WEIGHTS},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrappers(kind: str, tmp_path: Path) -> None:
    torch.save(WRAPPED[kind], tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth")
    assert {name: t.tolist() for name, t in found.tensors.items()} == {"a.weight": [0, 1, 2], "b": 1}
    places = {"averaged": "model_ema", "averaged, by prefix": "ema_model"}
    assert found.origin == ({"averaged": f"the weights under {places[kind]}"} if kind in places else {})


@pytest.mark.parametrize("nested", [True, False])
def test_teacher_and_student(nested: bool, tmp_path: Path) -> None:
    both = {"teacher": WEIGHTS, "student": {name: t + 1 for name, t in WEIGHTS.items()}}
    flat = {f"{kind}.{name}": t for kind, tensors in both.items() for name, t in tensors.items()}
    torch.save(both if nested else {"state_dict": flat}, tmp_path / "x.pth")
    with pytest.raises(GCNetError, match="say which"):
        read_checkpoint(tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth", part="student").tensors["b"] == 2
    assert read_checkpoint(tmp_path / "x.pth", part="teacher").tensors.keys() == WEIGHTS.keys()


def test_a_plain_pickle_of_arrays(tmp_path: Path) -> None:
    """As detectron2's model zoo has them."""
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(1), "c": np.float32(2)}
    for protocol in range(6):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, protocol))
        tensors = read_checkpoint(tmp_path / "x.pkl").tensors
        assert {name: t.tolist() for name, t in tensors.items()} == {"a": [[0, 1, 2], [3, 4, 5]], "b": 1}


# --- hostile files ----------------------------------------------------------------------------------------


def with_pickle(path: Path, pickled: bytes) -> Path:
    """A checkpoint whose pickle is this."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little"}.items():
            file.writestr(f"archive/{name}", content)
    return path


def test_a_dtype_with_a_state_of_its_own_follows_no_address(tmp_path: Path) -> None:
    """NumPy's dtype takes any flags from a pickle: one of objects that says it has none reads any address."""
    state = pickle.dumps((3, "<", None, ("a",), {"a": (np.dtype("i4"), 0)}, 8, 8, 16), 2)[2:-1]
    hostile = (
        b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\0\0\0O8\x89\x88\x87R" + state + b"b"
        b"c_codecs\nencode\nX\x08\0\0\0AAAAAA\0\0X\x06\0\0\0latin1\x86R\x86R."
    )
    script = (
        f"from gcnet.weights.checkpoints import read_checkpoint; read_checkpoint({str(tmp_path / 'x.pth')!r})"
    )
    with_pickle(tmp_path / "x.pth", hostile)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "holds no tensors" in done.stderr
    assert done.returncode == 1


NUMBERS = [
    np.float16(0.5),
    np.float32(-2),
    np.float64(0.1),
    np.int8(-3),
    np.uint16(9),
    np.int64(-7),
    np.bool_(1),
]


@pytest.mark.parametrize("number", [*NUMBERS, np.bool_(True), np.float64(3).astype(">f8"), np.str_("größe")])
def test_numpy_numbers_mean_what_they_are(number: np.generic, tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "meta": {"epoch": number}}, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth").origin == {"epoch": number.item()}


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(1_000_000)}}, tmp_path / "x.pth")
    with (
        zipfile.ZipFile(tmp_path / "x.pth") as plain,
        zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(GCNetError, match="unpacks to 4 MB, more than the file has"):
        read_checkpoint(tmp_path / "y.pth")


@pytest.mark.parametrize(
    "tensors",
    [{"w": torch.zeros(1).expand(2**30)}, {str(i): torch.zeros(1) for i in range(101)}],
    ids=["a view of a gigabyte", "many"],
)
def test_more_than_a_file_can_hold(
    tensors: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_TENSORS", 100)
    torch.save(tensors, tmp_path / "x.pth")
    with pytest.raises(GCNetError, match=r"refused: .* more than there is in the file"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["sparse", "complex", "meta"])
def test_tensors_that_are_not_plain(kind: str, tmp_path: Path) -> None:
    tensor = torch.eye(3)
    tensor = {"sparse": tensor.to_sparse, "complex": tensor.cfloat, "meta": lambda: tensor.to("meta")}[kind]()
    torch.save({"w": tensor}, tmp_path / "x.pth")
    with pytest.raises(GCNetError, match="only plain tensors are read"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_safetensors_file_of_others_may_have_any_name(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    path = tmp_path / os.fsdecode(b"mod\xe8le.safetensors")
    (tmp_path / "a.safetensors").rename(path)
    assert read_checkpoint(path).tensors.keys() == WEIGHTS.keys()


def test_lists_that_hold_themselves_or_one_another_many_times_end(tmp_path: Path) -> None:
    itself: Any = []
    itself.append(itself)
    often: Any = 1
    by_name: Any = 1
    for _ in range(40):
        often, by_name = [often] * 6, {str(n): by_name for n in range(6)}
    for held in (itself, often, by_name):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps({"state_dict": held}))
        with pytest.raises(GCNetError, match="holds no tensors by name"):
            read_checkpoint(tmp_path / "x.pkl")


def test_models_are_told_apart_in_a_time_that_grows_with_their_number() -> None:
    tensors = {f"ema_{n}.weight": torch.zeros(1) for n in range(20_000)}
    started = time.monotonic()
    assert len(list(checkpoints._models(tensors))) == 20_000
    assert time.monotonic() - started < 10.0  # each of them looked for in all names took half a minute
