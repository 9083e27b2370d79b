"""What the snippet of a card says of a text is what `evaluate` says of it, for every kind of head."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from snippets import printed, session_of, snippet_of

from polydistill.card import usage, write_card
from polydistill.evaluation import classification, retrieval, similarity, spans, tagging
from polydistill.evaluation.heads import TaskModel, new_head, open_model
from polydistill.labelled.examples import PairExample, QuestionExample, RatedExample, TaggedExample
from polydistill.records.record import RunRecord

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
NLI = ("entailment", "neutral", "contradiction")
TEXTS = ["The old teacher sees the red house .", "Țăranii și oștenii au 12 mere , n-a uitat", "Ng'ombe anaona"]
PARAGRAPH = " ".join(tiny.sentences("en", "ro", count=60))
SENTENCE, OTHER = "Nairobi is the capital of Kenya.", "Which city is the capital of Kenya?"
SOURCE = {"name": "org/base", "source": f"org/base@{'1' * 40}", "weights_hash": "0"}


def carded(folder: Path, result: dict[str, Any], command: str = "trim") -> str:
    """The snippet of a folder's card."""
    record = RunRecord(command, {"output": str(folder)}, SOURCE, [], {"languages": ["en"], **result})
    record.save(folder)
    write_card(record, folder)
    return snippet_of(folder)


def headed(folder: Path, kind: str, labels: tuple[str, ...], tokenizer: str = "xlm-roberta") -> TaskModel:
    """A random model that is sure of what it says, and its tokenizer knows how much it takes."""
    tiny.model_folder("bert", "base", folder, tokenizer=tokenizer, config={"max_position_embeddings": 400})
    model = new_head(folder, kind, labels, seed=3)
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if name.startswith(("classifier", "qa_outputs")):
                weight.mul_(60)
    model.network.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    known = json.loads(path.read_text(encoding="utf-8")) | {"model_max_length": 400}
    path.write_text(json.dumps(known), encoding="utf-8")
    return open_model(folder, kind, labels, max_length=spans.MAX_LENGTH if kind == "span-extraction" else None)


@pytest.mark.parametrize("tokenizer", ["xlm-roberta", "bert"])
def test_a_tagger_tags_words_as_evaluate_does(tokenizer: str, tmp_path: Path) -> None:
    """Also words of several tokens, and those whose first token is a space alone."""
    model = headed(tmp_path / "m", "tagging", TAGS, tokenizer)
    examples = [TaggedExample(text, tuple(text.split()), ("O",) * len(text.split())) for text in TEXTS]
    wanted = [p["tags"] for p in tagging.predict(model, examples, batch_size=4)]
    code = carded(tmp_path / "m", {"task": "ner"})
    found = [
        [line.split()[-1] for line in printed(code.replace("Wangari Maathai , Nairobi", text)).splitlines()]
        for text in TEXTS
    ]
    assert found == wanted and len({tag for tags in found for tag in tags}) > 1
    longest = max(len(model.tokenizer.tokenize(word)) for text in TEXTS for word in text.split())
    assert longest > 2 and 'aggregation_strategy="first"' in code


@pytest.mark.parametrize("model_type", ["modernbert", "roberta", "llama", "gemma2"])
def test_words_stay_apart_where_the_tokenizer_would_glue_them(model_type: str, tmp_path: Path) -> None:
    tiny.model_folder(model_type, "base", tmp_path / "m")
    new_head(tmp_path / "m", "tagging", TAGS, seed=3).network.save_pretrained(tmp_path / "m")
    model = open_model(tmp_path / "m", "tagging", TAGS)
    ((_, feature),) = tagging.features(model, [TaggedExample("a", tuple(TEXTS[0].split()), ())])
    scope: dict[str, Any] = {}
    exec(carded(tmp_path / "m", {"task": "ner"}).replace("Wangari Maathai , Nairobi", TEXTS[0]), scope)
    assert scope["inputs"]["input_ids"][0].tolist() == feature["input_ids"]


