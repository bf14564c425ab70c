"""`unetexp serve`: a model over HTTP.

In an image with only what serving needs, `python -m unetexp.cli.serve` is the same command.
"""

from __future__ import annotations

import shlex
from typing import Annotated

import typer
from rich.console import Console

from unetexp.cli.command_line import Command
from unetexp.cli.exit_codes import exit_codes
from unetexp.cli.options import Device, Flavor, TrackingUri
from unetexp.serving.app import create_app
from unetexp.serving.host_names import require_names
from unetexp.serving.opening import open_engine
from unetexp.serving.server import address_of, bound_socket, run
from unetexp.serving.settings import ServingSettings
from unetexp.tracking.uri import absolute

_USUAL = ServingSettings()


def serve(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's folder, a run's id, models:/NAME@ALIAS or models:/NAME/VERSION, or an "
            "exported file."
        ),
    ],
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Address to listen at; 0.0.0.0: at all of this machine's."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0: any free one.")
    ] = 5001,
    max_mb: Annotated[
        float,
        typer.Option(min=0.001, max=1000, metavar="N", help="Largest request, in megabytes."),
    ] = _USUAL.max_mb,
    max_pixels: Annotated[
        int,
        typer.Option(min=1, max=2**26, metavar="N", help="Most pixels of the images of a request."),
    ] = _USUAL.max_pixels,
    batch_size: Annotated[
        int,
        typer.Option(min=1, max=256, metavar="N", help="Most images in one pass of the model."),
    ] = _USUAL.batch_size,
    batch_wait_ms: Annotated[
        float,
        typer.Option(
            min=0, max=1000, metavar="MS", help="How long an image waits for others of its size."
        ),
    ] = _USUAL.batch_wait_ms,
    queue: Annotated[
        int,
        typer.Option(
            min=1,
            max=10_000,
            metavar="N",
            help="Most requests at a time; others are answered with 503.",
        ),
    ] = _USUAL.queue,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, metavar="N", help="Threads of the model.", show_default="all cores"
        ),
    ] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name besides addresses and localhost by which the server is called; '*': any. "
            "Repeatable.",
        ),
    ] = None,
    flavor: Flavor = None,
    device: Device = "auto",
    tracking_uri: TrackingUri = None,
) -> None:
    """Serve a model over HTTP: POST an image to /predict, or open the page at /.

    Answers PNG and JPEG files and .npy arrays with label maps, probabilities or overlays
    (/predict?as=labels, probabilities, overlay), and JSON as MLflow's server does (/invocations).
    """
    with exit_codes():
        require_names(host_name or ())
        absolute(tracking_uri)
        settings = ServingSettings(
            max_mb=max_mb,
            max_pixels=max_pixels,
            batch_size=batch_size,
            batch_wait_ms=batch_wait_ms,
            queue=queue,
            host_names=tuple(host_name or ()),
        )
        console = Console(highlight=False, soft_wrap=True)
        listening = bound_socket(host, port)  # before the model, which takes longer
        engine = open_engine(
            model, device=device, threads=threads, flavor=flavor, tracking_uri=tracking_uri
        )
        address = address_of(listening)

        def announce() -> None:
            names = ", ".join(engine.spec.class_names)
            console.print(f"{engine.name}: {names}; {engine.runtime}", markup=False)
            for line in _next_steps(address):
                console.print(line, markup=False)

        run(create_app(engine, settings), listening, announce)


def _next_steps(address: str) -> list[str]:
    overlay = shlex.join(["curl", f"{address}/predict?as=overlay", "-o", "overlay.png"])
    return [
        f"try it    {address}",
        f"overlay   {overlay} --data-binary @IMAGE.png",
        f"health    {shlex.join(['curl', f'{address}/health'])}",
        "Ctrl-C ends it",
    ]


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=Command)(serve)
    app()
