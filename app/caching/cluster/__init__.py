"""A Redis Cluster: several Redises, each with its own clock, run and trust, and a map from keys to them.

cluster.py          opens it
topology.py         which node owns which slot (`slot_map.py`), and when that is read again
nodes.py            opens and closes the nodes (`node.py`)
sending.py          sends each call (`call.py`) to its node, in one write per node (`exchange.py`), and follows it
node_batching.py    combines the calls of a tick, and answers each caller when its node has (`judged.py`, `lists.py`)
cluster_values.py   asks for the values of a region, and for their leases (`cluster_leases.py`)
"""

from .address import Address
from .answer import Answer
from .call import Call
from .cluster import Cluster, open_cluster
from .node import Node
from .node_batching import NodeBatching
from .sending import Sending

__all__ = ["Address", "Answer", "Call", "Cluster", "Node", "NodeBatching", "Sending", "open_cluster"]
