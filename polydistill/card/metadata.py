"""The YAML at the head of a card, written by the Hub's own library."""

from __future__ import annotations

import re

from polydistill.card.facts import BESIDE, Facts, told_of
from polydistill.card.quality import eval_results

# https://huggingface.co/docs/hub/repositories-licenses: what `license` can be; any other licence is `other` and a name.
LICENCES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1
lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1
openmdw-1.0 openrail openrail++ osl-3.0 pddl postgresql unlicense wtfpl zlib
"""
# What the Hub can list a model under; a model that translates or completes has no one name there.
_PIPELINES = (
    "token-classification",
    "text-classification",
    "question-answering",
    "fill-mask",
    "text-generation",
    "feature-extraction",
    "sentence-similarity",
)


def metadata(facts: Facts, licence: str | None) -> str:
    """The YAML block with its fences.

    Args:
        facts: Of the model.
        licence: Its licence, None if it is not known: then none is stated.
    """
    from huggingface_hub.repocard_data import ModelCardData

    results = eval_results(facts)
    known = licence is None or licence.lower() in LICENCES.split()
    data = ModelCardData(
        base_model=facts.base_models or None,
        language=list(dict.fromkeys(map(_without_script, facts.languages))) or None,
        license=(licence.lower() if licence else None) if known else "other",
        license_name=None if known else licence,
        license_link="LICENSE" if not known and "LICENSE" in facts.files else None,
        library_name=facts.library,
        pipeline_tag=facts.head if facts.head in _PIPELINES else None,
        tags=tags(facts),
        datasets=facts.datasets or None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=facts.name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _without_script(code: str) -> str:
    """`sr-Latn` -> `sr`: the Hub knows languages alone."""
    return re.sub("-[A-Z][a-z]{3}$", "", code)


def tags(facts: Facts) -> list[str]:
    """`polydistill` and what was done, newest first."""
    done = ["onnx"] if facts.newest.result.get(BESIDE) else []
    done += [told_of(step).tag for step in facts.lineage]
    return list(dict.fromkeys(["polydistill", *filter(None, done)]))
