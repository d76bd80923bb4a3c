"""The first program to be run in a new kind of sandbox. It looks around, and finds nothing if all is well."""

import os
import socket


def look(outside: list[str]) -> str:
    """What is wrong; empty if nothing is. `outside`: two files not to be seen, and folders not to be written to."""
    files = [*outside[:2], *(f"/..{path}" for path in outside[:2])]
    faults = [f"{path} can be read" for path in files if os.path.exists(path)]
    for folder in ("/", "/dev", *outside[2:]):
        path = os.path.join(folder, f"o1-reason-{os.urandom(8).hex()}")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.remove(path)
            faults.append(f"{folder} can be written to")
        except OSError:
            pass
    faults += [f"there is a network: {name}" for _, name in socket.if_nameindex() if name != "lo"]
    if os.getpid() > 10:
        faults.append("other processes can be seen")
    try:
        os.setuid(0)
        faults.append("it has privileges")
    except OSError:
        pass
    for device in ("/dev/null", "/dev/urandom"):
        try:
            os.close(os.open(device, os.O_RDWR))
        except OSError as error:
            faults.append(str(error))
    return "; ".join(faults)
