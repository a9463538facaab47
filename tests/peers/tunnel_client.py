"""Asks a tunnel server for what clients may ask, and for what they should not.

tunnel_client.py SCENARIO TUNNEL FOLDER NAME ECHO SOURCE NOBODY: addresses are HOST:PORT. Exits with 0 if the server did
what it must, else says what it did.
"""

import sys

from h2.settings import SettingCodes
from hyperframe.frame import (ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PriorityFrame, SettingsFrame,
                              WindowUpdateFrame)

import hbone

SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


class Ask:
    """What a scenario is given."""

    def __init__(self, tunnel, folder, name, echo, source, nobody):
        self.tunnel, self.echo, self.source, self.nobody = tunnel, echo, source, nobody
        self.context = hbone.context(False, folder, name)

    def open(self, **more):
        return hbone.Connection(hbone.dial(self.tunnel, self.context), **more)

    def lives(self, tunnel):
        """The tunnel still carries a stream."""
        number = tunnel.connect(self.echo)
        tunnel.send(number, b"alive", end=True)
        tunnel.expect(number, b"alive")
        tunnel.expect_end(number)


def pattern(count):
    return (bytes(range(251)) * (count // 251 + 1))[:count]


@scenario
def plain(ask):
    tunnel = ask.open()
    ask.lives(tunnel)
    stream = tunnel.connect(ask.echo, [("baggage", "k8s.namespace.name=shop"), ("forwarded", 'for="1.2.3.4:5"')])
    assert "baggage" in tunnel.streams[stream].headers, "the answer tells about the destination"
    for n in range(50):
        tunnel.send(stream, b"%d" % n)
        tunnel.expect(stream, b"%d" % n)
    tunnel.end(stream)
    tunnel.expect_end(stream)


@scenario
def application_ends_first(ask):
    tunnel = ask.open()
    stream = tunnel.connect(ask.source)
    tunnel.expect(stream, pattern(100_000))
    tunnel.expect_end(stream)
    tunnel.send(stream, pattern(300_000), end=True)
    ask.lives(tunnel)


@scenario
def reset_of_a_stream(ask):
    tunnel = ask.open()
    stream = tunnel.connect(ask.echo)
    tunnel.send(stream, b"1234567")
    tunnel.expect(stream, b"1234567")
    tunnel.h2.reset_stream(stream, 8)
    tunnel.flush()
    ask.lives(tunnel)


@scenario
def link_breaks(ask):
    tunnel = ask.open()
    stream = tunnel.connect(ask.echo)
    tunnel.send(stream, b"1234567")
    tunnel.expect(stream, b"1234567")
    # Without close_notify and without an end of the stream.
    tunnel.tls.close()


@scenario
def goaway_in_midstream(ask):
    tunnel = ask.open()
    stream = tunnel.connect(ask.echo)
    tunnel.send(stream, b"before")
    tunnel.expect(stream, b"before")
    tunnel.raw(GoAwayFrame(0, last_stream_id=0, error_code=0))
    for _ in range(20):
        tunnel.send(stream, b"after")
        tunnel.expect(stream, b"after")
    tunnel.end(stream)
    tunnel.expect_end(stream)
    tunnel.until(lambda: tunnel.closed, "the end of a tunnel without streams")


@scenario
def request_ends_at_once(ask):
    tunnel = ask.open()
    stream = tunnel.open(ask.source, end=True)
    tunnel.expect_end(stream)
    assert tunnel.streams[stream].status == 200
    tunnel.expect(stream, pattern(100_000))
    ask.lives(tunnel)


@scenario
def data_before_the_answer(ask):
    tunnel = ask.open()
    stream = tunnel.open(ask.echo)
    tunnel.send(stream, pattern(200_000), end=True)
    tunnel.expect(stream, pattern(200_000))
    tunnel.expect_end(stream)


@scenario
def trailers(ask):
    tunnel = ask.open()
    stream = tunnel.connect(ask.echo)
    tunnel.send(stream, b"and that is all")
    tunnel.h2.send_headers(stream, [("x-sum", "1")], end_stream=True)
    tunnel.flush()
    tunnel.expect(stream, b"and that is all")
    tunnel.expect_end(stream)
    ask.lives(tunnel)


@scenario
def extra_pseudo_headers(ask):
    # RFC 9113, 8.5: such a CONNECT is malformed, which is the end of the stream.
    tunnel = ask.open()
    for extra in [(":scheme", "https"), (":path", "/")]:
        head = [(":method", "CONNECT"), (":authority", ask.echo), extra]
        stream = tunnel.open(None, pseudo=head)
        refused = tunnel.streams[stream]
        tunnel.until(lambda: refused.reset is not None or refused.headers is not None, "an answer")
        assert refused.reset is not None or refused.status == 400, f"{extra}: {refused.status}"
        ask.lives(tunnel)


@scenario
def requests_that_are_no_tunnel(ask):
    tunnel = ask.open()
    get = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", ask.echo)]
    rows = [
        (get, 400),
        ([(":method", "CONNECT"), (":authority", "nonsense")], 400),
        ([(":method", "CONNECT"), (":authority", "192.0.2.1:80")], 400),
        ([(":method", "CONNECT"), (":authority", "nobody.example:80")], 503),
        ([(":method", "CONNECT"), (":authority", ask.nobody)], 503),
        ([(":method", "CONNECT"), (":authority", ask.echo.rsplit(":", 1)[0] + ":15008")], 503),
    ]
    for head, status in rows:
        stream = tunnel.open(None, pseudo=head)
        tunnel.expect_end(stream)
        assert tunnel.streams[stream].status == status, f"{head}: {tunnel.streams[stream].headers}"
    ask.lives(tunnel)


@scenario
def large_headers(ask):
    tunnel = ask.open()
    ask_with = lambda fields: tunnel.open(ask.echo, fields)
    good = ask_with([("baggage", "x" * 6000)])
    tunnel.until(lambda: tunnel.streams[good].headers is not None, "an answer")
    assert tunnel.streams[good].status == 200
    for fields in [[("baggage", "x" * 9000)], [("x-%d" % n, "v") for n in range(40)], [("x-long", "y" * 15_000)]]:
        stream = ask_with(fields)
        tunnel.expect_end(stream)
        assert tunnel.streams[stream].status == 431, tunnel.streams[stream].headers
    ask.lives(tunnel)


@scenario
def strange_values(ask):
    tunnel = ask.open()
    rows = [
        [("traceparent", "0" * 55)],
        [("traceparent", "00-" + "z" * 32 + "-" + "y" * 16 + "-00")],
        [("traceparent", "")],
        [("baggage", ",;=,,=;=%00%ff")],
        [("baggage", b"\xff\xfe\x80")],
        [("forwarded", 'for="[::1"; host=;;by=,')],
        [("x-forwarded-network", ""), ("x-istio-source", "waypoint")],
        [("baggage", "a=1"), ("baggage", "b=2"), ("forwarded", "for=_x"), ("forwarded", "for=_y")],
    ]
    for fields in rows:
        stream = tunnel.connect(ask.echo, fields)
        tunnel.send(stream, b"x", end=True)
        tunnel.expect(stream, b"x")
        tunnel.expect_end(stream)


@scenario
def window_of_a_byte(ask):
    tunnel = ask.open(settings={SettingCodes.INITIAL_WINDOW_SIZE: 1}, greedy=False)
    stream = tunnel.connect(ask.echo)
    text = pattern(2_000)
    tunnel.send(stream, text)
    heard = tunnel.streams[stream]
    for n in range(1, len(text) + 1):
        tunnel.until(lambda: len(heard.data) >= n, "a byte")
        assert len(heard.data) == n, "more than the window allows"
        tunnel.h2.increment_flow_control_window(1, stream)
        tunnel.flush()
    assert bytes(heard.data) == text


@scenario
def window_shut_and_opened(ask):
    tunnel = ask.open(settings={SettingCodes.INITIAL_WINDOW_SIZE: 0}, greedy=False)
    stream = tunnel.connect(ask.echo)
    tunnel.send(stream, pattern(50_000))
    before = tunnel.pongs
    tunnel.h2.ping(b"still th")
    tunnel.flush()
    tunnel.until(lambda: tunnel.pongs > before, "a pong")
    assert not tunnel.streams[stream].data, "nothing may be sent into a window of 0"
    tunnel.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
    tunnel.flush()
    tunnel.expect(stream, pattern(50_000))
    # Smaller than what is in flight: the window is negative until it is opened again (RFC 9113, 6.9.2).
    tunnel.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    tunnel.flush()
    tunnel.send(stream, pattern(15_000))
    tunnel.h2.increment_flow_control_window(70_000, stream)
    tunnel.flush()
    tunnel.expect(stream, pattern(15_000))


@scenario
def settings_change(ask):
    tunnel = ask.open()
    stream = tunnel.connect(ask.echo)
    for size, table in [(16_384, 0), (65_536, 65_536), (1 << 20, 100), (16_384, 4_096)] * 5:
        tunnel.h2.update_settings({SettingCodes.MAX_FRAME_SIZE: size, SettingCodes.HEADER_TABLE_SIZE: table})
        tunnel.flush()
        tunnel.send(stream, pattern(100_000))
        tunnel.expect(stream, pattern(100_000))
        ask.lives(tunnel)
    unknown = SettingsFrame(0, settings={0x99: 7, SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
    tunnel.raw(unknown)
    ask.lives(tunnel)


@scenario
def ping_flood(ask):
    # Answered, or dismissed: never slower than it is fed for long, and never answered without end.
    tunnel = ask.open()
    stream = tunnel.connect(ask.echo)
    for n in range(2_000):
        tunnel.h2.ping(n.to_bytes(8, "big"))
        if n % 100 == 99:
            tunnel.flush()
            tunnel.until(lambda: tunnel.pongs >= n - 200, "pongs")
    tunnel.until(lambda: tunnel.pongs == 2_000, "every pong")
    tunnel.send(stream, b"still here")
    tunnel.expect(stream, b"still here")
    ask.lives(tunnel)


@scenario
def frames_that_mean_nothing(ask):
    tunnel = ask.open()
    stream = tunnel.connect(ask.echo)
    tunnel.raw(PriorityFrame(stream, depends_on=0, stream_weight=7), PriorityFrame(99, depends_on=0, stream_weight=1))

    class Unknown(Frame):
        type = 0xEE
        defined_flags = []
        stream_association = None

        def serialize_body(self):
            return b"grease"

    tunnel.raw(Unknown(stream), Unknown(0))
    padded = DataFrame(stream, data=b"padded")
    padded.flags.add("PADDED")
    padded.pad_length = 200
    tunnel.raw(DataFrame(stream), padded, DataFrame(stream))
    tunnel.expect(stream, b"padded")
    ask.lives(tunnel)


@scenario
def many_streams(ask):
    tunnel = ask.open()
    ask.lives(tunnel)
    limit = tunnel.h2.remote_settings.max_concurrent_streams
    assert limit >= 100, limit
    streams = [tunnel.open(ask.echo) for _ in range(limit)]
    for stream in streams:
        tunnel.send(stream, b"%d" % stream)
    for stream in streams:
        tunnel.expect(stream, b"%d" % stream)
    # One more than allowed is refused alone.
    over = HeadersFrame(tunnel.h2.get_next_available_stream_id())
    over.data = tunnel.h2.encoder.encode([(":method", "CONNECT"), (":authority", ask.echo)])
    over.flags.add("END_HEADERS")
    tunnel.stream(over.stream_id)
    tunnel.h2.highest_outbound_stream_id = over.stream_id
    tunnel.raw(over)
    for stream in streams:
        tunnel.send(stream, b"again")
        tunnel.expect(stream, b"again")
        tunnel.end(stream)
        tunnel.expect_end(stream)
    for _ in range(1_000):
        ask.lives(tunnel)


@scenario
def request_in_pieces(ask):
    tunnel = ask.open()
    number = tunnel.h2.get_next_available_stream_id()
    tunnel.h2.send_headers(number, [(":method", "CONNECT"), (":authority", ask.echo), ("baggage", "z" * 300)])
    tunnel.stream(number)
    block = tunnel.h2.data_to_send()[9:]
    first = HeadersFrame(number, data=block[:20])
    # More pieces than a few are a flood (CVE-2024-27316).
    size = (len(block) - 20 + 3) // 4
    rest = [ContinuationFrame(number, data=block[at:at + size]) for at in range(20, len(block), size)]
    rest[-1].flags.add("END_HEADERS")
    tunnel.raw(first, *rest)
    tunnel.send(number, b"whole", end=True)
    tunnel.expect(number, b"whole")
    tunnel.expect_end(number)
    ask.lives(tunnel)


@scenario
def window_overflow(ask):
    tunnel = ask.open()
    stream = tunnel.connect(ask.echo)
    tunnel.raw(WindowUpdateFrame(stream, window_increment=(1 << 31) - 1))
    tunnel.expect_reset(stream)
    ask.lives(tunnel)


def main():
    name, *rest = sys.argv[1:]
    SCENARIOS[name](Ask(*rest))


if __name__ == "__main__":
    main()
