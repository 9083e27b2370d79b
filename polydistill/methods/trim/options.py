"""The options of `polydistill trim`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polydistill.models.default import DEFAULT_MODEL
from polydistill.options.settings import Options, include_setting, output_setting, seed_setting, setting

if TYPE_CHECKING:
    from polydistill.vocab.keep import KeepRule

DEFAULT_COVERAGE = 0.9999
DTYPES = ("float32", "bfloat16", "float16")  # what weights can be converted to


@dataclass(frozen=True)
class TrimOptions(Options):
    """The configuration of a trim; its fields are options of the command line.

    `coverage`, `vocab_size`, `min_count` and `min_share` exclude each other; without any of them it is coverage 0.9999.
    """

    model: str = setting(DEFAULT_MODEL, "Folder, org/name or org/name@revision.", "Model", metavar="M")
    languages: tuple[str, ...] = setting(
        (),
        "Language to keep: any code or name, also with a script (sr-Latn). Repeat for several.",
        "Text",
        metavar="LANG",
    )
    text: tuple[str, ...] = setting(
        (),
        "Text of the language: txt, jsonl, csv, tsv or parquet (also .gz), a file, folder, glob, or a Hub data set "
        "org/name[:config][@revision][#column]. With several languages: LANG=PATH.",
        "Text",
        metavar="PATH_OR_HUB_ID",
    )
    limit: int | None = setting(None, "Read at most this many lines of each text.", "Text", metavar="N", least=1)
    weight: tuple[str, ...] = setting(
        (), "How much a language counts with `vocab_size`, e.g. ro=2.", "Text", metavar="LANG=X"
    )
    word_list: bool = setting(
        False, "Rank tokens by the language's wordfreq list too: keeps more of new text when the text is small.", "Text"
    )
    counts: tuple[Path, ...] = setting(
        (), "Use counts made by `polydistill count` instead of text; shards add up.", "Text", metavar="FILE"
    )
    save_counts: Path | None = setting(None, "Save the counts here.", "Text", metavar="FILE", reads=False)
    coverage: float | None = setting(
        None,
        "Keep the tokens that make up this share of each language's text. [default: 0.9999]",
        "Size",
        metavar="SHARE",
    )
    vocab_size: int | None = setting(None, "Keep exactly this many tokens.", "Size", metavar="N")
    min_count: int | None = setting(None, "Keep every token seen at least this often.", "Size", metavar="N")
    min_share: float | None = setting(
        None, "Keep every token that makes up at least this share of a language's text.", "Size", metavar="SHARE"
    )
    pad_to_multiple: int = setting(
        1, "Round the number of embedding rows up to a multiple.", "Size", metavar="N", least=1, most=65_536
    )
    dtype: str = setting(
        "keep", "keep, float32, bfloat16 or float16.", "Size", metavar="TYPE", choices=("keep", *DTYPES)
    )
    keep_token: tuple[str, ...] = setting((), "A token that stays in any case.", "Tokens", metavar="T")
    keep_file: Path | None = setting(None, "File with one such token a line.", "Tokens", metavar="FILE")
    drop_added: tuple[str, ...] = setting(
        (),
        "Drop added tokens that match a pattern, in which * and ? are wildcards; 'lang:*' drops the codes of "
        "languages that are not kept (NLLB, mBART), '<extra_id_*>' T5's sentinels, '<unused*>' Gemma's spare tokens.",
        "Tokens",
        metavar="PATTERN",
    )
    verify_text: str | None = setting(
        None, "Text to verify on. [default: lines of the text that were not counted]", "Verification", metavar="PATH"
    )
    verify: bool = setting(True, "Compare with the original model.", "Verification")
    dry_run: bool = setting(False, "Print sizes and write nothing.", "Output")
    output: Path | None = output_setting("polydistill-out/<model>-<langs>", "Output")
    overwrite: bool = setting(False, "Replace the output folder if it exists.", "Output")
    seed: int = seed_setting("Of sampling and of the lines held out.", "Output")
    include_path: tuple[Path, ...] = include_setting("Model")

    def rule(self) -> KeepRule:
        """How many tokens the text may add."""
        from polydistill.vocab.keep import KeepRule

        given = (self.coverage, self.vocab_size, self.min_count, self.min_share)
        if all(v is None for v in given):
            return KeepRule(coverage=DEFAULT_COVERAGE)
        return KeepRule(*given)
