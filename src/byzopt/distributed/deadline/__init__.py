"""Rounds that wait for nobody longer than a deadline: `transport` (rows of all ranks that came in time, the
same everywhere), `rounds` (vectors, headers and errors over it), `consensus` (who counts), `network` `inbox`
(what crosses), `states` (what a rank that comes back is given)."""

from byzopt.distributed.deadline.transport import Behind, DeadlineTransport, Rows

__all__ = ["Behind", "DeadlineTransport", "Rows"]
