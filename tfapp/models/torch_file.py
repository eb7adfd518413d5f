"""The tensors of a file that `torch.save` wrote, read without torch and without running anything from it."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.errors import WeightsError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _Tensor:
    """Where the numbers of a tensor are: elements of one storage, with strides."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild(storage: str, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class _TensorsOnly(pickle.Unpickler):
    """An unpickler that knows tensors, their storages and ordered dicts, and refuses everything else."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, tuple[np.dtype[Any], int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _STORAGES:
            return name
        raise WeightsError(
            f"the file asks for {module}.{name}, which is no part of a tensor: it is not read."
        )

    def persistent_load(self, reference: Any) -> str:
        kind, storage, key, _, count, *_ = reference
        if kind != "storage" or storage not in _STORAGES:
            raise WeightsError(f"the file refers to {kind!r} {storage!r}, which is no storage of a tensor.")
        self.storages[key] = (_STORAGES[storage], int(count))
        return str(key)


def read_torch_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads a state dict in torch's older format, which is a pickle followed by the tensors' bytes.

    Only names and tensors of float32 and int64 are understood; a file that asks for anything else is refused
    before it could do something.

    Args:
        path: The file.

    Returns:
        Arrays by name.

    Raises:
        WeightsError: If the file is of another format, damaged, or asks for more than tensors.
    """
    try:
        file = io.BytesIO(path.read_bytes())
        header = [_TensorsOnly(file).load() for _ in range(3)]
        if header[:2] != [_MAGIC, _PROTOCOL] or header[2].get("little_endian") is not True:
            raise WeightsError(f"{path} is not in the format that torch.save wrote until version 1.5.")
        reader = _TensorsOnly(file)
        tensors: dict[str, _Tensor] = dict(reader.load())
        content = {}
        for key in _TensorsOnly(file).load():
            dtype, count = reader.storages[key]
            stored = int.from_bytes(file.read(8), "little")
            if stored != count:
                raise WeightsError(f"{path}: a storage holds {stored} numbers where {count} were announced.")
            content[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
        return {name: _array(tensor, content[tensor.storage]) for name, tensor in tensors.items()}
    except WeightsError:
        raise
    except Exception as error:
        # A damaged pickle raises nearly anything.
        raise WeightsError(f"{path} is damaged ({type(error).__name__}: {error}). Fetch it again.") from error


def _array(tensor: _Tensor, storage: npt.NDArray[Any]) -> npt.NDArray[Any]:
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    if tensor.offset < 0 or min(tensor.strides, default=0) < 0 or not 0 <= last < storage.size:
        raise ValueError("a tensor reaches beyond its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides).copy()
