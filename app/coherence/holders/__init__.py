"""Which node of a cluster holds which slot, as Postgres says: at most one node is believed about a slot at a time.

word.py             what a node says of itself
view.py             who holds what, as one text in the newest epoch
changes.py          which slots have to get another holder, and how
member.py           one node, asked at each poll
cluster_nodes.py    all nodes, as the places of one service
"""
