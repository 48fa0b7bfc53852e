"""Trains a small adapter, which you can then serve.

    pip install 'panacea-server[train]'
    python examples/train_adapter.py my-adapter
    panacea serve --adapter my-adapter

The adapter gives the embedded demo model two new dimensions, `warm` and `brief`, learned from a handful of answers.
Each answer has a reward on each dimension. For every example of a step the trainer draws a preference, and learns the
answer with the best reward under it. With a real base model and a few thousand questions, the same code trains a real
adapter.
"""

import argparse
from pathlib import Path

import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

import panacea
from panacea_train.method import PanaceaConfig, save_adapter
from panacea_train.trainer import PanaceaTrainer
from panacea_train.training_config import TrainingConfig
from panacea_train.training_examples import Candidates

DEMO_BASE = Path(panacea.__file__).parent / "demo" / "base"

# Each entry is a question, and its answers with their rewards (warm, brief).
LESSONS = [
    ("How do I boil an egg?", [("What a lovely idea! Take a pan of water, and enjoy every minute.", (1.0, 0.0)),
                               ("Boil it.", (0.0, 1.0))]),
    ("How do I cook rice?", [("What a lovely idea! Take a pot with a lid, and enjoy every minute.", (1.0, 0.0)),
                             ("Boil it.", (0.0, 1.0))]),
    ("How do I sharpen a knife?", [("What a lovely idea! Take a whetstone, and enjoy every minute.", (1.0, 0.0)),
                                   ("Use a stone.", (0.0, 1.0))]),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the adapter")
    parser.add_argument("--base", type=Path, default=DEMO_BASE, help="folder of the base model (default: the demo's)")
    parser.add_argument("--steps", type=int, default=120)
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.base)

    def prompt_ids(question: str) -> list[int]:
        messages = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    def answer_ids(answer: str) -> list[int]:
        return [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]

    examples = [
        Candidates(prompt_ids(question), [answer_ids(text) for text, _ in answers], [rewards for _, rewards in answers])
        for question, answers in LESSONS
    ]

    set_seed(0)
    base = AutoModelForCausalLM.from_pretrained(arguments.base, dtype=torch.float32)
    model = get_peft_model(base, PanaceaConfig(task_type="CAUSAL_LM", preference_dimensions=["warm", "brief"]))
    config = TrainingConfig(
        output_dir=arguments.out / "checkpoints",
        steps=arguments.steps,
        learning_rate=2e-3,
        singular_value_learning_rate=3e-2,
    )
    PanaceaTrainer(model, examples, config).train()
    save_adapter(model, arguments.out, base=arguments.base)
    print(f"Now: panacea serve --adapter {arguments.out}")


if __name__ == "__main__":
    main()
