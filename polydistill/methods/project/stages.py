"""The stages of an annotation projection: the projected sentences, and the student that learns them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.catalog import Language, Task
from polydistill.errors import PolydistillError
from polydistill.labelled.examples import LabelledSplit, TaggedExample
from polydistill.labelled.parallel import Parallel
from polydistill.labelled.plain import PlainSentences, words_of
from polydistill.methods.project.options import ProjectOptions
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.options.specs import Spec
from polydistill.runs.made import Made, chosen_facts, save_network
from polydistill.runs.plan import Report, selection
from polydistill.runs.precision import multiplies_in_bfloat16
from polydistill.runs.scoring import Beside, Scoring, Test
from polydistill.runs.stages import Done, Stage, Work, in_order
from polydistill.training.deciding import SIGNALS

if TYPE_CHECKING:
    from polydistill.distill.teachers.base import Teacher
    from polydistill.evaluation.heads import TaskModel
    from polydistill.training.batching import Feature

FILE = "projected.conll"
BATCH, CHECKS, WARMUP = 32, 2, 0.1
UNSURE, LONG, EMPTY = "the teacher is not sure of an entity", "longer than the model's inputs", "without words"


@dataclass(frozen=True)
class Job:
    """What a projection works with, once everything is decided.

    Attributes:
        options: Of the command.
        source: Language of the labels.
        target: Language without any.
        task: What is tagged.
        parallel: Sentences and their translations.
        plain: More sentences of the target; None for none.
        dev: What chooses checkpoints.
        tests: (language, split) to score.
        teacher: The tagger of the source.
        begins: What the student begins with.
        aligner: Whose hidden states align words.
        layer: Which of them, counted from 1.
        objectives: Name -> what the student learns.
    """

    options: ProjectOptions
    source: Language
    target: Language
    task: Task
    parallel: Parallel
    plain: PlainSentences | None
    dev: LabelledSplit
    tests: tuple[tuple[Language, str], ...]
    teacher: Source
    begins: Source
    aligner: Source
    layer: int
    objectives: Mapping[str, Spec]


def stages_of(job: Job) -> tuple[Stage, ...]:
    """Projection, then training."""
    return in_order(job, [("projected", projection, 0), ("student", student, 1)])


# --- projection


def projection(job: Job, work: Work) -> Made:
    """The translations whose tags could be projected, as a CoNLL file, and why others could not."""
    kept, dropped, entities = _projected(job, work)

    def write(out: Path) -> dict[str, Any]:
        text = "\n".join("".join(f"{w} {t}\n" for w, t in zip(*found, strict=True)) for found in kept)
        (out / FILE).write_text(text, encoding="utf-8")
        return {
            "pairs": len(job.parallel.pairs),
            "kept": len(kept),
            "dropped": dict(dropped),
            "entities": {"found": entities, "projected": sum(_entities(tags) for _, tags in kept)},
        }

    if not kept and job.plain is None:
        raise PolydistillError(
            f"None of the {len(job.parallel.pairs)} pairs of {job.parallel.where} is kept: "
            f"{'; '.join(f'{n} {why}' for why, n in dropped.items())}.",
            "Give more pairs, or a lower `confidence`.",
        )
    if not any(_entities(tags) for _, tags in kept):
        work.progress.warn("No entity could be projected: the student learns the teacher's probabilities alone.")
    return Made(write)


def _entities(tags: Sequence[str]) -> int:
    return sum(tag.startswith("B-") for tag in tags)


def _projected(job: Job, work: Work) -> tuple[list[tuple[tuple[str, ...], list[str]]], Counter[str], int]:
    """(words and tags of the translations that are kept, why others are not, entities that the teacher finds)."""
    from polydistill.distill.word_alignment import mutual_nearest, projected, word_pairs

    pairs, dropped = [], Counter[str]()
    for pair in job.parallel.pairs:
        first, second = (tuple(words_of(text, lang)) for text, lang in zip(pair, (job.source, job.target), strict=True))
        if first and second:
            pairs.append((first, second))
        else:
            dropped[EMPTY] += 1
    tagged = _tagged(job, [first for first, _ in pairs], work)
    states = [_states(job, sentences, work) for sentences in zip(*pairs, strict=True)] if pairs else [[], []]
    kept, entities = [], 0
    for (_, words), (tags, sure), one, other in zip(pairs, tagged, *states, strict=True):
        entities += _entities(tags)
        if one is None or other is None:
            dropped[LONG] += 1
        elif sure < job.options.alignment.confidence:
            dropped[UNSURE] += 1
        else:
            aligned = word_pairs(mutual_nearest(one[0], other[0]), one[1], other[1])
            found, why = projected(tags, aligned, len(words))
            if found is None:
                dropped[why] += 1
            else:
                kept.append((words, found))
    return kept, dropped, entities


def _tagged(job: Job, sentences: Sequence[tuple[str, ...]], work: Work) -> list[tuple[list[str], float]]:
    """(tags, the least probability that a word of an entity has for its tag) of each source sentence."""
    from polydistill.evaluation import tagging

    model = _reader(job, job.teacher.folder)
    examples = [TaggedExample(str(i), words, ("O",) * len(words)) for i, words in enumerate(sentences)]
    with work.progress.bar("tagging", len(examples), "sentence") as done:
        found = tagging.predict(model, examples, batch_size=BATCH, done=done)
    return [
        (
            prediction["tags"],
            min(
                (max(p) for p, tag in zip(prediction["probabilities"], prediction["tags"], strict=True) if tag != "O"),
                default=1.0,
            ),
        )
        for prediction in found
    ]


def _states(job: Job, sentences: Sequence[tuple[str, ...]], work: Work) -> list[Any]:
    """((n, H) hidden states of subwords, the word of each) of each sentence; None for one that is too long."""
    from polydistill.distill.signals import HIDDEN, Signal
    from polydistill.distill.teachers.frozen import FrozenTeacher
    from polydistill.evaluation import tagging
    from polydistill.evaluation.heads import TaskModel
    from polydistill.models.loading import load_encoder, load_tokenizer, longest_input
    from polydistill.training.batching import by_length, padded

    network, tokenizer = load_encoder(job.aligner.model), load_tokenizer(job.aligner.model)
    length = longest_input(tokenizer, network.config, job.options.training.max_length)
    signal = Signal(HIDDEN, job.layer)
    encoder = FrozenTeacher(network, {signal}, job.aligner.arch)
    examples = [TaggedExample(str(i), words, ("O",) * len(words)) for i, words in enumerate(sentences)]
    windows = tagging.features(TaskModel(network, tokenizer, (), length), examples)
    times = Counter(window.sentence for window, _ in windows)
    whole = [(window.sentence, feature) for window, feature in windows if times[window.sentence] == 1]
    found: list[Any] = [None] * len(sentences)
    with work.progress.bar("aligning", len(whole), "sentence") as done:
        for places in by_length([feature for _, feature in whole], BATCH):
            states = encoder.signals(padded(tokenizer, [whole[i][1] for i in places]))[signal]
            for row, place in enumerate(places):
                sentence, feature = whole[place]
                inside = [i for i, word in enumerate(feature["words"]) if word >= 0]
                found[sentence] = (states[row, inside], [feature["words"][i] for i in inside])
            done(len(places))
    return found


def _reader(job: Job, folder: Path) -> TaskModel:
    from polydistill.distill.unlabelled import reader

    return reader(folder, job.task, seed=job.options.computing.seed, length=job.options.training.max_length)


# --- training


def student(job: Job, work: Work) -> Made:
    """The student, on projected labels and on the teacher's probabilities for all sentences of the target."""
    from polydistill.distill.freezing import freeze
    from polydistill.distill.loss import DistilLoss
    from polydistill.distill.objectives.build import build
    from polydistill.distill.unlabelled import tagger
    from polydistill.evaluation.kinds import dev_score
    from polydistill.training.loop import Schedule, train

    options, computing = job.options.training, job.options.computing
    model = tagger(job.begins.folder, job.task, seed=computing.seed, length=options.max_length, progress=work.progress)
    features, digest = _features(job, model, work)
    bf16 = multiplies_in_bfloat16(computing.precision, job.begins.model, work)
    asked = build(job.objectives, outputs=len(model.labels))
    teacher = _teacher(job, model, features, digest, bf16, work) if asked.needs.teacher else None
    freeze(model.network, job.begins.arch, embeddings=options.freeze_embeddings, layers=options.freeze_layers)
    loss = DistilLoss(model.network, asked, teacher, job.begins.arch)
    curves = train(
        model.network,
        model.tokenizer,
        features,
        lambda network: dev_score(job.task, model, [job.dev]),
        Schedule(
            epochs=options.epochs,
            lr=options.lr,
            batch_size=options.batch_size,
            warmup=WARMUP,
            checks=CHECKS,
            seed=computing.seed,
            bf16=bf16,
            minutes=work.minutes,
            tolerance=options.dev_tolerance,
        ),
        work.checkpoints,
        work.progress,
        step_loss=loss,
    )
    loss.close()

    def write(out: Path) -> dict[str, Any]:
        save_network(model.network, job.begins.folder, out, job.options.include_path, work.progress)
        return {**chosen_facts(curves), "head": model.reused.to_json() if model.reused else None}

    return Made(write, curves.steps, curves.terms)


