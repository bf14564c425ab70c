"""The network's forward pass in training, by torch.compile where the settings say so.

The module and its state dict stay what they are. Freezing and thawing compile again by torch's own
guards; validation calls the module itself, because its sizes vary. N batch, C channels, K classes,
H W image size.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import torch
import torch._dynamo
from torch import Tensor, nn

from unetexp.compute.settings import Compile
from unetexp.errors import UserError
from unetexp.system.cuda_errors import is_out_of_memory

CACHE = "TORCHINDUCTOR_CACHE_DIR"
# A worker process meets every architecture of a search, each with its levels of freezing.
_VARIANTS = 64


class TrainForward:
    """Calls the network, compiled by `mode`; where that fails, as it is, with a note."""

    def __init__(self, mode: Compile, cache: Path, backend: str = "inductor") -> None:
        """`cache` is the folder for what is compiled, shared by the processes of this node."""
        self.mode: Compile = mode
        self.failure: str | None = None  # what to tell the user
        self._cache, self._backend = cache, backend
        self._network: nn.Module | None = None
        self._compiled: nn.Module | None = None

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether outputs and gradients live in memory that the next call overwrites."""
        return self.mode == "reduce-overhead"

    def __call__(self, network: nn.Module, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Images (N, C, H, W) -> logits (N, K, H, W), or what else the network returns."""
        logits: Tensor | tuple[Tensor, ...]
        if self.mode == "none":
            logits = network(images)
            return logits
        if network is not self._network or self._compiled is None:
            self._network, self._compiled = network, self._compile(network)
        if self.uses_cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        logits = self._compiled(images)
        return logits

    def give_up(self, error: Exception) -> bool:
        """Whether `error` is one of compiling; from then on the network is called as it is.

        The backward pass is compiled when it first runs, so the error may come from there.
        """
        of_compiling = isinstance(
            error,
            torch._dynamo.exc.TorchDynamoException | torch._dynamo.exc.FailOnRecompileLimitHit,
        )
        if self.mode == "none" or not of_compiling or is_out_of_memory(error):
            return False
        cause = getattr(error, "inner_exception", error)
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        self.failure = (
            f"compile: {self.mode} failed and training continues without it: {reason}. "
            "Set compile: none to train without this message."
        )
        self.mode, self._network, self._compiled = "none", None, None
        return True

    def _compile(self, network: nn.Module) -> nn.Module:
        share_cache(self._cache)
        torch._dynamo.config.recompile_limit = _VARIANTS
        torch._dynamo.config.fail_on_recompile_limit_hit = True  # or it would fall back silently
        mode = None if self.mode == "default" else self.mode
        compiled = torch.compile(network, backend=self._backend, mode=mode, dynamic=False)
        assert isinstance(compiled, nn.Module)
        return compiled


def share_cache(folder: Path) -> None:
    """Let torch keep compiled code in `folder`, unless TORCHINDUCTOR_CACHE_DIR is set.

    Compiled code is run as it is found, so the folder must belong to this user alone. Raises
    UserError where it does not.
    """
    if CACHE in os.environ:
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.stat()
    if owner.st_uid != os.getuid() or stat.S_IMODE(owner.st_mode) & 0o022:
        raise UserError(
            f"{folder} holds compiled code and can be written by others, who could run theirs "
            f"in your name. Remove it, or set {CACHE} to a folder of your own."
        )
    os.environ[CACHE] = str(folder)


def compile_cache(cache_folder: Path) -> Path:
    """The folder for compiled code inside the data cache's folder, one for each user."""
    return cache_folder / f"compiled-{os.getuid()}"
