"""Cameras by their number, through FFmpeg's devices."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer


def open_camera(index: int) -> tuple[InputContainer, str]:
    """Open a camera.

    Args:
        index: Its number, from 0: N of ``/dev/videoN`` on Linux, the place in the system's list on macOS and Windows.

    Returns:
        The container that gives its frames, and what to call it in messages.

    Raises:
        ValueError: If the number is negative.
        OSError: If there is no such camera, or it cannot be opened.
    """
    if index < 0:
        raise ValueError(f"a camera's number must be 0 or more, got {index}")
    import av

    system = platform.system()
    try:
        device_format, file, options = _device(system, index)
        container = av.open(file, format=device_format, options=options)
    # ValueError: this build of FFmpeg has no such devices.
    except (av.FFmpegError, ImportError, ValueError) as error:
        raise OSError(
            f"camera {index} cannot be opened on {system} ({error}); see that it is there, that no other program "
            "uses it, and that this one may"
        ) from error
    return container, f"camera {index}"


def _device(system: str, index: int) -> tuple[str, str, dict[str, str]]:
    """FFmpeg's format, file name and options of a camera."""
    if system == "Darwin":
        # Few cameras there know the default, 29.97 frames a second.
        return "avfoundation", f"{index}:none", {"framerate": "30"}
    if system == "Windows":
        return "dshow", f"video={_windows_camera(index)}", {}
    return "v4l2", f"/dev/video{index}", {}


def _windows_camera(index: int) -> str:
    """The name of a camera, since DirectShow does not number them."""
    from av.device import enumerate_input_devices

    cameras = [device for device in enumerate_input_devices("dshow") if "video" in device.media_types]
    if index >= len(cameras):
        names = [camera.description for camera in cameras]
        raise ValueError(f"there are {len(names)} cameras: {names}")
    return cameras[index].name
