"""Objects to an archive by C-STORE, DICOM's own protocol (PS3.4 B)."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from dipmed.io.dicom_send import Parcel
from dipmed.scan import MissingExtra, OutputError

if TYPE_CHECKING:
    from pynetdicom.association import Association

_CONNECT_SECONDS, _ANSWER_SECONDS = 10, 60
_PLAIN = "1.2.840.10008.1.2.1"  # explicit little-endian, as all that dipmed writes
_WARNING = 0xB000


class StoreSender:
    """An association with an archive.

    Parameters
    ----------
    host, port, title
        Of the archive.
    own_title
        Ours, which some archives have to know.
    sop_classes
        Of the objects to come.

    Raises
    ------
    OutputError
        When the archive is not there, or refuses.
    MissingExtra
        When pynetdicom is not installed.
    """

    def __init__(self, host: str, port: int, title: str, *, own_title: str, sop_classes: set[str]) -> None:
        try:
            from pynetdicom import AE, evt
        except ImportError:
            raise MissingExtra("sending by dicom:// needs pynetdicom: pip install 'dipmed[pacs]'") from None
        entity = AE(ae_title=own_title)
        entity.connection_timeout, entity.acse_timeout = _CONNECT_SECONDS, _CONNECT_SECONDS
        entity.dimse_timeout = entity.network_timeout = _ANSWER_SECONDS
        for sop_class in sorted(sop_classes):
            entity.add_requested_context(sop_class, _PLAIN)
        self._where = f"{title} at {host}:{port}"
        received: list[object] = []
        keep = (evt.EVT_PDU_RECV, lambda event: received.append(event.pdu))
        self._association = entity.associate(host, port, ae_title=title, evt_handlers=[keep])
        if not self._association.is_established:
            raise OutputError(f"{self._where} {_refusal(self._association, received)}")
        self._association.unbind(*keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._association.is_established:
            self._association.release()

    def send(self, parcel: Parcel) -> None:
        """Send a file.

        Raises
        ------
        OutputError
            When the archive does not keep it.
        """
        accepted = {context.abstract_syntax for context in self._association.accepted_contexts}
        if self._association.is_established and parcel.sop_class not in accepted:
            raise OutputError(f"{self._where} takes no objects of the kind {_name(parcel.sop_class)}")
        try:
            answer = self._association.send_c_store(parcel.path)
        except (RuntimeError, ValueError) as error:  # the association is gone, or the file cannot be encoded
            raise OutputError(f"{self._where} was lost, or the file is not plain") from error
        status = answer.get("Status")
        if status is None:
            raise OutputError(f"{self._where} does not answer any more")
        if status != 0 and status & 0xF000 != _WARNING:
            raise OutputError(f"{self._where} does not keep the object: status 0x{status:04X}")


def _name(sop_class: str | None) -> str:
    from pydicom.uid import UID

    return UID(sop_class or "").name


def _refusal(association: Association, received: list[object]) -> str:
    from pynetdicom.pdu import A_ASSOCIATE_RJ

    if association.rejected_contexts:
        return f"takes no objects of the kind {_name(association.rejected_contexts[0].abstract_syntax)}"
    # association.is_rejected stays false on a busy machine, where the answer is there and the connection
    # closed before pynetdicom looks whether it has one
    for answer in received:
        if isinstance(answer, A_ASSOCIATE_RJ):
            return f"refuses the association: {answer.reason_str.lower()}"
    return "cannot be reached, or broke the connection off"
