"""The API behind Envoy: says which consumer it was called for. Asked to (x-please: throttle) it refuses, as an API that throttles."""
import http.server
import sys


class API(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        busy = self.headers.get("x-please") == "throttle"
        body = f"hello {self.headers.get('x-tollgate-consumer', 'somebody')}\n".encode()
        self.send_response(429 if busy else 200)
        if busy:
            self.send_header("retry-after", "30")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), API).serve_forever()
