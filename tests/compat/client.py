"""The unmodified ``openstack`` client, loaded once for many commands; runs inside the test's machine.

Loading the client takes seconds, a command then some hundredths.  Each line of its input is the words of one
command (JSON), each line of its output says how the command ended, what it printed and which requests it sent.  It
is the client's interactive mode without its prompt: one session and one token for all commands.
"""

import contextlib
import io
import json
import logging
import re
import sys

from openstackclient.shell import OpenStackShell

REQUEST = re.compile(r"""^REQ: curl .*?-X (\w+) "?([^\s"]+)""")


class Requests(logging.Handler):
    """What keystoneauth says that it sends, whatever the client's own log level is."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if found := REQUEST.match(record.getMessage()):
            self.seen.append(f"{found[1]} {found[2]}")


class Client:
    def __init__(self) -> None:
        self._shell = OpenStackShell()
        self._requests = Requests()
        self._started = False

    def run(self, words: list[str]) -> dict[str, object]:
        out, err = io.StringIO(), io.StringIO()
        self._requests.seen = []
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self._shell.stdout = out
            try:
                code = self._run(words)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "requests": self._requests.seen}

    def _run(self, words: list[str]) -> int:
        if not self._started:
            self._started = True
            code: int = self._shell.run(words)
            logging.getLogger("keystoneauth").addHandler(self._requests)
            return code
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)
        return int(self._shell.run_subcommand(words))


def main() -> None:
    """Commands read nothing: some take what they find on their input, which here are the next commands."""
    orders, answers = sys.stdin, sys.stdout
    sys.stdin = io.TextIOWrapper(io.BytesIO())
    client = Client()
    for line in orders:
        print(json.dumps(client.run(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
