"""HBONE on python's ssl and h2: TLS 1.3 with both certificates, and a connection whose events can be waited for.

Used by tunnel_client.py and tunnel_server.py; decides nothing.
"""

import socket
import ssl
import time

import h2.config
import h2.connection
import h2.settings
from h2.settings import SettingCodes

BOUND = 15.0


def context(server, folder, name):
    """TLS as a peer of the mesh has it; files are NAME.pem, NAME.key and roots.pem."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(f"{folder}/{name}.pem", f"{folder}/{name}.key")
    context.load_verify_locations(f"{folder}/roots.pem")
    context.set_alpn_protocols(["h2"])
    return context


def identity(tls):
    """The first URI name of the peer's certificate."""
    return next(value for kind, value in tls.getpeercert()["subjectAltName"] if kind == "URI")


class Stream:
    """What arrived on one stream."""

    def __init__(self):
        self.headers = None
        self.data = bytearray()
        self.ended = False
        self.reset = None

    @property
    def status(self):
        return None if self.headers is None else int(self.headers[":status"])


class Connection:
    """One HTTP/2 connection. With `greedy` off, nothing that arrives opens a window again."""

    def __init__(self, tls, server=False, settings=None, greedy=True):
        self.tls = tls
        self.greedy = greedy
        self.streams = {}
        self.asked = []
        self.pongs = 0
        self.goaway = None
        self.closed = False
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=not server, header_encoding="latin-1",
            validate_outbound_headers=False, normalize_outbound_headers=False,
            validate_inbound_headers=True))
        self.h2.local_settings = h2.settings.Settings(client=not server, initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: 100, SettingCodes.MAX_HEADER_LIST_SIZE: 65_536, **(settings or {})})
        self.h2.max_inbound_frame_size = self.h2.local_settings.max_frame_size
        self.h2.decoder.max_allowed_table_size = self.h2.local_settings.header_table_size
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.tls.sendall(data)

    def raw(self, *frames):
        """Sends frames that the library would not."""
        self.flush()
        self.tls.sendall(b"".join(frame.serialize() for frame in frames))

    def stream(self, number):
        return self.streams.setdefault(number, Stream())

    def open(self, authority, fields=(), end=False, pseudo=None):
        """Sends a request and answers its stream's number."""
        number = self.h2.get_next_available_stream_id()
        head = [(":method", "CONNECT"), (":authority", authority)] if pseudo is None else list(pseudo)
        self.h2.send_headers(number, head + list(fields), end_stream=end)
        self.stream(number)
        self.flush()
        return number

    def connect(self, authority, fields=()):
        """A stream that was answered with 200."""
        number = self.open(authority, fields)
        self.until(lambda: self.streams[number].headers is not None or self.streams[number].reset is not None)
        assert self.streams[number].status == 200, f"{vars(self.streams[number])}"
        return number

    def send(self, number, data, end=False):
        """Sends all of it, as the windows allow."""
        at = 0
        while at < len(data):
            self.until(lambda: self.closed or self.streams[number].reset is not None
                       or self.h2.local_flow_control_window(number) > 0)
            assert not self.closed and self.streams[number].reset is None, "it was cut while sending"
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            piece = data[at:at + room]
            self.h2.send_data(number, piece)
            at += len(piece)
            self.flush()
        if end:
            self.h2.end_stream(number)
            self.flush()

    def end(self, number):
        self.h2.end_stream(number)
        self.flush()

    def until(self, holds, what="what was waited for"):
        """Reads until the condition holds."""
        deadline = time.monotonic() + BOUND
        while not holds():
            if self.closed:
                raise AssertionError(f"closed before {what} came: goaway {self.goaway}")
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"{what} did not come in {BOUND} s")
            self.read(left)

    def read(self, seconds):
        """One read from the socket."""
        self.tls.settimeout(seconds)
        try:
            data = self.tls.recv(65536)
        except TimeoutError:
            return
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return
        self.tls.settimeout(BOUND)
        for event in self.h2.receive_data(data):
            self.note(event)
        try:
            self.flush()
        except OSError:
            self.closed = True

    def note(self, event):
        kind = type(event).__name__
        if kind in ("ResponseReceived", "RequestReceived"):
            self.stream(event.stream_id).headers = dict(event.headers)
            if kind == "RequestReceived":
                self.asked.append(event.stream_id)
        elif kind == "DataReceived":
            self.stream(event.stream_id).data += event.data
            if self.greedy and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif kind == "StreamEnded":
            self.stream(event.stream_id).ended = True
        elif kind == "StreamReset":
            self.stream(event.stream_id).reset = int(event.error_code)
        elif kind == "PingAckReceived":
            self.pongs += 1
        elif kind == "ConnectionTerminated":
            self.goaway = int(event.error_code)

    def expect(self, number, data):
        """Waits for exactly these bytes and takes them."""
        stream = self.streams[number]
        self.until(lambda: len(stream.data) >= len(data) or stream.ended or stream.reset is not None, "data")
        assert bytes(stream.data) == data, f"{len(stream.data)} bytes, ended {stream.ended}, reset {stream.reset}"
        stream.data.clear()

    def expect_end(self, number):
        stream = self.streams[number]
        self.until(lambda: stream.ended or stream.reset is not None, "the stream's end")
        # NO_ERROR after the end only says that the rest of the request is not wanted (RFC 9113, 8.1).
        assert stream.ended and stream.reset in (None, 0), f"reset {stream.reset}"

    def expect_reset(self, number):
        stream = self.streams[number]
        self.until(lambda: stream.reset is not None, "a reset")
        return stream.reset


def dial(address, context):
    host, port = address.rsplit(":", 1)
    tcp = socket.create_connection((host, int(port)), timeout=BOUND)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tls = context.wrap_socket(tcp)
    assert tls.selected_alpn_protocol() == "h2", tls.selected_alpn_protocol()
    return tls
