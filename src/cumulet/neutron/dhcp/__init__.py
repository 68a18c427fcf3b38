"""neutron-dhcp-agent: addresses, options and names for the servers of a network, by dnsmasq."""
