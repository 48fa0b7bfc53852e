"""Training without dropout: a step is a function of its examples and the seed alone."""

from torch import nn

from panacea.errors import ConfigError


def without_dropout(model: nn.Module) -> None:
    """Switches off dropout and router noise in all modules of `model`, for good.

    DPO compares the policy with a reference that is computed without dropout, and Tchebycheff computes a forward twice.
    With dropout neither comparison would hold. Some models read their rates from the config in each forward, so those
    are set to 0 there too.

    Raises `ConfigError` for an adapter with dropout of its own, which somebody has asked for.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            if module.p and ".lora_dropout" in name:
                raise ConfigError("the adapter has dropout, and a step is computed without: set lora_dropout to 0")
            module.p = 0.0
        for holder in (module, getattr(module, "config", None)):
            for attribute, value in list(vars(holder).items()) if holder is not None else ():
                if _is_noise(attribute) and isinstance(value, float) and value:
                    setattr(holder, attribute, 0.0)


def _is_noise(attribute: str) -> bool:
    return any(word in attribute for word in ("dropout", "pdrop", "jitter_noise"))
