"""Requests for generated text: chat and text completions, from fields to answers."""
