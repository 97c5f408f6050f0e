"""`thalweg app`: models, runs and detectors in the browser, on this machine."""

import contextlib
from dataclasses import dataclass, field
from typing import Annotated

from thalweg.commands.options import parse
from thalweg.errors import InputError
from thalweg.progress import Beat, Work, say

PORT = 8642  # where none is given, and it is free


@dataclass
class Options:
    """A page to play with a model: its landscape, samples, completions, repairs, outliers, and its training as it goes."""

    names: Annotated[list[str], "positional"] = field(default_factory=list)
    """runs, exported models, detectors, zoo:NAME; by default the zoo"""
    host: str = "127.0.0.1"
    """address to listen on; others than this one let other machines in"""
    port: int | None = None
    """port to listen on, 0 for any that is free; 8642 by default, or any free one"""
    browser: bool = True
    """open the page in a browser"""


def run(arguments: list[str]) -> None:
    options = parse(Options, arguments, "app")
    if options.port is not None and not 0 <= options.port < 2**16:
        raise InputError(f"--port must be between 0 and 65535, got {options.port}")
    server = serve(options.names, options.host, options.port)
    print(f"page: {server.address}", flush=True)
    if not server.local:
        say("thalweg: other machines can open this page and compute here; nothing but this is shown to them, and nothing asks who they are")
    say("thalweg: Ctrl-C ends it")
    if options.browser:
        import webbrowser

        webbrowser.open(server.address)
    with server, Beat(lambda seconds: ""), contextlib.suppress(KeyboardInterrupt):  # which says nothing while it waits to be asked
        server.serve_forever()


def serve(names: list[str], host: str = "127.0.0.1", port: int | None = None):
    """The server of a page of these entries, the zoo's models where there are none; not started. InputError for what is not there."""
    from thalweg.app.server import Page
    from thalweg.app.shelf import Shelf
    from thalweg.commands.zoo import models

    with Work("loading what is shown"):
        shelf = Shelf(names or [f"zoo:{name}" for name in models()], lambda name: say(f"thalweg: {name} loaded"))
    if port is not None:
        return Page(shelf, host, port)
    try:
        return Page(shelf, host, PORT)
    except InputError:  # another page has it
        return Page(shelf, host, 0)
