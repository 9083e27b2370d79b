"""Predict loops: nothing is cut off, batches change nothing, labels go by name, and answers by offsets."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from polydistill.errors import PolydistillError
from polydistill.evaluation import classification, retrieval, similarity, spans, tagging
from polydistill.evaluation.heads import TaskModel, new_head, open_model, output_labels
from polydistill.labelled.examples import AlignedExample, PairExample, QuestionExample, RatedExample, TaggedExample
from polydistill.labelled.schemes import to_iob2
from polydistill.training.batching import by_length, run

NLI = ("entailment", "neutral", "contradiction")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TEXTS = tiny.sentences("en", "ro", "sw", count=60)
PAIRS = [PairExample(str(i), a, b, NLI[i % 3]) for i, (a, b) in enumerate(zip(TEXTS, TEXTS[::-1], strict=True))]
LONG = " ".join(TEXTS).split()
SENTENCES = [
    *(TaggedExample(str(i), tuple(t.split()), ("O",) * len(t.split())) for i, t in enumerate(TEXTS)),
    TaggedExample("long", tuple(LONG), ("O",) * len(LONG)),
]
CONTEXTS = {
    "zh": "老师看见红色的房子。我的妹妹想要一封信。小鸟忘记了面包和牛奶！",
    "ar": "المعلم القديم يرى البيت الأحمر. أختي تريد رسالة من القاهرة.",
    "en": "🙂 The old teacher sees the red house. 🏠 My sister wants a letter from London. " * 8,
}
QUESTIONS = [
    QuestionExample(code, "Who? " + context[:6], context, ((context[3:9], 3),), code, code)
    for code, context in CONTEXTS.items()
]


def headed(folder: Path, kind: str, labels: tuple[str, ...], max_length: int | None = 32) -> TaskModel:
    """A random model with a head, saved and opened again."""
    tiny.model_folder("bert", "base", folder, tokenizer="xlm-roberta")
    model = new_head(folder, kind, labels, seed=3)
    with_head = folder.parent / f"{folder.name}-{kind}"
    model.network.save_pretrained(with_head)
    model.tokenizer.save_pretrained(with_head)
    return open_model(with_head, kind, labels, max_length=max_length)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskModel]:
    root = tmp_path_factory.mktemp("models")
    labels = {"classification": NLI, "tagging": TAGS, "span-extraction": ()}
    return {kind: headed(root / kind[:3], kind, found) for kind, found in labels.items()}


# ---- windows ----


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(6, 30))
def test_windows_fit_overlap_and_own_every_word_once(sizes: list[int], room: int) -> None:
    parts = tagging.windows(0, sizes, room)
    owned = [word for part in parts for word in range(*part.own)]
    assert owned == list(range(len(sizes)))
    for part in parts:
        assert part.start <= part.own[0] <= part.own[1] <= part.stop
        assert sum(sizes[part.start : part.stop]) <= room or part.stop - part.start == 1
    for a, b in itertools.pairwise(parts):
        assert a.start < b.start <= a.stop < b.stop


def test_windows_by_hand() -> None:
    (only,) = tagging.windows(4, [1, 1, 1], 8)
    assert (only.sentence, only.start, only.stop, only.own) == (4, 0, 3, (0, 3))
    parts = tagging.windows(0, [1] * 12, 8)  # 8 words, then 8 from word 6 on: two words are in both, one each
    assert [(p.start, p.stop, p.own) for p in parts] == [(0, 8, (0, 7)), (6, 12, (7, 12))]


# ---- the same whatever the batch ----


@pytest.mark.parametrize("kind", ["classification", "tagging", "span-extraction"])
def test_predictions_do_not_depend_on_the_batch_size(kind: str, models: dict[str, TaskModel]) -> None:
    module: Any = {"classification": classification, "tagging": tagging, "span-extraction": spans}[kind]
    examples: Any = {"classification": PAIRS, "tagging": SENTENCES, "span-extraction": QUESTIONS}[kind]
    one, seven, many = (module.predict(models[kind], examples, batch_size=n) for n in (1, 7, 64))
    for other in (seven, many):
        for a, b in zip(one, other, strict=True):
            assert {k: v for k, v in a.items() if k in ("label", "tags", "text", "start")} == {
                k: v for k, v in b.items() if k in ("label", "tags", "text", "start")
            }
    features = classification.features(models["classification"], PAIRS)
    if kind == "classification":
        alone, together = (
            run(models[kind].network, models[kind].tokenizer, features, n, lambda o: [o.logits]) for n in (1, 64)
        )
        for (a,), (b,) in zip(alone, together, strict=True):
            assert np.abs(a - b).max() < 1e-4


def test_the_longest_come_first_and_each_once() -> None:
    features = [{"input_ids": [0] * n} for n in (3, 9, 1, 7, 9)]
    assert [*by_length(features, 2)] == [[1, 4], [3, 0], [2]]


def test_as_many_labels_as_tokens_are_not_cut(tmp_path: Path) -> None:
    tiny.model_folder("gpt2", "base", tmp_path / "m")
    model = new_head(tmp_path / "m", "classification", NLI, seed=1)
    short = [PairExample("0", "a", "b", NLI[0]), PairExample("1", "aQ", "b", NLI[0])]
    assert sorted(len(f["input_ids"]) for f in classification.features(model, short)) == [2, 3]  # three, as labels
    assert [len(p["probabilities"]) for p in classification.predict(model, short, batch_size=2)] == [3, 3]


def test_outputs_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    tiny.model_folder("bert", "base", tmp_path / "m", tokenizer="xlm-roberta")
    model = new_head(tmp_path / "m", "classification", NLI, seed=1)
    model.network.classifier.bias.data.fill_(float("nan"))
    with pytest.raises(PolydistillError, match="not numbers"):
        classification.predict(model, PAIRS, batch_size=16)


@pytest.mark.parametrize("model_type", ["xlm-roberta", "mpnet", "gpt2"])
def test_inputs_as_long_as_the_model_takes(model_type: str, tmp_path: Path) -> None:
    tiny.model_folder(model_type, "base", tmp_path / "m")
    long = TaggedExample("0", tuple(LONG), ("O",) * len(LONG))
    tagger = new_head(tmp_path / "m", "tagging", TAGS, seed=1)
    assert max(len(f["input_ids"]) for _, f in tagging.features(tagger, [long])) <= tagger.max_length
    assert len(tagging.predict(tagger, [long], batch_size=2)[0]["tags"]) == len(LONG)
    if model_type != "gpt2":
        embedder = open_model(tmp_path / "m", "retrieval", (), max_length=512)
        assert retrieval.vectors(embedder, [" ".join(LONG)], 1).shape[0] == 1


def test_a_decoder_without_padding(tmp_path: Path) -> None:
    tiny.model_folder("gpt2", "base", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    model = new_head(tmp_path / "m", "classification", NLI, seed=1)
    one, many = (classification.predict(model, PAIRS, batch_size=n) for n in (1, 16))
    assert [p["label"] for p in one] == [p["label"] for p in many]


# ---- tagging ----


def test_every_word_of_a_long_sentence_has_a_tag(models: dict[str, TaskModel]) -> None:
    found = tagging.predict(models["tagging"], SENTENCES, batch_size=8)
    assert [len(p["tags"]) for p in found] == [len(e.tokens) for e in SENTENCES]
    assert len(LONG) > 32 and len(set(found[-1]["tags"])) > 1
    for p in found:
        assert np.allclose(np.sum(p["probabilities"], axis=1), 1, atol=1e-4)
        assert p["tags"] == [p["names"][int(np.argmax(row))] for row in p["probabilities"]]


def test_a_word_takes_the_tag_of_its_first_token(models: dict[str, TaskModel]) -> None:
    model, example = models["tagging"], SENTENCES[0]
    encoded = model.tokenizer(list(example.tokens), is_split_into_words=True, return_tensors="pt")
    logits = model.network(**encoded).logits[0].argmax(-1).tolist()
    words = encoded.word_ids(0)
    expected = [TAGS[logits[words.index(i)]] for i in range(len(example.tokens))]
    assert tagging.predict(model, [example], batch_size=1)[0]["tags"] == expected


@pytest.mark.parametrize("recipe", ["roberta", "gpt2", "qwen2", "modernbert", "gemma", "xlm-roberta", "bert", "llama"])
def test_words_are_tokenized_as_in_running_text(recipe: str, tmp_path: Path) -> None:
    tiny.tokenizer_files(recipe, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    words = ("the", "house", "sees")
    ((_, feature),) = tagging.features(TaskModel(None, tokenizer, TAGS, 64), [TaggedExample("0", words, ("O",) * 3)])
    second, third = feature["first"][1:]
    running = tokenizer(" ".join(words), return_offsets_mapping=True)
    begins = [next(i for i, (_, end) in enumerate(running["offset_mapping"]) if end > at) for at in (4, 10)]
    assert (
        feature["input_ids"][second:] == running["input_ids"][begins[0] :] and third - second == begins[1] - begins[0]
    )


def test_a_word_without_tokens_is_outside(models: dict[str, TaskModel]) -> None:
    (found,) = tagging.predict(
        models["tagging"], [TaggedExample("0", ("a", "\u200b\u200b", ""), ("O",) * 3)], batch_size=1
    )
    assert len(found["tags"]) == 3 and found["tags"][2] == "O"


def test_training_labels_stand_at_first_tokens_once(models: dict[str, TaskModel]) -> None:
    tags = tuple("B-PER" if i % 5 == 0 else "I-PER" if i % 5 == 1 else "O" for i in range(len(LONG)))
    features = tagging.training_features(models["tagging"], [TaggedExample("0", tuple(LONG), tags)])
    assert len(features) > 1
    labels = [TAGS[label] for f in features for label in f["labels"] if label != tagging.NOT_TRAINED]
    assert labels == list(tags)
    assert all(len(f["labels"]) == len(f["input_ids"]) <= 32 and "first" not in f for f in features)
    for f in features:
        own = [w for w in f["token_words"] if w >= 0]
        assert own == sorted(own) and set(own) == {w for w in f["word_ids"] if w >= 0}
        begun = [i for i, w in enumerate(f["token_words"]) if w >= 0 and w != f["token_words"][i - 1]]
        assert begun == [i for i, w in enumerate(f["word_ids"]) if w >= 0]
    assert sum(len(f["token_words"]) - f["token_words"].count(-1) for f in features) > len(LONG)  # not the first alone


# ---- questions ----


def test_answers_are_cut_from_the_paragraph(models: dict[str, TaskModel]) -> None:
    for example, found in zip(
        QUESTIONS, spans.predict(models["span-extraction"], QUESTIONS, batch_size=4), strict=True
    ):
        assert found["text"] and found["text"] in example.context[found["start"] :][: len(found["text"]) + 1]


def test_training_positions_cover_the_answer(models: dict[str, TaskModel]) -> None:
    model = models["span-extraction"]
    for example in QUESTIONS:
        inputs = spans.features(model, [example])
        labelled = spans.training_features(model, [example])
        text, start = example.answers[0]
        hits = 0
        for feature, labels in zip(inputs, labelled, strict=True):
            first, last = labels["start_positions"], labels["end_positions"]
            if last:
                hits += 1
                assert feature["offsets"][first][0] <= start
                assert feature["offsets"][last][1] >= start + len(text)
        assert hits


def test_long_paragraphs_are_windowed_with_overlap(models: dict[str, TaskModel]) -> None:
    parts = spans.features(models["span-extraction"], [QUESTIONS[2]])
    assert len(parts) > 2
    covered = [{i for offset in p["offsets"] if offset for i in range(*offset)} for p in parts]
    context = QUESTIONS[2].context
    missing = set(range(len(context))) - set().union(*covered)
    assert all(context[i].isspace() for i in missing)
    assert all(a & b for a, b in itertools.pairwise(covered))


@pytest.mark.parametrize("max_length", [16, 40, 64, 100])
def test_long_questions_leave_room_for_the_paragraph(max_length: int, tmp_path: Path) -> None:
    tiny.tokenizer_files("xlm-roberta", tmp_path)
    model = TaskModel(None, transformers.AutoTokenizer.from_pretrained(tmp_path), (), max_length)
    context = CONTEXTS["en"]
    for words in (1, 5, 10, 20, 40, 100):
        example = QuestionExample("0", "the " * words, context, ((context[5:8], 5),), "en", "en")
        parts = spans.features(model, [example])
        covered = {i for p in parts for o in p["offsets"] if o for i in range(*o)}
        assert all(context[i].isspace() for i in set(range(len(context))) - covered)
        assert all(len(p["input_ids"]) <= max_length for p in parts)


def test_best_span_by_hand() -> None:
    offsets = [None, (0, 2), (3, 5), (6, 9), None]
    starts, ends = np.array([9.0, 1, 3, 0, 9]), np.array([9.0, 2, 0, 1, 9])
    # (2, 3) has 3 + 1; (1, 1) has 1 + 2; an end before its start and the ends of the input do not count
    assert spans.best_span(starts, ends, offsets) == (4.0, (3, 9))
    assert spans.best_span(np.array([0.0, 0, 5, 0, 0]), np.array([0.0, 5, 1, 0, 0]), offsets) == (6.0, (3, 5))
    assert spans.best_span(starts, ends, [None] * 5) == (-np.inf, None)


def test_an_answer_has_at_most_thirty_tokens() -> None:
    offsets: list[tuple[int, int] | None] = [(i, i + 1) for i in range(60)]
    starts, ends = np.zeros(60), np.zeros(60)
    starts[0], ends[59], ends[29] = 9, 9, 5
    assert spans.best_span(starts, ends, offsets) == (14.0, (0, 30))


# ---- vectors ----


def test_sentence_vectors_find_themselves_and_rank_pairs(tmp_path: Path) -> None:
    tiny.model_folder("bert", "base", tmp_path / "m", tokenizer="xlm-roberta")
    model = open_model(tmp_path / "m", "retrieval", ())
    same = [AlignedExample(str(i), t, t) for i, t in enumerate(TEXTS[:20])]
    found = retrieval.predict(model, same, batch_size=4)
    assert [m.value for m in retrieval.measure(same, found, "en")] == [1.0, 1.0]
    rated = [RatedExample(str(i), t, t if i % 2 else TEXTS[-i], float(i % 2)) for i, t in enumerate(TEXTS[:20], 1)]
    scores = similarity.predict(model, rated, batch_size=4)
    assert all(p["score"] == pytest.approx(1, abs=1e-5) for p in scores[::2])
    (measured,) = similarity.measure(rated, scores, "en")
    assert measured.metric == "spearman" and measured.value > 0.8
    (loyal,) = similarity.loyalty(scores, scores, "en")
    assert loyal.value == pytest.approx(1)


def test_a_prompt_changes_the_vectors(tmp_path: Path) -> None:
    tiny.model_folder("bert", "base", tmp_path / "m", tokenizer="xlm-roberta")
    plain, asked = (open_model(tmp_path / "m", "retrieval", (), prompt=p) for p in (None, "query: "))
    a, b = retrieval.vectors(plain, ["query: " + TEXTS[0]], 1), retrieval.vectors(asked, [TEXTS[0]], 1)
    assert np.abs(a - b).max() < 1e-5 and np.abs(retrieval.vectors(plain, [TEXTS[0]], 1) - a).max() > 1e-3


# ---- heads and labels ----


def test_a_model_without_the_head_is_refused(tmp_path: Path) -> None:
    folder = tiny.model_folder("bert", "base", tmp_path / "m", tokenizer="xlm-roberta")
    for kind, labels in (("classification", NLI), ("tagging", TAGS), ("span-extraction", ())):
        with pytest.raises(PolydistillError, match=f"no head for {kind}.*finetune"):
            open_model(folder, kind, labels)


def test_labels_go_by_name_whatever_their_order(tmp_path: Path) -> None:
    model = headed(tmp_path / "m", "classification", NLI)
    before = classification.predict(model, PAIRS, batch_size=16)
    config = json.loads((tmp_path / "m-classification" / "config.json").read_text())
    config["id2label"] = {"0": "NEUTRAL", "1": "Entailment", "2": "contradiction"}
    config["label2id"] = {v: int(k) for k, v in config["id2label"].items()}
    (tmp_path / "m-classification" / "config.json").write_text(json.dumps(config))
    after = classification.predict(
        open_model(tmp_path / "m-classification", "classification", NLI, max_length=32), PAIRS, batch_size=16
    )
    swap = {"entailment": "neutral", "neutral": "entailment", "contradiction": "contradiction"}
    assert [swap[p["label"]] for p in before] == [p["label"] for p in after]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("LABEL_0", "LABEL_1", "LABEL_2"), "have no names"),
        (("entailment", "neutral", "other"), "has the label other"),
        (("entailment", "neutral"), "cannot predict contradiction"),
    ],
)
def test_labels_that_do_not_fit_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(PolydistillError, match=message):
        output_labels(names, "classification", NLI, (), "m")


BIOES = ("S-PER", "O", "B-PER", "E-PER", "I-PER", "b-loc", "I-LOCATION", "E-LOC", "S-LOC")
IOB1 = ("B-LOC", "I-LOC", "I-PER", "O")  # as models of CoNLL-2003 have it, which has no neighbours of the type PER


@pytest.fixture(scope="module")
def taggers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskModel]:
    """Taggers of other schemes, opened for a task in IOB2."""
    root, found = tmp_path_factory.mktemp("taggers"), {}
    for name, labels in {"BIOES": BIOES, "IOB1": IOB1}.items():
        tiny.model_folder("bert", "base", root / name, tokenizer="xlm-roberta")
        fresh = new_head(root / name, "tagging", labels, seed=3)
        fresh.network.save_pretrained(root / f"{name}-head")
        fresh.tokenizer.save_pretrained(root / f"{name}-head")
        found[name] = open_model(root / f"{name}-head", "tagging", TAGS, max_length=32)
    return found


def test_a_tagger_of_another_scheme_is_read_in_iob2(taggers: dict[str, TaskModel]) -> None:
    for name, names in {"BIOES": BIOES, "IOB1": IOB1}.items():
        model, own = taggers[name], [tag.upper().replace("LOCATION", "LOC") for tag in names]
        logits = tagging.word_logits(model, SENTENCES, batch_size=16)
        predicted = tagging.predict(model, SENTENCES, batch_size=16)
        for rows, prediction in zip(logits, predicted, strict=True):
            assert prediction["tags"] == to_iob2([own[i] for i in np.argmax(rows, -1)], name)
        assert {tag[2:] for p in predicted for tag in p["tags"]} <= {"", "PER", "LOC"}


def test_probabilities_of_a_scheme_that_marks_ends_are_those_of_iob2(taggers: dict[str, TaskModel]) -> None:
    model = taggers["BIOES"]
    assert model.labels == ("B-PER", "O", "B-PER", "I-PER", "I-PER", "B-LOC", "I-LOC", "I-LOC", "B-LOC")
    (rows,), (found,) = (make(model, SENTENCES[:1], batch_size=1) for make in (tagging.word_logits, tagging.predict))
    shares = np.exp(rows) / np.exp(rows).sum(-1, keepdims=True)
    begins = found["names"].index("B-PER")
    assert np.allclose(np.array(found["probabilities"])[:, begins], shares[:, 0] + shares[:, 2], atol=1e-5)


def test_loyalty_of_taggers_of_two_schemes_is_that_of_types(taggers: dict[str, TaskModel]) -> None:
    ours, theirs = (tagging.predict(taggers[name], SENTENCES, batch_size=16) for name in ("BIOES", "IOB1"))
    assert [m.normalisation for m in tagging.loyalty(theirs, theirs, "en")] == [None, None]
    labels, probabilities = tagging.loyalty(ours, theirs, "en")
    assert (labels.metric, labels.normalisation) == ("label_loyalty", None)
    assert (probabilities.metric, probabilities.normalisation) == ("probability_loyalty", "types")
    assert 0 < probabilities.value < 1


def test_loyalty_of_types_by_hand() -> None:
    own = [{"tags": ["B-PER"], "names": ["O", "B-PER", "I-PER"], "probabilities": [[0.5, 0.3, 0.2]]}]
    iob1 = [{"tags": ["B-PER"], "names": ["I-PER", "O"], "probabilities": [[0.5, 0.5]]}]
    assert [m.value for m in tagging.loyalty(own, iob1, "en")] == [1.0, 1.0]
    fewer = [{"tags": ["O"], "names": ["O"], "probabilities": [[1.0]]}]
    labels, probabilities = tagging.loyalty(fewer, own, "en")
    assert (labels.value, probabilities.normalisation) == (0.0, None)
    bits = (math.log2(1 / 0.75) + 0.5 * math.log2(0.5 / 0.75) + 0.5) / 2  # B- and I- are the student's alone
    assert probabilities.value == pytest.approx(1 - math.sqrt(bits))


def test_a_teacher_has_to_tell_the_tasks_tags_apart() -> None:
    assert output_labels(BIOES, "tagging", TAGS, (), "m")[0] == "B-PER"
    with pytest.raises(PolydistillError, match="m tags in IOB1: whether its I-LOC begins an entity") as caught:
        output_labels(IOB1, "tagging", TAGS, (), "m")
    assert "finetune" in caught.value.hint
    with pytest.raises(PolydistillError, match="m tags in IO: whether its PER begins"):
        output_labels(("PER", "LOC", "O"), "tagging", TAGS, (), "m")
    with pytest.raises(PolydistillError, match="m cannot predict I-LOC"):
        output_labels(TAGS[:4], "tagging", TAGS, (), "m")


def test_types_that_are_not_scored_are_predicted_as_outside(tmp_path: Path) -> None:
    names = (*TAGS, "B-DATE", "I-DATE")
    assert output_labels(names, "tagging", TAGS, ("DATE",), "m") == (*TAGS, "O", "O")
    with pytest.raises(PolydistillError, match="has the label B-DATE"):
        output_labels(names, "tagging", TAGS, (), "m")
    with pytest.raises(PolydistillError, match="cannot predict LOC"):
        output_labels(TAGS[:3], "tagging", TAGS, (), "m")
    model = headed(tmp_path / "m", "tagging", names, max_length=None)
    shown = open_model(tmp_path / "m-tagging", "tagging", TAGS, not_scored=("DATE",))
    assert any("DATE" in tag for p in tagging.predict(model, SENTENCES, batch_size=8) for tag in p["tags"])
    found = tagging.predict(shown, SENTENCES, batch_size=8)
    assert {tag for p in found for tag in p["tags"]} <= set(TAGS)
    assert found[0]["names"] == list(TAGS) and np.allclose(np.sum(found[0]["probabilities"], axis=1), 1, atol=1e-4)


# ---- loyalty ----


def test_a_model_is_loyal_to_itself(models: dict[str, TaskModel]) -> None:
    pairs: list[tuple[Any, Any, str]] = [
        (classification, PAIRS, "classification"),
        (tagging, SENTENCES, "tagging"),
        (spans, QUESTIONS, "span-extraction"),
    ]
    for module, examples, kind in pairs:
        found = module.predict(models[kind], examples, batch_size=8)
        assert [m.value for m in module.loyalty(found, found, "en")] == pytest.approx(
            [1.0] * (1 if kind[0] == "s" else 2)
        )


def test_loyalty_by_hand() -> None:
    teacher = [{"label": "a", "probabilities": {"a": 0.9, "b": 0.1}}]
    student = [{"label": "a", "probabilities": {"b": 0.4, "a": 0.6}}]
    label, probability = classification.loyalty(teacher, student, "en")
    assert (label.value, round(probability.value, 6)) == (1.0, 0.697833)
