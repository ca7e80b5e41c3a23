"""Modes of torch that watch what a computation does: waiting for a device, memory, CUDA without one."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# what makes the host wait, because a number or a shape comes from the device
WAITING = {
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten.item,
    torch.ops.aten.is_nonzero,
    torch.ops.aten.equal,
    torch.ops.aten.nonzero,
    torch.ops.aten.masked_select,
    torch.ops.aten._unique2,
    torch.ops.aten.unique_dim,
    torch.ops.aten.unique_consecutive,
    torch.ops.aten.bincount,
    torch.ops.aten.repeat_interleave,
}


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for the device (copies to another device too)."""

    def __init__(self, refuse: bool = False) -> None:
        super().__init__()
        self.count, self.refuse = 0, refuse

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        masks = func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_) and any(
            x.dtype in (torch.bool, torch.uint8) for x in tensors[1:]
        )  # fmt: skip
        moved = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.to) and kwargs.get("device") not in (
            None,
            tensors[0].device,
        )
        copied = func.overloadpacket is torch.ops.aten.copy_ and len({x.device for x in tensors}) > 1
        if func.overloadpacket in WAITING or masks or moved or copied:
            self.count += 1
            if self.refuse:
                raise AssertionError(f"waits for the device: {func}")
        return func(*args, **kwargs)


class PeakBytes(TorchDispatchMode):
    """The largest sum of the bytes of storages that are made while the mode is on and not yet freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        old = {self._key(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and self._key(x) not in old | self.known:
                self._made(x.untyped_storage())
        return out

    @staticmethod
    def _key(x: torch.Tensor) -> int:
        return x.untyped_storage()._cdata

    def _made(self, storage: Any) -> None:
        size, key = storage.nbytes(), storage._cdata
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


class FakeCudaIndexing(TorchFunctionMode):
    """Slices of fake CUDA tensors, for a torch that is built without CUDA: its own indexing asks for the device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__getitem__:
            return self._view(*args)
        if func is torch.Tensor.__setitem__:
            torch.ops.aten.copy_(self._view(*args[:2]), args[2])
            return None
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _view(x: torch.Tensor, index: Any) -> torch.Tensor:
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in index:
            at = index.index(Ellipsis)
            named = sum(k is not None and k is not Ellipsis for k in index)
            index = (*index[:at], *(slice(None),) * (x.ndim - named), *index[at + 1 :])
        axis = 0
        for k in index:
            if isinstance(k, int):
                x = x.select(axis, k)
                continue
            if k is None:
                x = x.unsqueeze(axis)
            else:
                start, stop, _ = k.indices(x.shape[axis])
                x = x.narrow(axis, start, stop - start)
            axis += 1
        return x
