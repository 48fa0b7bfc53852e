"""The Panacea method for peft: adapters, preference sampling, losses, trainer, and the world of the demo model."""
