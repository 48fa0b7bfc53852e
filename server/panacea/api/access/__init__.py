"""API keys, admission control, quotas and deadlines."""
