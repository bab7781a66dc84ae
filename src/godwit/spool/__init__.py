"""Durable, ordered, bounded store-and-forward: what a device measured stays here until the server has stored it.

`Spool` keeps items in tracks, a track being one stream in one epoch, numbered from 0 without holes. What is next and
what leaves when there is no more room decides `policy`, which is pure; the rest of the room keeps its word on a disk
that fills up, rots, or loses its power. Blocking and thread-safe; nothing here knows the network.
"""

from godwit.spool.model import Depth, Durability, Gap, Item, Track
from godwit.spool.policy import Bounds
from godwit.spool.queue import Spool

__all__ = ["Bounds", "Depth", "Durability", "Gap", "Item", "Spool", "Track"]
