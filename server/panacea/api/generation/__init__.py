"""The routes that generate text: chat completions and text completions."""
