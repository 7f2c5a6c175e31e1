"""A real S3 server on this machine (moto) that can refuse requests."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

DENIED = b"<Error><Code>AccessDenied</Code><Message>no more room for you</Message></Error>"


class RequestHandler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open


class ObjectStore:
    """The server: its address, its requests, and the requests it refuses."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.moto = create_backend_app("s3")
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True, request_handler=RequestHandler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.requests: list[tuple[str, str]] = []  # method and path
        self.refuses: Callable[[str, str], bool] = lambda method, path: False
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        request = (environ["REQUEST_METHOD"], environ["PATH_INFO"])
        self.requests.append(request)
        if self.refuses(*request):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("403 Forbidden", [("Content-Type", "text/xml")])
            return [DENIED]
        return self.moto(environ, start_response)

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
