"""The whole service line as local processes, supervised: `up`, `down`, `status`."""

from bioverify.stack.errors import StackError
from bioverify.stack.lifecycle import ProcessStatus, down, status, up
from bioverify.stack.plan import Plan, free_port_base, holder_of, state_folder, taken_ports

__all__ = [
    "Plan",
    "ProcessStatus",
    "StackError",
    "down",
    "free_port_base",
    "holder_of",
    "state_folder",
    "status",
    "taken_ports",
    "up",
]
