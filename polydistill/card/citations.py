"""BibTeX of the methods that a lineage used."""

from __future__ import annotations

from polydistill.card.facts import Facts, told_of


def citations(facts: Facts) -> list[str]:
    """BibTeX entries, those of the newest step first."""
    return list(dict.fromkeys(entry for step in facts.lineage for entry in told_of(step).citations(step)))
