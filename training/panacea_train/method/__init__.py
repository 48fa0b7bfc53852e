"""The Panacea method (arXiv 2402.02030) for peft. Importing it makes peft know the type "PANACEA"."""

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from panacea_train.method.adapter_files import save_adapter
from panacea_train.method.panacea_config import PEFT_TYPE, PanaceaConfig
from panacea_train.method.panacea_layer import AdapterSteering, PanaceaLinear, PreferenceLike
from panacea_train.method.panacea_model import PanaceaModel, find_steering, steered

# peft's `register_peft_method` takes only names in its own enumeration; these dicts are all that it would write.
PEFT_TYPE_TO_CONFIG_MAPPING[PEFT_TYPE] = PanaceaConfig  # type: ignore[index]
PEFT_TYPE_TO_TUNER_MAPPING[PEFT_TYPE] = PanaceaModel  # type: ignore[index]
PEFT_TYPE_TO_PREFIX_MAPPING[PEFT_TYPE] = PanaceaModel.prefix  # type: ignore[index]

__all__ = [
    "AdapterSteering",
    "PanaceaConfig",
    "PanaceaLinear",
    "PanaceaModel",
    "PreferenceLike",
    "find_steering",
    "save_adapter",
    "steered",
]
