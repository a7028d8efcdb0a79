"""The command that shows the page: what is wrong is told in a line, and a signal ends it at any time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command import assert_refused, run

pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'sam_uniref[demo]'")


def test_without_gradio_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert_refused(run("demo", "--no-open"), "pip install 'sam_uniref[demo]'")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nowhere"], "nowhere"),
        (["--max-frames", "0"], "frames must be above 0"),
        (["--device", "abacus"], "there is no device 'abacus'"),
        (["--host", "192.0.2.1"], "can't listen at 192.0.2.1 ("),  # an address that is kept for examples
        (["--host", "no host"], "there is no host 'no host'"),
    ],
)
def test_what_is_wrong_with_the_command_is_told_in_a_line(options: list[str], message: str) -> None:
    assert_refused(run("demo", "--no-open", *options), message)


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(run("demo", "--no-open", "--port", port), f"can't listen at 127.0.0.1:{port} (")


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_before_the_page_is_there(number: signal.Signals, code: int, tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background ignores it
        "import gradio\n"
        "def launch(page, **options):\n"
        "    print('launching', flush=True)\n"
        "    time.sleep(600)\n"
        "gradio.Blocks.launch = launch\n"
        "from sam_uniref import cli\n"
        "sys.argv[1:] = ['demo', '--no-open']; cli.main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"launching\n"
        assert list(tmp_path.glob("sam_uniref_web_*"))
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == code
    assert list(tmp_path.glob("sam_uniref_web_*")) == []
