"""keystone: who is who, who may act where, and where the services are."""
