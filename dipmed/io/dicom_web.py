"""Objects to an archive by STOW-RS, DICOMweb's way (PS3.18 10.5)."""

from __future__ import annotations

import json
import secrets
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult

from dipmed.io.dicom_send import Parcel
from dipmed.scan import OutputError

_SECONDS = 60
_FAILED = "00081198"
_MOST_ANSWER = 2**20
_STORED = 200, 202


class WebSender:
    """A connection to a DICOMweb archive; with https the machine has to prove who it is.

    Certificates are those of the system, or of the file that the variable ``SSL_CERT_FILE`` names.

    Parameters
    ----------
    address
        Without the ``/studies`` that objects are posted to.
    token
        Sent as a bearer token; None for none.
    """

    def __init__(self, address: SplitResult, token: str | None = None) -> None:
        assert address.hostname is not None  # noqa: S101  # or the address was refused
        self._where = f"{address.scheme}://{address.netloc}"
        self._path = f"{address.path.rstrip('/')}/studies"
        self._token = token
        self._connection: HTTPConnection
        if address.scheme == "https":
            context = ssl.create_default_context()
            self._connection = HTTPSConnection(address.hostname, address.port, timeout=_SECONDS, context=context)
        else:
            self._connection = HTTPConnection(address.hostname, address.port, timeout=_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def send(self, parcel: Parcel) -> None:
        """Send a file.

        Raises
        ------
        OutputError
            When the archive does not keep it.
        """
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = head + parcel.path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            self._connection.request("POST", self._path, body, headers)
            answer = self._connection.getresponse()
            content = answer.read(_MOST_ANSWER)
        except ssl.SSLCertVerificationError as error:
            raise OutputError(f"{self._where} cannot prove who it is: {error.verify_message}") from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise OutputError(f"{self._where} cannot be reached, or broke the connection off ({reason})") from error
        self._check(answer.status, answer.reason, content)

    def _check(self, status: int, reason: str, content: bytes) -> None:
        if status in (401, 403):
            raise OutputError(f"{self._where} refuses: {status} {reason}; its token is read from DIPMED_DICOMWEB_TOKEN")
        if status not in _STORED:
            raise OutputError(f"{self._where} does not keep the object: {status} {reason}")
        try:
            told = json.loads(content or b"{}")
            failed = told.get(_FAILED, {}).get("Value") if isinstance(told, dict) else None
        except (ValueError, AttributeError, RecursionError):
            failed = None
        if failed:
            raise OutputError(f"{self._where} does not keep the object, and says so in its answer")
