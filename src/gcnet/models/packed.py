"""Layers of an optimised copy: convolutions with what follows them, and packed or exact linear layers.

N images, C channels, H x W map; D channels of the output, R rows.
"""

from __future__ import annotations

from typing import Any, NoReturn, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.errors import GCNetError
from gcnet.models.folding import folded

# oneDNN's convolution with what follows it in the same pass over the output; torch.compile calls the same.
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
ONLY_PREDICTS = (
    "an optimised copy only predicts: train, save or load weights into the model that it was made of, "
    "and optimise that again"
)

_CACHED = 2048  # pixels of a map that `Float32` converts at a time


class Float32(nn.Module):
    """A linear layer or a 1x1 convolution, in full precision inside a network that is not."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Float[Tensor, "*_"]) -> Float[Tensor, "*_"]:
        if x.dim() == 2 or x.device.type != "cpu" or torch.compiler.is_compiling():
            return self.layer(x.float())
        # Some rows at a time: what is converted stays in the cache until the layer reads it.
        some = x.split(max(_CACHED // x.shape[3], 1), dim=2)
        return torch.cat([self.layer(rows.float()) for rows in some], dim=2)


def joined(*convs: nn.Conv2d) -> nn.Conv2d:
    """1x1 convolutions that read the same map as one, whose output is theirs one after the other."""
    one = nn.Conv2d(convs[0].in_channels, sum(conv.out_channels for conv in convs), 1, device="meta")
    parts = zip(*((conv.weight, cast(Tensor, conv.bias)) for conv in convs), strict=True)
    one.weight, one.bias = (nn.Parameter(torch.cat(part), requires_grad=False) for part in parts)
    return one


def _suits_onednn(x: Tensor) -> bool:
    """Whether its operators are to be called: autocast does not know them."""
    usual = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return _ONEDNN and usual and x.dtype in (torch.float32, torch.bfloat16)


def _plain(weight: Float[Tensor, "D _c *_k"]) -> Float[Tensor, "D _c *_k"]:
    """A weight in PyTorch's order, that of a convolution channels-last."""
    dense = weight.to_dense() if weight.is_mkldnn else weight
    return dense.contiguous(memory_format=torch.channels_last) if dense.dim() == 4 else dense


class _Packed(nn.Module):
    """A layer whose weight is no parameter: on a CPU the only one lies in oneDNN's own order."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Float[Tensor, "D _c *_k"], bias: Float[Tensor, " D"]) -> None:
        super().__init__()
        self.register_buffer("weight", _plain(weight), persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.eval()

    def _apply(self, fn: Any, recurse: bool = True) -> nn.Module:
        self.weight = _plain(self.weight)
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:  # oneDNN's tensors can be neither copied nor pickled
        return self.__dict__ | {"_buffers": self._buffers | {"weight": _plain(self.weight)}}

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise GCNetError(ONLY_PREDICTS)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise GCNetError(ONLY_PREDICTS)


class FusedConv(_Packed):
    """conv, norm, + `add`, ReLU as one convolution. It reads and writes channels-last maps."""

    def __init__(self, conv: nn.Conv2d, norm: nn.Module | None = None, *, relu: bool = False) -> None:
        super().__init__(*folded(conv, norm))
        self.geometry = (list(cast(tuple[int, ...], conv.padding)), list(conv.stride), list(conv.dilation))
        self.groups, self.relu, self.cudnn = conv.groups, relu, True
        self.is_linear = conv.groups == 1 and conv.kernel_size == (1, 1) == conv.stride

    def forward(
        self,
        x: Float[Tensor, "N C H W"],
        *,
        add: Float[Tensor, "N D h w"] | None = None,
        bias: Float[Tensor, " D"] | None = None,
        relu: bool | None = None,
    ) -> Float[Tensor, "N D h w"]:
        """`bias` and `relu` replace the layer's own."""
        if self.training:
            raise GCNetError(ONLY_PREDICTS)
        bias = self.bias if bias is None else bias
        relu = self.relu if relu is None else relu
        if not torch.compiler.is_compiling():
            if _suits_onednn(x):
                return self._onednn(x, add, bias, relu)
            if relu and self.cudnn and x.is_cuda and x.dtype in (torch.float16, torch.bfloat16):
                try:
                    return self._cudnn(x, add, bias)
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError:  # it has no engine for this shape on this GPU
                    self.cudnn = False
        return self._torch(x, add, bias, relu)

    def _torch(self, x: Tensor, add: Tensor | None, bias: Tensor, relu: bool) -> Tensor:
        padding, stride, dilation = self.geometry
        if x.is_cuda and self.is_linear and add is None and not relu:
            # The same as a product of matrices, which adds the bias by itself.
            rows = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), bias)
            return rows.permute(0, 3, 1, 2)
        out = F.conv2d(x, _plain(self.weight), bias, stride, padding, dilation, self.groups)
        if add is not None:
            out = out.add_(add)
        return out.relu_() if relu else out

    def _cudnn(self, x: Tensor, add: Tensor | None, bias: Tensor) -> Tensor:
        """The sum and the ReLU in the same pass over the output."""
        padding, stride, dilation = self.geometry
        if add is None:
            return torch.cudnn_convolution_relu(x, self.weight, bias, stride, padding, dilation, self.groups)
        return torch.cudnn_convolution_add_relu(
            x, self.weight, add, 1.0, bias, stride, padding, dilation, self.groups
        )

    def _onednn(self, x: Tensor, add: Tensor | None, bias: Tensor, relu: bool) -> Tensor:
        weight = self.weight  # read once: another thread may be here too
        if not weight.is_mkldnn:
            # Into the blocked order that the kernel works on: once, not at every call.
            weight = self.weight = torch.ops.mkldnn._reorder_convolution_weight(
                weight, *self.geometry, self.groups, list(x.shape)
            )
        convolve = torch.ops.mkldnn._convolution_pointwise
        if add is None:
            after = "relu" if relu else "none"
            return convolve(x, weight, bias, *self.geometry, self.groups, after, [], "")
        after = "relu" if relu else None
        return convolve.binary(x, add, weight, bias, *self.geometry, self.groups, "add", 1.0, after, [], None)


class PackedLinear(_Packed):
    """A linear layer of many rows."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.weight.detach().clone(), layer.bias.detach().clone())

    def forward(self, x: Float[Tensor, "R C"]) -> Float[Tensor, "R D"]:
        if torch.compiler.is_compiling() or not _suits_onednn(x):
            return F.linear(x, _plain(self.weight), self.bias)
        weight = self.weight
        if not weight.is_mkldnn:
            weight = self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, len(x))
        return torch.ops.mkldnn._linear_pointwise(x, weight, self.bias, "none", [], "")
