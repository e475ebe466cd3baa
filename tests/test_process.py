"""The new start happens once and leaves the user's wishes alone; processes share what they compile."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flam_jax import process

PROGRAM = "import os, sys; from flam_jax.process import take_large_pages; take_large_pages(); "
PROGRAM += "print(os.environ['GLIBC_TUNABLES'], os.getpid(), *sys.argv)"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is done")
@pytest.mark.parametrize("own", ["", "glibc.malloc.perturb=0"])
def test_the_program_goes_on_as_the_same_process_with_the_same_arguments(own: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment |= {"GLIBC_TUNABLES": own} if own else {}
    command = [sys.executable, "-c", PROGRAM, "--workdir=a b", "c"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        found = started.stdout.read().split(" ", 2)
    assert started.returncode == 0
    assert found == [own or "glibc.malloc.hugetlb=1", str(started.pid), "-c --workdir=a b c\n"]


def test_elsewhere_than_on_linux_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started anew"))
    process.take_large_pages()
    assert "GLIBC_TUNABLES" not in os.environ


def test_absent_chips_are_left_alone_where_there_is_their_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda _: object())
    for present in (True, False):
        monkeypatch.setattr(process, "has_tpu", lambda present=present: present)
        for name in process._NO_CHIPS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a")  # somebody's wish
        process.leave_absent_chips_alone()
        assert os.environ.get("TPU_SKIP_MDS_QUERY") == (None if present else "1")
        assert os.environ["TPU_WORKER_HOSTNAMES"] == "a"


def test_processes_share_what_they_compile_unless_the_user_has_a_place_for_it(monkeypatch, tmp_path):
    monkeypatch.delenv(process.COMPILED, raising=False)
    with process.compiled_once():
        folder = Path(os.environ[process.COMPILED])
        assert folder.is_dir()
    assert not folder.exists()
    assert process.COMPILED not in os.environ
    monkeypatch.setenv(process.COMPILED, str(tmp_path))
    with process.compiled_once():
        assert os.environ[process.COMPILED] == str(tmp_path)
    assert tmp_path.is_dir()
