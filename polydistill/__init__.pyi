"""Made by scripts/make_stub.py."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from polydistill.api import compare as compare
from polydistill.api import count as count
from polydistill.api import diff as diff
from polydistill.api import info as info
from polydistill.api import load_stack as load_stack
from polydistill.api import model_card as model_card
from polydistill.api import run as run
from polydistill.api import trim_objects as trim_objects
from polydistill.errors import PolydistillError as PolydistillError
from polydistill.errors import UsageError as UsageError
from polydistill.evaluation.evaluate import Evaluation
from polydistill.hub.publish import Published
from polydistill.methods.trim.method import TrimResult
from polydistill.progress import Progress
from polydistill.runs.result import Result

__version__: str

def bistil(
    source: str,
    target: str,
    model: str | Path = 'intfloat/multilingual-e5-small',
    *,
    layers: int | None = None,
    reduction: int | None = None,
    init: str = 'alternate',
    vocab_size: int | None = None,
    min_share: float = 1e-06,
    allow_unknown: bool = False,
    language_sft: Sequence[str | Path] | str | Path = (),
    include_path: Sequence[str | Path] | str | Path = (),
    text: Sequence[str | Path] | str | Path = (),
    task: str = '',
    teacher: Sequence[str] | str = (),
    combine: Literal['probabilities', 'logits', 'balance', 'partition'] = 'probabilities',
    data_dir: str | Path | None = None,
    train_split: Sequence[str] | str = (),
    dev_split: str = 'dev',
    data: str | Path | Iterable[Any] | Mapping[str, Sequence[Any]] | None = None,
    dev_data: str | Path | Iterable[Any] | Mapping[str, Sequence[Any]] | None = None,
    limit: int | None = None,
    dev_limit: int | None = None,
    select: Literal['loyalty', 'score'] | None = None,
    test_data: Sequence[str | Path] | str | Path = (),
    test_split: Sequence[str] | str = (),
    preset: Literal['smoke', 'small', 'paper'] = 'small',
    phase: Literal['1', '2', 'all'] = 'all',
    objective: Sequence[str] | str = (),
    sampler: str = 'even',
    scale: Literal['none', 'first', 'teacher'] | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    lr: float | None = None,
    warmup: float | None = None,
    weight_decay: float | None = None,
    task_epochs: float | None = None,
    task_sparse_epochs: float | None = None,
    task_batch_size: int | None = None,
    task_max_length: int | None = None,
    task_text: float | None = None,
    task_lr: float | None = None,
    task_warmup: float | None = None,
    task_weight_decay: float | None = None,
    task_sampler: str = '',
    task_augment: Sequence[str] | str = (),
    task_augment_share: float = 0.5,
    task_head: Literal['teacher', 'new'] | None = None,
    teacher_epochs: float | None = None,
    teacher_lr: float | None = None,
    density: float | None = None,
    cache_gb: float = 4.0,
    precision: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    accumulate: int = 1,
    resume: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    max_minutes: float | None = None,
    device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto',
    progress: Progress = ...,
) -> Result:
    """Make a small bilingual model out of a multilingual one.

    The vocabulary is cut to both languages, and the student gets some of the layers. In phase 1 it learns from the whole
    model on text of both languages (BiStil). With `task`, phase 2 teaches it the task on labelled data of the SOURCE
    language alone, with sparse fine-tuning, and it is scored in both. A run that was stopped continues with `resume`.

    Args:
        source: See above.
        target: See above.
        model: The multilingual teacher: folder, org/name or org/name@revision; or a student from phase 1, to continue with phase 2.
        layers: Layers of the student. [default: half of the teacher's]
        reduction: Layer reduction factor, in place of `layers`.
        init: Layers of the teacher that the student starts from: alternate, bottom, top, or a list such as 1,5,9; random starts from random weights.
        vocab_size: Keep exactly this many tokens. [default: those with a share of at least `min_share`]
        min_share: Keep a token that makes up at least this share of either language's text.
        allow_unknown: Accept a language that the tokenizer cannot write well.
        language_sft: Sparse language fine-tuning for the teacher of phase 1, LANG=FOLDER; not used in phase 2.
        include_path: Folder with your own languages/, tasks/ and arch/ TOML files.
        text: Text of a language, LANG=PATH: as `polydistill trim` takes it. [default: the language's corpus on the Hub]
        task: Distil this task too: ner, nli, qa, ... (see `polydistill ls tasks`), or `embedding` for vectors of sentences. [default: phase 1 alone]
        teacher: Model tuned for the task, FOLDER or FOLDER=WEIGHT; repeat for several, such as one of each seed. The student's own past can be one (`polydistill ls teachers`). [default: made by `finetune`]
        combine: How several teachers become one: the mean of their probabilities or of their logits; balance, where those count more that the student is still far from; or partition, where each word or text follows the teacher that knows it best, if that is better than the student was at first.
        data_dir: Folder of local data, laid out as the task says. [default: $POLYDISTILL_DATA, else the Hub]
        train_split: Split to train on. Repeat to join several. [default: train]
        dev_split: Split that chooses the best checkpoint.
        data: Your own file in SOURCE to train on; its labels become the model's.
        dev_data: File that chooses the best checkpoint. [default: a tenth of the data, held out]
        limit: Use at most this many labelled examples, or lines of a text for vectors.
        dev_limit: Choose the checkpoint by at most this many dev examples. [default: `limit`, or the preset's]
        select: What chooses the checkpoint of phase 2: score (the task's own metric) or loyalty (how near the predictions are to the first teacher's, which tells checkpoints apart with fewer examples). [default: loyalty if the teacher's logits are an objective, else score]
        test_data: Your own file to score in a language.
        test_split: Split to score in a language, LANG=NAME; `none` for no score. [default: test]
        preset: Defaults of all options that follow: smoke (minutes), small (one to two hours) or paper.
        phase: Phases to run: 1, 2 or all.
        objective: What the student learns: NAME=WEIGHT, with options NAME=WEIGHT:KEY=VALUE, and 1:NAME=WEIGHT or 2:NAME=WEIGHT for one phase; `polydistill ls objectives` lists them. They replace the preset's.
        sampler: How often phase 1 sees each language: NAME, or NAME:KEY=VALUE; `polydistill ls samplers` lists them.
        scale: How terms of the loss are scaled: none, first (each divided by its first value) or teacher (each layer's error divided by the teacher's mean square).
        steps: Steps of phase 1.
        batch_size: Blocks a step of phase 1.
        max_length: Tokens of a block of phase 1.
        lr: Highest learning rate of phase 1.
        warmup: Share of phase 1's steps in which the learning rate rises.
        weight_decay: Weight decay of AdamW in phase 1.
        task_epochs: Epochs of phase 2 that train all parameters.
        task_sparse_epochs: Epochs of phase 2 that train only the chosen entries; 0 skips this stage.
        task_batch_size: Examples a step of phase 2.
        task_max_length: Most tokens of an input of phase 2.
        task_text: Share of phase 2's batches that are sentences of both languages' text, without labels: the student learns what the teacher makes of them. An epoch still goes once through the labelled data. 0 for none.
        task_lr: Highest learning rate of phase 2.
        task_warmup: Share of each stage's steps in which the learning rate rises.
        task_weight_decay: Weight decay of AdamW in phase 2.
        task_sampler: Which of the labelled examples each epoch of phase 2 uses: NAME, or NAME:KEY=VALUE; `polydistill ls samplers` lists them. [default: all]
        task_augment: Change some batches of phase 2 and ask the teacher about what comes out: NAME, or NAME:KEY=VALUE; `polydistill ls augmentations` lists them. Repeat for several.
        task_augment_share: Share of the batches that are changed.
        task_head: The student's head at first: teacher, a copy of the teacher's, or new, as in BiStil.
        teacher_epochs: Epochs of the task's teacher, if it is made here.
        teacher_lr: Highest learning rate of the task's teacher.
        density: Share of the base model's parameters that the sparse stage trains.
        cache_gb: Keep the teacher's signals of labelled data on disk if they take at most this much; signals unused for a day make room. 0 keeps none.
        precision: Precision of matrix products: float32, bfloat16, or auto for the faster one, measured in a few steps.
        seed: Seed for data order, masking, dropout and a new head.
        accumulate: Split each step's batch into this many parts: less memory.
        resume: Continue a run that was stopped.
        output: Folder to write. [default: polydistill-out/ and a name made of model, languages and task]
        overwrite: Replace the output folder if it exists.
        max_minutes: Stop training after so long, shared between the stages, and finish with what was learnt.
        device: Where to compute: cpu, cuda, mps, or auto for a GPU if there is one (CUDA_VISIBLE_DEVICES says which).
        progress: Where to report; silent by default.

    Returns:
        What was done; `result.output` is the new folder.

    Raises:
        PolydistillError: The message says what is wrong and the way out.
    """

def embed(
    model: str | Path,
    texts: Sequence[str],
    *,
    language: str | None = None,
    long: Literal['window', 'refuse'] = 'window',
    batch_size: int = 32,
    precision: Literal['auto', 'float32', 'bfloat16'] = 'float32',
    device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto',
    include_path: Sequence[str | Path] | str | Path = (),
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = ...,
) -> np.ndarray:
    """Make vectors of texts with a stack.

    Args:
        model: See above.
        language: Language of the texts, where the encoder has to know it: its own code, such as swh_Latn, or any name.
        long: A text longer than the stack takes: window (the mean of its pieces) or refuse.
        batch_size: Inputs at once.
        precision: Precision of matrix products: float32, bfloat16, or auto for the faster one, measured on one product.
        device: Where to compute: cpu, cuda, mps, or auto for a GPU if there is one (CUDA_VISIBLE_DEVICES says which).
        include_path: Folder with your own languages/ TOML files.
        output: Write the vectors here. [default: standard output]
        overwrite: Replace that file if it exists.
        texts: Texts in one language.
        progress: Where to report; silent by default.

    Returns:
        (n, H) float32.

    Raises:
        PolydistillError: The message says what is wrong and the way out.
    """

def evaluate(
    model: Sequence[str | Path] | str | Path = (),
    *,
    teacher: str | Path | None = None,
    task: str = '',
    languages: Sequence[str] | str = (),
    split: str = 'test',
    data_dir: str | Path | None = None,
    data: str | Path | Iterable[Any] | Mapping[str, Sequence[Any]] | None = None,
    limit: int | None = None,
    g_xlt: bool = False,
    batch_size: int = 32,
    max_length: int | None = None,
    precision: Literal['auto', 'float32', 'bfloat16'] = 'float32',
    device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto',
    latency: bool = False,
    prompt: str | None = None,
    seed: int = 0,
    fresh: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    include_path: Sequence[str | Path] | str | Path = (),
    progress: Progress = ...,
) -> Evaluation:
    """Score models on a task in some languages.

    What was predicted before is read from the cache. The scores also go into the records of the models.

    Args:
        model: Folder, org/name or org/name@revision. Repeat for several.
        teacher: Model that the others descend from: scored too, and their loyalty to it is measured.
        task: What to score; `polydistill ls tasks` lists them.
        languages: Language of the data. Repeat for several.
        split: Which part of the data.
        data_dir: Folder of local data, laid out as the task says. [default: $POLYDISTILL_DATA, else the Hub]
        data: Your own file, with your own labels: words and tags, or texts and labels.
        limit: Score only the first examples of each language; such scores do not go into records.
        g_xlt: Ask each language's questions about every language's paragraphs (questions and answers).
        batch_size: Inputs at once; the scores do not depend on it.
        max_length: Most tokens of an input; longer sentences and paragraphs are windowed. [default: 512, for questions 384, or the model's own limit]
        precision: Precision of matrix products: float32, bfloat16, or auto for the faster one, measured on one product.
        device: Where to compute: cpu, cuda, mps, or auto for a GPU if there is one (CUDA_VISIBLE_DEVICES says which).
        latency: Measure time and memory as well, in fresh processes in which the models take turns.
        prompt: Text put before every sentence (retrieval and similarity), e.g. 'query: '. [default: the model's own]
        seed: Of the bootstrap intervals.
        fresh: Predict again what was predicted before.
        output: Write the scores to this file too, for `polydistill compare`.
        overwrite: Replace that file if it exists.
        include_path: Folder with your own languages/, tasks/ and arch/ TOML files.
        progress: Where to report; silent by default.

    Returns:
        Scores from 0 to 1 with 95% intervals.

    Raises:
        PolydistillError: The message says what is wrong and the way out.
    """

def export(
    model: str | Path,
    *,
    int8: bool = False,
    text: Sequence[str | Path] | str | Path = (),
    task: str = '',
    languages: Sequence[str] | str = (),
    split: str = 'test',
    data_dir: str | Path | None = None,
    data: str | Path | None = None,
    limit: int | None = None,
    max_length: int | None = None,
    prompt: str | None = None,
    seed: int = 0,
    include_path: Sequence[str | Path] | str | Path = (),
    resume: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = ...,
) -> Result:
    """Write a model as ONNX files, checked against torch.

    ONNX files run without torch: in a browser, on a phone, in onnxruntime. The file must give torch's outputs, or nothing
    is written. Sizes, times and, with `task`, scores of torch and of the files are measured side by side.

    Args:
        model: See above.
        int8: Write a second file with weights of 8 bits.
        text: Text to compare the files with torch on. Repeat for several. [default: the task's data, else sentences of the package]
        task: Score torch and the files on a task.
        languages: Language of the task's data. Repeat for several.
        split: Which part of the data.
        data_dir: Folder of local data, laid out as the task says. [default: $POLYDISTILL_DATA, else the Hub]
        data: A file of your own, as `evaluate` reads it.
        limit: Score only the first examples of each language; such scores are not among the record's.
        max_length: Most tokens of an input that is scored. [default: as `evaluate` has it]
        prompt: Text put before every sentence (retrieval and similarity). [default: the model's own]
        seed: Seed for the bootstrap intervals.
        include_path: Folder with your own languages/, tasks/ and arch/ TOML files.
        resume: Continue a run that was stopped.
        output: Folder to write. [default: polydistill-out/ and a name made of model, languages and task]
        overwrite: Replace the output folder if it exists.
        progress: Where to report; silent by default.

    Returns:
        What was done; `result.output` is the new folder.

    Raises:
        PolydistillError: The message says what is wrong and the way out.
    """

def finetune(
    model: str | Path = 'intfloat/multilingual-e5-small',
    *,
    freeze_embeddings: bool = False,
    freeze_layers: int = 0,
    include_path: Sequence[str | Path] | str | Path = (),
    task: str = '',
    languages: Sequence[str] | str = (),
    data_dir: str | Path | None = None,
    train_split: Sequence[str] | str = (),
    dev_split: str = 'dev',
    data: str | Path | Iterable[Any] | Mapping[str, Sequence[Any]] | None = None,
    dev_data: str | Path | Iterable[Any] | Mapping[str, Sequence[Any]] | None = None,
    limit: int | None = None,
    cross_questions: bool = False,
    objective: Sequence[str] | str = (),
    teacher: Sequence[str] | str = (),
    epochs: float | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    warmup: float = 0.06,
    weight_decay: float = 0.01,
    checks: int = 2,
    patience: int = 4,
    precision: Literal['auto', 'float32', 'bfloat16'] = 'float32',
    seed: int = 0,
    accumulate: int = 1,
    resume: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    max_minutes: float | None = None,
    device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto',
    progress: Progress = ...,
) -> Result:
    """Tune a model for a task on a source language.

    The checkpoint with the best dev score is kept. A head that the model already has is reused: its labels are matched with
    the task's by name, and those that are new or dropped are listed. After Ctrl-C or a kill the same command with `resume`
    continues, with the same losses.

    Args:
        model: Folder, org/name or org/name@revision.
        freeze_embeddings: Do not train the word embeddings: faster, and takes far less memory.
        freeze_layers: Do not train the lowest N layers, nor the word embeddings; other languages often keep more of the task.
        include_path: Folder with your own languages/, tasks/ and arch/ TOML files.
        task: What to tune for; `polydistill ls tasks` lists the tasks.
        languages: Language of the training and dev data. Repeat for several.
        data_dir: Folder of local data, laid out as the task says. [default: $POLYDISTILL_DATA, else the Hub]
        train_split: Split to train on. Repeat to join several. [default: train]
        dev_split: Split that chooses the best checkpoint.
        data: Your own file to train on, in place of a split; its labels become the model's.
        dev_data: File that chooses the best checkpoint. [default: a tenth of the data, held out]
        limit: Use at most this many examples of each split.
        cross_questions: Ask the questions of every language about the contexts of every language; the data have to be translations with the same ids, such as XQuAD.
        objective: What the model learns: NAME=WEIGHT, with options NAME=WEIGHT:KEY=VALUE; `polydistill ls objectives` lists them. [default: labels=1]
        teacher: The model's own past as a teacher whose logits are an objective: past or average; see `polydistill ls teachers`.
        epochs: Passes over the training data. [default: 3]
        lr: Highest learning rate. [default: 5e-5]
        batch_size: Examples a step. [default: 32 for classification, otherwise 16]
        max_length: Most tokens of an input; longer inputs are windowed, texts to classify are cut. [default: 128 for classification, 256 for tagging, 384 for questions]
        warmup: Share of the steps in which the learning rate rises.
        weight_decay: Weight decay of AdamW.
        checks: Dev scores and checkpoints an epoch.
        patience: Stop after this many checks without a better dev score; 0 never stops early.
        precision: Precision of matrix products: float32, bfloat16, or auto for the faster one, measured in a few steps.
        seed: Seed for data order, masking, dropout and a new head.
        accumulate: Split each step's batch into this many parts: less memory.
        resume: Continue a run that was stopped.
        output: Folder to write. [default: polydistill-out/ and a name made of model, languages and task]
        overwrite: Replace the output folder if it exists.
        max_minutes: Stop training after so long, shared between the stages, and finish with what was learnt.
        device: Where to compute: cpu, cuda, mps, or auto for a GPU if there is one (CUDA_VISIBLE_DEVICES says which).
        progress: Where to report; silent by default.

    Returns:
        What was done; `result.output` is the new folder.

    Raises:
        PolydistillError: The message says what is wrong and the way out.
    """

def project(
    source: str,
    target: str,
    model: str | Path | None = None,
    *,
    parallel: str | Path | None = None,
    teacher: str | Path = '',
    student_from: Literal['encoder', 'teacher'] = 'encoder',
    include_path: Sequence[str | Path] | str | Path = (),
    task: str = 'ner',
    leave_out: Sequence[str] | str = (),
    text: Sequence[str | Path] | str | Path = (),
    data_dir: str | Path | None = None,
    dev_split: str = 'dev',
    test_split: Sequence[str] | str = (),
    limit: int | None = None,
    objective: Sequence[str] | str = (),
    aligner: str | Path | None = None,
    layer: int | None = None,
    confidence: float = 0.5,
    epochs: float = 3.0,
    batch_size: int = 16,
    max_length: int = 128,
    lr: float = 0.0001,
    freeze_embeddings: bool = False,
    freeze_layers: int = 0,
    dev_tolerance: float = 0.01,
    cache_gb: float = 4.0,
    precision: Literal['auto', 'float32', 'bfloat16'] = 'float32',
    seed: int = 0,
    resume: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    max_minutes: float | None = None,
    device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto',
    progress: Progress = ...,
) -> Result:
    """Make a tagger from labels that translations carry over.

    A tagger of the SOURCE language tags one side of a parallel text. Its words are aligned with those of the translation by
    the hidden states of a multilingual encoder, without training, and the tags of entities that align fully go along. A
    student then learns these labels of the TARGET language and, beside them, the teacher's own probabilities. No label of
    the target that anybody made is read. A run that was stopped continues with `resume`.

    Args:
        source: See above.
        target: See above.
        parallel: Needed: sentences and their translations, a pair a line: source, tab, target and, if you like, tab, origin.
        teacher: Needed: a model tuned on the source's labels.
        model: What the student begins with: folder, org/name or org/name@revision, with the teacher's vocabulary. [default: intfloat/multilingual-e5-small]
        student_from: What the student begins with: encoder, which is `model`; or teacher, a copy of the teacher.
        include_path: Folder with your own languages/, tasks/ and arch/ TOML files.
        task: A task with tags; see `polydistill ls tasks`.
        leave_out: Origin of rows of `parallel` that are not read. Repeat for several.
        text: More text of the target language, one sentence a line, from which the student learns the teacher's probabilities.
        data_dir: Folder of local data, laid out as the task says. [default: $POLYDISTILL_DATA, else the Hub]
        dev_split: Split of the source that chooses checkpoints.
        test_split: Split to score in a language, LANG=NAME; `none` for no score. [default: test]
        limit: Use at most this many pairs, lines of text and dev sentences.
        objective: What the student learns: NAME=WEIGHT; `polydistill ls objectives` lists them. [default: labels=1 and probabilities=1]
        aligner: Encoder whose hidden states align words. [default: `model`]
        layer: Its layer, counted from 1. [default: two thirds of the way up]
        confidence: Keep a sentence only if the teacher gives every word of its entities at least this probability.
        epochs: Passes over the sentences.
        batch_size: Sentences a step.
        max_length: Most tokens of an input.
        lr: Highest learning rate.
        freeze_embeddings: Do not train the word embeddings: faster, and takes far less memory.
        freeze_layers: Do not train the lowest N layers, nor word embeddings.
        dev_tolerance: The last checkpoint is kept whose dev score is at most this much below the best; 0 keeps the best.
        cache_gb: Keep the teacher's outputs for the target's sentences on disk if they take at most this much.
        precision: Precision of matrix products: float32, bfloat16, or auto for the faster one, measured in a few steps.
        seed: Seed for data order, masking, dropout and a new head.
        resume: Continue a run that was stopped.
        output: Folder to write. [default: polydistill-out/ and a name made of model, languages and task]
        overwrite: Replace the output folder if it exists.
        max_minutes: Stop training after so long, shared between the stages, and finish with what was learnt.
        device: Where to compute: cpu, cuda, mps, or auto for a GPU if there is one (CUDA_VISIBLE_DEVICES says which).
        progress: Where to report; silent by default.

    Returns:
        What was done; `result.output` is the new folder.

    Raises:
        PolydistillError: The message says what is wrong and the way out.
    """

def prokd(
    source: str,
    target: str,
    model: str | Path | None = None,
    *,
    teacher: Sequence[str | Path] | str | Path = (),
    student_from: Literal['encoder', 'teacher'] = 'encoder',
    freeze_embeddings: bool = False,
    freeze_layers: int | None = None,
    include_path: Sequence[str | Path] | str | Path = (),
    task: str = 'ner',
    sources: Sequence[str] | str = (),
    data_dir: str | Path | None = None,
    text: Sequence[str | Path] | str | Path = (),
    unlabelled_split: str | None = None,
    train_split: Sequence[str] | str = (),
    dev_split: Sequence[str] | str = (),
    test_split: Sequence[str] | str = (),
    limit: int | None = None,
    method: Literal['prokd', 'tsl', 'selftrain', 'transfer'] = 'prokd',
    objective: Sequence[str] | str = (),
    classes: Literal['type', 'tag'] = 'type',
    layer: int | None = None,
    tokens: Literal['first', 'all'] = 'first',
    combine: Literal['probabilities', 'logits', 'balance', 'partition'] = 'probabilities',
    weigh: Literal['equal', 'similarity'] = 'equal',
    weigh_temperature: float = 0.1,
    preset: Literal['smoke', 'small', 'paper'] = 'small',
    teacher_epochs: float | None = None,
    teacher_lr: float | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    lr: float | None = None,
    rounds: int = 1,
    dev_tolerance: float = 0.01,
    cache_gb: float = 4.0,
    precision: Literal['auto', 'float32', 'bfloat16'] = 'float32',
    seed: int = 0,
    resume: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    max_minutes: float | None = None,
    device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto',
    progress: Progress = ...,
) -> Result:
    """Make a tagger for a language without a single label.

    A teacher is tuned on labels of the SOURCE language while the classes' prototypes in both languages are aligned. A
    student then learns from it on sentences of the TARGET language, whose tags are never read: the teacher's probabilities,
    and its labels after prototypes have rectified them. This is a reconstruction of ProKD: the paper's code is not public,
    and every choice that the paper leaves open is an option. A run that was stopped continues with `resume`.

    Args:
        source: See above.
        target: See above.
        model: What the teacher is tuned from, and what the student begins with: folder, org/name or org/name@revision. [default: intfloat/multilingual-e5-small]
        teacher: Model tuned on a source's labels; once for each source, or several for a single source, such as one of each seed. It stays as it is unless `teacher_epochs` is given. [default: made here]
        student_from: What the student begins with: encoder, which is `model`, as in TSL; or teacher, a copy of the teacher, which is self-distillation.
        freeze_embeddings: Do not train the word embeddings: faster, and takes far less memory.
        freeze_layers: Do not train the lowest N layers, nor word embeddings. [default: 0; paper 3]
        include_path: Folder with your own languages/, tasks/ and arch/ TOML files.
        task: A task with tags; see `polydistill ls tasks`.
        sources: Another language with labels. Repeat for several.
        data_dir: Folder of local data, laid out as the task says. [default: $POLYDISTILL_DATA, else the Hub]
        text: Text of the target language, one sentence a line, in place of its training split, or beside `unlabelled_split`.
        unlabelled_split: Split of the target whose sentences are used, without their tags. [default: train, unless there is `text`]
        train_split: Split of the sources to train on, or LANG=NAME for one of them. Repeat to join several. [default: train]
        dev_split: Split of the sources that chooses checkpoints, or LANG=NAME for one of them. [default: dev]
        test_split: Split to score in a language, LANG=NAME; `none` for no score. [default: test]
        limit: Use at most this many sentences of each split.
        method: prokd; tsl (the student learns the teacher's probabilities alone), selftrain (and its labels, without prototypes), or transfer (the teacher as it is).
        objective: What teacher or student learns: NAME=WEIGHT, with options NAME=WEIGHT:KEY=VALUE; `polydistill ls objectives` lists them. Those of the student replace the method's.
        classes: One prototype for each entity type, or for each BIO tag.
        layer: Layer whose hidden states are the features, counted from 1. [default: the last]
        tokens: Tokens of a word that count for the teacher's prototypes: first or all.
        combine: How several teachers become one: the mean of their probabilities or of their logits; balance, where those count more that the student is still far from; or partition, where each word or text follows the teacher that knows it best, if that is better than the student was at first.
        weigh: Weights of several teachers: equal, or similarity of their prototypes.
        weigh_temperature: Temperature of weights by similarity.
        preset: Defaults of the options that follow: smoke (a first try), small (for a CPU) or paper (as TSL).
        teacher_epochs: Passes over the sources' sentences. [default: 2; smoke 1; paper 3]
        teacher_lr: Highest learning rate of the teacher. [default: 0.0002; paper 5e-05]
        epochs: Passes over the target's sentences. [default: 3; smoke 1]
        batch_size: Sentences a step; of each language where prototypes are aligned. [default: 16; paper 32]
        max_length: Most tokens of an input. [default: 128]
        lr: Highest learning rate of the student. [default: 0.0001]
        rounds: Students that are made one after the other; each after the first learns from the one before.
        dev_tolerance: Of the student's checkpoints, the last one is kept whose dev score is at most this much below the best: dev data of a source can tell that its tags get lost, and not which of two students knows the target better. 0 keeps the best.
        cache_gb: Keep the teacher's outputs for the target's sentences on disk if they take at most this much.
        precision: Precision of matrix products: float32, bfloat16, or auto for the faster one, measured in a few steps.
        seed: Seed for data order, masking, dropout and a new head.
        resume: Continue a run that was stopped.
        output: Folder to write. [default: polydistill-out/ and a name made of model, languages and task]
        overwrite: Replace the output folder if it exists.
        max_minutes: Stop training after so long, shared between the stages, and finish with what was learnt.
        device: Where to compute: cpu, cuda, mps, or auto for a GPU if there is one (CUDA_VISIBLE_DEVICES says which).
        progress: Where to report; silent by default.

    Returns:
        What was done; `result.output` is the new folder.

    Raises:
        PolydistillError: The message says what is wrong and the way out.
    """

def publish(
    folder: str | Path,
    repository: str,
    *,
    private: bool = False,
    revision: str = 'main',
    license: str | None = None,
    card: str | None = None,
    onnx: bool = False,
    int8: bool = False,
    verify: bool = True,
    dry_run: bool = False,
    progress: Progress = ...,
) -> Published:
    """Publish a folder on the Hub in one commit, without asking.

    Args:
        folder: See above.
        repository: See above.
        private: Make a new repository private; one that exists stays as it is.
        revision: Branch to commit to, created if it is missing.
        license: Licence identifier, if no model of the lineage states one.
        card: record: a new card. folder: the folder's README.md. hub: keep the Hub's. [default: record, or folder if its README.md was edited by hand; stops if the Hub's was]
        onnx: Make ONNX files of the model first and send them too.
        int8: With `onnx`: also one with 8-bit weights.
        verify: First load what would be sent and compute with it.
        dry_run: List files, sizes and the card; send nothing, load nothing (except with `onnx`), need no token.
        progress: Where to report; silent by default.

    Returns:
        What was published, or would be.

    Raises:
        PolydistillError: The message says what is wrong and the way out.
    """

def sparse_train(
    model: str | Path = 'intfloat/multilingual-e5-small',
    *,
    density: float = 0.043,
    include_path: Sequence[str | Path] | str | Path = (),
    language: str = '',
    text: Sequence[str | Path] | str | Path = (),
    steps: int | None = None,
    epochs: float | None = None,
    lr: float = 5e-05,
    batch_size: int = 8,
    max_length: int = 256,
    warmup: float = 0.06,
    precision: Literal['auto', 'float32', 'bfloat16'] = 'float32',
    seed: int = 0,
    accumulate: int = 1,
    resume: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    max_minutes: float | None = None,
    device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto',
    progress: Progress = ...,
) -> Result:
    """Tune a few weights of a model to a language.

    It learns masked tokens so that only a share of its weights differs (LT-SFT): first everything is trained; then, from
    the beginning again, the weights that moved furthest. The result also goes into `polydistill bistil` as
    `language_sft`. A run that was stopped continues with `resume`.

    Args:
        model: Folder, org/name or org/name@revision.
        density: Share of the model's parameters that changes.
        include_path: Folder with your own languages/, tasks/ and arch/ TOML files.
        language: The language.
        text: Text of it, as `polydistill trim` takes it. Repeat for several. [default: the language's corpus on the Hub]
        steps: Steps of each of the two stages. [default: 1500]
        epochs: Passes over the text in each stage, in place of `steps`.
        lr: Highest learning rate.
        batch_size: Blocks a step.
        max_length: Tokens of a block.
        warmup: Share of the steps in which the learning rate rises.
        precision: Precision of matrix products: float32, bfloat16, or auto for the faster one, measured in a few steps.
        seed: Seed for data order, masking, dropout and a new head.
        accumulate: Split each step's batch into this many parts: less memory.
        resume: Continue a run that was stopped.
        output: Folder to write. [default: polydistill-out/ and a name made of model, languages and task]
        overwrite: Replace the output folder if it exists.
        max_minutes: Stop training after so long, shared between the stages, and finish with what was learnt.
        device: Where to compute: cpu, cuda, mps, or auto for a GPU if there is one (CUDA_VISIBLE_DEVICES says which).
        progress: Where to report; silent by default.

    Returns:
        What was done; `result.output` is the new folder.

    Raises:
        PolydistillError: The message says what is wrong and the way out.
    """

def stack(
    encoder: str | Path,
    llm: str | Path,
    *,
    phase: Literal['1', '2', 'all'] = 'all',
    init: Literal['least-squares', 'random'] = 'least-squares',
    lora_r: int = 16,
    lora_alpha: int = 32,
    lora_dropout: float = 0.05,
    pooling: Literal['mean', 'first', 'last'] = 'mean',
    baseline: Literal['linear'] | None = None,
    stack: str | Path | None = None,
    text: Sequence[str | Path] | str | Path = (),
    task: str = '',
    teacher: str | Path | None = None,
    data_dir: str | Path | None = None,
    train_split: Sequence[str] | str = (),
    dev_split: str = 'dev',
    test_split: str = 'test',
    languages: Sequence[str] | str = (),
    limit: int | None = None,
    preset: Literal['smoke', 'small', 'paper'] = 'small',
    steps: int | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    lr: float | None = None,
    fit_lines: int | None = None,
    teacher_epochs: float | None = None,
    teacher_lr: float | None = None,
    task_epochs: float | None = None,
    task_lr: float | None = None,
    task_batch_size: int | None = None,
    task_max_length: int | None = None,
    frozen: Literal['float32', 'bfloat16', 'int8'] = 'float32',
    checkpointing: bool = False,
    precision: Literal['auto', 'float32', 'bfloat16'] = 'float32',
    seed: int = 0,
    include_path: Sequence[str | Path] | str | Path = (),
    whole: bool = False,
    resume: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    max_minutes: float | None = None,
    device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto',
    progress: Progress = ...,
) -> Result:
    """Give an English LLM the languages of a multilingual encoder.

    The text goes through the frozen ENCODER, one linear layer, and the LLM, which reads it in both directions with low-rank
    updates of its weights (MT-LLM). Phase 1 needs plain English text: the stack's vectors become those that the LLM has of
    the same text. Phase 2 does so with an LLM that has learnt a task from English labels. A run that was stopped goes on
    with `resume`.

    Args:
        encoder: See above.
        llm: See above.
        phase: Phases to run: 1 (plain text), 2 (a task) or all; without `task`, phase 1 alone.
        init: How the projection starts: least-squares, from the encoder's mean states to the LLM's mean input embeddings, or random.
        lora_r: Rank of the LLM's low-rank updates.
        lora_alpha: Scale of the low-rank updates: they are multiplied by alpha / r.
        lora_dropout: Dropout before the low-rank updates.
        pooling: How the LLM's states become a vector: mean, first or last.
        baseline: linear: no stack but the best linear map from the encoder's vectors to the LLM's, to compare with.
        stack: Continue from this stack of phase 1, with the same two models.
        text: English text of phase 1, a sentence a line: file, folder, glob or org/name on the Hub, with #COLUMN for tables. Repeat for several. [default: the Hub's]
        task: What phase 2 learns: a task of pairs of texts, such as nli.
        teacher: The LLM that has learnt the task: stages/teacher of an earlier run. [default: made here]
        data_dir: Folder of local data, laid out as the task says. [default: $POLYDISTILL_DATA, else the Hub]
        train_split: English split to train on. Repeat to join several. [default: train]
        dev_split: English split that chooses checkpoints.
        test_split: Split to score.
        languages: Language to score in. Repeat for several. [default: en]
        limit: Use at most this many English examples of each split to train on and to choose by.
        preset: Defaults of the options that follow: smoke (a first try), small (for a CPU) or paper.
        steps: Steps of phase 1.
        batch_size: Texts a step of phase 1.
        max_length: Most tokens of a text in phase 1.
        lr: Highest learning rate of phase 1.
        fit_lines: Texts that the projection is fitted on.
        teacher_epochs: Epochs in which the LLM learns the task.
        teacher_lr: Highest learning rate of the LLM on the task.
        task_epochs: Epochs of phase 2.
        task_lr: Highest learning rate of phase 2.
        task_batch_size: Examples a step of phase 2 and of the LLM's training on the task.
        task_max_length: Most tokens of a pair of texts.
        frozen: Precision of the weights that are not trained: float32, bfloat16 or int8 (needs polydistill[int8]).
        checkpointing: Compute the LLM's activations again in the backward pass: less memory, more time.
        precision: Precision of matrix products: float32, bfloat16, or auto for the faster one, measured in a few steps.
        seed: Seed for data order, masking, dropout and a new head.
        include_path: Folder with your own languages/, tasks/ and arch/ TOML files.
        whole: Write both models into the folder, LoRA merged and the LLM without its embedding matrix; otherwise the folder refers to them.
        resume: Continue a run that was stopped.
        output: Folder to write. [default: polydistill-out/ and a name made of model, languages and task]
        overwrite: Replace the output folder if it exists.
        max_minutes: Stop training after so long, shared between the stages, and finish with what was learnt.
        device: Where to compute: cpu, cuda, mps, or auto for a GPU if there is one (CUDA_VISIBLE_DEVICES says which).
        progress: Where to report; silent by default.

    Returns:
        What was done; `result.output` is the new folder.

    Raises:
        PolydistillError: The message says what is wrong and the way out.
    """

def trim(
    model: str | Path = 'intfloat/multilingual-e5-small',
    *,
    languages: Sequence[str] | str = (),
    text: Sequence[str | Path] | str | Path = (),
    limit: int | None = None,
    weight: Sequence[str] | str = (),
    word_list: bool = False,
    counts: Sequence[str | Path] | str | Path = (),
    save_counts: str | Path | None = None,
    coverage: float | None = None,
    vocab_size: int | None = None,
    min_count: int | None = None,
    min_share: float | None = None,
    pad_to_multiple: int = 1,
    dtype: Literal['keep', 'float32', 'bfloat16', 'float16'] = 'keep',
    keep_token: Sequence[str] | str = (),
    keep_file: str | Path | None = None,
    drop_added: Sequence[str] | str = (),
    verify_text: str | Path | None = None,
    verify: bool = True,
    dry_run: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    seed: int = 0,
    include_path: Sequence[str | Path] | str | Path = (),
    progress: Progress = ...,
) -> TrimResult:
    """Trim a model's vocabulary to some languages.

    Without `output` the new folder is in polydistill-out/, with a name made of the model and the languages.

    Args:
        model: Folder, org/name or org/name@revision.
        languages: Language to keep: any code or name, also with a script (sr-Latn). Repeat for several.
        text: Text of the language: txt, jsonl, csv, tsv or parquet (also .gz), a file, folder, glob, or a Hub data set org/name[:config][@revision][#column]. With several languages: LANG=PATH.
        limit: Read at most this many lines of each text.
        weight: How much a language counts with `vocab_size`, e.g. ro=2.
        word_list: Rank tokens by the language's wordfreq list too: keeps more of new text when the text is small.
        counts: Use counts made by `polydistill count` instead of text; shards add up.
        save_counts: Save the counts here.
        coverage: Keep the tokens that make up this share of each language's text. [default: 0.9999]
        vocab_size: Keep exactly this many tokens.
        min_count: Keep every token seen at least this often.
        min_share: Keep every token that makes up at least this share of a language's text.
        pad_to_multiple: Round the number of embedding rows up to a multiple.
        dtype: keep, float32, bfloat16 or float16.
        keep_token: A token that stays in any case.
        keep_file: File with one such token a line.
        drop_added: Drop added tokens that match a pattern, in which * and ? are wildcards; 'lang:*' drops the codes of languages that are not kept (NLLB, mBART), '<extra_id_*>' T5's sentinels, '<unused*>' Gemma's spare tokens.
        verify_text: Text to verify on. [default: lines of the text that were not counted]
        verify: Compare with the original model.
        dry_run: Print sizes and write nothing.
        output: Folder to write. [default: polydistill-out/<model>-<langs>]
        overwrite: Replace the output folder if it exists.
        seed: Of sampling and of the lines held out.
        include_path: Folder with your own languages/, tasks/ and arch/ TOML files.
        progress: Where to report; silent by default.

    Returns:
        Sizes, checks and notes; `result.output` is the new folder.

    Raises:
        PolydistillError: The message says what is wrong and the way out.
    """
