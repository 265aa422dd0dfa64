"""Watch: a page of a training under way, served on this machine alone."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from torch import Tensor

from inrkit.config import Config
from inrkit.files import to_json
from inrkit.reports.html import page
from inrkit.runs.preview import Pace, Preview
from inrkit.runs.run import Run
from inrkit.runs.wording import metric_in_words
from inrkit.runs.writers import Writer
from inrkit.selectors import Selection
from inrkit.training.member import Member

_LONGEST = 320
"""Pixels of the longer side of the picture that grows."""
_SHARES = {"numbers": 0.003, "picture": 0.01}
"""Of the time, that is spent at most on what the page shows."""
_SPACINGS = {"numbers": 0.5, "picture": 1.0}
"""Seconds between two states of the page, at least."""
_ROWS = 500
"""Evaluations that the page has, at most."""
_LOSSES = 400
"""Losses that the page has, at most."""
_FAREWELL = 2.0
"""Seconds that a page which is open gets, at most, to fetch the last state."""


class Watch(Writer):
    """Serves a page that grows with a training, at an address with a token that nobody else knows.

    Serves only inside `serving`.

    Args:
        config: of the fit.
        run: of the fit.
        tell: is given the address when the training starts; before, the fit may still turn out to be impossible.

    Attributes:
        address: of the page.
    """

    def __init__(self, config: Config, run: Run, tell: Callable[[str], object] = lambda address: None) -> None:
        super().__init__(config, run)
        self._tell = tell
        self._token = secrets.token_urlsafe(16)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}/{self._token}/"
        self._rows: list[dict[str, float]] = []
        self._state: dict[str, Any] = {"status": "training", "step": 0}
        self._paces = {part: Pace(_SHARES[part], _SPACINGS[part]) for part in _SHARES}
        self._losses: list[tuple[int, float]] = []
        self._loss: Tensor | None = None
        self._picture = ""
        self._preview: Preview | None = None
        self._fetched_at = -1e9
        self._fetched_last = threading.Event()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Answer requests while the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()

    def on_start(self, member: Member) -> None:
        self._tell(self.address)

    def on_selection(self, member: Member, selection: Selection, loss: Tensor) -> None:
        self._loss = loss.detach()

    def on_evaluation(self, member: Member, row: dict[str, float]) -> None:
        self._rows.append(row)

    def on_step(self, member: Member, selected: int) -> None:
        for part, update in (("picture", self._draw), ("numbers", self._update)):
            if self._paces[part].due:
                with self._paces[part].spent():
                    update(member)

    def on_end(self, member: Member) -> None:
        self._draw(member)
        self._update(member)

    def conclude(self, result: dict[str, Any]) -> None:
        self._state = {**self._state, "status": result["status"]}
        if time.monotonic() - self._fetched_at < _FAREWELL:
            self._fetched_last.wait(_FAREWELL)

    def _update(self, member: Member) -> None:
        """Make the state that is told from now on; a request never waits for it."""
        if self._loss is not None:
            kept = self._losses if len(self._losses) < _LOSSES else self._losses[::2]
            self._losses = [*kept, (member.step, float(self._loss))]
        share = member.seconds["train"] / member.budget if member.budget else member.step / member.steps
        every = -(-len(self._rows) // _ROWS) or 1
        rows = [*self._rows[::every], *self._rows[-1:]]
        words = [metric_in_words(name, value) for name, value in (rows[-1] if rows else {}).items()]
        self._state = {
            "status": "training",
            "step": member.step,
            "share": min(1.0, share),
            "seconds": member.seconds["train"],
            "words": [word for word in words if word[0] not in ("step", "seconds")],
            "rows": rows,
            "losses": self._losses,
            "picture": self._picture,
        }

    def _draw(self, member: Member) -> None:
        self._preview = self._preview or Preview(member, self.config.modality.plugin.looks, _LONGEST)
        self._picture = self._preview.uri()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        watch = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                # A name that leads here, given by a page from elsewhere, must not open it (DNS rebinding).
                host = self.headers.get("Host", "").partition(":")[0]
                path = self.path.partition("?")[0]
                ours = secrets.compare_digest(path[: len(watch._token) + 2].encode(), f"/{watch._token}/".encode())
                if host not in ("127.0.0.1", "localhost") or not ours:
                    self.send_error(HTTPStatus.NOT_FOUND)
                elif path == f"/{watch._token}/":
                    self._answer("text/html; charset=utf-8", watch._page())
                elif path == f"/{watch._token}/state.json":
                    state = watch._state
                    self._answer("application/json", to_json(state))
                    watch._fetched_at = time.monotonic()
                    if state["status"] != "training":
                        watch._fetched_last.set()
                else:
                    self.send_error(HTTPStatus.NOT_FOUND)

            def _answer(self, kind: str, text: str) -> None:
                content = text.encode()
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                with contextlib.suppress(OSError):  # the page was closed
                    self.wfile.write(content)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing: the terminal belongs to the training."""

        return Handler

    def _page(self) -> str:
        name = Path(self.config.data.path).name if self.config.data.path else self.run.folder.name
        metric = (self.config.general.metrics or ["psnr"])[0]
        return page(
            "watch.html",
            {"watch": True, "metric": metric},
            ["plotly"],
            title=name,
            quality=metric_in_words(metric, 0.0)[0],
            folder=str(self.run.folder),
            modality=self.config.modality.name,
            connects="'self' data: blob:",
        )
