"""The snippet of a card: it runs as it is printed, and reads a model as `evaluate` does."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence

from polydistill.card.facts import Facts, tags_words, told_of

WINDOW, OVERLAP, LONGEST_ANSWER = 384, 128, 30  # tokens, as `evaluate` reads a paragraph

_PIPELINE = """\
from transformers import pipeline

run = pipeline({head}, model={model})
print(run({text}{more}))"""
_SENTENCES = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({model})
vectors = model.encode([{text}, {other}], normalize_embeddings=True)
print(vectors @ vectors.T)"""
_MASKED = """\
from transformers import pipeline

run = pipeline("fill-mask", model={model})
print(run({text} + " " + run.tokenizer.mask_token))"""
_GENERATION = """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model})
model = AutoModelForSeq2SeqLM.from_pretrained({model})
outputs = model.generate(**tokenizer({text}, return_tensors="pt"), max_new_tokens=20)
print(tokenizer.batch_decode(outputs, skip_special_tokens=True))"""
_BARE = """\
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model})
model = AutoModel.from_pretrained({model})
print(tokenizer.tokenize({text}), model.num_parameters())"""
# A network itself, for what no pipeline reads as `evaluate` does: it is loaded, then run, then its outputs are read.
_TORCH = """\
import numpy
import torch
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model})
model = {auto}.from_pretrained({model}, dtype=torch.float32)
"""
_ONNX = """\
import numpy
import onnxruntime
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import cached_file

tokenizer = AutoTokenizer.from_pretrained({model})
config = AutoConfig.from_pretrained({model})
session = onnxruntime.InferenceSession(cached_file({model}, {file}))
names = [node.name for node in session.get_inputs()]
"""
_RUN_TORCH = """\
with torch.no_grad():
    outputs = model(**inputs)
"""
_RUN_ONNX = """\
outputs = session.run(None, {name: inputs[name].astype("int64") for name in names})
"""
# A pipeline takes a token that is a space alone for a word, and its "simple" shows tokens that were never trained.
_TAGS = """\
words = {words}  # punctuation apart, as in its training data
{glued}inputs = tokenizer(words, is_split_into_words=True, truncation=True, return_tensors="{tensors}")
{run}places = inputs.word_ids()
for i, word in enumerate(words):
    if i in places:  # the tag of a word is that of its first token
        print(word, {config}.id2label[int(outputs[0][0, places.index(i)].argmax())])"""
_JOINED = """
# Nearly the same: pipeline("token-classification", ..., aggregation_strategy="first"); never "simple"."""
_LABEL = """\
inputs = tokenizer({pair}, truncation=True, return_tensors="{tensors}")
{run}print({config}.id2label[int(outputs[0][0].argmax())])"""
_ANSWER = """\
question, text = {question}, {text}
longest = min({window}, tokenizer.model_max_length)  # longer texts are read in windows
inputs = tokenizer(
    question, text, truncation="only_second", max_length=longest, stride=min({overlap}, longest // 3), padding=True,
    return_overflowing_tokens=True, return_offsets_mapping=True, return_tensors="{tensors}",
)
windows = range(len(inputs.pop("overflow_to_sample_mapping")))
places = numpy.asarray(inputs.pop("offset_mapping"))
{run}read = [[part == 1 for part in inputs.sequence_ids(i)] for i in windows] & (places[:, :, 0] < places[:, :, 1])
spans = numpy.tri(read.shape[1]).T * numpy.tri(read.shape[1], k={longest} - 1)  # answers of {longest} tokens at most
possible = (spans > 0) & read[:, :, None] & read[:, None]
starts, ends = (numpy.asarray(output, "float32") for output in outputs[:2])
scores = numpy.where(possible, starts[:, :, None] + ends[:, None], -numpy.inf)
window, start, end = numpy.unravel_index(scores.argmax(), scores.shape)
print(text[places[window, start, 0] : places[window, end, 1]])"""
_VECTORS = """\
vectors = []
for text in ({text}, {other}):
    inputs = tokenizer(text, truncation=True, return_tensors="{tensors}")
{run}    vector = numpy.asarray(outputs[0][0], "float32"){pooled}
    vectors.append(vector / numpy.linalg.norm(vector))
print(vectors[0] @ vectors[1])"""
_STATES = """\
inputs = tokenizer({text}, truncation=True, return_tensors="{tensors}")
{run}print(outputs[0].shape)"""
_TEMPLATES = {"fill-mask": _MASKED, "text2text-generation": _GENERATION}
_HEADS = {
    "token-classification": ("AutoModelForTokenClassification", _TAGS),
    "text-classification": ("AutoModelForSequenceClassification", _LABEL),
    "question-answering": ("AutoModelForQuestionAnswering", _ANSWER),
}
_NAMES = "Wangari Maathai , Nairobi"
# Models whose tokenizers may glue words that are given one by one: all but these.
_APART = ("Albert", "Bert", "Deberta", "DistilBert", "Electra", "MPNet", "XLMRoberta", "Xmod")
_GLUED = """\
ids = tokenizer(["a", "a"], is_split_into_words=True)["input_ids"]
words = words if ids == tokenizer("a a")["input_ids"] else [" " + word for word in words]  # each has to be a word
"""
_POOLED = {"Pooling (mean)": ".mean(0)", "Pooling (cls)": "[0]", "Pooling (lasttoken)": "[-1]"}


