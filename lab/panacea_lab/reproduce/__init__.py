"""The paper's comparison at the demo's scale: Panacea, rewarded soups and discrete policies, with equal training."""

from panacea_lab.reproduce.comparison_pipeline import reproduce
from panacea_lab.reproduce.comparison_settings import ReproduceSettings

__all__ = ["ReproduceSettings", "reproduce"]
