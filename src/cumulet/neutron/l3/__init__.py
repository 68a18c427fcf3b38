"""neutron-l3-agent: routers, source NAT and floating IPs, each router in a network namespace of its own."""
