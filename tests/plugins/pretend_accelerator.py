"""A device that is not there: tensors that say they are on it, with values in the CPU's memory.

It refuses what a GPU refuses: tensors of two devices in one operation, `.numpy()`, random numbers
from another device's generator. So what runs here names the right device everywhere; how a GPU
rounds, and what it takes to record one, it does not tell. A pytest plugin, for a process of its
own: `PYTHONPATH=tests/plugins pytest -p pretend_accelerator --device pretend ...`.
"""

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "pretend"
# These may take tensors of both: copies, and indices that a GPU fetches from the CPU.
BETWEEN_DEVICES = {"copy_", "index", "index_put", "index_put_", "_index_put_impl_"}
# For these the CPU waits until the device has computed; like `torch.cuda.set_sync_debug_mode`.
LOOKS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select"}
waiting_is_an_error = False


class Backend(_DummyBackendModule):
    """What `torch.random.fork_rng` asks of a device."""

    def get_rng_state(self, device):
        return torch.zeros(1, dtype=torch.uint8)

    def set_rng_state(self, state, device):
        pass


_setup_privateuseone_for_python_backend(NAME, backend_module=Backend())


class PretendedTensor(torch.Tensor):
    """Reports the pretended device; `values` is a tensor on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=torch.device(NAME, 0),
        )
        tensor.values = values
        return tensor

    def __repr__(self):
        return f"pretended {self.values}"

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return compute(operation, *args, **(kwargs or {}))


class PretendedGenerator(torch._C.Generator):
    """Draws on the CPU, and says that it does so on the device it was made for."""

    def __new__(cls, device="cpu"):
        generator = super().__new__(cls, "cpu")
        generator.made_for = torch.device(device)
        return generator

    @property
    def device(self):
        return self.made_for

    def manual_seed(self, seed):
        super().manual_seed(seed)
        return self


def is_pretended(value) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == NAME


def compute(operation, *args, **kwargs):
    """What a PyTorch operation does with pretended tensors."""
    name = operation._schema.name.removeprefix("aten::")
    inputs, structure = tree_flatten((args, kwargs))
    refuse_what_a_gpu_refuses(name, inputs)
    wrapped = {id(value.values): value for value in inputs if is_pretended(value)}

    def on_the_cpu(value):
        if is_pretended(value):
            return value.values
        return torch.device("cpu") if isinstance(value, torch.device) else value

    args_there, kwargs_there = tree_unflatten([on_the_cpu(value) for value in inputs], structure)
    results = operation(*args_there, **kwargs_there)
    device = kwargs.get("device")
    if name == "copy_":
        return args[0]
    if device is not None and torch.device(device).type != NAME:
        return results

    def on_the_device(value):
        if id(value) in wrapped:  # changed in place
            return wrapped[id(value)]
        return PretendedTensor(value) if isinstance(value, torch.Tensor) else value

    return tree_map(on_the_device, results)


def refuse_what_a_gpu_refuses(name, inputs):
    tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
    there = [is_pretended(tensor) for tensor in tensors if tensor.dim() > 0]
    mask = "index" in name and any(tensor.dtype == torch.bool for tensor in tensors[1:])
    if waiting_is_an_error and (name in LOOKS or mask or len(set(there)) > 1):
        raise RuntimeError(f"The CPU waits for the device: {name}")
    if len(set(there)) > 1 and name not in BETWEEN_DEVICES:
        raise RuntimeError(f"Expected all tensors to be on the same device: {name}")
    if "index" in name and any(there) and not is_pretended(tensors[0]):
        raise RuntimeError(f"The indices are on a device, the values are not: {name}")
    for value in inputs:
        if isinstance(value, torch.Generator) and value.device.type != NAME:
            raise RuntimeError(f"Expected a generator of the device: {name}")


def from_numbers(function):
    """PyTorch's own cannot make a tensor on a device that is written in Python."""

    def make(data, *, device=None, **kwargs):
        tensor = function(data, **kwargs)
        return tensor if device is None else tensor.to(device)

    return make


def tolist(tensor, of_cpu=torch.Tensor.tolist):
    return of_cpu(tensor.cpu() if is_pretended(tensor) else tensor)


# Else a change of type would put other values behind a tensor without its knowing.
torch.__future__.set_overwrite_module_params_on_conversion(True)
_library = torch.library.Library("_", "IMPL")
_library.fallback(compute, "PrivateUse1")
torch.Generator = PretendedGenerator
torch.tensor, torch.as_tensor = from_numbers(torch.tensor), from_numbers(torch.as_tensor)
torch.Tensor.tolist = tolist