def test_a_classifier_of_pairs_gives_evaluates_label_and_probability(tmp_path: Path) -> None:
    """Of a pair that is too long too."""
    model = headed(tmp_path / "m", "classification", NLI)
    code = carded(tmp_path / "m", {"task": "nli"})
    for first, second in ((SENTENCE, OTHER), (PARAGRAPH, OTHER)):
        (found,) = re.findall(r"'label': '(\w+)', 'score': ([\d.]+)", printed(code.replace(SENTENCE, first)))
        (wanted,) = classification.predict(model, [PairExample("0", first, second, NLI[0])], batch_size=1)
        assert found[0] == wanted["label"] and float(found[1]) == pytest.approx(wanted["probabilities"][found[0]])


@pytest.mark.parametrize("context", [PARAGRAPH, "🙂 " + TEXTS[1], SENTENCE])
def test_an_answer_is_the_one_that_evaluate_cuts_out(context: str, qa: tuple[TaskModel, str]) -> None:
    """Never the question, never more than 30 tokens, and of a long paragraph the best of all windows."""
    model, code = qa
    assert len(model.tokenizer.tokenize(PARAGRAPH)) > 2 * spans.MAX_LENGTH
    assert (usage.WINDOW, usage.OVERLAP, usage.LONGEST_ANSWER) == (
        spans.MAX_LENGTH,
        spans.OVERLAP,
        spans.LONGEST_ANSWER,
    )
    (wanted,) = spans.predict(model, [QuestionExample("0", OTHER, context, (), "en", "en")], batch_size=1)
    assert printed(code.replace(SENTENCE, context)).strip() == wanted["text"] != ""


@pytest.fixture(scope="module")
def qa(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskModel, str]:
    folder = tmp_path_factory.mktemp("qa") / "m"
    return headed(folder, "span-extraction", ()), carded(folder, {"task": "qa"})


@pytest.mark.parametrize("modules", [False, True])
def test_vectors_have_evaluates_cosine(modules: bool, tmp_path: Path) -> None:
    """Of a bare encoder, and of a sentence-transformers folder with a prompt and a dot product of its own."""
    folder = tiny.model_folder("bert", "base", tmp_path / "m")
    if modules:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Pooling, Transformer

        encoder = Transformer(str(folder))
        SentenceTransformer(
            modules=[encoder, Pooling(encoder.get_embedding_dimension(), pooling_mode="cls")],
            prompts={"query": "query: "},
            default_prompt_name="query",
            similarity_fn_name="dot",
        ).save(str(folder))
    model = open_model(folder, "similarity", ())
    (wanted,) = similarity.predict(model, [RatedExample("0", SENTENCE, OTHER, 1.0)], batch_size=1)
    numbers = re.findall(r"-?[\d.]*\d", printed(carded(folder, {})))
    assert float(numbers[1] if modules else numbers[0]) == pytest.approx(wanted["score"], abs=1e-5)


@pytest.mark.parametrize("pooling", [[], ["Pooling (cls)", "Normalize"]])
def test_vectors_of_a_file_are_pooled_as_the_model_says(
    pooling: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_file(tiny.model_folder("bert", "base", tmp_path / "m"), monkeypatch)
    found = float(printed(carded(tmp_path / "m", {"pooling": pooling, "files": [{"path": "model.onnx"}]}, "export")))
    sentences = open_model(tmp_path / "m", "similarity", ())
    if pooling:
        sentences.network[1].pooling_mode = "cls"
    first, second = retrieval.vectors(sentences, [SENTENCE, OTHER], 2)
    assert found == pytest.approx(float(first @ second), abs=1e-5)


@pytest.mark.parametrize(("kind", "task"), [("tagging", "ner"), ("classification", "nli"), ("span-extraction", "qa")])
def test_the_card_of_a_file_says_what_that_of_its_model_says(
    kind: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m"
    headed(folder, kind, {"tagging": TAGS, "classification": NLI}.get(kind, ()))
    before = printed(carded(folder, {"task": task}))
    as_file(folder, monkeypatch)
    after = printed(carded(folder, {"task": task, "files": [{"path": "model.onnx"}]}, "export"))
    assert after.strip() and after.strip() in before


def as_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets onnxruntime compute a folder's model."""
    import onnxruntime

    (folder / "model.onnx").touch()
    monkeypatch.setattr(onnxruntime, "InferenceSession", session_of(folder))
