"""A first signal waits for the update, a second does not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from diffpref.cli import main
from diffpref.core.errors import Interrupted
from diffpref.training.signals import StopSignals


@pytest.fixture
def _heard() -> Iterator[None]:
    """Let Ctrl-C be heard as on a terminal: a process that a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard")
def test_row_03_a_first_signal_is_remembered_and_a_second_acts_at_once(caplog: pytest.LogCaptureFixture) -> None:
    before = [signal.getsignal(kind) for kind in StopSignals.KINDS]
    with pytest.raises(KeyboardInterrupt), StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.number == signal.SIGINT
        assert caplog.messages == ["SIGINT: this update is finished and saved, then the run stops"]
        os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(kind) for kind in StopSignals.KINDS] == before and signals.number == 0


def test_in_another_thread_nothing_is_changed() -> None:
    seen: list[object] = []

    def look() -> None:
        with StopSignals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_row_03_the_command_ends_with_the_usual_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(words: list[str]) -> int:
        raise Interrupted("stopped by SIGTERM", signal.SIGTERM)

    monkeypatch.setattr("diffpref.cli.train.main", stop)
    assert main(["train"]) == 143 and capsys.readouterr().err == "diffpref: stopped by SIGTERM\n"
