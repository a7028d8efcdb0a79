"""The sentences of Ref-DAVIS17: four text files, a line an object."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from sam_uniref.data.formats.video_listing import NamedObject
from sam_uniref.data.prepared.problems import Problems

TEXT_FOLDER = "davis_text_annotations"

# Annotator 1 and 2, each shown the first frame and the full video; the second's files are not in UTF-8.
_FILES = (
    ("Davis17_annot1.txt", "utf-8-sig"),
    ("Davis17_annot1_full_video.txt", "utf-8-sig"),
    ("Davis17_annot2.txt", "latin-1"),
    ("Davis17_annot2_full_video.txt", "latin-1"),
)
_MISSPELT = {"clasic-car": "classic-car", "dog-scale": "dogs-scale", "motor-bike": "motorbike"}


def read_sentences(
    folder: Path, wanted: Collection[str], known: Collection[str], problems: Problems
) -> Mapping[str, tuple[NamedObject, ...]]:
    """Objects with their sentences, by sequence.

    Args:
        folder: Of the four files.
        wanted: Sequences of the split.
        known: Sequences of all splits; a sentence about another is counted.
        problems: Takes what is misspelt, missing or no sentence, of the wanted sequences.

    Raises:
        FileNotFoundError: If one of the files is not there.
        ValueError: If one is in another encoding.
    """
    said: dict[tuple[str, int], dict[int, str]] = defaultdict(dict)
    for k, (name, encoding) in enumerate(_FILES):
        path = folder / name
        for number, line in enumerate(_lines(path, encoding), start=1):
            where = f"{name} line {number}"
            parsed = _parse(line)
            if parsed is None:
                problems.broken("line that is no sentence", f"{where}: {line[:60]}")
                continue
            sequence, object_id, text = parsed
            if sequence not in known and _MISSPELT.get(sequence) in known:
                if _MISSPELT[sequence] in wanted:
                    problems.mended("misspelt name of a sequence", f"{where}: {sequence}")
                sequence = _MISSPELT[sequence]
            if sequence not in known:
                problems.broken("sentence about a sequence that no list has", f"{where}: {sequence}")
            elif sequence in wanted and k in said[sequence, object_id]:
                problems.broken("second sentence of one annotator about an object", f"{where}: {sequence} {object_id}")
            elif sequence in wanted:
                said[sequence, object_id][k] = text
    objects: dict[str, list[NamedObject]] = defaultdict(list)
    for (sequence, object_id), texts in sorted(said.items()):
        for k in set(range(len(_FILES))) - set(texts):
            problems.broken("object without one of its sentences", f"{sequence} {object_id}: none in {_FILES[k][0]}")
        order = sorted(texts)
        ids = tuple(str(len(_FILES) * (object_id - 1) + k) for k in order)
        objects[sequence].append(NamedObject(object_id, "", tuple(texts[k] for k in order), ids))
    return {sequence: tuple(items) for sequence, items in objects.items()}


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines that are not empty."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    try:
        text = path.read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in {encoding} ({error}); it was changed, or is another release's") from error
    # Not splitlines: latin-1 has a letter-like byte that it takes for a line's end.
    for line in text.split("\n"):
        if line.strip():
            yield line.strip()


def _parse(line: str) -> tuple[str, int, str] | None:
    """Sequence, object and sentence of ``<sequence> <object id> "<sentence>"``."""
    parts = line.split(maxsplit=2)
    if len(parts) < 3 or not parts[1].isascii() or not parts[1].isdigit() or int(parts[1]) < 1:
        return None
    text = parts[2].strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    return (parts[0], int(parts[1]), text.strip()) if text.strip() else None
