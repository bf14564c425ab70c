"""What a CUDA exception means: memory ran out, the process is unusable, or the call was wrong.

torch has its own exception class for only some of them; the message identifies the others.
"""

from __future__ import annotations

import re

import torch

_OUT_OF_MEMORY = re.compile(
    r"""can't\ allocate\ memory                   # DefaultCPUAllocator
    | CUDA\ (?:driver\ )?error:\ out\ of\ memory  # torch.AcceleratorError
    | CU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_ALLOC_FAILED
    | CUDNN_STATUS_INTERNAL_ERROR_\w*ALLOCATION_FAILED
    | unable\ to\ find\ an\ engine\ to\ execute   # no cuDNN engine's workspace fits
    | unable\ to\ find\ a\ valid\ cuDNN\ algorithm
    | NCCL.*out\ of\ memory""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_CUDA = re.compile(r"CUDA (?:driver )?error: |cuDNN error: |CU(?:BLAS|SOLVER|SPARSE)_STATUS_\w")
# The call was rejected before anything ran; the process can continue.
_REFUSED_CALL = re.compile(
    r"_STATUS_(?:NOT_SUPPORTED|INVALID_VALUE|BAD_PARAM|ARCH_MISMATCH|LICENSE_ERROR)"
)
_ASSERT = "device-side assert"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU's or the CPU's memory ran out."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or _OUT_OF_MEMORY.search(str(error)) is not None


def is_device_fault(error: BaseException) -> bool:
    """Whether CUDA failed in a way that leaves the GPU unusable for this process.

    After an illegal access, an ECC error or a failed launch every later call fails, too.
    """
    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    text = str(error)
    if _REFUSED_CALL.search(text):
        return False
    return isinstance(error, torch.AcceleratorError) or _CUDA.search(text) is not None


def is_assert(text: str) -> bool:
    """Whether an error message is of an assertion in a kernel: a fault of the code or the data."""
    return _ASSERT in text
