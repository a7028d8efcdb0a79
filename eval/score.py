r"""Score a folder of PNGs by anyone against a folder of true masks, as a benchmark's program or server does.

    python eval/score.py --convention davis --truth DAVIS/Annotations/480p --videos DAVIS/ImageSets/2017/val.txt \
        --predictions their/masks --out results/theirs
    # Ref-DAVIS17: four runs, a set of sentences each, averaged
    python eval/score.py --convention davis-unsupervised --truth DAVIS/Annotations_unsupervised/480p \
        --videos DAVIS/ImageSets/2017/val.txt --predictions masks/anno_{0,1,2,3} --out results/four_runs
    # G; the categories that training has are seen
    python eval/score.py --convention youtube-vos --truth valid/Annotations --meta valid/meta.json \
        --unseen train/meta.json --predictions their/masks --out results/theirs
    # seen and unseen videos, and the stability V
    python eval/score.py --convention lvos --truth valid/Annotations --meta valid_meta.json \
        --unseen unseen_videos.txt --predictions their/masks --out results/theirs

Both folders have <video>/<frame>.png with ids, or with ref-youtube-vos <video>/<sentence>/<frame>.png with one object.
Which frames and objects count stands in eval/conventions.py, eval/youtube_vos.py and eval/lvos.py. A video or a frame
that the predictions lack is refused, an object that a frame lacks is an empty mask.

Writes FOLDER/results.json, {metric: {"value", "low", "high", "n", "unit"}} with 95 % intervals over videos,
FOLDER/objects.csv, J and F of each object, and FOLDER/settings.json, what was scored. Recall and decay are DAVIS's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sam_uniref.eval.commands import OneLineParser, say_error
from sam_uniref.eval.measures import reported
from sam_uniref.eval.named_conventions import BY_IDS, BY_LISTS, DAVIS_UNSUPERVISED, open_rules
from sam_uniref.eval.proposals import REF_DAVIS_RUNS
from sam_uniref.eval.results import metrics_table, write_rows
from sam_uniref.eval.score_videos import list_masks, score_videos
from sam_uniref.state import write_json


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted([*BY_IDS, *BY_LISTS])
    parser.add_argument("--convention", required=True, choices=names, help="whose frames, objects and means")
    parser.add_argument("--truth", required=True, type=Path, metavar="PNGS", help="folder of the true masks")
    parser.add_argument(
        "--predictions",
        required=True,
        type=Path,
        nargs="+",
        metavar="PNGS",
        help=f"folder of the predicted masks; of {DAVIS_UNSUPERVISED} also the {REF_DAVIS_RUNS} of Ref-DAVIS17's runs",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the results go")
    parser.add_argument(
        "--videos", type=Path, metavar="TXT", help="names of those that are scored, one a line; all by default"
    )
    parser.add_argument(
        "--meta", type=Path, metavar="JSON", help="youtube-vos, lvos: the file that lists the objects of the true masks"
    )
    parser.add_argument(
        "--unseen",
        type=Path,
        metavar="FILE",
        help="youtube-vos: the training videos' meta.json, whose categories are seen, or a list of the unseen ones, "
        "one a line; lvos: a list of the unseen videos",
    )
    parser.add_argument("--workers", type=int, help="processes that read and score; 0 for none beside this one")
    return parser.parse_args(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse what can be refused before anything is read.

    Raises:
        ValueError: With what to change.
    """
    runs = arguments.predictions
    if len(runs) > 1 and arguments.convention != DAVIS_UNSUPERVISED:
        raise ValueError(f"--convention {arguments.convention} takes one folder of --predictions, got {len(runs)}")
    if len(runs) not in (1, REF_DAVIS_RUNS):
        raise ValueError(
            f"--predictions are one folder, or the {REF_DAVIS_RUNS} of Ref-DAVIS17's runs, got {len(runs)}"
        )
    if len({*runs}) < len(runs):
        raise ValueError("--predictions has a folder twice; each run has its own")
    if arguments.workers is not None and arguments.workers < 0:
        raise ValueError(f"--workers must be at least 0, got {arguments.workers}")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out must be a folder, and {arguments.out} is a file")


def run(arguments: argparse.Namespace) -> None:
    """Score, write, show."""
    check_arguments(arguments)
    lists = {"videos": arguments.videos, "meta": arguments.meta, "unseen": arguments.unseen}
    rules = open_rules(arguments.convention, **lists)
    for folder in arguments.predictions:  # the last run's too, before the first one is scored
        list_masks(folder, arguments.truth, rules.videos)
    runs = [
        score_videos(folder, arguments.truth, rules.convention, videos=rules.videos, workers=arguments.workers)
        for folder in arguments.predictions
    ]
    metrics = reported(rules.measure(runs))
    rows = [
        {"predictions": str(folder), **rules.row(key, scores)}
        for folder, objects in zip(arguments.predictions, runs, strict=True)
        for key, scores in objects.items()
    ]
    settings = {"convention": arguments.convention, "truth": arguments.truth, **lists}
    write_json(
        arguments.out / "settings.json",
        {name: None if value is None else str(value) for name, value in settings.items()}
        | {"predictions": [str(folder) for folder in arguments.predictions]},
    )
    write_rows(arguments.out / "objects.csv", rows)
    write_json(arguments.out / "results.json", metrics)
    Console().print(metrics_table(metrics, f"{rules.convention.name}, {len(rows)} objects"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    try:
        run(parse_arguments(arguments))
    except (ValueError, OSError) as error:
        return say_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
