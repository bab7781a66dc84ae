"""Runs one of the Eclipse Paho interoperability tests, checked out elsewhere, against a broker on 127.0.0.1.

`python tests/interop/paho.py .../interoperability/client_test5.py PORT`. The suites read their port from a command line
that unittest reads again and refuses; here each gets its own.
"""

import os
import runpy
import sys
import unittest
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    suite, port = Path(sys.argv[1]).resolve(), sys.argv[2]
    os.chdir(suite.parent)
    sys.path.insert(0, str(suite.parent))
    sys.argv = [str(suite), "--hostname", "127.0.0.1", "-p", port]
    unittest.main = partial(unittest.main, argv=[str(suite)], verbosity=2)
    runpy.run_path(str(suite), run_name="__main__")
    sys.exit("the suite did not run")  # unittest ends the process itself: who comes here has seen a usage text
