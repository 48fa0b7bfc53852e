"""The paper's comparison at the demo's scale: Panacea, rewarded soups and discrete policies, with equal training."""

from panacea_train.reproduce.pipeline import reproduce
from panacea_train.reproduce.settings import ReproduceSettings

__all__ = ["ReproduceSettings", "reproduce"]
