"""The ``sam-uniref data`` commands: list, prepare, check, show.

Heavy imports stand inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sam_uniref.commands.app import INTERRUPTED, examples
from sam_uniref.output_checks import check_output_folder

if TYPE_CHECKING:
    from sam_uniref.data.check import SplitCheck
    from sam_uniref.data.prepared.prepare import Report
    from sam_uniref.data.prepared.problems import Problems
    from sam_uniref.data.prepared.shards import PreparedInfo

_SEVERITIES = ("broken", "mended", "by rule")

data_app = typer.Typer(
    no_args_is_help=True,
    help="Data sets: read official downloads once, check them, look at them.",
    epilog=examples(
        "sam-uniref data list",
        "sam-uniref data check refcoco --root downloads/refer/data",
        "sam-uniref data prepare refcoco --root downloads/refer/data --out data",
        "sam-uniref data show refcoco --prepared data/refcoco --split val --out look",
    ),
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The data set; see sam-uniref data list.")]
RootOption = Annotated[Path, typer.Option("--root", help="Folder of the download.")]
SplitsOption = Annotated[
    list[str] | None, typer.Option("--split", help="A split; may be repeated; all that are there by default.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="Processes; one a core by default, 0 reads in this one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@data_app.command("list")
def list_formats(as_json: JsonOption = False) -> None:
    """Data sets that can be read."""
    from sam_uniref.data.formats import FORMATS

    told = ("name", "title", "table", "homepage", "licence")
    entries = [{key: getattr(layout, key) for key in told} for _, layout in sorted(FORMATS.items())]
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    for entry in entries:
        typer.echo(f"{entry['name']} ({entry['table']}): {entry['title']}")
        typer.echo(f"    source   {entry['homepage'] or 'none'}\n    licence  {entry['licence'] or 'not stated'}")


@data_app.command()
def prepare(
    name: NameArgument,
    root: RootOption,
    out: Annotated[Path, typer.Option("--out", help="Folder of all prepared sets; this one goes to OUT/NAME.")],
    split: SplitsOption = None,
    workers: WorkersOption = None,
) -> None:
    """Read a download once, so that runs can use it; what was read before is not read again."""
    from sam_uniref.data.formats import named_format
    from sam_uniref.data.prepared import prepare as prepare_download

    layout = named_format(name)
    check_output_folder(out)
    try:
        with _progress() as report:
            info = prepare_download(layout, root, out, splits=_given(split), workers=workers, report=report)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _tell_prepared(info, _given(split) or tuple(info.splits))
    typer.echo(f"in a run:\n  reader: prepared\n  root: {out / name}")


@data_app.command()
def check(
    name: NameArgument,
    root: RootOption,
    split: SplitsOption = None,
    workers: WorkersOption = None,
    refcoco: Annotated[
        list[Path] | None,
        typer.Option("--refcoco", help="Prepared RefCOCO/+/g: count images that they evaluate on; may be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read all of a download, count it, and name all that is wrong: exit code 1 if anything is. Writes nothing."""
    import numpy as np

    from sam_uniref.data.check import check_download
    from sam_uniref.data.formats import named_format
    from sam_uniref.data.prepared.leakage import evaluated_coco_ids

    layout = named_format(name)
    evaluated = np.concatenate([_some(evaluated_coco_ids(place), place) for place in refcoco]) if refcoco else None
    with _progress() as report:
        found = list(
            check_download(layout, root, splits=_given(split), workers=workers, evaluated=evaluated, report=report)
        )
    is_sound = all(result.is_sound for result in found)
    if as_json:
        splits = {result.split: result.as_json() for result in found}
        typer.echo(json.dumps({"format": name, "root": str(root), "sound": is_sound, "splits": splits}, indent=2))
    else:
        _tell_checked(found)
        absent = sorted(set(layout.published) - set(layout.splits(root)))
        if absent and not split:
            typer.echo(f"splits that this download does not have: {', '.join(absent)}")
        typer.echo("all is as it should be" if is_sound else "something is wrong")
    raise typer.Exit(0 if is_sound else 1)


