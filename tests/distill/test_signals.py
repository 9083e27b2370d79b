"""What is seen of a network: hidden states, projections, attention and its scores, with either implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from polydistill import catalog
from polydistill.distill.observer import Observer
from polydistill.distill.signals import (
    ATTENTION,
    HIDDEN,
    KEY,
    LOGITS,
    NEVER,
    POOLED,
    PROJECTIONS,
    QUERY,
    SCORES,
    Signal,
)
from polydistill.errors import PolydistillError

IDS = torch.tensor([[5, 17, 60, 44, 9, 30], [5, 21, 9, 1, 1, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
BATCH = {"input_ids": IDS, "attention_mask": MASK, "example_id": torch.tensor([0, 1]), "language": "en"}
WITH_SCORES = tuple(a.model_type for a in catalog.architectures() if a.attention and a.attention.scores)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signals")


def network(root: Path, model_type: str, implementation: str = "eager", head: str = "base") -> Any:
    import transformers

    folder = root / f"{model_type}-{head}"
    if not folder.exists():
        tiny.model_folder(model_type, head, folder)
    cls = getattr(transformers, tiny.AUTO_CLASS[head])
    return cls.from_pretrained(folder, attn_implementation=implementation).eval()


def seen(model: Any, *needs: Signal) -> dict[Signal, Tensor]:
    observer = Observer(model, frozenset(needs), catalog.arch(model.config.model_type))
    with torch.no_grad():
        found = dict(observer(BATCH))
    observer.close()
    return found


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta", "distilbert", "modernbert"])
def test_hidden_states_are_the_models_own(model_type: str, implementation: str, root: Path) -> None:
    model = network(root, model_type, implementation)
    found = seen(model, *(Signal(HIDDEN, j) for j in range(3)), Signal(POOLED))
    with torch.no_grad():
        own = model(input_ids=IDS, attention_mask=MASK, output_hidden_states=True)
    for j in range(3):
        torch.testing.assert_close(found[Signal(HIDDEN, j)], own.hidden_states[j])
    torch.testing.assert_close(found[Signal(HIDDEN, 2)], own.last_hidden_state)
    by_hand = torch.stack([own.last_hidden_state[0].mean(0), own.last_hidden_state[1, :3].mean(0)])
    torch.testing.assert_close(found[Signal(POOLED)], by_hand)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta", "distilbert"])
def test_projections_are_linear_maps_of_the_layers_input(model_type: str, implementation: str, root: Path) -> None:
    model = network(root, model_type, implementation)
    found = seen(model, Signal(HIDDEN, 1), *(Signal(kind, 1) for kind in PROJECTIONS))
    arch = catalog.arch(model_type)
    assert arch.layers and arch.attention
    layer = model.get_submodule(arch.layers.path)[1]
    for kind in PROJECTIONS:
        linear = layer.get_submodule(getattr(arch.attention, kind))
        expected = found[Signal(HIDDEN, 1)] @ linear.weight.T + linear.bias
        torch.testing.assert_close(found[Signal(kind, 1)], expected, msg=kind)


def test_these_architectures_have_scores() -> None:
    assert set(WITH_SCORES) == {"bert", "distilbert", "electra", "roberta", "xlm-roberta", "xmod"}


@pytest.mark.parametrize("model_type", WITH_SCORES)
def test_the_softmax_of_scores_is_the_attention(model_type: str, root: Path) -> None:
    model = network(root, model_type)
    found = seen(model, *(Signal(kind, layer) for kind in (SCORES, ATTENTION) for layer in (0, 1)))
    for layer in (0, 1):
        scores = found[Signal(SCORES, layer)].masked_fill(MASK[:, None, None, :] == 0, NEVER)
        attention = found[Signal(ATTENTION, layer)]
        torch.testing.assert_close(scores.softmax(-1), attention, rtol=1e-4, atol=1e-6)
        assert float(attention.std()) > 0.01  # not the same everywhere, which any scores would give
    swift = seen(network(root, model_type, "sdpa"), Signal(SCORES, 1))[Signal(SCORES, 1)]
    torch.testing.assert_close(swift[0], found[Signal(SCORES, 1)][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", ["mpnet", "deberta-v2", "albert", "modernbert"])
def test_scores_are_refused_where_they_are_more_than_queries_and_keys(model_type: str, root: Path) -> None:
    model = network(root, model_type)
    with pytest.raises(PolydistillError, match=r"attention scores of .* are not known.*`relations`"):
        Observer(model, frozenset({Signal(SCORES, 0)}), catalog.arch(model_type))
    with pytest.raises(PolydistillError, match="attention scores of this model"):
        Observer(model, frozenset({Signal(SCORES, 0)}))


def test_with_a_relative_bias_queries_and_keys_do_not_give_the_attention(root: Path) -> None:
    """Why MPNet's file says nothing of scores."""
    found = seen(network(root, "mpnet"), Signal(QUERY, 0), Signal(KEY, 0), Signal(ATTENTION, 0))
    query, key = (found[Signal(kind, 0)].unflatten(-1, (2, 16)).transpose(1, 2)[:1] for kind in (QUERY, KEY))
    attention = found[Signal(ATTENTION, 0)][:1]
    assert float(((query @ key.transpose(-1, -2) / 4).softmax(-1) - attention).abs().max()) > 0.01


