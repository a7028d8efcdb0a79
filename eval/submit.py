r"""Make the archive that a benchmark's server wants of a folder of PNGs, or check one that is there.

    python eval/submit.py --layout youtube-vos-2019 --asked youtube-vos-2019 --masks masks/ytvos19 --out ytvos19.zip
    python eval/submit.py --layout ref-youtube-vos --asked ref-youtube-vos --masks masks/ref_ytvos --out ref_ytvos.zip
    python eval/submit.py --layout mose --asked MOSE/valid --masks masks/mose --out mose.zip
    python eval/submit.py --layout davis --asked DAVIS --videos DAVIS/ImageSets/2017/test-dev.txt \
        --masks masks/davis --out davis.zip
    # an archive by anyone
    python eval/submit.py --layout youtube-vos-2019 --asked youtube-vos-2019/valid/meta.json --check theirs.zip

PNGs has <video>/<frame>.png with ids, or with ref-youtube-vos <video>/<sentence's number>/<frame>.png with one object,
as `eval/evaluate.py --write-masks` writes them. What is asked for is read from the data set: a mask that is missing,
broken or of another size than its video's, an id that the video lacks, and in an archive a file that is not asked for
are refused with their names, and then nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sam_uniref.data.formats.files import read_lines
from sam_uniref.data.formats.ref_youtube_vos import expressions_file
from sam_uniref.data.formats.video_listing import first_file
from sam_uniref.eval.asked_videos import (
    AskedVideo,
    asked_of_folders,
    asked_of_ref_youtube_vos,
    asked_of_youtube_vos,
)
from sam_uniref.eval.commands import OneLineParser, say_error
from sam_uniref.eval.submissions import LAYOUTS, check_submission, masks_in_folder, write_submission

REF_YOUTUBE_VOS, BY_FOLDERS = "ref_youtube_vos", ("davis", "lvos", "mose")
# DAVIS has its frames in this size, and in others beside it.
_DAVIS_SIZE = "480p"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    layouts = sorted(name.replace("_", "-") for name in LAYOUTS)
    parser.add_argument("--layout", required=True, choices=layouts, help="of the server")
    parser.add_argument(
        "--asked",
        required=True,
        type=Path,
        metavar="DATA",
        help="youtube-vos: its folder or valid/meta.json; ref-youtube-vos: its folder, or a meta_expressions.json all "
        "of whose videos are asked for; mose, lvos, davis: the folder that has JPEGImages and Annotations",
    )
    parser.add_argument("--videos", type=Path, metavar="TXT", help="mose, lvos, davis: names of those asked for")
    parser.add_argument("--masks", type=Path, metavar="PNGS", help="folder of the masks")
    parser.add_argument("--out", type=Path, metavar="ZIP", help="the archive to write")
    parser.add_argument("--check", type=Path, metavar="ZIP", help="look at this archive, and write none")
    return parser.parse_args(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse what can be refused before anything is read.

    Raises:
        ValueError: With what to change.
    """
    for name in ("masks", "out"):
        given = getattr(arguments, name) is not None
        if given and arguments.check is not None:
            raise ValueError(f"--check looks at an archive and writes none; leave --{name} out")
        if not given and arguments.check is None:
            raise ValueError(f"--{name} is needed to write an archive; --check looks at one that is there")
    if arguments.videos is not None and arguments.layout not in BY_FOLDERS:
        raise ValueError(f"--videos is of {', '.join(BY_FOLDERS)}; the videos of {arguments.layout} stand in --asked")
    if arguments.out is not None and arguments.out.is_dir():
        raise ValueError(f"--out must be a file, and {arguments.out} is a folder")


def asked_by(layout: str, data: Path, videos: Sequence[str] | None = None) -> list[AskedVideo]:
    """What a server asks for.

    Args:
        layout: One of `submissions.LAYOUTS`.
        data: Folder of the data set or of its split, or the file that lists the videos.
        videos: Those asked for of the sets without such a file; all that ``data`` has by default.

    Raises:
        FileNotFoundError: If the file, a folder or a picture is not there.
        ValueError: If a file is broken, or another release's.
    """
    if layout in BY_FOLDERS:
        size = _DAVIS_SIZE if (data / "JPEGImages" / _DAVIS_SIZE).is_dir() else ""
        return asked_of_folders(data / "JPEGImages" / size, data / "Annotations" / size, videos)
    if layout != REF_YOUTUBE_VOS:
        meta = data if data.is_file() else first_file(data, "valid/meta.json", "meta.json")
        if meta is None:
            raise FileNotFoundError(f"there is no valid/meta.json in {data}")
        return asked_of_youtube_vos(meta)
    valid = data if data.is_file() else expressions_file(data, "valid")
    if valid is None:
        raise FileNotFoundError(f"there is no meta_expressions/valid/meta_expressions.json in {data}")
    return asked_of_ref_youtube_vos(valid, None if data.is_file() else expressions_file(data, "test"))


def run(arguments: argparse.Namespace) -> None:
    """Look, write, say."""
    check_arguments(arguments)
    layout = arguments.layout.replace("-", "_")
    videos = read_lines(arguments.videos) if arguments.videos is not None else None
    asked = asked_by(layout, arguments.asked, videos)
    path = arguments.check or arguments.out
    if arguments.check is not None:
        check_submission(path, layout, asked)
    else:
        write_submission(path, layout, asked, masks_in_folder(arguments.masks))
    masks = sum(len(video.stems) for video in asked)
    sys.stdout.write(f"{path}: {masks} masks, as {arguments.layout} wants them\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    try:
        run(parse_arguments(arguments))
    except (ValueError, OSError) as error:
        return say_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
