"""The command `dipmed send`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from dipmed.cli_common import console

if TYPE_CHECKING:
    from dipmed.io.dicom_send import Sender

TOKEN = "DIPMED_DICOMWEB_TOKEN"  # noqa: S105  # the variable's name


def send(
    series: Annotated[Path, typer.Argument(help="Folder of DICOM slices, or a .dcm file.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help=f"dicom://HOST:PORT/AET, or https://HOST/PATH of DICOMweb with a token in {TOKEN}."
        ),
    ],
    own_title: Annotated[str, typer.Option("--aet", metavar="TITLE", help="dicom://: our own AE title.")] = "DIPMED",
) -> None:
    """Send DICOM images to an archive; after an error the same command sends what is left."""
    from dipmed.io.dicom_send import read_address, read_parcels, send_all
    from dipmed.io.dicom_store import StoreSender
    from dipmed.io.dicom_web import WebSender

    address = read_address(to)
    parcels = read_parcels([series])
    whole = series.resolve()

    def connect() -> Sender:
        if address.scheme != "dicom":
            return WebSender(address, os.environ.get(TOKEN))
        return StoreSender(
            address.hostname or "",
            address.port or 0,
            address.path.strip("/"),
            own_title=own_title,
            sop_classes={parcel.sop_class for parcel in parcels},
        )

    with console.status("sending") as status:
        n_sent = iter(range(1, len(parcels) + 1))
        sent = send_all(
            parcels,
            whole.with_name(f"{whole.name}.sent"),
            to,
            connect,
            on_sent=lambda: status.update(f"sent {next(n_sent)} of {len(parcels)}"),
        )
    before = f", {sent.earlier} had been sent before" if sent.earlier else ""
    console.print(f"{escape(str(series))}: {sent.now} objects sent to {escape(to)}{before}", soft_wrap=True)
