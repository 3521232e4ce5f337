"""The ticket subject `[Ticket #12345] Mailer` and the Message-ID that carries the same number.

Formats both and recognises both; `recognise` refuses everything but exactly that subject, alone or after reply and
forward prefixes. Called by `compose` on the way out, by `reading` and `bounces` on the way in.
"""

import re
import unicodedata

# What mail programs write before the subject of a reply or a forwarded mail, by language: English; German; Danish,
# Norwegian and Swedish; Finnish; Dutch; French; Italian; Spanish and Portuguese; Polish; Czech; Hungarian; Estonian,
# Latvian and Lithuanian; Icelandic and Welsh; Croatian, Slovenian and Romanian; Turkish; Greek; Russian, Ukrainian,
# Belarusian, Kazakh, Bulgarian and Serbian; Chinese; Japanese and Korean; Vietnamese, Indonesian and Thai; Hebrew,
# Arabic and Persian.
_WORDS = (
    "re|reply|fwd?|forward|aw|antwort|wg|weitergeleitet|sv|svar|vedr\\.?|ang|vs|vastaus|vl|vb|vidarebefordrat|antw\\.?|"
    "antwoord|betr|doorst|doorgestuurd|tr|r[ée]f\\.?|ré\\.?|rép\\.?|réponse|rif|i|r|risposta|inoltr[ao]|rv|resp?|res\\.|"
    "respuesta|resposta|enc|encaminhad[ao]|odp\\.?|odpowiedź|pd|odpověď|předat|přep|přeposláno|vá|válasz|továbbítás|"
    "továbbítva|vast|atb\\.?|pārs\\.?|ats|fs|yml|odg|odgovor|răspuns|ynt|yanıt|cvp|cevap|i̇?lt|ilt|απ|απάντηση|σχετ|πρθ|"
    "отв|ответ|на|ha|пересл|переслано|переслать|пересылка|пер|відп|відповідь|адказ|жауап|отг|отговор|препр|прп|пр|отн|одг|"
    "proslijeđeno|回复|答复|转发|回覆|回復|答覆|轉寄|轉發|返信|回信|転送|답장|회신|전달|trả lời|tl|chuyển tiếp|"
    "bls|balas|trs|ตอบ|ตอบกลับ|ส่งต่อ|השב|תגובה|תשובה|הועבר|رد|الرد|إعادة توجيه|پاسخ"
)
# One prefix, with the counter that some programs keep: `Re[2]:`, `Re(2):`, `Re^2:`, `Re-2:`; the colon may be a
# full-width one.
_PREFIX = rf"(?:{_WORDS})(?:\s?\[\d{{1,4}}\]|\s?\(\d{{1,4}}\)|[\^*-]?\d{{1,4}})?\s?[:：]\s?"
_SUBJECT = re.compile(rf"(?:(?i:{_PREFIX}))*+\[Ticket #([0-9]{{1,18}})\] Mailer")
_SUBJECT_AT_END = re.compile(r"(?<![^\s:：–—-])\[Ticket #([0-9]{1,18})\] Mailer\Z")
_LONGEST = 40  # characters, with the blank before it
_LONGEST_COMPOSED = 2_000  # characters: composing their accents takes quadratic time
# Direction marks, byte order marks and zero-width spaces, which some mail programs put around a prefix.
_NO_MARKS = dict.fromkeys((0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF))
_MESSAGE_ID = re.compile(r"<ticket\.([0-9]{1,18})\.[0-9a-z]+@")


def format_subject(ticket: int) -> str:
    """The subject of a ticket mail."""
    return f"[Ticket #{ticket}] Mailer"


def recognise(subject: str) -> int | None:
    """The ticket of a decoded, unfolded subject; None when it is no ticket subject."""
    if "Mailer" not in subject:
        return None
    subject = subject.translate(_NO_MARKS)
    if len(subject) <= _LONGEST_COMPOSED:
        subject = unicodedata.normalize("NFC", subject)
    found = _SUBJECT.fullmatch(" ".join(subject.split()))
    return int(found[1]) if found else None


def mentioned(subject: str) -> int | None:
    """The ticket whose subject stands at the end of this one, whatever is before it; None when there is none."""
    found = _SUBJECT_AT_END.search(" ".join(subject.split())[-_LONGEST:])
    return int(found[1]) if found else None


def message_id(ticket: int, unique: str, domain: str) -> str:
    """A Message-ID (RFC 5322, section 3.6.4) that carries the ticket; `unique` is lower-case hexadecimal."""
    return f"<ticket.{ticket}.{unique}@{domain}>"


def ticket_of_message_id(text: str) -> int | None:
    """The ticket of the first of our Message-IDs in a text such as a References header."""
    found = _MESSAGE_ID.search(text)
    return int(found[1]) if found else None
