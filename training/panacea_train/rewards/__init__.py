"""Reward functions: what an answer is worth on one dimension."""

from panacea_train.rewards.reward import Reward, RewardError

__all__ = ["Reward", "RewardError"]
