"""The events of a call after the hook: who rings, who picked up, how it ended. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from router.core.words import Message


class EventKind(StrEnum):
    """The moment in the life of a call. UNKNOWN: neither the platform nor the event's other fields say it."""

    BEFORE_CALL = "before_call"
    FORWARDING = "forwarding"
    PICKUP = "pickup"
    AFTER_CALL = "after_call"
    UNAVAILABLE = "unavailable"  # the named agent did not take the call, which goes on
    UNKNOWN = ""


class Disposition(StrEnum):
    """How a call ended, or that it has not. UNKNOWN: not sent, or an unknown word."""

    ANSWERED = "answered"
    PROPER = "proper"
    REPEATED = "repeated"
    VOICEMAIL = "voicemail"
    NO_ANSWER = "no_answer"
    CLIENT_NO_ANSWER = "client_no_answer"
    BUSY = "busy"
    DECLINE = "decline"
    FAILED = "failed"
    FAILED_FORBIDDEN_DESTINATION = "failed_forbidden_destination"
    NO_FORWARD = "no_forward"
    NO_EXTENSION = "no_extension"
    WRONG_EXTENSION = "wrong_extension"
    IN_PROGRESS = "in_progress"
    CALLING = "calling"
    UNKNOWN = ""

    @property
    def is_final(self) -> bool:
        return self not in _NOT_OVER

    @property
    def is_answered(self) -> bool:
        """Return whether somebody talked with the caller. A voice mail box is nobody."""
        return self in _TALKED

    @property
    def is_refusal(self) -> bool:
        """Return whether the agent named did not take it: busy, declined, silent or out of reach."""
        return self in _REFUSED


def parse_disposition(text: str) -> Disposition | None:
    """Return the disposition; UNKNOWN for a word that says only how the line was cleared, None for an unknown word."""
    return _BY_WORD.get(folded_word(text))


def folded_word(text: str) -> str:
    """Return NO ANSWER, no-answer, No+Answer, no_answer, noAnswer and NOANSWER as one word."""
    return "".join(char for char in text.casefold() if char.isalnum())


WORDS: Mapping[Disposition, str] = {
    Disposition.ANSWERED: "ANSWER COMPLETED SUCCESS",
    Disposition.NO_ANSWER: "MISSED TIMEOUT NO_USER_RESPONSE ALLOTTED_TIMEOUT PROGRESS_TIMEOUT MEDIA_TIMEOUT"
    " RECOVERY_ON_TIMER_EXPIRE 18 19 102 408",
    Disposition.CLIENT_NO_ANSWER: "CANCEL CANCELED CANCELLED ABANDON ABANDONED ORIGINATOR_CANCEL 487",
    Disposition.BUSY: "USER_BUSY BUSY_EVERYWHERE 17 486 600",
    Disposition.DECLINE: "DECLINED REJECTED CALL_REJECTED DONTCALL TORTURE 21 603",
    Disposition.FAILED: "CHANUNAVAIL CONGESTION INVALIDARGS UNREACHABLE NOT_REGISTERED USER_NOT_REGISTERED"
    " SUBSCRIBER_ABSENT UNALLOCATED_NUMBER NO_ROUTE_DESTINATION NO_ROUTE_TRANSIT_NET DESTINATION_OUT_OF_ORDER"
    " NORMAL_TEMPORARY_FAILURE NETWORK_OUT_OF_ORDER NORMAL_CIRCUIT_CONGESTION SWITCH_CONGESTION"
    " REQUESTED_CHAN_UNAVAIL INVALID_NUMBER_FORMAT INCOMPATIBLE_DESTINATION CHANNEL_UNACCEPTABLE"
    " BEARERCAPABILITY_NOTAVAIL FACILITY_REJECTED FACILITY_NOT_SUBSCRIBED SERVICE_UNAVAILABLE GATEWAY_DOWN"
    " OUTGOING_CALL_BARRED INCOMING_CALL_BARRED PROTOCOL_ERROR INTERWORKING CRASH EXCHANGE_ROUTING_ERROR"
    " 20 27 34 38 404 410 480 484 488 500 502 503 604",
    Disposition.CALLING: "RINGING",
    Disposition.UNKNOWN: "NORMAL_CLEARING NORMAL_UNSPECIFIED NORMAL_CLEAR BLIND_TRANSFER ATTENDED_TRANSFER PICKED_OFF"
    " LOSE_RACE ANSWERED_ELSEWHERE MANAGER_REQUEST 16 26 31",
}
"""What others call it: Asterisk's DIALSTATUS, the hang-up causes of Q.850 as FreeSWITCH names them, with their numbers,
and SIP's codes."""

_BY_WORD = {folded_word(disposition): disposition for disposition in Disposition if disposition} | {
    folded_word(word): disposition for disposition, words in WORDS.items() for word in words.split()
}
_NOT_OVER = frozenset({Disposition.IN_PROGRESS, Disposition.CALLING, Disposition.UNKNOWN})
_TALKED = frozenset({Disposition.ANSWERED, Disposition.PROPER, Disposition.REPEATED})
_REFUSED = frozenset(
    {
        *(Disposition.NO_ANSWER, Disposition.BUSY, Disposition.DECLINE, Disposition.FAILED),
        *(Disposition.FAILED_FORBIDDEN_DESTINATION, Disposition.NO_FORWARD),
        *(Disposition.NO_EXTENSION, Disposition.WRONG_EXTENSION),
    }
)


@dataclass(frozen=True, slots=True)
class CallEvent:
    """One call event as it was read. Any field may be missing: events are lossy, late and repeated.

    `sip_login`: who rings or talks, a SIP login or a phone number as the platform writes it. `caller`, `dialed`: as in
    `Call`. `answered` None: not known (yet). Durations are whole seconds. `at`: when it happened by the platform's
    clock, aware.
    """

    kind: EventKind = EventKind.UNKNOWN
    call_id: str = ""
    step: str = ""
    sip_login: str = ""
    caller: str = ""
    dialed: str = ""
    direction: str = ""
    disposition: Disposition = Disposition.UNKNOWN
    answered: bool | None = None
    billsec: int | None = None
    duration: int | None = None
    waittime: int | None = None
    at: datetime | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Message, ...] = ()

    @property
    def talks(self) -> bool | None:
        """Return whether somebody talks from now on, or nobody any more; None when it says neither."""
        if self.kind is EventKind.AFTER_CALL:
            return False
        begins = self.direction == "out" if self.kind is EventKind.BEFORE_CALL else self.kind is EventKind.PICKUP
        return True if begins and self.answered is not False else None