@data_app.command()
def show(
    name: NameArgument,
    split: Annotated[str, typer.Option("--split", help="The split to draw from.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for contact_sheet.png, index.html and its pictures.")],
    root: Annotated[Path | None, typer.Option("--root", help="Folder of the download.")] = None,
    prepared: Annotated[Path | None, typer.Option("--prepared", help="Or the prepared set, OUT/NAME.")] = None,
    count: Annotated[int, typer.Option("-n", help="How many rows are drawn.")] = 8,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw.")] = 0,
    workers: WorkersOption = None,
) -> None:
    """Paint some objects or videos, on a contact sheet and on a page."""
    if (root is None) == (prepared is None):
        raise ValueError(f"give --root or --prepared, got {'neither' if root is None else 'both'}")
    if count < 1:
        raise ValueError(f"-n must be at least 1, got {count}")
    if seed < 0:
        raise ValueError(f"--seed must be at least 0, got {seed}")
    check_output_folder(out)
    from sam_uniref.data.formats import named_format
    from sam_uniref.data.prepared import read_info
    from sam_uniref.data.prepared.temporary import temporary_split
    from sam_uniref.data.show import SHEET, check_place, write_show

    layout = named_format(name)
    check_place(out)  # before a download is read, which takes its time
    with ExitStack() as stack:
        if prepared is not None:
            folder, held = prepared, read_info(prepared).format
            if held != name:
                raise ValueError(f"{prepared} holds {held}, not {name}")
        elif root is not None:
            typer.echo(f"reading {split} into a temporary folder; prepare it to look at it more than once", err=True)
            with _progress() as report:
                folder = stack.enter_context(temporary_split(layout, root, split, workers, report))
        written = write_show(folder, split, out, count=count, seed=seed)
    typer.echo(f"page   {written}\nsheet  {out / SHEET}")


def _given(splits: list[str] | None) -> tuple[str, ...] | None:
    """The splits that were asked for; None for all."""
    return tuple(splits) if splits else None


def _some(ids: Any, place: Path) -> Any:
    """The ids, of which there must be some, or nothing would be compared."""
    if not len(ids):
        raise ValueError(f"{place} holds nothing that sentences are evaluated on; prepare a val or test split there")
    return ids


@contextmanager
def _progress() -> Iterator[Report]:
    """A bar on stderr where somebody watches: the split, its rows so far, and rows a second."""
    from tqdm.auto import tqdm

    current = ""
    bar = tqdm(desc="reading", unit=" rows", disable=None)

    def report(split: str, rows: int) -> None:
        nonlocal bar, current
        if current not in ("", split):  # a finished split's line stays
            bar.close()
            bar = tqdm(unit=" rows", disable=None)
        if split != current:
            bar.set_description_str(split)
            current = split
        bar.update(rows - bar.n)

    try:
        yield report
    finally:
        bar.close()


def _tell_prepared(info: PreparedInfo, splits: Sequence[str]) -> None:
    """What was prepared, and what was wrong with it."""
    from sam_uniref.data.prepared.problems import Problems

    problems = {split: Problems.from_json(info.splits[split]["problems"]) for split in dict.fromkeys(splits)}
    table = [["split", "rows", "shards", *_SEVERITIES]]
    for split, found in problems.items():
        entry = info.splits[split]
        by_severity = [sum(p.count for p in found if p.severity == severity) for severity in _SEVERITIES]
        table.append([split, *map(str, (entry["rows"], entry["shards"], *by_severity))])
    _tell_table(table)
    _tell_problems(problems)
    if any(found.any_broken for found in problems.values()):
        typer.echo("what is broken was left out, and the rest can be used; mended, the same command reads it again")


def _tell_checked(found: Sequence[SplitCheck]) -> None:
    """What is there beside what should be there, and what is wrong."""
    table = [["split", "", "found", "published", ""]]
    for result in found:
        for name in dict.fromkeys((*result.counts, *result.published)):
            published = result.published.get(name)
            verdict = "" if published is None else "differs" if name in result.different else "same"
            cells = ["" if n is None else str(n) for n in (result.counts.get(name), published)]
            table.append([result.split, name, *cells, verdict])
        if result.evaluated is not None:
            table.append([result.split, "images evaluated on", str(result.evaluated), "", ""])
    _tell_table(table)
    _tell_problems({result.split: result.problems for result in found})


def _tell_problems(problems: Mapping[str, Problems]) -> None:
    """Every reason with its count and first examples."""
    for split, found in problems.items():
        for problem in found:
            more = ", ..." if problem.count > len(problem.examples) else ""
            examples = ", ".join(problem.examples) + more
            typer.echo(f"{split}: {problem.severity}: {problem.reason}: {problem.count} ({examples})")


def _tell_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    is_number = [all(row[column].isdecimal() or not row[column] for row in rows[1:]) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ]
        typer.echo("  ".join(cells).rstrip())