def snippet(facts: Facts, repository: str) -> str:
    """Python that loads the model and uses it once.

    Args:
        facts: Of the model.
        repository: Its name on the Hub, or its folder.
    """
    printed = _printed(facts, repository)
    pair = f'{{"text": {printed["text"]}, "text_pair": {printed["other"]}}}'
    if use := told_of(facts.newest).use:
        return use(facts, repository)
    if facts.library == "sentence-transformers":
        return _SENTENCES.format(**printed)
    if facts.head in _TEMPLATES:
        return _TEMPLATES[facts.head].format(**printed)
    if facts.head == "text-generation":
        return _PIPELINE.format(**printed, more=", max_new_tokens=20")
    if facts.head == "text-classification":
        asked = {**printed, "text": pair if facts.pairs else printed["text"]}
        return _PIPELINE.format(**asked, more=", truncation=True")
    two_parts = any("T5" in name or "MT" in name for name in facts.classes)
    if facts.head in _HEADS or (facts.head == "feature-extraction" and not two_parts):
        return network(facts, repository)
    return _BARE.format(**printed)


def _printed(facts: Facts, repository: str) -> dict[str, str]:
    """What stands in the snippets, as Python writes it."""
    first, second = example_texts(facts)
    values = {"model": repository, "head": facts.head, "text": first, "other": second, "question": second}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def network(facts: Facts, repository: str, *, file: str | None = None, behind: Sequence[str] = ()) -> str:
    """Python that runs the network itself, and reads its outputs as `evaluate` does.

    Args:
        facts: Of the model.
        repository: Its name on the Hub, or its folder.
        file: An ONNX file there, to run in onnxruntime; None for torch.
        behind: What stands behind the file's graph, such as `Pooling (mean)`.
    """
    printed, onnx = _printed(facts, repository), file is not None
    auto, template = _HEADS.get(str(facts.head), ("AutoModel", _VECTORS))
    pooled = _POOLED.get(behind[0]) if behind else ".mean(0)"
    if template is _VECTORS and (pooled is None or list(behind[1:]) not in ([], ["Normalize"])):
        template = _STATES  # something stands behind the states that is not in the file
    classes = tags_words(facts.task)  # a class of every word, such as its part of speech
    spaced = example_texts(facts)[0].replace(".", " .") if classes else _NAMES
    words = f"{json.dumps(spaced, ensure_ascii=False)}.split()"
    if template is _TAGS and not classes:
        template += _JOINED
    run = _RUN_ONNX if onnx else _RUN_TORCH
    loaded = (_ONNX if onnx else _TORCH).format(**printed, auto=auto, file=json.dumps(file, ensure_ascii=False))
    two = f"{printed['text']}, {printed['other']}" if facts.pairs else printed["text"]
    body = template.format(
        **printed,
        words=words,
        glued="" if all(name.startswith(_APART) for name in facts.classes) else _GLUED,
        pair=two,
        pooled=pooled,
        tensors="np" if onnx else "pt",
        config="config" if onnx else "model.config",
        run=textwrap.indent(run, "    ") if template is _VECTORS else run,
        window=WINDOW,
        overlap=OVERLAP,
        longest=LONGEST_ANSWER,
    )
    return _needed(loaded, body) + body


def _needed(loaded: str, body: str) -> str:
    """The lines of what comes first that what follows needs."""
    if "numpy." not in body:
        loaded = loaded.replace("import numpy\n", "")
    if "config.id2label" not in body:
        kept = (line for line in loaded.splitlines(keepends=True) if not line.startswith("config = "))
        loaded = "".join(kept).replace("AutoConfig, ", "")
    return loaded


def example_texts(facts: Facts) -> tuple[str, str]:
    """Two short texts: English if the model may know it, else what its language and another one call themselves."""
    if not facts.languages or "en" in facts.languages:
        return "Nairobi is the capital of Kenya.", "Which city is the capital of Kenya?"
    from polydistill.catalog import language
    from polydistill.errors import PolydistillError

    names = []
    for code in facts.languages:
        try:
            names.append(language(code).native_name)
        except PolydistillError:
            names.append(code)
    return ", ".join(names), names[0]
