"""The Panacea tuner: it puts the layers into a model, and converts the tensors that peft saves and loads."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from panacea.errors import CheckpointError, ConfigError
from panacea_train.method import columns
from panacea_train.method.panacea_config import PanaceaConfig
from panacea_train.method.panacea_layer import AdapterSteering, PanaceaLinear, PreferenceLike
from panacea_train.method.recomputation import remembered

PEFT_PREFIX = "base_model.model."
"""The prefix of every tensor's name in peft's files, with or without a `PeftModel` around the model."""


class PanaceaModel(BaseTuner):
    """A model with a Panacea adapter; `get_peft_model` and `PeftModel.from_pretrained` make one.

    It runs under the adapter's default preference; `steered` sets another.
    """

    prefix = "lora_"
    tuner_layer_cls = PanaceaLinear

    steering: AdapterSteering

    def _pre_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        assert isinstance(config, PanaceaConfig)
        self.steering = AdapterSteering(config)

    def _check_new_adapter_config(self, config: PeftConfig) -> None:
        if len(self.peft_config) > 1:
            raise ConfigError("a model takes one Panacea adapter: set another preference instead of another adapter")

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        assert isinstance(peft_config, PanaceaConfig)
        if not isinstance(target, nn.Linear):
            raise ConfigError(f"{current_key} is a {type(target).__name__}; Panacea adapts nn.Linear only")
        layer = PanaceaLinear(target, adapter_name, peft_config, self.steering)
        self._replace_module(parent, target_name, layer, target)

    def merge_and_unload(  # type: ignore[override]  # a merge without a preference has no meaning
        self, preference: PreferenceLike
    ) -> nn.Module:
        """The base model with the adapter merged into its weights for one preference (m,), without the adapter.

        The sum is computed in float64 and rounded once to the weight's dtype.
        """
        with torch.no_grad():
            for layer in self.model.modules():
                if isinstance(layer, PanaceaLinear):
                    weight = layer.base_layer.weight
                    weight.copy_(weight.double() + layer.delta(preference))
        return self.unload()

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        """The tensors to save: as trained, except that E gets one value for each column."""
        assert isinstance(config, PanaceaConfig)
        tensors = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        suffix = f".lora_E.{adapter_name}"
        return {
            key: columns.expand(tensor, config.columns) if key.endswith(suffix) else tensor
            for key, tensor in tensors.items()
        }

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The inverse. peft only warns of missing tensors and drops unknown ones; here both are errors.

        Raises `CheckpointError` that names the tensor: missing, unknown, of a wrong shape, or not finite.
        """
        assert isinstance(config, PanaceaConfig)
        layers = {name: module for name, module in model.named_modules() if isinstance(module, PanaceaLinear)}
        file_names = {
            f"{PEFT_PREFIX}{name.removeprefix(PEFT_PREFIX)}.{factor}": f"{name}.{factor}"
            for name in layers
            for factor in PanaceaLinear.adapter_layer_names
        }
        tensors = {PEFT_PREFIX + key.removeprefix(PEFT_PREFIX): tensor for key, tensor in state_dict.items()}
        for name in sorted(tensors.keys() - file_names.keys()):
            raise CheckpointError(f"the adapter has a tensor {name}, which belongs to no adapted module of this model")
        for name in sorted(file_names.keys() - tensors.keys()):
            raise CheckpointError(f"the adapter has no tensor {name}, but the model has a module for it")
        for name, layer in layers.items():
            assert config.r is not None
            shapes = {
                "lora_A": (config.r, layer.base_layer.in_features),
                "lora_B": (layer.base_layer.out_features, config.r),
                "lora_E": (config.r, 1),
            }
            for factor, shape in shapes.items():
                file_name = f"{PEFT_PREFIX}{name.removeprefix(PEFT_PREFIX)}.{factor}"
                tensor = tensors[file_name]
                if tensor.shape != shape:
                    raise CheckpointError(f"{file_name} has shape {tuple(tensor.shape)} instead of {shape}")
                if not tensor.isfinite().all():
                    raise CheckpointError(f"{file_name} has values that are not finite")
        remapped = {f"{file_names[name]}.{adapter_name}": tensor for name, tensor in tensors.items()}
        return _with_trained_singular_values(remapped, layers, adapter_name, config)


def _with_trained_singular_values(
    tensors: dict[str, Tensor], layers: dict[str, PanaceaLinear], adapter_name: str, config: PanaceaConfig
) -> dict[str, Tensor]:
    """`tensors` with each E in the form that `layers` train. If one scalar per matrix cannot express it, the layers
    change to one value per column."""
    steering = next(iter(layers.values())).steering
    if steering.trained_rows is None:
        return tensors
    keys = [f"{name}.lora_E.{adapter_name}" for name in layers]
    contracted = {key: columns.contract(tensors[key], config.columns) for key in keys}
    if all(e is not None for e in contracted.values()):
        return tensors | {key: e for key, e in contracted.items() if e is not None}
    steering.trained_rows = None
    config.one_scale_per_matrix = False
    for layer in layers.values():
        trained = layer.lora_E[adapter_name]
        complete = columns.expand(trained.detach(), config.columns)
        layer.lora_E[adapter_name] = nn.Parameter(complete, requires_grad=trained.requires_grad)
    return tensors


def find_steering(model: nn.Module) -> AdapterSteering | None:
    """The `AdapterSteering` of a model, wrapped by peft or not; None if it has no Panacea adapter."""
    for module in model.modules():
        if isinstance(module, PanaceaModel | PanaceaLinear):
            return module.steering
    return None


@contextmanager
def steered(model: nn.Module, preference: PreferenceLike | None) -> Generator[None]:
    """Within this context `model` runs under `preference`.

        with steered(model, {"helpful": 0.7, "concise": 0.3}):
            model.generate(...)

    `preference` is a tensor (m,) or (batch, m) float32, one row for each row of the model's input and a row of zeros
    for the bare base; or weights in a request's form, for the whole batch; or None: exactly the bare base.

    With gradient checkpointing the backward pass may run after the context. Its recomputation runs under the preference
    of the first computation.

    Raises `PreferenceError` for weights that do not fit, `ConfigError` for a model without a Panacea adapter.
    """
    steering = find_steering(model)
    if steering is None:
        raise ConfigError("the model has no Panacea adapter")
    with steering.under(preference), remembered(model, steering):
        yield
