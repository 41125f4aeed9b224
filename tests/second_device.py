"""A second device that every machine has: tensors that say they lie on cuda:0, their numbers in ordinary memory.

As on a GPU, what meets on both devices is refused, and no number leaves without being copied. Below autograd they are
of torch's meta device, which needs no driver.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from poseda_deploy.train import lpa, views

CUDA = torch.device("cuda", 0)
_COPIES = ("_to_copy", "copy_")
_TAKE_CPU_INDICES = ("index", "index_put", "index_put_", "_index_put_impl_")


class OnGpu(Tensor):
    """A tensor of the second device."""

    inside: Tensor
    device = CUDA

    @staticmethod
    def __new__(cls: type["OnGpu"], inside: Tensor) -> "OnGpu":
        make: Any = Tensor._make_wrapper_subclass
        layout = {"strides": inside.stride(), "storage_offset": inside.storage_offset(), "dtype": inside.dtype}
        return make(cls, inside.shape, device="meta", **layout)

    def __init__(self, inside: Tensor) -> None:
        self.inside = inside

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operation: Any, types: Sequence[type], given: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        """Run it on the numbers inside; the result is on this device unless it was asked for on the CPU."""
        name, named = operation.overloadpacket.__name__, dict(named or {})
        here = tree_leaves((given, named))
        if name not in _COPIES:
            _refuse_mixed(name, here, given)
        to_cpu = name == "_to_copy" and torch.device(named.pop("device", None) or CUDA).type == "cpu"
        result = operation(*_inside(given), **_inside(named))
        mine = {id(leaf.inside): leaf for leaf in here if isinstance(leaf, OnGpu)}
        if to_cpu:
            return result
        return tree_map_only(Tensor, lambda found: mine[id(found)] if id(found) in mine else OnGpu(found), result)


class GpuGenerator(Generator):
    """A random generator of the second device; what it draws is what the CPU's draws."""


def _inside(tree: Any) -> Any:
    return tree_map_only(OnGpu, lambda tensor: tensor.inside, tree)


def _refuse_mixed(name: str, leaves: Sequence[Any], given: Sequence[Any]) -> None:
    """As torch does; numbers without an axis may come from the CPU, and so may indices."""
    if name in _TAKE_CPU_INDICES and isinstance(given[0], OnGpu):
        leaves = [given[0], *given[2:3]]
    strange = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, OnGpu) and leaf.ndim]
    if strange:
        raise RuntimeError(f"{name}: all tensors expected on one device, found cuda:0 and cpu {strange[0].shape}")


class _Driver(TorchFunctionMode):
    """What of torch's Python interface knows devices: making tensors there, and moving them."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        given: Sequence[Any] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(named or {})
        name = getattr(function, "__name__", "")
        on_gpu = _names_gpu([named.get("device"), *tree_leaves(given)])
        if isinstance(named.get("generator"), Generator) and on_gpu != isinstance(named["generator"], GpuGenerator):
            raise RuntimeError(f"{name}: expected a generator of the device that draws")
        if name in ("to", "cuda") and (name == "cuda" or _names_gpu((*given[1:], *named.values()))):
            return given[0] if isinstance(given[0], OnGpu) else _up(given[0], [a for a in given[1:] if _is_dtype(a)])
        if name.startswith("new_") and isinstance(given[0], OnGpu):
            return OnGpu(function(given[0].inside, *_inside(given[1:]), **_inside(named)))
        if name in ("__getitem__", "__setitem__") and isinstance(given[0], OnGpu):
            given = (given[0], _indices(given[1]), *given[2:])
        elif _names_gpu([named.get("device")]) and not any(isinstance(leaf, Tensor) for leaf in tree_leaves(given)):
            return OnGpu(function(*given, **{**named, "device": "cpu"}))
        return function(*given, **named)


class _Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What torch itself makes on the way, for numbers and in gradients, has values too."""

    def __torch_dispatch__(
        self, operation: Any, types: Sequence[type], given: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(named or {})
        if str(named.get("device")) != "meta":
            return operation(*given, **named)
        return OnGpu(operation(*_inside(given), **{**_inside(named), "device": "cpu"}))


def _names_gpu(values: Sequence[Any]) -> bool:
    names = [str(value) for value in values if isinstance(value, str | torch.device)]
    return any(name.startswith("cuda") for name in names) or any(isinstance(value, OnGpu) for value in values)


def _is_dtype(value: Any) -> bool:
    return isinstance(value, torch.dtype)


def _up(tensor: Tensor, dtype: Sequence[torch.dtype]) -> OnGpu:
    """A copy on the GPU, of another type where one is given; no gradient finds its way back."""
    return OnGpu(tensor.detach().to(dtype=dtype[0] if dtype else tensor.dtype).clone())


def _indices(index: Any) -> Any:
    """Numbers as tensors: torch would make them on the meta device, without numbers."""
    parts = index if isinstance(index, tuple) else (index,)
    made = tuple(torch.tensor(part) if isinstance(part, list | tuple) else part for part in parts)
    return made if isinstance(index, tuple) else made[0]


@contextmanager
def second_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While it lasts "cuda" is that device, for training's random generators too."""

    def generator(device: torch.device | str = "cpu") -> Generator:
        return GpuGenerator() if torch.device(device).type == "cuda" else Generator(device)

    with monkeypatch.context() as patch:
        for module in (views, lpa):
            patch.setattr(module, "Generator", generator)
        with _Driver(), _Memory():  # type: ignore[no-untyped-call]
            yield
