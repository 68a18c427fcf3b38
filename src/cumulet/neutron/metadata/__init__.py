"""neutron-metadata-agent: lets servers ask nova's metadata API, and vouches for who asks."""
