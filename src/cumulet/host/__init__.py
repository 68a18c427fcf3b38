"""The tools by which agents touch a Linux host: namespaces, links, nftables, Open vSwitch, daemons.

Nothing here knows about networks, ports or servers; a caller says which device, table or flow it wants and
the tool makes it so. Everything is synchronous and uses only the standard library and ctypes, so that no
process is spawned per object. Every `ensure_` function may be repeated and changes only what differs.

What may fail: the host itself (a device is gone, a daemon is down). Each module raises its own error type
that names the thing; the caller's next pass looks again.
"""
