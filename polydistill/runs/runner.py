"""Runs a method: its plan is checked, its stages are made, and the result is scored, recorded and put in its place."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from polydistill.card import write_card
from polydistill.devices import AUTO, current, using
from polydistill.errors import UsageError
from polydistill.files.outputs import check_output, new_folder
from polydistill.options.groups import Placed
from polydistill.processes import is_main, several
from polydistill.progress import SILENT, Progress
from polydistill.records.record import RunRecord, other_model, parent_of, peak_memory_bytes, source_facts, versions
from polydistill.runs.folder import work_folder
from polydistill.runs.method import Method
from polydistill.runs.plan import Plan, Scored
from polydistill.runs.result import Result
from polydistill.runs.stages import Done, Stages

Chosen = TypeVar("Chosen", bound=Placed)


def run(method: Method[Chosen], options: Chosen, progress: Progress = SILENT) -> Result:
    """Runs a method from its options to a folder with a record and a card.

    Args:
        method: The method.
        options: Its options.
        progress: Where to report.

    Raises:
        PolydistillError: Data or a model are missing or do not fit; what was done until then stays, and the run can
            be resumed.
    """
    started = time.perf_counter()
    if several() and not method.shared:
        raise UsageError(
            f"`polydistill {method.name}` runs in one process.", "Start it without `torchrun` or `accelerate launch`."
        )
    options.check()
    with using(options.place.computes_on or AUTO):
        return _run(method, options, progress, started)


def _run(method: Method[Chosen], options: Chosen, progress: Progress, started: float) -> Result:
    plan = method.prepare(options, progress)
    place = options.place
    models = [origin.resolved.folder for origin in (plan.origin, *plan.others)]
    check_output(plan.output, overwrite=place.overwrite, reads=[*options.reads(), *models])
    for note in (*options.in_vain(plan.idle), *plan.warnings):
        progress.warn(note)
    with work_folder(
        plan.output, identity(method, options, plan), resume=place.resume, overwrite=place.overwrite, progress=progress
    ) as work:
        stages = Stages(work, progress)
        stages.run_all(plan.stages, place.minutes)
        return _finish(method, options, plan, stages, started)


def identity(method: Method[Chosen], options: Chosen, plan: Plan) -> dict[str, Any]:
    """What has to be the same for a run to go on: its options, the values that follow from them, models and data."""
    return {
        "method": method.name,
        "options": options.deciding(),
        "settings": plan.settings,
        "inputs": plan.inputs,
        "stages": [stage.name for stage in plan.stages],
    }


def _finish(method: Method[Chosen], options: Chosen, plan: Plan, stages: Stages, started: float) -> Result:
    """Puts the finished model in its place, with scores, record and card, and the stages below it."""
    result = Result(method.name, plan.origin.resolved.source, plan.output, plan.languages, plan.task)
    if not is_main():
        return result
    with new_folder(plan.output, overwrite=options.place.overwrite) as out:
        plan.write(stages.done, out)
        scored = plan.scoring.score(stages.done, out, stages.progress) if plan.scoring else Scored((), ())
        result = _told(result, plan, stages.done, out)
        result = replace(
            result,
            scores=tuple(score.to_json() for score in scored.scores),
            loyalty=scored.loyalty,
            device=current() if options.place.computes_on else None,
            seconds=round(time.perf_counter() - started, 1),
            peak_memory_bytes=peak_memory_bytes(),
        )
        record = replace(_record(options, plan, stages.done, result), scores=list(scored.kept))
        record.save(out)
        write_card(record, out)
        stages.link_into(out / "stages", [stage.name for stage in plan.stages if stage.keep])
    return result


def _told(result: Result, plan: Plan, done: Mapping[str, Done], out: Path) -> Result:
    """The result with what the method reports."""
    report = plan.report(done, out)
    return replace(
        result,
        stages=tuple(stage.to_json(plan.output / "stages") for stage in done.values()),
        parameters=dict(report.parameters),
        bytes=dict(report.bytes),
        settings=dict(plan.settings),
        selection=None if report.selection is None else dict(report.selection),
        facts=dict(report.facts),
    )


def _record(options: Placed, plan: Plan, done: Mapping[str, Done], result: Result) -> RunRecord:
    origin = plan.origin
    return RunRecord(
        command=result.command,
        config=options.to_json(),
        source=source_facts(origin.resolved, origin.checkpoint),
        texts=[dict(text) for text in plan.texts(done)],
        result=result.to_json(),
        parent=parent_of(plan.parent or origin.resolved.folder),
        versions=versions() | {name: metadata.version(name) for name in plan.packages},
        others=[other_model(other.role, other.resolved, other.checkpoint) for other in plan.others],
    )
