"""The ticket subject: what is one, and what only looks like one."""

import unittest

from mailer import tickets

SUBJECT = "[Ticket #12345] Mailer"
PREFIXES = (
    "Re: ", "RE: ", "re:", "Re : ", "Re[2]: ", "Re [2]: ", "Re(3): ", "Re^4: ", "Re: Re: ", "Fwd: ",
    "FW: ", "Fw: Re[12]: ", "AW: ", "WG: ", "Antwort: ", "SV: ", "VS: ", "RV: ", "TR: ", "Réf. : ",
    "Antw: ", "Odp: ", "PD: ", "R: ", "I: ", "RES: ", "ENC: ", "YNT: ", "İLT: ", "Отв: ", "Ответ: ",
    "ОТВЕТ: ", "На: ", "НА: ", "HA: ", "Пересл: ", "Відповідь: ", "Отговор: ", "回复: ", "回复：", "转发：Re: ",
    "答复: ", "返信: ", "답장: ", "ΑΠ: ", "השב: ", "תגובה: ", "REF: ", "Ref.: ", "Ré.: ", "FS: ", "YML: ",
    "Odg: ", "Одг: ", "Atb.: ", "Odpověď: ", "Răspuns: ", "Weitergeleitet: ", "Resp: ", "Encaminhado: ",
    "Переслать: ", "Пересылка: ", "Re2: ", "Re-2: ", "Reply: ", "Forward: ", "Svar: ", "Vedr: ",
    "Vastaus: ", "Doorgestuurd: ", "Odp.: ", "回信: ", "Antwoord: ", "Balas: ", "پاسخ: ", "Antw.: ", "Betr: ",
    "Vidarebefordrat: ", "Továbbítva: ", "Res.: ", "Прп: ", "Proslijeđeno: ", "\u200fRE: ", "\u200eFW: ",
    "Risposta: ", "Respuesta: ", "Resposta: ", "Réponse : ", "Rép. : ", "Odpowiedź: ", "Válasz: ", "Yanıt: ", "Cevap: ",
    "Απάντηση: ", "Адказ: ", "ตอบกลับ: ", "Vedr.: ", "回復: ", "Odgovor: ", "الرد: ", "Ang: ", "Přeposláno: ",
    "Re\u0301ponse : ", "Pārs: ", "PĀRS.: ", "\u202bRE: \u202c", "\u2067Re:\u2069 ", "\u200bRe: ", "Inoltro: ",
    "Encaminhada: ", "Vast: ", "Пр: ", "תשובה: ",
)  # fmt: skip
OTHERS = (
    "", "Mailer", "[Ticket #] Mailer", "[Ticket #12a] Mailer", "[Ticket #-1] Mailer",
    "[ticket #1] Mailer", "[Ticket #1] mailer", "[Ticket #1]Mailer", "[Ticket # 1] Mailer",
    "[Ticket #1 ] Mailer", "[Ticket #1234567890123456789] Mailer", "[Ticket #١٢٣] Mailer",
    "[Ticket #１] Mailer", "x [Ticket #1] Mailer", "[Ticket #1] Mailer x", "Re [Ticket #1] Mailer",
    "Re;[Ticket #1] Mailer", "Re--2: [Ticket #1] Mailer",
    "Hello: [Ticket #1] Mailer", "[Ticket #1] Mailer, [Ticket #2] Mailer",
    "Automatic reply: [Ticket #1] Mailer", "Re: ", ": [Ticket #1] Mailer",
)  # fmt: skip


class Tickets(unittest.TestCase):
    def test_the_subject_is_recognised_behind_any_run_of_prefixes(self) -> None:
        for prefix in ("", *PREFIXES):
            with self.subTest(prefix=prefix):
                self.assertEqual(tickets.recognise(prefix + SUBJECT), 12345)
        self.assertEqual(tickets.recognise("".join(PREFIXES) + SUBJECT), 12345)

    def test_runs_of_blanks_count_as_one(self) -> None:
        self.assertEqual(tickets.recognise(" Re:\u00a0 [Ticket\t #12345]  \n Mailer "), 12345)

    def test_everything_else_is_none(self) -> None:
        for subject in OTHERS:
            with self.subTest(subject=subject):
                self.assertIsNone(tickets.recognise(subject))

    def test_many_prefixes_take_little_time(self) -> None:
        self.assertIsNone(tickets.recognise("Re: " * 100_000 + "Mailer"))
        self.assertIsNone(tickets.recognise("Re[1]" * 100_000 + "Mailer"))

    def test_what_is_formatted_is_recognised(self) -> None:
        for ticket in (0, 1, 10_000, 10**18 - 1):
            self.assertEqual(tickets.recognise(tickets.format_subject(ticket)), ticket)
            identifier = tickets.message_id(ticket, "0af3", "example.com")
            self.assertEqual(tickets.ticket_of_message_id(f"<other@example.com>\r\n {identifier} <last@x>"), ticket)

    def test_other_message_ids_name_no_ticket(self) -> None:
        for text in ("", "<ticket.12@example.com>", "<ticket.x.ab@example.com>", "ticket.12.ab@example.com"):
            self.assertIsNone(tickets.ticket_of_message_id(text))


if __name__ == "__main__":
    unittest.main()
