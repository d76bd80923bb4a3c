"""Every program here is one that means harm, or one that must not notice where it runs."""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from o1_reason.errors import ConfigurationError, VerifierError
from o1_reason.sandbox import Limits, Sandbox, box

MIB = 1 << 20
WITHIN = Limits(seconds=20, cpu_seconds=10, memory=256 * MIB, processes=8, output=MIB, files=MIB)
USER = [] if os.geteuid() == 0 else ["--user"]
PLAIN = {  # what has to work for a mechanism to be possible at all, without any of our code
    "bubblewrap": ["bwrap", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "true"],
    "namespaces": ["unshare", *USER, "--net", "--pid", "--mount", "--ipc", "--uts", "--fork", "true"],
}
found: dict[str, str] = {}  # why a mechanism is impossible on this machine; empty: it is not


async def impossible(name):
    if name not in found:
        try:
            process = await asyncio.create_subprocess_exec(*PLAIN[name], stderr=asyncio.subprocess.PIPE)
            found[name] = (await process.communicate())[1].decode().strip()
        except FileNotFoundError as error:
            found[name] = str(error)
    return found[name]


@pytest.fixture(params=["bubblewrap", "namespaces"])
async def kind(request):
    """A mechanism that is possible on this machine."""
    why = await impossible(request.param)
    if why:
        pytest.skip(f"no sandbox by {request.param} on this machine ({why})")
    return request.param


async def test_a_sandbox_that_is_possible_works_and_one_finds_nothing_wrong_with_it(kind):
    assert await Sandbox(WITHIN)._fault(kind) == ""


def boxed(kind, **limits):
    sandbox = Sandbox(replace(WITHIN, **limits), trust=kind == "subprocess")
    sandbox._found = kind
    return sandbox


async def output(sandbox, program, stdin=b""):
    finished = await sandbox.run(program, stdin)
    assert (finished.ended, finished.status) == ("exit", 0), finished
    return json.loads(finished.stdout)


def marked(mark):
    """Processes of this machine that have `mark` in their command line."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if mark.encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
    return found


async def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def brood(mark):
    """A program that starts a process in a session of its own, which would run for ten minutes, and says so."""
    return f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "{mark}"], start_new_session=True)
print("started", flush=True)
"""


TRY = """
import json, os
def attempt(function, *args):
    try:
        return repr(function(*args))
    except OSError as error:
        return error.errno
"""


async def test_without_bubblewrap_the_namespaces_are_our_own(monkeypatch):
    if why := await impossible("namespaces"):
        pytest.skip(why)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert await Sandbox(WITHIN).mechanism() == "namespaces"


# What an honest program finds.


async def test_a_program_reads_its_input_and_writes_its_output(kind):
    finished = await boxed(kind).run("import sys; print(sys.stdin.read()[::-1]); sys.exit(3)", "añb".encode())
    assert (finished.ended, finished.status, finished.stdout.decode()) == ("exit", 3, "bña\n")


async def test_a_large_program_with_a_large_input_arrives_whole(kind):
    text = "x" * 300_000
    program = f"import sys; print([len('{text}'), len(sys.stdin.read())])"
    assert await output(boxed(kind), program, b"y" * 300_000) == [300_000, 300_000]


async def test_an_input_that_nobody_reads_does_no_harm(kind):
    assert await output(boxed(kind), "print(1)", b"y" * MIB) == 1


async def test_an_error_is_told(kind):
    finished = await boxed(kind).run("1 / 0")
    assert finished.status == 1
    assert b"ZeroDivisionError" in finished.stderr


async def test_threads_processes_and_files_are_there_within_limits(kind):
    program = """
import json, os, tempfile, threading
done = []
thread = threading.Thread(target=lambda: done.append(1)); thread.start(); thread.join()
with tempfile.NamedTemporaryFile() as file:
    file.write(b"x" * 1000); file.flush(); size = os.path.getsize(file.name)
child = os.fork()
if not child:
    os._exit(7)
print(json.dumps([done, size, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]))
"""
    assert await output(boxed(kind), program) == [[1], 1000, 7]


async def test_the_same_program_says_the_same_twice(kind):
    program = "print(hash('a string'))"
    assert await output(boxed(kind), program) == await output(boxed(kind), program)


# What it must not find.


