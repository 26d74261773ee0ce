"""The health check inside a container: exit code 0 where every address given answers as it should within two seconds.

    healthy.py http://127.0.0.1:8080/readyz amqp://broker:5672 smtp://127.0.0.1:1025

It imports as little as it can: it runs every few seconds in every container.
"""

import socket
import sys

SECONDS = 2.0
GREETINGS = {
    "http": (b"GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", b"HTTP/1."),
    "amqp": (b"AMQP\x03\x01\x00\x00", b"AMQP\x03\x01\x00\x00"),
    "smtp": (b"QUIT\r\n", b"220"),
}


def answers(address: str) -> bool:
    """Whether the server greets back; over http with status 200."""
    scheme, _, rest = address.partition("://")
    place, _, path = rest.partition("/")
    host, _, port = place.rpartition(":")
    hello, expected = GREETINGS[scheme]
    if scheme == "http":
        hello %= (b"/" + path.encode(), place.encode())
    try:
        with socket.create_connection((host, int(port)), SECONDS) as connection:
            connection.settimeout(SECONDS)
            connection.sendall(hello)
            said = connection.recv(64)
            while scheme != "amqp" and connection.recv(4096):
                pass  # a server that still writes when we go would log a failure
    except OSError:
        return False
    return said.startswith(expected) and (scheme != "http" or b" 200 " in said.partition(b"\r\n")[0])


if __name__ == "__main__":
    silent = [address for address in sys.argv[1:] if not answers(address)]
    if silent:
        print("no answer from", *silent)
    sys.exit(bool(silent))
