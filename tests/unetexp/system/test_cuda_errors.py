"""Which torch exceptions mean that memory ran out, and which that the process is unusable."""

from __future__ import annotations

import pytest
import torch

from unetexp.system.cuda_errors import is_device_fault, is_out_of_memory

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError("none left"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    RuntimeError("alloc_cpu.cpp:121: DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("NCCL error: unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'"),
]
FAULTS = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: misaligned address"),
    RuntimeError("CUDA driver error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
]
NEITHER = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"),
    ValueError("CUDA error: is what the user wrote"),
    KeyError("val/miou"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_memory_that_ran_out_is_recognised_in_all_its_forms(error):
    assert is_out_of_memory(error)
    assert not is_device_fault(error)


@pytest.mark.parametrize("error", FAULTS, ids=str)
def test_a_fault_of_the_device_is_no_lack_of_memory(error):
    assert is_device_fault(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("error", NEITHER, ids=str)
def test_other_errors_are_the_trials_own(error):
    assert not is_device_fault(error)
    assert not is_out_of_memory(error)
