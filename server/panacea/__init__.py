"""Panacea: a language model server in which every request chooses its own alignment."""
