"""The Panacea method for peft: adapters, losses, trainer, converters, rewards, evaluation and its report."""
