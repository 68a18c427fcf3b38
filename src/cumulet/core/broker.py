"""What is agreed on about the broker, for those that do not talk to it themselves."""

from urllib.parse import quote, urlsplit

HINTS = "cumulet.hints"
"""The exchange of hints."""
CONTROLLERS, HOSTS = "cumulet", "cumulet-hosts"
"""Users of the broker where its URL names none: controller services may use all of it, hosts only hints."""


def complete_url(url: str, user: str, password: str) -> str:
    """The broker's URL, with this user and password if it has none of its own."""
    parts = urlsplit(url)
    if parts.username is not None:
        return url
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{parts.netloc}").geturl()
