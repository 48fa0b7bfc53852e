"""The terminal client. It needs the extra `cli`."""
