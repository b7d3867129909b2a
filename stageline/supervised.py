"""A command of ``stageline`` that ends when the process ends that started it, however that ends.

Run as ``python -m stageline.supervised <arguments of stageline>``, as the leader of a session, with
a pipe as its standard input whose other end its starter alone holds.
"""

import os
import signal
import threading
import time

#: Seconds that the command has to end by itself: more than any part of ours needs.
_GRACE = 30.0


def _end_with_starter() -> None:
    while os.read(0, 1024):
        pass
    # Whoever read what we say is gone, too: saying more would be an error in the middle of the end.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nothing, descriptor)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(_GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_starter, daemon=True).start()

    from stageline.cli import main

    main(prog_name="stageline")
