"""Frames into a video file that browsers play."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from sam_uniref.images import RGB
from sam_uniref.state import whole_file
from sam_uniref.video import Frame

if TYPE_CHECKING:
    from av.container import OutputContainer

# A frame of film, PAL or NTSC lasts a whole number of these, and so does a millisecond.
_TICKS_PER_SECOND = 90_000


class VideoWriter:
    """Write an H.264 file a frame at a time; it has its name when the block ends well, or `finish` was called.

    ```python
    with VideoWriter("copy.mp4") as video:
        for frame in read_frames("clip.mp4"):
            video.write(frame.picture, frame.time)
    ```

    Args:
        path: Ending in ``.mp4``. An old file stays until the new one is whole.
        frames_per_second: For frames without a time, and for how long the last one is shown.

    Attributes:
        count: How many frames were written.

    Raises:
        ValueError: If the name ends in something else, or the rate is not positive.
    """

    def __init__(self, path: str | Path, *, frames_per_second: float = 10) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"a video is written as .mp4, got {path}")
        if not 0 < frames_per_second < math.inf:
            raise ValueError(f"frames_per_second must be above 0, got {frames_per_second}")
        self.count = 0
        self._rate = Fraction(frames_per_second).limit_denominator(1001) or Fraction(1, 1001)
        self._file = ExitStack()
        self._container: OutputContainer | None = None
        self._size = (0, 0)
        self._ticks = 0
        self._start: float | None = None

    def write(self, picture: RGB, time: float | None = None) -> None:
        """Add a frame.

        Args:
            picture: HWC uint8 RGB, all of one size. To an odd height or width the last row or column is added once
                more, since the colours have half the resolution.
            time: In seconds. The first frame is shown at 0 whatever its time, the others as much later as theirs is.
                Without one a frame comes a frame's time after the one before, and no two come at once.

        Raises:
            ValueError: If the size changes.
            OSError: If it cannot be written.
        """
        import av

        size = (picture.shape[0], picture.shape[1])
        if self.count and size != self._size:
            raise ValueError(f"a frame is {size}, the first one {self._size} (height, width)")
        with self._named_errors():
            container = self._container = self._container or self._open(size)
            even = np.pad(picture, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame.pts, frame.time_base = self._ticks_at(time), Fraction(1, _TICKS_PER_SECOND)
            container.mux(container.streams.video[0].encode(frame))
        self.count += 1

    def finish(self) -> None:
        """Give the file its name; without a single frame there is none."""
        if self._container is None:
            return
        container, self._container = self._container, None
        with self._named_errors(), self._file:
            container.mux(container.streams.video[0].encode())
            container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            return
        import av

        if self._container is not None:
            with suppress(av.FFmpegError):
                self._container.close()
        self._file.__exit__(kind, error, traceback)

    def _open(self, size: tuple[int, int]) -> OutputContainer:
        """The file under a temporary name, with one stream."""
        import av

        temporary = self._file.enter_context(whole_file(self.path))
        # With its index in front a browser shows it before all of it is there.
        container = av.open(str(temporary), "w", options={"movflags": "+faststart"})
        stream = container.add_stream("h264", rate=self._rate, options={"crf": "18"})
        stream.height, stream.width = size[0] + size[0] % 2, size[1] + size[1] % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS_PER_SECOND)
        self._size = size
        return container

    def _ticks_at(self, time: float | None) -> int:
        """When the next frame is shown: later than the one before, whatever its time is."""
        following = self._ticks + round(_TICKS_PER_SECOND / self._rate) if self.count else 0
        if time is None:
            self._ticks = following
        else:
            if self._start is None:
                self._start = time - following / _TICKS_PER_SECOND
            wanted = round((time - self._start) * _TICKS_PER_SECOND)
            self._ticks = max(wanted, self._ticks + 1) if self.count else wanted
        return self._ticks

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """FFmpeg's errors with the file's name in them."""
        import av

        try:
            yield
        except av.FFmpegError as error:
            raise OSError(f"{self.path} cannot be written ({error})") from error


def write_video(path: str | Path, frames: Iterable[RGB] | Iterable[Frame], *, frames_per_second: float = 10) -> None:
    """Write an H.264 file that browsers play; it is whole or not there.

    Args:
        path: Ending in ``.mp4``.
        frames: Each HWC uint8 RGB, of one size, or a `Frame`, whose time is kept. See `VideoWriter.write`.
        frames_per_second: For frames without a time.

    Raises:
        ValueError: If there is no frame, the size changes, the rate is not positive or the name ends in something
            else.
        OSError: If it cannot be written.
    """
    with VideoWriter(path, frames_per_second=frames_per_second) as video:
        for frame in frames:
            if isinstance(frame, Frame):
                video.write(frame.picture, frame.time)
            else:
                video.write(frame)
        if video.count == 0:
            raise ValueError("there is not a single frame to write")
