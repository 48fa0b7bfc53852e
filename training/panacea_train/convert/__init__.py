"""Conversion: checkpoints of other tools into adapters for the server, and adapters into plain models.

Nothing here needs peft. Each conversion is exact or refused with the reason, and its result is checked
(`agreement.py`).
"""
