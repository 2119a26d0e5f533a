"""Recognises texts that stand for no value: markers, unfilled templates, words for a hidden caller.

None of them may pass for a value: one id for all calls would make them one call, and a hidden caller would be somebody.
No list of such texts is ever complete, so nothing may depend on these lists alone.
"""

from __future__ import annotations

import re
import unicodedata

from router.core import patterns

UNSET = patterns.UNSET | frozenset(
    ("null", "(null)", "none", "nil", "undefined", "_undef_", "nan", "n/a", "[object object]")
)
"""Case-folded markers that marketing and telephony systems, and faulty programs, send for nothing."""


def is_unset(value: str) -> bool:
    """Return whether this is no value: a marker such as -1 and (not set), or an unfilled template."""
    text = value.strip(" \t\r\n'\"")
    return (len(text) < 16 and text.casefold() in UNSET) or is_placeholder(text)


_SIGILS = frozenset("%${[<#@&:*|=~")
_TEMPLATE = re.compile(r"\$[A-Za-z_{(\[]|\{\{|\{%|<%|[%#@]\{|%\(|%[A-Za-z_]{3,}%|\*\||^__\w+__$")
_SIGN = re.compile(r"[%${\[<#@&:*|=~]|^__")  # every template holds one
_LONGEST_TEMPLATE = 100


def is_placeholder(text: str) -> bool:
    """Return whether this is a template's variable, in any language: {call_id}, ${CHANNEL(linkedid)}, %CALLID%.

    Four digits make it a value: {3F2504E0-4F89-11D3-9A0C-0305E82C3301}.
    """
    if text.isalnum() or not _SIGN.search(text):  # nearly every value
        return False
    if len(text) > _LONGEST_TEMPLATE or sum(map(str.isdigit, text)) > 3 or text.startswith(('{"', "[{", '["')):  # JSON
        return False
    if text[:1] in _SIGILS and not {":", "@", '"'} & {*text[1:]}:
        return re.sub(r"[\W_]", "", text)[:1].isalpha()
    return _TEMPLATE.search(text) is not None


def identifies_nothing(call_id: str) -> bool:
    """Return whether this id identifies no call: unset, -, 0, 000-000, null-null, or the parameter's own name."""
    words = (word for word in _SEPARATORS.split(call_id.casefold()) if word.strip("0"))
    return all(word in _EMPTY_IDS for word in words) or is_unset(call_id)


_SEPARATORS = re.compile(r"[\W_]+")
_EMPTY_IDS = UNSET | {
    *("unknown", "unset", "empty", "false", "true", "missing"),
    *("call", "callid", "callsid", "calluuid", "cdrid", "id", "linkedid", "sid", "uniqueid", "uuid"),
}


# ---- hidden callers


def _words(text: str) -> list[str]:
    """Return the text's words without case and accents."""
    folded = unicodedata.normalize("NFKD", text.casefold().replace("ł", "l").replace("_", " "))
    return re.findall(r"\w+", "".join(c for c in folded if not unicodedata.combining(c)))


_MASK = re.compile(r"[\W_]*(?:[xх\W_]{3,})?")  # ***, xxx-xxx-xxxx, -: signs in place of digits

# A text stands for a hidden number when it has words of the first list and none of outside both.
_HIDING = frozenset(
    _words("""
anonim anonimo anonimowy anonym anonyme anonymer anonymni anonymous area ascuns ascunsa bilinmeyen blocked brak
desconocido gizli hidden inconnu ismeretlen kein keine masked masque missing nan nascosto necunoscut nezname neznamy
false nicht nie niedostepny nieznany nil no none not null oculto ohne ozel privado privat private privatni privato prive
prywatny rejtett restricted restrictionat sconosciuto secret skryte skryty soukrome sukromne suppressed titkos ukryty
unavailable unbekannt unbekannte unbekannter undefined undisclosed unidentified unknown unlisted unterdruckt
unterdruckte utajene verborgen withheld without zastrzezony аноним анонимен анонимно анонимный анонім анонімний
анонімно без відсутній закритий закрыт закрытый засекречен засекречений засекреченный не невизначений невядомы
невідомий невідомо недоступен недоступний неизвестен неизвестно неизвестный неопределен непознат отсутствует приватний
приватный прихований приховано прыватны скрит скрыт скрыто скрытый схаваны схований частен частный
""")
)
_BESIDE = _HIDING | frozenset(
    _words("""
a abonent anruf anrufer apel appel appelant available bekannt call caller chiamata cid cislo client dostepny id
identified identity line llamada n name numar numara number numer numero numeru nummer of out party person phone
provided rufnummer sender set shown subscriber szam teilnehmer the user verfugbar volajici volajuci абонент абонента
визначений визначено виклик вызов дзвінок доступен доступний звонок клиент клієнт контакт номер номера нумар определен
телефон
""")
)


def is_withheld(text: str) -> bool:
    """Return whether this stands in place of a hidden or unknown number."""
    folded = text.strip().casefold()
    if is_unset(folded) or folded.rstrip(">").endswith("anonymous.invalid") or _MASK.fullmatch(folded):
        return True
    words = _words(folded)
    return not _HIDING.isdisjoint(words) and _BESIDE.issuperset(words)
