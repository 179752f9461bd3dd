"""How a run is ended from outside: by a signal, or because the process that started it is gone.

Imports nothing heavy: it has to listen while PyTorch is still being imported.
"""

import os
import signal
import threading
import time

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 10.0


class Stopped(BaseException):
    """A BaseException, so that no library takes it for an error of its own and goes on."""


def raise_on_signal() -> None:
    """From now on SIGTERM and SIGINT raise `Stopped` in the main thread, once: a second one must not interrupt what
    the first one's `Stopped` still has to write."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise Stopped

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def end_with_parent(parent: int) -> None:
    """SIGTERM to this process as soon as `parent` is no longer its parent; its end, if it then takes too long.

    The kernel can do that where it has a parent-death signal (Linux); this does it everywhere.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
