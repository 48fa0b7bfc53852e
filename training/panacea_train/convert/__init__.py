"""Models in and out: other people's checkpoints into adapters for the server, and adapters into plain models.

Nothing here needs peft. Each conversion is exact, or refused with the reason, and proves itself (`check.py`).
"""