async def test_nothing_of_the_environment_comes_in(kind, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    program = (
        TRY
        + """
places = ["/proc/self/environ", "/proc/1/environ", "/proc/self/status"]
print(json.dumps([sorted(os.environ), [attempt(open, place) for place in places]]))
"""
    )
    names, places = await output(boxed(kind), program)
    assert set(names) <= {"HOME", "LANG", "LC_CTYPE", "PATH", "PYTHONHASHSEED", "TMPDIR"}
    assert places == [2, 2, 2]  # there is no /proc


async def test_no_file_of_the_machine_can_be_read(kind, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o644)
    places = [
        "/etc/passwd",
        "/etc/hostname",
        str(secret),
        __file__,
        "/root/.bashrc",
        "/../etc/passwd",
        "../../etc/passwd",
        "/root/.ssh",
        "/sys",
    ]
    program = TRY + f"print(json.dumps([attempt(os.stat, place) for place in {places!r}]))"
    for code in await output(boxed(kind), program):
        assert code in (2, 13)  # not there, or in a folder that is closed


async def test_no_file_of_the_machine_can_be_written(kind, tmp_path):
    places = ["/", "/tmp", "/dev", "/usr/lib", "/etc", str(tmp_path), sys.base_prefix, box.__file__, "/dev/shm"]
    program = (
        TRY
        + f"""
def write(place):
    open(os.path.join(place, "witness"), "w").close()
result = [attempt(write, place) for place in {places!r}]
result += [attempt(os.chmod, "/usr/lib", 0o777), attempt(os.remove, os.__file__), attempt(os.mkdir, "/new")]
print(json.dumps(result))
"""
    )
    assert all(isinstance(code, int) for code in await output(boxed(kind), program))
    assert list(tmp_path.iterdir()) == []


async def test_what_can_be_seen_is_read_only_whoever_may_write_there(kind, monkeypatch, tmp_path):
    tmp_path.chmod(0o777)
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o666)
    visible = [*box._visible(), str(tmp_path)]
    monkeypatch.setattr(box, "_visible", lambda: visible)
    program = (
        TRY
        + f"""
os.chdir({str(tmp_path)!r})
tried = [attempt(open, "new", "w"), attempt(open, "file", "w"), attempt(os.remove, "file")]
print(json.dumps([open("file").read(), *tried]))
"""
    )
    assert await output(boxed(kind), program) == ["old", 30, 30, 30]  # a read-only file system


async def test_each_program_has_an_empty_folder_of_its_own(kind):
    program = "import json, os; print(json.dumps(os.listdir())); open('witness', 'w').close()"
    sandbox = boxed(kind)
    assert await output(sandbox, program) == ["main.py"]
    assert await output(sandbox, program) == ["main.py"]


async def test_no_network_can_be_reached(kind):
    async def serve(reader, writer):
        met.append(1)
        writer.close()

    met: list[int] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    program = (
        TRY
        + f"""
import socket
def connect(address):
    socket.create_connection(address, 2)
def send(address):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", address)
addresses = [("127.0.0.1", {port}), ("192.0.2.1", 80), ("localhost", {port})]
codes = [attempt(connect, address) for address in addresses] + [attempt(send, ("192.0.2.1", 53))]
print(json.dumps([codes, [name for _, name in socket.if_nameindex()]]))
"""
    )
    async with server:
        codes, interfaces = await output(boxed(kind), program)
    assert all(isinstance(code, int) for code in codes)
    assert interfaces == ["lo"]
    assert not met


