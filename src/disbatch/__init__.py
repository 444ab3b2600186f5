"""Run a file of shell commands over the computers a scientist has, and lose nothing."""

from __future__ import annotations

from disbatch.model.version import VERSION

__version__ = VERSION

# Not that of `typing`, which would be imported on every node.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from disbatch.api import DisBatch as DisBatch
    from disbatch.api import DisBatcher as DisBatcher
    from disbatch.api import DisbatchError as DisbatchError
    from disbatch.api import RunEndedError as RunEndedError
    from disbatch.api import SilenceError as SilenceError
    from disbatch.api import Task as Task
    from disbatch.api import TaskFailedError as TaskFailedError
    from disbatch.api import TaskResult as TaskResult
    from disbatch.api import UsageError as UsageError
    from disbatch.api import read_status as read_status
    from disbatch.api import to_polars as to_polars

__all__ = (
    "DisBatch", "DisBatcher", "DisbatchError", "RunEndedError", "SilenceError", "Task", "TaskFailedError",
    "TaskResult", "UsageError", "read_status", "to_polars",
)  # fmt: skip


def __getattr__(name: str) -> object:
    """The names of `disbatch.api`, for which engines and the command line never ask."""
    from importlib import import_module

    if name in __all__:
        return getattr(import_module("disbatch.api"), name)
    if name == "disBatch":  # where programs written for disBatch 3.0 look for DisBatcher
        return import_module("disbatch.api.compat")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
