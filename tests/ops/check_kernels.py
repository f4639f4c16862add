"""The kernels of add_relu against PyTorch's sums, or through the compiler; run by test_add_relu.py.

TRITON_INTERPRET=1 python check_kernels.py    # what they compute
python check_kernels.py compile               # that they compile for a GPU; none is needed
"""

from __future__ import annotations

import itertools
import sys

import torch

from gcnet.ops import add_relu_triton

# Smaller than a block, not divisible by one, several pieces of positions and several of channels.
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (2, 6, 11, 13)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
KINDS = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def check(shape: tuple[int, ...], layout: torch.memory_format, kind: torch.dtype, with_shift: bool) -> None:
    torch.manual_seed(0)
    z, shortcut, grad = (torch.randn(shape).to(kind).contiguous(memory_format=layout) for _ in range(3))
    shift = torch.randn(shape[1::-1]).T.to(kind) if with_shift else None
    expected = z.double() + shortcut.double()
    expected = (expected if shift is None else expected + shift.double()[:, :, None, None]).relu()
    tolerance = KINDS[kind]
    add_relu_triton.add_relu_(z, shortcut, shift)
    torch.testing.assert_close(z.double(), expected, rtol=tolerance, atol=tolerance)

    result, total = add_relu_triton.add_relu_backward(grad, z, with_shift)
    expected = grad * (z > 0)
    assert torch.equal(result, expected)
    assert result.stride() == grad.stride()
    assert (total is None) is not with_shift
    if total is not None:  # in float32, however the map is stored
        torch.testing.assert_close(total.double(), expected.double().sum((2, 3)), rtol=1e-5, atol=1e-5)


def check_nan() -> None:
    z, zero = torch.full((1, 1, 1, 2), float("nan")), torch.zeros(1, 1, 1, 2)
    add_relu_triton.add_relu_(z, zero, None)
    assert z.isnan().all()


def interpret() -> None:
    add_relu_triton.ROUNDS = 2
    add_relu_triton.CONTIGUOUS_BLOCK, add_relu_triton.CHANNELS_LAST_BLOCK = (32, 1), (16, 4)
    cases = list(itertools.product(SHAPES, LAYOUTS, KINDS, (False, True)))
    for case in cases:
        check(*case)
    check_nan()
    print(f"{len(cases)} cases agree")


def compile_for_gpu() -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    block = add_relu_triton.CHANNELS_LAST_BLOCK
    options = {"HAS_SHIFT": True, "WANTS_SUM": True, "BLOCK_P": block[0], "BLOCK_C": block[1], "ROUNDS": 8}
    for kernel in (add_relu_triton._forward, add_relu_triton._backward):
        names = kernel.arg_names
        signature = {
            name: "constexpr"
            if name in options
            else "*fp32"
            if name == "sums_ptr"
            else "*bf16"
            if name.endswith("_ptr")
            else "i32"
            for name in names
        }
        constants = {(names.index(name),): options[name] for name in names if name in options}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        assert "cubin" in triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm
    print("2 kernels compiled")


if __name__ == "__main__":
    compile_for_gpu() if sys.argv[1:] == ["compile"] else interpret()
