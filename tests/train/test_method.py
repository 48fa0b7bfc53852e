"""The Panacea method: what its layers compute, against the golden files and against weights merged by hand."""

import copy

import pytest
import torch
from peft import PeftModel, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from torch.func import functional_call
from transformers import LlamaForCausalLM

from panacea.errors import ConfigError, PreferenceError
from panacea_train.method import PanaceaLinear, find_steering, save_adapter, steered
from tests.golden_files import ADAPTER, BASE, Golden, golden
from tests.train.tiny import PEFT_WARNING, adapted, config, merged_by_hand, merged_weights, tiny_llama

pytestmark = pytest.mark.filterwarnings(PEFT_WARNING)

COLUMNS = [-1, -1, 0, 1, 2]
PREFERENCES = [(1.0, 0.0, 0.0), (0.25, 0.5, 0.25), (0.0, 0.0, 1.0)]


@pytest.fixture(scope="module")
def golden_model() -> PeftModel:
    base = LlamaForCausalLM.from_pretrained(BASE)
    return PeftModel.from_pretrained(base, ADAPTER)


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(1, 50, (3, 7), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def last_logits(model: nn.Module, entry: Golden) -> Tensor:
    logits: Tensor = model(torch.tensor([entry.prompt_ids])).logits[0, -1]
    return logits


@pytest.mark.parametrize("section", ["panacea", "base"])
def test_stock_loader_gives_the_golden_logits(golden_model: PeftModel, section: str) -> None:
    for entry in golden(section):
        with steered(golden_model, entry.preference):
            logits = last_logits(golden_model, entry)
        torch.testing.assert_close(logits, torch.tensor(entry.next_token_logits), rtol=0, atol=1e-4)


def test_generates_the_golden_continuations_under_several_preferences_in_one_batch(golden_model: PeftModel) -> None:
    entries = [entry for entry in golden("panacea") if entry.prompt_ids == golden("panacea")[0].prompt_ids]
    entries += [entry for entry in golden("base") if entry.prompt_ids == entries[0].prompt_ids]
    assert len(entries) == 7
    rows = torch.tensor([entry.preference or (0.0, 0.0, 0.0) for entry in entries])
    prompts = torch.tensor([entry.prompt_ids for entry in entries])
    with steered(golden_model, rows):
        output: Tensor = golden_model.generate(  # type: ignore[no-untyped-call]  # peft's
            input_ids=prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=24, do_sample=False
        )
    for entry, continuation in zip(entries, output[:, prompts.shape[1] :].tolist(), strict=True):
        assert continuation[: len(entry.greedy_ids)] == entry.greedy_ids


def test_a_row_of_a_mixed_batch_is_the_model_merged_by_hand(
    ids: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = adapted().double().eval()
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(model, folder, base=BASE)
    with torch.no_grad(), steered(model, torch.tensor(PREFERENCES)):
        mixed = model(ids).logits
    for row, preference in enumerate(PREFERENCES):
        by_hand = merged_by_hand(tiny_llama(), folder, preference, COLUMNS, scaling=2.0)
        torch.testing.assert_close(mixed[row], by_hand(ids[row : row + 1]).logits[0], rtol=1e-6, atol=1e-7)


def test_gradients_are_those_of_the_merged_weights(ids: Tensor) -> None:
    model = adapted().double()
    preference = PREFERENCES[1]
    with steered(model, torch.tensor(preference)):
        model(ids).logits.square().mean().backward()

    tensors = {name: value.clone().requires_grad_() for name, value in get_peft_model_state_dict(model).items()}
    base = tiny_llama()
    weights = merged_weights(base, tensors, preference, COLUMNS, scaling=2.0)
    functional_call(base.double(), weights, (ids,)).logits.square().mean().backward()

    for name, parameter in model.named_parameters():
        if ".lora_" not in name:
            assert parameter.grad is None
            continue
        expected = tensors[name.removesuffix(".default")].grad
        assert expected is not None
        if ".lora_E." in name:
            # The columns of the three dimensions have one scalar in common: its derivative is the sum of theirs.
            expected = torch.cat((expected[:2], expected[2:].sum(0, keepdim=True)))
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-9)


def test_no_preference_and_a_row_of_zeros_are_the_bare_base_to_the_bit(ids: Tensor) -> None:
    expected = tiny_llama()(ids).logits
    model = adapted()
    with steered(model, None):
        assert torch.equal(model(ids).logits, expected)
    rows = torch.tensor([PREFERENCES[0], (0.0, 0.0, 0.0), PREFERENCES[2]])
    with steered(model, rows):
        logits = model(ids).logits
    assert torch.equal(logits[1], expected[1])
    assert (logits[0] - expected[0]).abs().max() > 0.1
    with model.disable_adapter():
        assert torch.equal(model(ids).logits, expected)


def test_a_new_adapter_changes_nothing(ids: Tensor) -> None:
    model = adapted(trained=False)
    with steered(model, PREFERENCES[0]):
        assert torch.equal(model(ids).logits, tiny_llama()(ids).logits)


def test_starts_with_the_papers_values() -> None:
    torch.manual_seed(0)
    layers = [m for m in adapted(tiny_llama(hidden_size=256), trained=False).modules() if isinstance(m, PanaceaLinear)]
    assert len(layers) == 2 * 7
    for layer in layers:
        a, b, e = (factor["default"] for factor in (layer.lora_A, layer.lora_B, layer.lora_E))
        assert e.shape == (3, 1)
        assert not e.any()
        assert a.requires_grad
        assert b.requires_grad
        assert e.requires_grad
        assert not layer.base_layer.weight.requires_grad
    stacked = torch.cat([layer.lora_A["default"].flatten() for layer in layers])
    assert stacked.std().item() == pytest.approx(0.02, rel=0.03)


def test_outside_of_any_context_the_default_preference_holds(ids: Tensor) -> None:
    model = adapted()
    unset = model(ids).logits
    with steered(model, {"helpful": 2, "harmless": 1, "concise": 1}):
        assert torch.equal(model(ids).logits, unset)
        with steered(model, [0, 0, 1]):
            assert not torch.equal(model(ids).logits, unset)
        assert torch.equal(model(ids).logits, unset)
    with pytest.raises(RuntimeError, match="inside"), steered(model, None):
        raise RuntimeError("inside")
    assert torch.equal(model(ids).logits, unset)


def test_preferences_that_do_not_fit_are_refused(ids: Tensor) -> None:
    model = adapted()
    for wrong in (torch.ones(2), torch.ones(3, 2), torch.ones(1, 3, 3), [1.0, 2.0], {"kind": 1.0}):
        with pytest.raises(PreferenceError), steered(model, wrong):
            pass
    with steered(model, torch.ones(2, 3)), pytest.raises(PreferenceError, match="2 preferences for an input of shape"):
        model(ids)
    with pytest.raises(ConfigError, match="no Panacea adapter"), steered(tiny_llama(), None):
        pass


def test_a_singular_value_for_each_column_on_request(ids: Tensor) -> None:
    model = adapted(one_scale_per_matrix=False).double()
    layer = next(m for m in model.modules() if isinstance(m, PanaceaLinear))
    assert layer.lora_E["default"].shape == (5, 1)
    weights = merged_weights(tiny_llama(), get_peft_model_state_dict(model), PREFERENCES[1], COLUMNS, scaling=2.0)
    with steered(model, PREFERENCES[1]):
        logits = model(ids).logits
    expected = functional_call(tiny_llama().double(), weights, (ids,)).logits
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-7)


