"""The demo model from nothing: tokenizer, base, candidates, adapter, evaluation."""
