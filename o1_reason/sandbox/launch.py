"""The first program in a sandbox: shuts the door behind itself, then becomes the program that is to be run.

It is handed to Python as text (``python -I -S -c``), so it stands alone: the standard library and nothing else. Its one
argument is JSON (`Sandbox._order`); its standard input is the program, followed by what the program is to read. It
writes to the descriptor `ready` when nothing but the program itself can still go wrong.
"""

import json
import os
import resource
import select
import signal
import struct
import sys
from typing import Any

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
NOSUID, NODEV, BIND, REC, PRIVATE, DETACH = 2, 4, 4096, 16384, 1 << 18, 2  # of mount and umount
SET_PDEATHSIG, SET_SECCOMP, SET_NO_NEW_PRIVS = 1, 22, 38  # of prctl
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, READ_ONLY = 442, -100, 0x8000, 1 | NOSUID | NODEV
NOBODY = 65534

# What an ordinary program has no use for: namespaces of its own, memory that no limit counts, other processes' memory,
# and the parts of the kernel that most holes were found in. By processor: the audit architecture and call numbers of
# unshare, setns, shmget, memfd_create, ptrace, bpf, userfaultfd, io_uring_setup, perf_event_open, add_key,
# request_key, keyctl; then clone, clone3 and pivot_root.
MACHINES = {
    "x86_64": (0xC000003E, (272, 308, 29, 319, 101, 321, 323, 425, 298, 248, 249, 250), 56, 435, 155),
    "aarch64": (0xC00000B7, (97, 268, 194, 279, 117, 280, 282, 425, 241, 217, 218, 219), 220, 435, 41),
}
X32 = 0x40000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of classic BPF
ALLOW, KILL, REFUSE, UNKNOWN = 0x7FFF0000, 0x80000000, 0x50001, 0x50026  # EPERM, ENOSYS


def main(order: dict[str, Any]) -> None:
    if order["enclose"]:
        enclose(order)
    os.chdir(order["folder"])
    left = order["program"]
    with open("main.py", "wb") as file:  # byte by exact byte: what follows on standard input is the program's
        while left:
            piece = os.read(0, left)
            if not piece:
                sys.exit("the program did not arrive whole")
            left -= file.write(piece)
    if order["user"] is not None:
        os.chmod("main.py", 0o644)
        os.setgroups([])
        os.setgid(order["user"])
        os.setuid(order["user"])
    if sys.platform == "linux":
        libc().prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        call("prctl", SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for name, most in order["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))
    if order["filter"]:
        refuse_calls()
    os.set_inheritable(order["ready"], False)
    os.write(order["ready"], b"ready")
    os.execve(order["python"], [order["python"], "-s", "main.py"], order["environment"])


def enclose(order: dict[str, Any]) -> None:
    """Namespaces of our own: no network, no foreign process, a read-only file system with little in it.

    Returns in a child that is not the first process of its namespace; the others wait for it and pass its status on.
    """
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS | (NEWUSER if uid else 0))
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    libc().prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    furnish(order)
    alive, kept = os.pipe()  # the write end stays open for as long as this process lives
    inside = os.fork()
    if inside:
        os.close(alive)
        wait_for(inside, order["ready"])
    os.close(kept)
    libc().prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if select.select([alive], [], [], 0)[0]:  # it died before it could take us along
        os._exit(1)
    program = os.fork()
    if program:
        wait_for(program, order["ready"])
    os.close(alive)


def wait_for(child: int, ready: int) -> None:
    """Reap until `child` has ended, then end like it. The first process of a namespace takes the others along."""
    os.close(ready)
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def furnish(order: dict[str, Any]) -> None:
    """A root of its own: `order["visible"]` read-only, two devices, and a folder of limited size to write to."""
    call("mount", None, b"/", None, REC | PRIVATE, None)
    sources = {path: os.open(path, os.O_PATH) for path in [*order["visible"], "/dev/null", "/dev/urandom"]}
    root = "/tmp"
    call("mount", b"tmpfs", root.encode(), b"tmpfs", NOSUID | NODEV, b"size=1m,mode=755")
    for path in order["visible"]:
        os.makedirs(root + path, exist_ok=True)
        call("mount", f"/proc/self/fd/{sources[path]}".encode(), (root + path).encode(), None, BIND | REC, None)
    for path in (order["folder"], "/dev"):
        os.makedirs(root + path, exist_ok=True)
    for path in ("/dev/null", "/dev/urandom"):
        os.close(os.open(root + path, os.O_CREAT))
    attributes = (READ_ONLY).to_bytes(8, sys.byteorder) + bytes(24)
    call("syscall", MOUNT_SETATTR, AT_FDCWD, root.encode(), AT_RECURSIVE, attributes, len(attributes))
    for path in ("/dev/null", "/dev/urandom"):
        call("mount", f"/proc/self/fd/{sources[path]}".encode(), (root + path).encode(), None, BIND, None)
    size = f"size={order['files']},mode=1777".encode()
    call("mount", b"tmpfs", (root + order["folder"]).encode(), b"tmpfs", NOSUID | NODEV, size)
    for descriptor in sources.values():
        os.close(descriptor)
    os.chdir(root)
    call("syscall", MACHINES[os.uname().machine][4], b".", b".")
    call("umount2", b".", DETACH)
    os.chdir("/")


def refuse_calls() -> None:
    """Have the kernel refuse what `MACHINES` lists, to this process and all that it becomes or starts."""
    import ctypes

    machine, calls, clone, clone3, _ = MACHINES[os.uname().machine]
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, machine), (RETURN, 0, 0, KILL)]  # each: operation, jumps, operand
    code += [(LOAD, 0, 0, 0), (AT_LEAST, 0, 1, X32), (RETURN, 0, 0, REFUSE)]
    for number in calls:
        code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE)]
    code += [(EQUAL, 0, 1, clone3), (RETURN, 0, 0, UNKNOWN)]  # its flags cannot be seen; libraries then use clone
    apart = NEWNS | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
    code += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, 16), (ANY_BIT, 0, 1, apart), (RETURN, 0, 0, REFUSE)]
    code += [(RETURN, 0, 0, ALLOW)]
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    program = struct.pack("HP", len(code), ctypes.addressof(text))
    call("prctl", SET_SECCOMP, 2, program, 0, 0)


def libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> None:
    """A system call; raises OSError where it is refused."""
    import ctypes

    if getattr(libc(), name)(*arguments):
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
