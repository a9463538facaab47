"""Takes tunnels and answers them as servers may, and as they should not: tunnel_server.py MODE LISTEN FOLDER NAME.

Echoes what it gets unless the mode says otherwise. Prints a line for each tunnel and each stream that asks.
"""

import socket
import ssl
import sys
import threading
import time

from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, GoAwayFrame, PushPromiseFrame, RstStreamFrame

import hbone

SETTINGS = {
    "one_stream": {SettingCodes.MAX_CONCURRENT_STREAMS: 1},
    "window_of_a_byte": {SettingCodes.INITIAL_WINDOW_SIZE: 1},
    "window_shut_at_first": {SettingCodes.INITIAL_WINDOW_SIZE: 0},
    "large_tables": {SettingCodes.HEADER_TABLE_SIZE: 1 << 20, SettingCodes.MAX_HEADER_LIST_SIZE: 100_000,
                     SettingCodes.ENABLE_CONNECT_PROTOCOL: 1, 0xF000: 12},
    "large_frames": {SettingCodes.MAX_FRAME_SIZE: (1 << 24) - 1, SettingCodes.INITIAL_WINDOW_SIZE: (1 << 31) - 1},
}
TELL = threading.Lock()


def tell(*words):
    with TELL:
        print(*words, flush=True)


class Tunnel:
    """One tunnel of a mode."""

    def __init__(self, tls, mode):
        self.mode, self.first = mode, True
        self.connection = hbone.Connection(tls, server=True, settings=SETTINGS.get(mode))
        self.answered, self.ended, self.late = set(), set(), []

    def run(self):
        connection = self.connection
        self.begun()
        while not connection.closed:
            connection.read(0.02 if self.late else 1.0)
            for number in connection.asked:
                tell("asked", number, connection.streams[number].headers[":authority"])
                self.answer(number)
                self.first = False
            connection.asked.clear()
            for number in [n for n in self.answered if n not in self.ended]:
                self.echo(number)
            connection.flush()
            due = [work for at, work in self.late if at <= time.monotonic()]
            self.late = [(at, work) for at, work in self.late if at > time.monotonic()]
            for work in due:
                work()
                connection.flush()

    def later(self, work):
        self.late.append((time.monotonic() + 0.3, work))

    def begun(self):
        update = self.connection.h2.update_settings
        if self.mode == "window_shut_at_first":
            self.later(lambda: update({SettingCodes.INITIAL_WINDOW_SIZE: 65_535}))

    def answer(self, number):
        connection, mode = self.connection, self.mode
        if mode == "mute":
            return
        if mode.startswith("status_"):
            connection.h2.send_headers(number, [(":status", mode[7:]), ("content-type", "text/plain")])
            connection.h2.send_data(number, b"no", end_stream=True)
            return
        if mode == "interim":
            connection.h2.send_headers(number, [(":status", "103"), ("link", "<x>")])
        fields = [("x-large", "l" * 20_000)] if mode == "large_answer" else []
        connection.h2.send_headers(number, [(":status", "200")] + fields, end_stream=mode == "ends_at_once")
        connection.flush()
        if mode == "ends_at_once":
            return
        if mode == "pushes":
            connection.raw(PushPromiseFrame(number, promised_stream_id=2, data=b"", flags=["END_HEADERS"]))
        if mode == "goaway" and self.first:
            connection.raw(GoAwayFrame(0, last_stream_id=number, error_code=0))
        self.answered.add(number)

    def echo(self, number):
        connection, mode = self.connection, self.mode
        stream = connection.streams[number]
        if stream.reset is not None:
            self.ended.add(number)
            tell("reset", number, stream.reset)
            return
        if stream.data and mode in ("resets", "hangs_up", "ends_then_resets"):
            self.leave(number)
            return
        if stream.data and mode in ("settings_storm", "ping_storm"):
            self.storm()
        if stream.data and mode == "padded":
            padded = DataFrame(number, data=bytes(stream.data))
            padded.flags.add("PADDED")
            padded.pad_length = 100
            connection.raw(padded, DataFrame(number))
            stream.data.clear()
        while stream.data and not connection.closed and stream.reset is None:
            room = min(connection.h2.local_flow_control_window(number), connection.h2.max_outbound_frame_size)
            if room <= 0:
                break
            piece = bytes(stream.data[:room])
            del stream.data[:room]
            connection.h2.send_data(number, piece)
            connection.flush()
        if stream.ended and not stream.data:
            self.ended.add(number)
            if mode == "trailers":
                connection.h2.send_headers(number, [("x-sum", "1")], end_stream=True)
            else:
                connection.h2.end_stream(number)
            tell("ended", number)

    def leave(self, number):
        connection = self.connection
        self.ended.add(number)
        if self.mode == "resets":
            connection.raw(RstStreamFrame(number, error_code=8))
        elif self.mode == "hangs_up":
            connection.tls.close()
            connection.closed = True
        else:
            connection.h2.send_data(number, bytes(connection.streams[number].data), end_stream=True)
            connection.raw(RstStreamFrame(number, error_code=0))

    def storm(self):
        connection = self.connection
        for n in range(50):
            if self.mode == "ping_storm":
                connection.h2.ping(n.to_bytes(8, "big"))
            else:
                connection.h2.update_settings({SettingCodes.MAX_FRAME_SIZE: 16_384 + n,
                                               SettingCodes.INITIAL_WINDOW_SIZE: 65_535 + n})
        connection.flush()


def serve(tcp, context, mode):
    try:
        tls = context.wrap_socket(tcp, server_side=True)
        tell("tunnel", hbone.identity(tls), tls.version())
        Tunnel(tls, mode).run()
    except (OSError, ssl.SSLError) as error:
        tell("failed", type(error).__name__, error)


def main():
    mode, listen, folder, name = sys.argv[1:]
    host, port = listen.rsplit(":", 1)
    context = hbone.context(True, folder, name)
    if mode == "tls12":
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if mode == "other_alpn":
        context.set_alpn_protocols(["http/1.1"])
    listener = socket.create_server((host, int(port)), backlog=256)
    while True:
        tcp, _ = listener.accept()
        tcp.settimeout(hbone.BOUND)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(tcp, context, mode), daemon=True).start()


if __name__ == "__main__":
    main()
