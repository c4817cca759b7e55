"""Runs in a pod: a target. It takes whatever is POSTed to it, and says how many it took and what the last one was."""

import http.server
import json

TAKEN = []


class Desk(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        TAKEN.append({"body": body.decode(), "headers": {name.lower(): value for name, value in self.headers.items()}})
        answer = json.dumps({"taken": len(TAKEN)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        print(json.dumps(TAKEN[-1]), flush=True)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", 8080), Desk).serve_forever()
