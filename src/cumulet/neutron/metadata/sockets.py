"""The real side of the metadata agent: listening sockets inside the namespaces of this machine."""

import os
from collections.abc import Mapping

from cumulet.core.errors import Retry
from cumulet.host import netns
from cumulet.neutron.metadata.agent import LISTENERS, namespace
from cumulet.neutron.metadata.proxy import Place, Proxy


class NamespaceSockets:
    """What ``agent.Listeners`` asks for; the sockets are the proxy's."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def look(self) -> Mapping[Place, bool]:
        return {place: _inode(place) == mark for place, mark in self._proxy.listening().items()}

    def listen(self, place: Place) -> bool:
        mark = _inode(place)
        if mark is None:
            return False
        if self._proxy.listening().get(place) == mark:
            return True
        name, sockets = namespace(place), []
        try:
            for address, port in LISTENERS[place.kind]:
                sockets.append(netns.listen_tcp(name, address, port))
        except OSError as error:
            for one in sockets:
                one.close()
            raise Retry(str(error)) from error
        self._proxy.listen(place, mark, sockets)
        return True

    def close(self, place: Place) -> None:
        self._proxy.close(place)


def _inode(place: Place) -> int | None:
    """What tells this namespace from another one of its name; None: there is none."""
    name = namespace(place)
    if not netns.exists(name):
        return None
    try:
        return os.stat(os.path.join(netns.DIRECTORY, name)).st_ino
    except FileNotFoundError:
        return None
