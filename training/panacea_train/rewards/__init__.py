"""Reward functions: they score an answer on one dimension."""

from panacea_train.rewards.reward import Reward, RewardError
from panacea_train.rewards.reward_spec import read_reward

__all__ = ["Reward", "RewardError", "read_reward"]
