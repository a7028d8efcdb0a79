"""The files of a prepared data set.

```
OUT/NAME/info.json                     what it was made of and what is in it
OUT/NAME/<split>/00000.arrow           rows, memory-mapped: opening costs the same for a thousand and for a million
OUT/NAME/<split>/00000.json            rows and problems of that shard; written last, so what has it is whole
```
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import Row, TableKind, as_record, features
from sam_uniref.state import whole_file, write_json

if TYPE_CHECKING:
    from datasets import Dataset

INFO_FILE = "info.json"
# Raised when the schema changes: older sets are refused with advice, not misread.
SCHEMA = 1
# Rows in one Arrow record batch: what is read at once.
_BATCH = {"images": 1000, "videos": 1}


@dataclass
class PreparedInfo:
    """What `prepare` says of its work.

    Attributes:
        format: Name of the data set.
        table: ``images`` or ``videos``.
        root: Folder of the download, which paths in the rows are relative to.
        schema: Version of the schema.
        splits: Per finished split, its number of ``shards``, of ``rows``, and its ``problems``.
    """

    format: str
    table: TableKind
    root: str
    schema: int = SCHEMA
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Put it into the set's folder."""
        write_json(folder / INFO_FILE, asdict(self))


def read_info(folder: str | Path) -> PreparedInfo:
    """What a prepared data set was made of.

    Raises:
        FileNotFoundError: If the folder holds none.
        ValueError: If it was written by another version.
    """
    path = Path(folder) / INFO_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no prepared data set, it has no {INFO_FILE}; make it with: "
            f"sam-uniref data prepare NAME --root DOWNLOAD --out {Path(folder).parent}"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != SCHEMA:
            raise ValueError(f"it has version {values['schema']}, this library reads {SCHEMA}")
        return PreparedInfo(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} can't be read ({error}); remove {folder} and prepare it again") from error


@dataclass(frozen=True)
class Shard:
    """One shard of a split.

    Attributes:
        folder: Of the split.
        number: From 0.
    """

    folder: Path
    number: int

    @property
    def rows_file(self) -> Path:
        """Its Arrow file."""
        return self.folder / f"{self.number:05d}.arrow"

    @property
    def summary_file(self) -> Path:
        """Its JSON file, there when the shard is whole."""
        return self.folder / f"{self.number:05d}.json"

    @property
    def is_whole(self) -> bool:
        """Whether it was written to its end."""
        return self.summary_file.is_file() and self.rows_file.is_file()

    def is_of(self, digest: str) -> bool:
        """Whether it is whole, was read from this unit, and lacks nothing that may have been mended since."""
        if not self.is_whole:
            return False
        values = self._read_summary()
        return values["unit"] == digest and not Problems.from_json(values["problems"]).any_broken

    def write(self, rows: Iterable[Row], table: TableKind, split: str, problems: Problems, digest: str) -> int:
        """Write all rows, or nothing.

        Args:
            rows: Read one by one; ``problems`` fills meanwhile.
            table: Which kind of rows.
            split: That they are of.
            problems: Of reading them.
            digest: Of the unit that they are read from.

        Returns:
            Their number.
        """
        import pyarrow as pa

        schema = features(table).arrow_schema
        count = 0
        self.summary_file.unlink(missing_ok=True)
        with whole_file(self.rows_file) as temporary, pa.ipc.new_stream(str(temporary), schema) as stream:
            waiting: list[dict[str, Any]] = []
            for row in rows:
                waiting.append(as_record(row, split))
                if len(waiting) == _BATCH[table]:
                    stream.write_batch(pa.RecordBatch.from_pylist(waiting, schema=schema))
                    count, waiting = count + len(waiting), []
            if waiting:
                stream.write_batch(pa.RecordBatch.from_pylist(waiting, schema=schema))
                count += len(waiting)
        write_json(self.summary_file, {"rows": count, "unit": digest, "problems": problems.as_json()})
        return count

    def summary(self) -> tuple[int, Problems]:
        """Number of rows, and what was wrong.

        Raises:
            ValueError: If the file is broken.
        """
        values = self._read_summary()
        return values["rows"], Problems.from_json(values["problems"])

    def _read_summary(self) -> dict[str, Any]:
        try:
            values = json.loads(self.summary_file.read_text(encoding="utf-8"))
            return {"rows": int(values["rows"]), "unit": str(values["unit"]), "problems": list(values["problems"])}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.summary_file} is broken ({error}); remove it and prepare again") from error

    def remove(self) -> None:
        """Take its files away, the one that says it is whole first."""
        self.summary_file.unlink(missing_ok=True)
        self.rows_file.unlink(missing_ok=True)


def open_split(folder: str | Path, split: str) -> Dataset:
    """A split's rows, memory-mapped, as a `datasets.Dataset`.

    Raises:
        FileNotFoundError: If the data set, or a shard of it, is not there.
        ValueError: If the split is not in it, a shard is broken, or the split is empty.
    """
    info = read_info(folder)
    if split not in info.splits:
        raise ValueError(f"{folder} has the splits {sorted(info.splits)}, got {split!r}")
    entry = info.splits[split]
    shards = [Shard(Path(folder) / split, number) for number in range(entry["shards"])]
    if not entry["rows"]:
        raise ValueError(f"{folder} has nothing in its split {split}; see sam-uniref data check {info.format}")
    return _as_dataset([_map(shard.rows_file) for shard in shards if shard.summary()[0]])


def _map(path: Path) -> Any:
    """One file's rows, memory-mapped."""
    import pyarrow as pa
    from datasets.table import MemoryMappedTable

    if not path.is_file():
        raise FileNotFoundError(f"there is no shard {path}; prepare the data set again, only what is missing is read")
    try:
        return MemoryMappedTable.from_file(str(path))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"the shard {path} is broken ({error}); remove it and prepare again") from error


def _as_dataset(tables: Sequence[Any]) -> Dataset:
    """All rows of several files; made at once, since each `Dataset` takes milliseconds to describe itself."""
    from datasets import Dataset
    from datasets.table import concat_tables

    return Dataset(concat_tables(list(tables)))
