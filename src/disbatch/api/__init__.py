"""Submit tasks to a run, wait for their results, read status files. `import disbatch` has all names."""

from disbatch.api.compat import DisBatcher
from disbatch.api.run import DisBatch
from disbatch.api.status_files import read_status, to_polars
from disbatch.api.task import Task
from disbatch.model.errors import DisbatchError, RunEndedError, SilenceError, UsageError
from disbatch.model.result import TaskFailedError, TaskResult

__all__ = [
    "DisBatch",
    "DisBatcher",
    "DisbatchError",
    "RunEndedError",
    "SilenceError",
    "Task",
    "TaskFailedError",
    "TaskResult",
    "UsageError",
    "read_status",
    "to_polars",
]