def test_an_adapter_without_dimensions_is_an_ordinary_one(ids: Tensor) -> None:
    model = adapted(preference_dimensions=(), default_preference=()).double()
    weights = merged_weights(tiny_llama(), get_peft_model_state_dict(model), (), [-1, -1], scaling=2.0)
    expected = functional_call(tiny_llama().double(), weights, (ids,)).logits
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-6, atol=1e-7)


def test_several_columns_may_belong_to_a_dimension(ids: Tensor) -> None:
    columns = [2, 0, -1, 0, 1, 1]
    model = adapted(shared_columns=None, preference_columns=columns).double()
    weights = merged_weights(tiny_llama(), get_peft_model_state_dict(model), PREFERENCES[1], columns, scaling=2.0)
    with steered(model, PREFERENCES[1]):
        logits = model(ids).logits
    expected = functional_call(tiny_llama().double(), weights, (ids,)).logits
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-7)


def test_biases_are_kept(ids: Tensor) -> None:
    base = tiny_llama(attention_bias=True, mlp_bias=True)
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_()
    model = adapted(copy.deepcopy(base)).double()
    weights = merged_weights(base, get_peft_model_state_dict(model), PREFERENCES[0], COLUMNS, scaling=2.0)
    with steered(model, PREFERENCES[0]):
        logits = model(ids).logits
    expected = functional_call(base.double(), weights, (ids,)).logits
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-7)


