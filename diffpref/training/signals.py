"""SIGTERM and Ctrl-C: the update is finished and saved, then the run stops with the usual exit code."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["StopSignals"]

logger = logging.getLogger(__name__)


class StopSignals:
    """Within the block, a first SIGTERM or SIGINT is only remembered; a second one acts at once, as usual.

    Signals reach the main thread only; in another thread nothing is changed.
    """

    KINDS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.number = 0
        """Of the signal that came; 0: none."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {kind: signal.signal(kind, self._remember) for kind in self.KINDS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before, self.number = {}, 0

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            self.__exit__(None, None, None)
            os.kill(os.getpid(), number)
            return
        self.number = number
        logger.warning("%s: this update is finished and saved, then the run stops", signal.Signals(number).name)
