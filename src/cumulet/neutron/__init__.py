"""Networks, their ports and routers, and the agents that make them real."""
