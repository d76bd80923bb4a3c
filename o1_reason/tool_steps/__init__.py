"""Steps that use tools: what a tool says becomes part of the state.

tool        what a policy may call, and whether it has effects
builtin     a calculator, and Python in a sandbox
policy      `ToolPolicy`, over any chat model that calls tools
"""

from .builtin import calculator, python_tool
from .policy import ToolPolicy
from .tool import Tool, as_tool, pure

__all__ = ["Tool", "ToolPolicy", "as_tool", "calculator", "pure", "python_tool"]
