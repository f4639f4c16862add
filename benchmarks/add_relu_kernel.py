"""The kernels at the end of a residual block, on a GPU: against float64, and timed beside PyTorch's own.

    python benchmarks/add_relu_kernel.py

relu(z + shortcut + shift) and its gradients, on the maps of c3 to c5 at 800 x 1216, batch 2, in both memory
layouts. GB/s count each map once for every time it has to be read or written.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gcnet.errors import GCNetError

SHAPES = [(512, 100, 152), (1024, 50, 76), (2048, 25, 38)]
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
KINDS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}  # of one rounding of the result


def forward_plain(z: Tensor, shortcut: Tensor, shift: Tensor) -> Tensor:
    """What PyTorch does without the kernel."""
    return z.add_(shortcut).add_(shift[:, :, None, None]).relu_()


def backward_plain(grad: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of z, and its sum over positions."""
    grad = torch.ops.aten.threshold_backward(grad, out, 0)
    return grad, grad.sum((2, 3), dtype=torch.float32)


def check(z: Tensor, shortcut: Tensor, shift: Tensor, grad: Tensor) -> float:
    """The largest difference from float64, of results of size one; raises if it is more than rounding."""
    from gcnet.ops import add_relu_triton

    exact = (z.double() + shortcut.double() + shift.double()[:, :, None, None]).relu()
    out = z.clone()
    add_relu_triton.add_relu_(out, shortcut, shift)
    result, total = add_relu_triton.add_relu_backward(grad, out, True)
    assert total is not None
    masked = grad.double() * (out > 0)
    sums = masked.sum((2, 3))
    worst = max(
        float(((out - exact).abs() / exact.clamp(min=1)).max()),
        float((result - masked).abs().max()),
        float((total - sums).abs().max() / sums.abs().max()) / 10,  # thousands of float32 terms
    )
    if worst > TOLERANCE[z.dtype]:
        raise GCNetError(f"the kernel is off by {worst:.1e} on {tuple(z.shape)} {z.dtype}")
    return worst


def milliseconds(run: Callable[[], object], repeats: int) -> float:
    """The median on the GPU's own clock."""
    taken = []
    for _ in range(repeats + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        taken.append(start.elapsed_time(end))
    return statistics.median(taken[3:])


def main() -> None:
    """Checks and times every case, a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this needs a CUDA GPU")
    from gcnet.ops import add_relu_triton as kernels

    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    for shape, layout, kind in itertools.product(SHAPES, LAYOUTS, KINDS):
        torch.manual_seed(0)
        z, shortcut, grad = (
            torch.randn(options.batch, *shape, device="cuda", dtype=KINDS[kind]).contiguous(
                memory_format=LAYOUTS[layout]
            )
            for _ in range(3)
        )
        shift = torch.randn(options.batch, shape[0], device="cuda", dtype=KINDS[kind])
        worst = check(z, shortcut, shift, grad)
        line = f"{shape[0]:5} x {shape[1]:3} x {shape[2]:3} {layout} {kind}: off by {worst:.0e}"
        inputs, outputs = (z, shortcut, shift), (grad, z)
        for name, ours, plain in (
            ("forward", partial(kernels.add_relu_, *inputs), partial(forward_plain, *inputs)),
            (
                "backward",
                partial(kernels.add_relu_backward, *outputs, True),
                partial(backward_plain, *outputs),
            ),
        ):
            a, b = milliseconds(ours, options.repeats), milliseconds(plain, options.repeats)
            rate = 3 * z.numel() * z.element_size() / a / 1e6
            line += f"; {name} {a:.3f} ms, {rate:.0f} GB/s, {a / b:.2f} of PyTorch's {b:.3f}"
        print(line)


if __name__ == "__main__":
    main()
