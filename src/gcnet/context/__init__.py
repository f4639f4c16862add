"""Context blocks for any network: needs PyTorch and nothing else."""

from gcnet.context.global_context import GlobalContext
from gcnet.context.record import record

__all__ = ["GlobalContext", "record"]
