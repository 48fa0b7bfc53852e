"""Panacea: a language-model server in which every request brings its own preference."""
