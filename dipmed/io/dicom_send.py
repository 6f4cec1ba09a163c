"""Sending DICOM files to an archive, one after the other, so that a broken run can go on where it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from dipmed.io.dicom_files import dicom_images, reading
from dipmed.io.files import atomic_write, cannot_write, check_target
from dipmed.scan import DipmedError, FormatError, OutputError

_SCHEMES = ("dicom", "https", "http")
_LONGEST_TITLE = 16  # characters of DICOM's AE


@dataclass(frozen=True)
class Parcel:
    """A file to send, and the class and UID of the object in it."""

    path: Path
    sop_class: str
    sop_instance: str


class Sender(AbstractContextManager["Sender"], Protocol):
    """A connection to an archive."""

    def send(self, parcel: Parcel) -> None:
        """Send a file, and return when the archive has said that it keeps it.

        Raises
        ------
        OutputError
            When it has not.
        """


@dataclass(frozen=True)
class Sent:
    """How many objects were sent by this run, and how many an earlier one had sent already."""

    now: int
    earlier: int


def read_parcels(paths: Sequence[Path]) -> list[Parcel]:
    """Return the DICOM images of files and folders.

    Raises
    ------
    FormatError
        When there are none, or one is damaged.
    """
    parcels = []
    for path in paths:
        for file, header in dicom_images(path, ("SOPClassUID", "SOPInstanceUID"))[0]:
            with reading(file, private=True):
                parcels.append(Parcel(file, str(header.SOPClassUID), str(header.SOPInstanceUID)))
    return parcels


def read_address(address: str) -> SplitResult:
    """Return the parts of an address: ``dicom://HOST:PORT/AET``, or ``https://HOST/…`` of DICOMweb.

    Raises
    ------
    FormatError
        When it is none of these, or would send without encryption to another machine.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise FormatError(f"{address} is no address") from None
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise FormatError(f"{address} is no address of an archive: dicom://HOST:PORT/AET or https://HOST/PATH")
    if parts.username or parts.password:
        raise FormatError("an address with a password in it ends up in logs; give a token by the environment")
    title = parts.path.strip("/")
    if parts.scheme == "dicom" and not (port and title and len(title) <= _LONGEST_TITLE and "/" not in title):
        raise FormatError(f"{address} should name port and AE title: dicom://HOST:PORT/AET")
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise FormatError(f"{address} is not encrypted; take https://")
    return parts


def send_all(
    parcels: Sequence[Parcel], ledger: Path, address: str, connect: Callable[[], Sender], *, on_sent: Callable[[], None]
) -> Sent:
    """Send what has not been sent to this address yet.

    Parameters
    ----------
    parcels
        What is to be sent.
    ledger
        File that keeps the UIDs of sent objects until all are sent.
    address
        Where to, as the ledger has it.
    connect
        Opens the connection.
    on_sent
        Is called after each object.

    Raises
    ------
    OutputError
        When an object could not be sent; the message says how many were, and the ledger which.
    """
    check_target(ledger, force=True)
    done = {uid for where, uid in _read_ledger(ledger) if where == address}
    left = [parcel for parcel in parcels if parcel.sop_instance not in done]
    n_sent = 0
    try:
        with connect() as sender, ledger.open("a", encoding="utf-8") as kept:
            for parcel in left:
                sender.send(parcel)
                kept.write(f"{address} {parcel.sop_instance}\n")
                kept.flush()
                n_sent += 1
                on_sent()
    except DipmedError as error:
        raise OutputError(_left_over(str(error), parcels, left[n_sent:])) from error
    except OSError as error:
        raise cannot_write(ledger, error) from error
    finally:
        _tidy(ledger, address if n_sent == len(left) else None)
    return Sent(n_sent, len(parcels) - len(left))


def _left_over(reason: str, parcels: Sequence[Parcel], left: Sequence[Parcel]) -> str:
    n_sent = len(parcels) - len(left)
    first = f", first {left[0].path.name}" if left else ""
    again = "; the same command sends the rest" if n_sent else ""
    return f"{reason}; {n_sent} of {len(parcels)} objects were sent, {len(left)} were not{first}{again}"


def _tidy(ledger: Path, finished: str | None) -> None:
    """Forget what was sent to an address when all was, and leave no empty ledger."""
    left = [f"{where} {uid}\n" for where, uid in _read_ledger(ledger) if where != finished]
    if not left:
        ledger.unlink(missing_ok=True)
    elif finished is not None:
        with atomic_write(ledger, force=True) as temporary:
            temporary.write_text("".join(left), encoding="utf-8")


def _read_ledger(ledger: Path) -> list[tuple[str, str]]:
    """Addresses, and UIDs that were sent there."""
    try:
        lines = ledger.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{ledger}, which says what was sent, cannot be read; delete it to send all again") from error
    words = [line.split(" ") for line in lines]
    return [(pair[0], pair[1]) for pair in words if len(pair) == 2]
