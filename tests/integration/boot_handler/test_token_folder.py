"""The folder of tokens as it is in the container: root's, without the right to change other people's files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pipeline.run import find_program, run
from pipeline.workspace import REPOSITORY

PERSON = 12345  # nobody's number
PROGRAM = """
import logging, sys
from pathlib import Path
from pxeboot_stack.boot_handler.tokens import TokenStore
from tests.fakes.lab_files import make_machine
logging.basicConfig(stream=sys.stdout)
folder = Path(sys.argv[1]) / "_tokens"
token = TokenStore(folder).issue(make_machine())
assert TokenStore(folder).find(token) == make_machine().uuid
print("mode", oct(folder.stat().st_mode & 0o777))
"""


@pytest.mark.skipif(os.geteuid() != 0 or find_program("setpriv") is None, reason="root and setpriv are needed")
@pytest.mark.parametrize("made", [True, False])
def test_root_without_cap_fowner_keeps_tokens_in_a_persons_folder(tmp_path: Path, *, made: bool) -> None:
    status = tmp_path / "status"
    status.mkdir()
    if made:
        (status / "_tokens").mkdir(mode=0o755)
        os.chown(status / "_tokens", PERSON, PERSON)
    os.chown(status, PERSON, PERSON)
    limited = ["setpriv", "--bounding-set=-fowner", "--inh-caps=-fowner"]
    argv = [*limited, sys.executable, "-c", PROGRAM, str(status)]
    done = run(argv, timeout=30, env={"PYTHONPATH": str(REPOSITORY)})
    assert ("is open to others, and stays so" in done.stdout) is made
    assert f"mode {'0o755' if made else '0o700'}" in done.stdout