def test_fused_projections_are_refused(root: Path) -> None:
    with pytest.raises(PolydistillError, match=r"ModernBERT does not name the module of attention.s query.*relations"):
        Observer(network(root, "modernbert"), frozenset({Signal(QUERY, 0)}), catalog.arch("modernbert"))


def test_hooks_go_when_it_is_closed(root: Path) -> None:
    model = network(root, "bert")
    observer = Observer(model, frozenset({Signal(QUERY, 0)}), catalog.arch("bert"))
    assert sum(len(module._forward_hooks) for module in model.modules()) == 1
    observer.close()
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("head", "shape"),
    [("sequence-classification", (2, 2)), ("token-classification", (2, 6, 2)), ("question-answering", (2, 2, 6))],
)
def test_logits_of_every_kind_of_task(head: str, shape: tuple[int, ...], root: Path) -> None:
    found = seen(network(root, "bert", head=head), Signal(LOGITS))[Signal(LOGITS)]
    assert found.shape == shape
    if head == "question-answering":
        assert (found[1, :, 3:] == NEVER).all() and (found[0] != NEVER).all()


def test_it_runs_through_what_it_is_told_to(root: Path) -> None:
    model, calls = network(root, "bert"), []

    def through(**inputs: Any) -> Any:
        calls.append(set(inputs))
        return model(**inputs)

    observer = Observer(model, frozenset({Signal(QUERY, 1), Signal(HIDDEN, 2)}), catalog.arch("bert"))
    found = observer(BATCH, through)
    assert set(found) == observer.needs and found[Signal(HIDDEN, 2)].requires_grad
    assert calls == [{"input_ids", "attention_mask", "output_hidden_states", "output_attentions"}]


def test_an_architecture_file_may_say_that_it_has_scores(tmp_path: Path) -> None:
    start = (
        'model_type = "mine"\nname = "Mine"\nsupports = ["trim"]\n[[vocabulary]]\nsuffix = "e"\nrole = "embedding"\n'
    )
    path = tmp_path / "mine.toml"
    separate = '[attention]\nquery = "q"\nkey = "k"\nvalue = "v"\n'
    for text, scores in ((separate, False), (separate + "scores = true\n", True)):
        path.write_text(start + text)
        attention = catalog.arch("mine", [tmp_path]).attention
        assert attention and attention.scores is scores
    path.write_text(start + separate + "scores = 1\n")
    with pytest.raises(PolydistillError, match=r"'attention\.scores' must be true or false"):
        catalog.arch("mine", [tmp_path])
