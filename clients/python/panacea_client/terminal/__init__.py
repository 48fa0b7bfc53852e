"""The terminal client. Needs the extra `cli`."""
