"""A TCP server on every address that sends back what it gets until the other side has finished: echo.py PORT.

Says on its output whom it took a connection from."""

import socket
import sys
import threading


def serve(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
while True:
    connection, peer = listener.accept()
    print("connection from", peer[0], flush=True)
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
