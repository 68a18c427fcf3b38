"""neutron-openvswitch-agent: wires this host's ports to their networks, and to nothing else."""