def _features(job: Job, model: TaskModel, work: Work) -> tuple[list[Feature], str]:
    """(inputs of projected sentences with labels and of others without, a hash of what they are made of)."""
    from polydistill.evaluation import tagging
    from polydistill.training.batching import NOT_TRAINED

    text = (work.folder("projected") / FILE).read_text(encoding="utf-8")
    blocks = [[line.split(" ") for line in block.splitlines()] for block in text.split("\n\n") if block.strip()]
    labelled = [
        TaggedExample(str(i), tuple(word for word, _ in block), tuple(tag for _, tag in block))
        for i, block in enumerate(blocks)
    ]
    more = job.plain.sentences if job.plain else ()
    plain = [TaggedExample(str(i), words, ("O",) * len(words)) for i, words in enumerate(more)]
    found = list(tagging.training_features(model, labelled))
    for feature in tagging.training_features(model, plain):
        found.append({**feature, "labels": [NOT_TRAINED] * len(feature["labels"])})
    numbered = [
        {**{k: v for k, v in feature.items() if k != "token_words"}, "example_id": i} for i, feature in enumerate(found)
    ]
    digest = hashlib.sha256(text.encode()).hexdigest()
    return numbered, f"{digest} {job.plain.sha256 if job.plain else ''}"


def _teacher(job: Job, model: TaskModel, features: Sequence[Feature], digest: str, bf16: bool, work: Work) -> Teacher:
    """The teacher, with what it says of the target's sentences on disk."""
    from polydistill.distill.kept import kept_on_disk
    from polydistill.distill.signals import LOGITS, Signal
    from polydistill.distill.teachers.frozen import FrozenTeacher

    tagger = _reader(job, job.teacher.folder)
    logits = frozenset({Signal(LOGITS)})
    frozen = FrozenTeacher(
        tagger.network, logits, job.teacher.arch, autocast=bf16, labels=tagger.labels, wanted=model.labels
    )
    facts = {
        "teacher": job.teacher.checkpoint.weights_hash,
        "data": digest,
        "bf16": bf16,
        "labels": [model.labels, tagger.labels],
    }
    return kept_on_disk(
        frozen,
        facts,
        features,
        model.tokenizer,
        max_bytes=int(1e9 * job.options.cache_gb),
        note=work.note(SIGNALS),
        progress=work.progress,
    )


