"""The real side of the loop ``rivals``: the public devices of the routers in this host's namespaces."""

from collections.abc import Callable

from cumulet.core.config import Config
from cumulet.core.errors import Retry
from cumulet.host import arp, netns
from cumulet.host.ears import Ears, Place
from cumulet.host.interface import own_namespaces
from cumulet.host.netlink import Netlink
from cumulet.host.nft import Nft, NftError
from cumulet.neutron.l3.driver import FAMILY, PREFIX, TABLE, TOLD

PUBLIC, DEVICES = "qg-", ("qg-", "qr-")


class KernelVoices:
    """What ``rivals.Voices`` asks for, on this machine."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ears: Ears | None = None

    def start(self, on_rival: Callable[[str], None]) -> None:
        self._ears = Ears(on_rival)

    def stop(self) -> None:
        if self._ears:
            self._ears.close()

    def listen(self) -> None:
        found = {}
        for namespace in own_namespaces(self._config.run, PREFIX):
            if netns.exists(namespace):
                with netns.enter(namespace), Netlink() as link:
                    for one in link.links().values():
                        if one.name.startswith(PUBLIC):
                            found[namespace.removeprefix(PREFIX)] = Place(namespace, one.name, one.index, one.mac)
        if self._ears:
            self._ears.listen(found)

    def announce(self, router_id: str) -> None:
        try:
            with netns.enter(PREFIX + router_id), Netlink() as link:
                arp.announce_all(_news(link), router=True)
        except OSError as error:
            raise Retry(str(error)) from error

    def silence(self, router_id: str) -> None:
        """What was told counts no more, so that all is announced again should the router stay here after all."""
        try:
            with netns.enter(PREFIX + router_id), Netlink() as link, Nft() as nft:
                _forget_told(nft)
                devices = [name for name in link.links() if name.startswith(DEVICES)]
                for device in devices:
                    if not device.startswith(PUBLIC):
                        link.set_down(device)
                arp.announce_all(_news(link), router=True)
                for device in devices:
                    link.set_down(device)
        except (OSError, NftError) as error:
            raise Retry(str(error)) from error


def _news(link: Netlink) -> list[arp.News]:
    """The addresses of the public devices that are up."""
    return [
        arp.News(one.name, address.partition("/")[0], one.mac)
        for one in link.links().values()
        if one.name.startswith(PUBLIC) and one.up
        for address in link.addresses(one.name)
        if not address.startswith("fe80:")
    ]


def _forget_told(nft: Nft) -> None:
    chains = [entry["chain"] for entry in nft.list_json(f"list chains {FAMILY}") if "chain" in entry]
    told = [chain["name"] for chain in chains if chain["table"] == TABLE and chain["name"].startswith(TOLD)]
    if told:
        nft.run("\n".join(f"delete chain {FAMILY} {TABLE} {name}" for name in told))
