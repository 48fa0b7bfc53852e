"""Gradient checkpointing: what a backward pass computes again runs under the preference of its forward pass."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import nn

from panacea_train.method.panacea_layer import AdapterSteering

_CHECKPOINT = "_gradient_checkpointing_func"
"""Where transformers keeps, in each module that it may compute again, the function that does so."""


@contextmanager
def remembered(model: nn.Module, steering: AdapterSteering) -> Generator[None]:
    """Parts of `model` that run inside and are computed again later are so under the preference that holds inside.

    The backward pass comes when the context of the forward pass has ended, or inside another one. So what is handed
    over to be computed again (`torch.utils.checkpoint`, reentrant or not) takes its preference along.
    """
    modules = [module for module in model.modules() if hasattr(module, _CHECKPOINT)]
    before = [getattr(module, _CHECKPOINT) for module in modules]
    for module, checkpoint in zip(modules, before, strict=True):
        setattr(module, _CHECKPOINT, _remembering(checkpoint, steering))
    try:
        yield
    finally:
        for module, checkpoint in zip(modules, before, strict=True):
            setattr(module, _CHECKPOINT, checkpoint)


def _remembering(checkpoint: Callable[..., Any], steering: AdapterSteering) -> Callable[..., Any]:
    def checkpoint_steered(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return checkpoint(steering.bound(function), *args, **kwargs)

    return checkpoint_steered
