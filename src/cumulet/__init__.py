"""Cumulet: an IaaS cloud that speaks the OpenStack APIs, in one package."""

__version__ = "0.1.0"