def test_a_float32_adapter_trains_on_a_bfloat16_base(ids: Tensor) -> None:
    model = adapted(tiny_llama().bfloat16())
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in parameters.values()} == {torch.float32}
    with steered(model, PREFERENCES[0]):
        logits = model(ids).logits
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters.values())
    exact = adapted()
    with steered(exact, PREFERENCES[0]):
        torch.testing.assert_close(logits.float(), exact(ids).logits, rtol=0.1, atol=0.3)


def test_autocast_is_respected(ids: Tensor) -> None:
    model = adapted()
    with torch.no_grad(), steered(model, PREFERENCES[0]):
        exact = model(ids).logits
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids).logits
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), exact, rtol=0.1, atol=0.3)


def test_merges_for_one_preference(ids: Tensor) -> None:
    model = adapted()
    with torch.no_grad(), steered(model, PREFERENCES[1]):
        expected = model(ids).logits
    merged = model.merge_and_unload(PREFERENCES[1])
    assert not any(isinstance(module, PanaceaLinear) for module in merged.modules())
    assert type(merged) is LlamaForCausalLM
    torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_unloading_gives_the_base_back(ids: Tensor) -> None:
    unloaded = adapted().unload()
    assert torch.equal(unloaded(ids).logits, tiny_llama()(ids).logits)


def test_merging_without_or_with_several_preferences_is_refused() -> None:
    model = adapted()
    with pytest.raises(TypeError, match="preference"):
        model.merge_and_unload()
    with pytest.raises(PreferenceError, match="2 preferences cannot be merged"):
        model.merge_and_unload(torch.ones(2, 3))
    with pytest.raises(NotImplementedError, match="merge_and_unload"):
        model.merge_adapter()


def test_one_adapter_to_a_model_and_linear_layers_only() -> None:
    model = adapted()
    with pytest.raises(ConfigError, match="one Panacea adapter"):
        model.add_adapter("second", config())
    with pytest.raises(ConfigError, match=r"embed_tokens is a Embedding"):
        adapted(target_modules=["embed_tokens"])


def test_works_without_peft_model_around_it(ids: Tensor) -> None:
    model = inject_adapter_in_model(config(), tiny_llama())
    assert find_steering(model) is not None
    with steered(model, [1, 0, 0]):
        assert torch.equal(model(ids).logits, tiny_llama()(ids).logits)


def test_a_copy_has_a_preference_of_its_own(ids: Tensor) -> None:
    model = adapted()
    other = copy.deepcopy(model)
    before = other(ids).logits
    with steered(model, [0, 0, 1]):
        assert torch.equal(other(ids).logits, before)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("later", [None, PREFERENCES[2]], ids=["outside", "inside another"])
def test_a_backward_pass_computes_again_under_the_preference_of_the_forward_pass(
    ids: Tensor, reentrant: bool, later: tuple[float, ...] | None
) -> None:
    def gradients(checkpointing: bool) -> dict[str, Tensor]:
        model = adapted().train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        with steered(model, torch.tensor(PREFERENCES)):
            loss = model(ids, use_cache=False).logits.square().mean()
        if later is None:
            loss.backward()
        else:
            with steered(model, later):
                loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    torch.testing.assert_close(gradients(checkpointing=True), gradients(checkpointing=False), rtol=0, atol=0)
