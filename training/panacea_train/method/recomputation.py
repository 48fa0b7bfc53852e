"""Gradient checkpointing: the recomputation in a backward pass runs under the preference of its forward pass."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import nn

from panacea_train.method.panacea_layer import AdapterSteering

_CHECKPOINT = "_gradient_checkpointing_func"
"""The attribute of a module in which transformers keeps the function that recomputes it."""


@contextmanager
def remembered(model: nn.Module, steering: AdapterSteering) -> Generator[None]:
    """Parts of `model` that run in this context are later recomputed under the preference of this context.

    The backward pass runs after the forward pass's context has ended, or in another context. So a function that is
    passed on for recomputation (`torch.utils.checkpoint`, reentrant or not) keeps its preference.
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