# --- what is reported


def texts_read(job: Job, done: Mapping[str, Done]) -> Sequence[Mapping[str, Any]]:
    """The translations, the words of more text, and the dev data."""
    parallel = {
        "language": f"{job.source.code}-{job.target.code}",
        "where": job.parallel.where,
        "examples": len(job.parallel.pairs),
        "sha256": job.parallel.sha256,
    }
    found: list[Mapping[str, Any]] = [job.dev.facts(), parallel]
    if words := job.plain:
        about = {"language": words.language, "where": words.where, "examples": len(words.sentences)}
        found.append({**about, "sha256": words.sha256})
    return found


def report(job: Job, done: Mapping[str, Done], out: Path) -> Report:
    """Sizes, what was projected and what chose the checkpoint."""
    made = Source.open(resolve(ModelRef.parse(str(out))), job.options.include_path)
    facts = {name: done["projected"].facts[name] for name in ("pairs", "kept", "dropped", "entities")}
    return Report(
        parameters={"teacher": job.teacher.checkpoint.parameters, "student": made.checkpoint.parameters},
        bytes={"teacher": job.teacher.nbytes, "student": made.nbytes},
        selection=selection(done["student"], [job.source.code], job.dev.split, job.task.metric),
        facts={"source": job.source.code, "target": job.target.code, "projection": facts},
    )


def scoring(job: Job, output: Path) -> Scoring:
    """Scores of teacher and student in both languages, and the student's loyalty."""
    beside = Beside(job.teacher.folder, job.teacher.resolved.source)
    return Scoring(
        output=output,
        task=job.task.name,
        tests=tuple(Test(language.code, split) for language, split in job.tests),
        beside=partial(_beside, beside),
        loyalty=True,
        data_dir=job.options.data.data_dir,
        seed=job.options.computing.seed,
        include_path=job.options.include_path,
    )


def _beside(teacher: Beside, done: Mapping[str, Done]) -> Beside:
    return replace(teacher)
