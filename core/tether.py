"""Run a command that does not outlive its parent: ``python -m convergedon.core.tether PARENT argv...``

The command takes this process's place, so its pid is the one that the parent knows. On Linux the kernel ends it when
the parent dies, however the parent dies. Elsewhere nothing does; the supervisor ends what an earlier one left behind.
Imports the standard library alone: the supervisor runs this file with ``python -I -S``, which is up in 12 ms.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # not SIGTERM: SecantusDB now and then hangs on it, and every child of ours survives a crash
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel was asked
            sys.exit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec hands that down
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.exit(f"cannot run {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
