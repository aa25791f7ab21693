# SPDX-License-Identifier: Apache-2.0
"""transformers in float64, truly.

`model.double()` is not enough: the modelling code computes rope tables, norms and softmax in
float32 by name, whatever the dtype of the weights. Inside everything() those names mean float64,
and a dispatch mode proves of every single operation that no float32 value was made.
"""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RefuseFloat32(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                assert leaf.dtype is REAL_FLOAT64, f"{func} made {leaf.dtype}"
        return out


REAL_FLOAT64 = torch.float64


@contextlib.contextmanager
def everything():
    saved = torch.float, torch.float32, torch.Tensor.float, torch.get_default_dtype()
    torch.float = torch.float32 = torch.float64
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(REAL_FLOAT64)
    try:
        with RefuseFloat32():
            yield
    finally:
        torch.float, torch.float32, torch.Tensor.float = saved[:3]
        torch.set_default_dtype(saved[3])
