"""Programs that a model wrote, run where they can do no harm.

A program gets a process of its own, in Linux namespaces of its own: no network, no other process to be seen, a
read-only file system that holds Python and the system's libraries and nothing else, one empty folder to write to, a
clean environment, no inherited descriptor but its standard three, no privilege, another user's id; and limits on time,
memory, processes, output and files. bubblewrap builds this where it is installed, else `launch` does. Before
the first program, one of ours looks around inside; where it finds the sandbox leaking, or the machine has none, nothing
is run at all. It is a boundary of the kernel, not of a virtual machine: as good as the kernel is.
"""

from .box import Mechanism, Sandbox
from .guest import Finished, Guest, Limits, last_words

__all__ = ["Finished", "Guest", "Limits", "Mechanism", "Sandbox", "last_words"]