async def test_no_descriptor_is_inherited(kind, tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        program = TRY + "print(json.dumps([n for n in range(64) if attempt(os.fstat, n) != 9]))"
        assert await output(boxed(kind), program) == [0, 1, 2]
    finally:
        os.close(descriptor)


async def test_it_is_nobody_and_stays_so(kind):
    program = (
        TRY
        + """
import ctypes
calls = [("setuid", 0), ("unshare", 0x10000000), ("setns", 0, 0), ("ptrace", 0, 0, 0, 0), ("memfd_create", b"x", 0)]
calls += [("shmget", 0, 4096, 0o1600), ("mount", b"x", b"/box", b"tmpfs", 0, None), ("chroot", b"/box")]
libc = ctypes.CDLL(None, use_errno=True)
refused = [getattr(libc, name)(*args) for name, *args in calls]
pid = libc.syscall({"x86_64": 56, "aarch64": 220}[os.uname().machine], 0x10000000 | 17, 0, 0, 0, 0)  # clone
if pid == 0: os._exit(0)
print(json.dumps([os.getuid() > 0, os.getpid() < 10, refused, pid]))
"""
    )
    assert await output(boxed(kind), program) == [True, True, [-1] * 8, -1]


# Limits.


async def test_a_program_that_calculates_for_ever_is_stopped_by_its_processor_time(kind):
    finished = await boxed(kind, cpu_seconds=1).run("while True: pass")
    assert (finished.ended, finished.status) == ("exit", 128 + 9)


async def test_a_program_that_waits_for_ever_is_stopped_by_the_clock(kind):
    finished = await boxed(kind, seconds=3.0).run("print('so far', flush=True)\nimport time; time.sleep(600)")
    assert (finished.ended, finished.status, finished.stdout) == ("time", None, b"so far\n")


async def test_a_program_that_ignores_signals_is_stopped_all_the_same(kind):
    program = """
import signal, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
time.sleep(600)
"""
    assert (await boxed(kind, seconds=3.0).run(program)).ended == "time"


async def test_memory_is_limited(kind):
    program = """
try:
    bytearray(300 << 20); print(0)
except MemoryError:
    print(len(bytearray(100 << 20)))
"""
    assert await output(boxed(kind), program) == 100 * MIB


async def test_a_fork_bomb_is_limited_in_number_and_leaves_nothing(kind):
    mark = f"bomb-{os.getpid()}-{kind}"
    program = f"""
import os, sys, time
if len(sys.argv) == 1:
    os.execv(sys.executable, [sys.executable, __file__, "{mark}"])
while True:
    try:
        os.fork()
        os.write(1, b".")
    except OSError:
        time.sleep(0.01)
"""
    finished = await boxed(kind, seconds=3.0, cpu_seconds=20).run(program)
    assert finished.ended == "time"
    assert 2 <= len(finished.stdout) <= 2 * 8  # each fork is told twice
    await until(lambda: not marked(mark))


async def test_a_thread_bomb_is_limited(kind):
    program = """
import threading, time
threading.stack_size(65536)
count = 0
try:
    while count < 100:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start(); count += 1
except RuntimeError:
    pass
print(count, flush=True)
import os; os._exit(0)
"""
    assert await output(boxed(kind), program) <= 8


async def test_output_without_end_is_cut_off(kind):
    finished = await boxed(kind).run("import sys\nfor _ in range(1024): sys.stdout.write('x' * (1 << 20))")
    assert (finished.ended, finished.status, len(finished.stdout)) == ("output", None, MIB)


async def test_errors_without_end_hold_up_nobody(kind):
    finished = await boxed(kind).run("import sys\nfor _ in range(30): sys.stderr.write('x' * (1 << 20))\nprint(1)")
    assert (finished.ended, finished.stdout, len(finished.stderr)) == ("exit", b"1\n", MIB)


async def test_files_are_limited_one_by_one_and_together(kind):
    program = (
        TRY
        + """
def write(name, size):
    with open(name, "wb") as file:
        for _ in range(size):
            file.write(b"x" * 1024); file.flush()
one = attempt(write, "one", 2000)
os.remove("one")
print(json.dumps([one, [attempt(write, str(i), 300) for i in range(6)]]))
"""
    )
    one, several = await output(boxed(kind), program)
    assert one in (27, 28)  # too large a file, no space left
    assert (several[0], several[-1]) == ("None", 28)


# Nothing remains.


async def test_what_a_program_leaves_behind_ends_with_it_and_holds_up_nobody(kind):
    mark = f"left-{os.getpid()}-{kind}"
    finished = await boxed(kind).run(brood(mark))
    assert (finished.ended, finished.status, finished.stdout) == ("exit", 0, b"started\n")
    await until(lambda: not marked(mark))


async def test_cancelling_a_run_ends_the_program_and_all_that_it_started(kind):
    mark = f"cancelled-{os.getpid()}-{kind}"
    task = asyncio.create_task(boxed(kind).run(brood(mark) + "time.sleep(600)"))
    await until(lambda: len(marked(mark)) >= 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not marked(mark))


async def test_cancelling_at_any_moment_leaves_nothing(kind):
    sandbox = boxed(kind)
    mark = f"moments-{os.getpid()}-{kind}"
    before = len(os.listdir("/proc/self/fd"))
    for delay in (0.0, 0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16):
        task = asyncio.create_task(sandbox.run(brood(mark) + "time.sleep(600)"))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await output(sandbox, "print(1)") == 1  # and every slot is free again
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before and not marked(mark))


