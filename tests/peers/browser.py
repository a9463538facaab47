"""A page that makes a browser hold a WebSocket conversation and tells how it went: browser.py PORT.

The page's load event waits for a picture that is kept back until the page has told its result (POST /result), so that
a browser that is asked for the page once loaded shows the page's last state.
"""

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.dont_write_bytecode = True  # this folder is part of the sources

from websocket import accept_of, converse, exactly  # noqa: E402

# Longest time that a page may take, in seconds.
PATIENCE = 60
# Every echo is compared with what was sent. The bytes are no constant and no short period: a piece that is lost,
# doubled or moved is seen. Nothing here may need a secure context (crypto.subtle does): the page comes by http.
PAGE = b"""<!DOCTYPE html>
<title>conversation</title>
<pre id="result"></pre>
<script>
const TEXTS = 100, BYTES = 1 << 20;
const pattern = () => {
  const all = new Uint8Array(BYTES);
  for (let at = 0, x = 1; at < BYTES; at++) { x = (Math.imul(x, 1664525) + 1013904223) >>> 0; all[at] = x >>> 24; }
  return all;
};
async function talk() {
  const seen = { texts: 0, bytes: 0, code: 0, clean: false, error: "" };
  const socket = new WebSocket(`ws://${location.host}/talk`);
  socket.binaryType = "arraybuffer";
  let resolve, reject;
  const next = () => new Promise((yes, no) => { [resolve, reject] = [yes, no]; });
  socket.onopen = () => resolve();
  socket.onmessage = (event) => resolve(event.data);
  socket.onerror = () => reject(new Error("the socket failed"));
  socket.onclose = (event) => {
    [seen.code, seen.clean] = [event.code, event.wasClean];
    if (event.wasClean) resolve(); else reject(new Error("the socket was cut"));
  };
  try {
    await next();
    for (; seen.texts < TEXTS; seen.texts++) {
      const text = `message ${seen.texts} \\u2713 ${"x".repeat(seen.texts * 37)}`;
      const echo = next();
      socket.send(text);
      if (await echo !== text) throw new Error(`text ${seen.texts} came back changed`);
    }
    const sent = pattern(), echo = next();
    socket.send(sent);
    const back = new Uint8Array(await echo);
    if (back.length !== BYTES || back.some((byte, at) => byte !== sent[at])) throw new Error("bytes came back changed");
    seen.bytes = back.length;
    const closed = next();
    socket.close(1000, "done");
    await closed;
  } catch (error) {
    seen.error = String(error);
  }
  return seen;
}
talk().then((seen) => {
  const told = JSON.stringify(seen);
  document.getElementById("result").textContent = told;
  return fetch("/result", { method: "POST", body: told });
});
</script>
<img src="/picture" alt="">
"""

told = threading.Event()


class Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    rbufsize = 0  # so that nothing of a conversation is read ahead

    def do_GET(self):
        if self.path == "/talk":
            self.talk()
        elif self.path == "/picture":
            self.answer(404 if told.wait(PATIENCE) else 504)
        else:
            self.answer(200, PAGE)

    def do_POST(self):
        exactly(self.connection, int(self.headers["Content-Length"]))
        told.set()
        self.answer(200)

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def talk(self):
        self.close_connection = True
        key = self.headers["Sec-WebSocket-Key"]
        if key is None:
            self.answer(426)
            return
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept_of(key.encode()).decode())
        self.end_headers()
        converse(self.connection)


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


Server(("::", int(sys.argv[1])), Site).serve_forever()
