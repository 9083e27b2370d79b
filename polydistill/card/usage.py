"""The snippet of a card that runs as it is printed."""

from __future__ import annotations

import json

from polydistill.card.facts import Facts, tags_words
from polydistill.card.text import at, objects, printable

_PIPELINE = """\
from transformers import pipeline

run = pipeline({head}, model={model}{more})
print(run({text}))"""
# A class for every word, as it is scored: pipelines join neighbours of one class, or give classes to parts of words.
_WORDS = """\
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model})
model = AutoModelForTokenClassification.from_pretrained({model})
text = {text}
inputs = tokenizer(text, return_tensors="pt")
with torch.no_grad():
    best = model(**inputs).logits[0].argmax(-1)
words = inputs.word_ids()
for word in sorted(set(words) - {{None}}):
    first, last = inputs.word_to_chars(word)
    print(text[first:last], model.config.id2label[int(best[words.index(word)])])"""
_ANSWERS = """\
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model})
model = AutoModelForQuestionAnswering.from_pretrained({model})
inputs = tokenizer({question}, {text}, return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
first = int(outputs.start_logits.argmax())
last = first + int(outputs.end_logits[0, first:].argmax())
print(tokenizer.decode(inputs["input_ids"][0, first : last + 1]))"""
_SENTENCES = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({model})
vectors = model.encode([{text}, {other}])
print(model.similarity(vectors, vectors))"""
_VECTORS = """\
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model})
model = AutoModel.from_pretrained({model})
with torch.no_grad():
    print(model(**tokenizer({text}, return_tensors="pt")).last_hidden_state.shape)"""
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


_ONNX = """\
import onnxruntime
from transformers import AutoTokenizer
from transformers.utils import cached_file

tokenizer = AutoTokenizer.from_pretrained({model})
session = onnxruntime.InferenceSession(cached_file({model}, {file}))
encoded = tokenizer({text}, return_tensors="np")
inputs = {{node.name: encoded[node.name].astype("int64") for node in session.get_inputs()}}
print([output.shape for output in session.run(None, inputs)])"""
_STACK = """\
from pathlib import Path

import polydistill
from huggingface_hub import snapshot_download

name = {model}
folder = name if Path(name).is_dir() else snapshot_download(name)
print(polydistill.load_stack(folder).encode([{text}]{more}).shape)"""


def snippet(facts: Facts, repository: str) -> str:
    """Python that loads the model and uses it once.

    Args:
        facts: Of the model.
        repository: Its name on the Hub, or its folder.
    """
    texts = _texts(facts)
    template, more, text = _BARE, "", json.dumps(texts[0], ensure_ascii=False)
    files = [at(part, "path") for part in objects(facts.newest.result.get("files"))]
    file = printable(next((name for name in files if isinstance(name, str)), "onnx/model.onnx"))
    if facts.newest.command == "export":
        template = _ONNX
    elif facts.newest.command == "stack":
        template = _STACK
        if code := facts.newest.result.get("language_code"):
            more = f", language={json.dumps(printable(code))}"
    elif facts.library == "sentence-transformers":
        template = _SENTENCES
    elif facts.head == "question-answering":
        template = _ANSWERS
    elif facts.head == "fill-mask":
        template = _MASKED
    elif facts.head == "text2text-generation":
        template = _GENERATION
    elif facts.head == "feature-extraction" and not any("T5" in name or "MT" in name for name in facts.classes):
        template = _VECTORS
    elif facts.head == "token-classification" and tags_words(facts.task):
        template, text = _WORDS, json.dumps(texts[0].replace(".", " ."), ensure_ascii=False)
    elif facts.head in ("token-classification", "text-classification", "text-generation"):
        template = _PIPELINE
        if facts.head == "token-classification":
            more, text = ', aggregation_strategy="simple"', '"Wangari Maathai, Nairobi"'
        elif facts.head == "text-generation":
            more = ", max_new_tokens=20"
        elif facts.pairs:
            pair = {"text": texts[0], "text_pair": texts[1]}
            text = json.dumps(pair, ensure_ascii=False)
    values = {"model": repository, "head": facts.head, "other": texts[1], "question": texts[1], "file": file}
    printed = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    return template.format(**printed, more=more, text=text)


def _texts(facts: Facts) -> tuple[str, str]:
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
