"""All objectives, samplers, augmentations and teachers, a line each; without torch.

To add one, write its class in a file of its own and list it here; another package calls `OBJECTIVES.add(...)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from polydistill.errors import UsageError
from polydistill.options.settings import MOST
from polydistill.options.specs import Listed, Listing, Spec

# Where a spec can be used: command, and phase or training.
TEXT, TASK, TUNING = "bistil-1", "bistil-2", "finetune"
ALIGNED, UNLABELLED, STACKED, PROJECTED = "prokd-teacher", "prokd-student", "stack", "project"
BISTIL = {"1": TEXT, "2": TASK}  # phase -> use
BOTH = (TEXT, TASK)
LABELLED = (TASK, TUNING)
IMITATE = frozenset({"logits", "taid", "answers"})  # objectives that compare logits with a teacher's

_OF = "polydistill.distill"


def _objective(name: str, class_name: str, uses: tuple[str, ...], summary: str, source: str) -> Listed:
    return Listed(name, f"{_OF}.objectives.{name.replace('-', '_')}:{class_name}", summary, source, uses)


OBJECTIVES = Listing(
    "objective",
    (
        _objective("hidden", "HiddenStates", BOTH, "squared error of hidden states, layer by layer", "BiStil (2023)"),
        _objective(
            "attention", "AttentionProbabilities", BOTH, "squared error of attention probabilities", "BiStil (2023)"
        ),
        _objective(
            "scores", "AttentionScores", BOTH, "squared error of attention scores before the softmax", "TinyBERT (2020)"
        ),
        _objective(
            "relations",
            "Relations",
            BOTH,
            "KL of Q-Q, K-K and V-V relations of one layer; any width and heads",
            "MiniLMv2 (2021)",
        ),
        _objective(
            "mi-alpha",
            "MiAlpha",
            BOTH,
            "minus a bound of the mutual information of last hidden states, by trained critics; any width",
            "Distiller (2021)",
        ),
        _objective("cosine", "Cosine", BOTH, "1 - cosine of the last hidden states", "DistilBERT (2019)"),
        _objective("mlm", "MaskedTokens", (TEXT,), "cross-entropy of masked tokens, without a teacher", "BERT (2019)"),
        _objective(
            "logits",
            "Logits",
            (*LABELLED, UNLABELLED),
            "soft cross-entropy or another divergence of logits at a temperature",
            "Hinton et al. (2015), BiStil (2023)",
        ),
        _objective(
            "answers",
            "Answers",
            LABELLED,
            "KL of the places of answers, as strong as the teacher was right",
            "Carrino et al. (2023)",
        ),
        _objective(
            "taid",
            "Taid",
            (*LABELLED, UNLABELLED),
            "cross-entropy with a target that moves from student to teacher",
            "TAID (2025)",
        ),
        _objective(
            "labels",
            "HardLabels",
            (*LABELLED, STACKED, PROJECTED),
            "cross-entropy with gold labels, without a teacher",
            "-",
        ),
        _objective(
            "ps-kd",
            "PsKd",
            LABELLED,
            "cross-entropy with gold labels and the model's own past, without a teacher",
            "PS-KD (2021)",
        ),
        _objective(
            "pooled", "PooledVectors", (TASK,), "1 - cosine of the vectors of whole texts", "Reimers, Gurevych (2020)"
        ),
        _objective(
            "probabilities",
            "Probabilities",
            (UNLABELLED, PROJECTED),
            "squared error of probabilities of tags",
            "TSL (2020)",
        ),
        _objective(
            "pseudo-labels",
            "PseudoLabels",
            (UNLABELLED,),
            "cross-entropy with the teacher's tags, rectified by prototypes",
            "ProKD (2023)",
        ),
        _objective(
            "alignment",
            "PrototypeAlignment",
            (ALIGNED,),
            "contrast of both languages' prototypes, without a teacher",
            "ProKD (2023)",
        ),
        _objective("vectors", "Vectors", (STACKED,), "share of the variance of vectors that is left", "MT-LLM (2024)"),
    ),
)

SAMPLERS = Listing(
    "sampler",
    (
        Listed("even", f"{_OF}.samplers.even:Even", "all languages alike", "BiStil (2023)", (TEXT,)),
        Listed(
            "size", f"{_OF}.samplers.size:Size", "by the size of each text, raised to a power", "XLM-R (2020)", (TEXT,)
        ),
        Listed(
            "ddk",
            f"{_OF}.samplers.ddk:Ddk",
            "more of the language in which the student is further behind",
            "DDK (2024)",
            (TEXT,),
        ),
        Listed("rs2", f"{_OF}.samplers.rs2:Rs2", "a new random part of the examples each epoch", "RS2 (2024)", (TASK,)),
        Listed(
            "difference",
            f"{_OF}.samplers.difference:Difference",
            "the examples on which the student is furthest behind the teacher",
            "MiniPLM (2025)",
            (TASK,),
        ),
        Listed(
            "active",
            f"{_OF}.samplers.active:Active",
            "examples that the student is unsure of, robust against a teacher that errs",
            "RAD (2023)",
            (TASK,),
        ),
    ),
    weighted=False,
)


def sampler(given: str, use: str) -> Spec:
    """A sampler of one training.

    Args:
        given: `NAME:key=value`.
        use: The training.

    Raises:
        UsageError: It is unknown, cannot be used there, or has an option that is wrong.
    """
    spec = SAMPLERS.parse(given)
    if use not in SAMPLERS.find(spec.name).uses:
        able = ", ".join(one.name for one in SAMPLERS if use in one.uses)
        raise UsageError(f"The sampler `{spec.name}` cannot be used there.", f"There are {able}.")
    return spec


AUGMENTATIONS = Listing(
    "augmentation",
    (
        Listed(
            "words",
            f"{_OF}.augmentation.words:Words",
            "words left out, and neighbours that change places",
            "EDA (2019)",
            (TASK,),
        ),
        Listed(
            "mixup",
            f"{_OF}.augmentation.mixup:Mixup",
            "word embeddings of two texts mixed; classes and vectors alone",
            "Zhang et al. (2018), Distiller (2021)",
            (TASK,),
        ),
        Listed(
            "hard",
            f"{_OF}.augmentation.hard:Hard",
            "of several changes the one on which student and teacher differ most",
            "HARD (2024)",
            (TASK,),
        ),
        Listed(
            "contextual",
            f"{_OF}.augmentation.contextual:Contextual",
            "tokens drawn again by a masked language model",
            "Wu et al. (2019), Distiller (2021)",
            (TASK,),
        ),
    ),
    weighted=False,
)

FOLDER, PAST, AVERAGE = "FOLDER", "past", "average"
TEACHERS = Listing(
    "teacher",
    (
        Listed(FOLDER, "", "a tuned model: folder, org/name or org/name@revision", "Hinton et al. (2015)", (TASK,)),
        Listed(
            PAST,
            f"{_OF}.teachers.past:PastStudent",
            "the student as it was when the epoch began",
            "Carrino et al. (2023)",
            LABELLED,
        ),
        Listed(
            AVERAGE,
            f"{_OF}.teachers.average:AverageStudent",
            "the moving average of the student's weights",
            "Mean Teacher (2017)",
            LABELLED,
        ),
    ),
)


def objectives(given: Iterable[str], use: str, phases: Mapping[str, str] | None = None) -> dict[str, Spec]:
    """The objectives of one training out of what was given for all trainings of a command.

    Args:
        given: `NAME=WEIGHT:key=value` goes to every training in which the objective can be used, `PHASE:NAME=WEIGHT...`
            to that one, where it wins; a later one wins over an earlier one. The weight 0 turns an objective off.
        use: The training.
        phases: Phase -> its use; None where the command has no phases.

    Returns:
        Name -> spec, in the order given.

    Raises:
        UsageError: One is unknown, cannot be used in its phase or with this command, or has an option that is wrong.
    """
    phases = phases or {}
    everywhere: dict[str, Spec] = {}
    here: dict[str, Spec] = {}
    command = use.partition("-")[0]
    for text in given:
        prefix, _, rest = (part.strip() for part in text.partition(":"))
        only = phases.get(prefix)
        spec = OBJECTIVES.parse(rest if only else text)
        uses = OBJECTIVES.find(spec.name).uses
        if only and only not in uses:
            able = [phase for phase, one in phases.items() if one in uses]
            raise UsageError(
                f"The objective `{spec.name}` cannot be used in phase {prefix}.",
                f"It can be used in phase {' and '.join(able)}." if able else f"It is for {', '.join(uses)}.",
            )
        if not any(one.partition("-")[0] == command for one in uses):
            raise UsageError(
                f"The objective `{spec.name}` cannot be used in `polydistill {command}`.",
                f"It is for {', '.join(uses)}.",
            )
        if only == use:
            here[spec.name] = spec
        elif not only and use in uses:
            everywhere[spec.name] = spec
    return {**everywhere, **here}


def teachers(given: Iterable[str], use: str) -> tuple[list[tuple[str, float]], list[Spec]]:
    """(folders of tuned models with their weights, teachers that are the student's own past).

    Args:
        given: `FOLDER`, `FOLDER=WEIGHT`, or `NAME=WEIGHT:key=value` for the student's own past.
        use: The training.

    Raises:
        UsageError: A weight or an option is wrong, or a teacher cannot be used there.
    """
    folders, own = [], []
    for text in given:
        name = text.partition(":")[0].partition("=")[0].strip()
        if name not in (PAST, AVERAGE):
            folders.append(_weighted(text))
            continue
        spec = TEACHERS.parse(text)
        if use not in TEACHERS.find(spec.name).uses:
            raise UsageError(f"The teacher `{spec.name}` cannot be used here.", "Leave it out.")
        own.append(spec)
    return folders, own


def _weighted(given: str) -> tuple[str, float]:
    """FOLDER=WEIGHT, or FOLDER alone."""
    name, equals, number = given.rpartition("=")
    try:
        weight = float(number) if equals else 1.0
    except ValueError:  # a folder with an equals sign in its name
        return given, 1.0
    if not 0 < weight <= MOST:
        raise UsageError(f"'{number}' is not a weight of the teacher {name}.", "Write FOLDER=2.")
    return (name if equals else given), weight