async def test_at_most_so_many_run_at_once(kind):
    sandbox = Sandbox(WITHIN, parallel=1)
    sandbox._found = kind
    async with sandbox.start("import time; time.sleep(600)"):
        second = asyncio.create_task(sandbox.run("print(2)"))
        await asyncio.sleep(0.3)
        assert not second.done()
    assert (await second).stdout == b"2\n"


async def test_several_programs_can_talk_as_one_run(kind):
    echo = "print(input() + '!', flush=True); input()"
    sandbox = Sandbox(WITHIN, parallel=1)
    sandbox._found = kind
    async with sandbox.start(echo, echo) as (a, b):
        a.stdin.write(b"hello\n")
        b.stdin.write(await a.stdout.readline())
        assert await b.stdout.readline() == b"hello!!\n"


# Refusal.


async def test_a_machine_without_a_sandbox_runs_nothing_and_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "plan9")
    monkeypatch.setattr(box, "_command", lambda *_: pytest.fail("something was run"))
    with pytest.raises(ConfigurationError, match=r"apt-get install bubblewrap.*Sandbox\(trust=True\)"):
        await Sandbox().run(f"open({str(tmp_path / 'witness')!r}, 'w')")


async def test_a_sandbox_that_leaks_is_found_out_and_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/" + name)
    command = box._command
    monkeypatch.setattr(
        box,
        "_command",
        lambda kind, order: command("subprocess", {**order, "enclose": False, "user": None, "folder": str(tmp_path)}),
    )
    with pytest.raises(ConfigurationError, match=r"/etc/passwd can be read.*other processes can be seen"):
        await Sandbox(WITHIN).run("print(1)")


async def test_limits_under_which_python_cannot_start_are_refused_with_the_reason(kind):
    with pytest.raises(ConfigurationError, match=rf"{kind}: (?!not installed).{{10}}"):
        await Sandbox(replace(WITHIN, memory=MIB)).run("print(1)")


async def test_a_sandbox_that_fails_later_is_an_error_and_no_verdict(monkeypatch, tmp_path):
    false = tmp_path / "bwrap"
    false.write_text("#!/bin/sh\necho no more namespaces >&2\nexit 1\n")
    false.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(false))
    with pytest.raises(VerifierError, match="no more namespaces"):
        await boxed("bubblewrap").run("print(1)")


async def test_detection_happens_once(kind, monkeypatch):
    tried = []

    async def fault(self, mechanism):
        tried.append(mechanism)
        await asyncio.sleep(0.01)
        return "" if mechanism == kind else "not this one"

    monkeypatch.setattr(Sandbox, "_fault", fault)
    sandbox = Sandbox(WITHIN)
    assert [*await asyncio.gather(*(sandbox.mechanism() for _ in range(5)))] == [kind] * 5
    assert tried == ["bubblewrap", "namespaces"][: ["bubblewrap", "namespaces"].index(kind) + 1]


@pytest.mark.parametrize("name", ["seconds", "cpu_seconds", "memory", "processes", "output", "files"])
def test_a_limit_must_be_positive(name):
    with pytest.raises(ConfigurationError, match=f"{name} must be greater than 0"):
        Limits(**{name: 0})


def test_parallel_must_be_positive():
    with pytest.raises(ConfigurationError, match="parallel"):
        Sandbox(parallel=0)


# Trust.

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")


@posix
async def test_trust_is_a_plain_process_with_limits():
    sandbox = Sandbox(replace(WITHIN, seconds=3.0), trust=True)
    assert await sandbox.mechanism() == "subprocess"
    assert (await sandbox.run("import time; time.sleep(600)")).ended == "time"
    assert (await sandbox.run("print('x' * (2 << 20))")).ended == "output"
    assert b"MemoryError" in (await sandbox.run("bytearray(300 << 20)")).stderr
    assert b"File too large" in (await sandbox.run("open('a', 'wb').write(b'x' * (2 << 20))")).stderr


@posix
async def test_trust_still_gives_a_clean_environment_and_a_folder_that_goes_away(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    program = "import json, os; open('witness', 'w').close(); print(json.dumps([os.getcwd(), list(os.environ)]))"
    folder, names = await output(boxed("subprocess"), program)
    assert os.path.basename(folder) not in os.listdir(tempfile.gettempdir())
    assert "OPENAI_API_KEY" not in names


@posix
async def test_trust_ends_what_stays_in_the_programs_group():
    mark = f"trusted-{os.getpid()}"
    finished = await boxed("subprocess").run(brood(mark).replace("start_new_session=True", ""))
    assert (finished.ended, finished.status) == ("exit", 0)
    await until(lambda: not marked(mark))
