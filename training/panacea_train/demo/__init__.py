"""The demo model from nothing: tokenizer, base, candidates, adapter, evaluation."""

from panacea_train.demo.pipeline import train_demo
from panacea_train.demo.settings import DemoSettings

__all__ = ["DemoSettings", "train_demo"]
