"""Mail as programs get it wrong: it is read as its writer meant it."""

import base64
import codecs
import unittest
from unittest import mock

from mailer.reading import Reading, read, wants_more
from tests.support.mails import multipart

FROM = b"From: a@example.com\r\n"
PICTURE = b"Content-Type: image/png; name=x.png\r\nContent-ID: <x>\r\n\r\nPNG\r\n"


def mail(fields: str, body: bytes = b"x") -> Reading:
    return read(FROM + fields.encode() + b"\r\n\r\n" + body)


def related(parameters: str, *parts: bytes) -> Reading:
    body = b"".join(b"--b\r\n" + part for part in parts) + b"--b--\r\n"
    return mail(f"Content-Type: multipart/related; boundary=b{parameters}", body)


class Mistakes(unittest.TestCase):
    def test_a_raw_subject_in_utf_8_is_read_whatever_the_charset_of_the_text(self) -> None:
        for charset in ("iso-8859-1", "windows-1251", "koi8-r", "gb2312", "shift_jis", "utf-16"):
            with self.subTest(charset):
                found = mail(f"Subject: Ответ: [Ticket #7] Mailer\r\nContent-Type: text/plain; charset={charset}")
                self.assertEqual((found.ticket, found.subject), (7, "Ответ: [Ticket #7] Mailer"))

    def test_western_bytes_declared_as_utf_8(self) -> None:
        texts = ("Grüße aus München", "déjà vu", "é", "Un café", "Menü", "olé!", "10 €", "Il est là")
        for text in (*texts, "REFUSÉ\xa0: DÉCLARÉ\xa0!"):
            with self.subTest(text):
                fields = "Content-Type: text/plain; charset=utf-8\r\nSubject: "
                found = read(FROM + fields.encode() + text.encode("cp1252") + b"\r\n\r\n" + text.encode("cp1252"))
                self.assertEqual((found.text, found.subject), (text, text))

    def test_utf_8_that_does_not_fit_its_charset_is_read_as_it_is(self) -> None:
        table = {
            "windows-1251": "Здравствуйте, Иван!", "iso-8859-1": "“hello” Á", "shift_jis": "お世話になっております",
            "iso-2022-jp": "プリンター", "iso-8859-7": "Καλημέρα, ο εκτυπωτής χάλασε",
        }  # fmt: skip
        for charset, text in table.items():
            with self.subTest(charset):
                fields = f"Content-Type: text/plain; charset={charset}\r\n\r\n"
                self.assertEqual(read(FROM + fields.encode() + text.encode()).text, text)

    def test_utf_8_that_fits_another_charset_is_read_as_it_is_where_that_is_no_accident(self) -> None:
        for charset in ("windows-1251", "koi8-r", "iso-8859-1", "windows-1252", "gb2312", "big5", "shift_jis", "cp866"):
            for text in ("Здравствуйте, принтер", "Schöne Grüße aus Köln, später über Öfen, schöner", "打印机不工作了"):
                with self.subTest(charset, text=text):
                    self.assertEqual(mail(f"Content-Type: text/plain; charset={charset}", text.encode()).text, text)
        for charset in ("gb2312", "gbk", "big5", "euc-kr"):
            for text in ("无法登录系统", "打印机坏了吗", "принтер", "Привет", "Ошибка"):
                with self.subTest(charset, text=text):
                    self.assertEqual(mail(f"Content-Type: text/plain; charset={charset}", text.encode()).text, text)
        accidents = {"koi8-r": "ask her: её, её", "windows-1251": "Её, Её", "gb2312": "知之为知之"}
        for charset, text in accidents.items():
            with self.subTest(charset, text=text):
                self.assertEqual(mail(f"Content-Type: text/plain; charset={charset}", text.encode(charset)).text, text)

    def test_a_footer_in_utf_8_behind_a_charset_that_shifts_spoils_only_itself(self) -> None:
        body = "プリンターが燃えています。".encode("iso-2022-jp") + "\n-- \nウイルスチェック済み\n".encode()
        found = mail("Content-Type: text/plain; charset=iso-2022-jp", body)
        self.assertTrue(found.text.startswith("プリンターが燃えています。\n-- \n"), found.text)

    def test_a_wide_charset_in_html_that_is_not_wide_is_none(self) -> None:
        table = {"Le café déjà fermé": "cp1252", "Здравствуйте, принтер": "cp1251", "Grüße": "utf-8"}
        for text, charset in table.items():
            for named in ("unicode", "utf-16"):
                for fields in ("", "; charset=us-ascii"):
                    with self.subTest(text, named=named, fields=fields):
                        html = f'<meta http-equiv="Content-Type" content="text/html; charset={named}"><p>{text}</p>'
                        found = mail(f"Content-Type: text/html{fields}", html.encode(charset))
                        self.assertEqual(found.text, text)

    def test_a_charset_of_one_byte_under_the_name_of_a_wide_one(self) -> None:
        for charset, text in (
            ("windows-1251", "Привет"), ("koi8-r", "Привет"), ("windows-1251", "<div>Привет</div>"),
            ("windows-1252", "Müller"), ("iso-8859-1", "Café déjà vu"), ("iso-8859-1", "Grüße aus Köln"),
        ):  # fmt: skip
            for named in ("unicode", "utf-16", "utf-16le"):
                with self.subTest(text, charset=charset, named=named):
                    found = mail(f"Content-Type: text/plain; charset={named}", text.encode(charset))
                    self.assertEqual(found.text, text)

    def test_an_element_in_ascii_that_names_a_wide_charset(self) -> None:
        for charset, text in (
            ("windows-1251", "Привет, у меня не работает принтер"), ("windows-1252", "Schöne Grüße aus Köln"),
            ("iso-2022-jp", "プリンターが動きません"),
        ):  # fmt: skip
            for end in ("", "\x0b"):
                html = f'<html><head><META content="text/html; charset=unicode"></head><body>{text}{end}</body></html>'
                with self.subTest(text, end=end):
                    found = mail("Content-Type: text/html", html.encode(charset))
                    self.assertEqual(found.text.rstrip(end), text)

    def test_an_element_that_names_the_charset_where_the_field_names_a_wide_one(self) -> None:
        for charset, text in (
            ("gb2312", "打印机坏了,打印机不工作"), ("shift_jis", "プリンターが動きません"),
            ("euc-kr", "프린터가 안 됩니다"), ("windows-1253", "Ο εκτυπωτής δεν δουλεύει"),
            ("windows-1254", "Yazıcı çalışmıyor"),
        ):  # fmt: skip
            html = f'<html><head><meta charset="{charset}"></head><body>{text}</body></html>'
            with self.subTest(text):
                found = mail("Content-Type: text/html; charset=unicode", html.encode(charset))
                self.assertEqual(found.text, text)

    def test_an_element_that_names_the_charset_where_the_field_names_one_that_does_not_fit(self) -> None:
        page = '<html><head><meta charset="{}"></head><body>{}</body></html>'
        for field, charset, text in (
            ("utf-8", "gbk", "打印机坏了,打印机不工作"), ("utf-8", "big5", "印表機壞了"),
            ("utf-8", "euc-kr", "프린터가 안 됩니다"), ("utf-8", "windows-1253", "Ο εκτυπωτής δεν δουλεύει"),
            ("iso-8859-1", "utf-8", "Bitte prüfen Sie das Gerät"),
            ("windows-1252", "utf-8", "für"), ("us-ascii", "utf-8", "für"),
        ):  # fmt: skip
            with self.subTest(text, field=field):
                found = mail(f"Content-Type: text/html; charset={field}", page.format(charset, text).encode(charset))
                self.assertEqual(found.text, text)

    def test_an_element_that_was_left_over_is_not_heeded(self) -> None:
        page = '<html><head><meta charset="{}"></head><body>{}</body></html>'
        for field, text in (
            ("gb2312", "谢谢"), ("hz-gb-2312", "打印机坏了"), ("utf-7", "Grüße"), ("iso-2022-kr", "프린터가"),
            ("iso-2022-jp", "プリンタ"), ("windows-1251", "Принтер"), ("iso-8859-1", "Müller"),
        ):  # fmt: skip
            with self.subTest(field, text=text):
                found = mail(f"Content-Type: text/html; charset={field}", page.format("utf-8", text).encode(field))
                self.assertEqual(found.text, text)
        found = mail("Content-Type: text/html; charset=utf-8", page.format("iso-8859-1", "Принтер").encode("cp1251"))
        self.assertEqual(found.text, "Принтер")
        table = (("utf-8", "gbk"), ("utf-8", "windows-1251"), ("windows-1251", "utf-8"), ("koi8-r", "gbk"))
        for field, left_over in table:
            text = "Принтер не работает, помогите"
            whole = page.format(left_over, text).encode(field)
            damaged = whole.replace("не".encode(field), b"\xff") if field == "utf-8" else whole
            for data, shown in ((whole, text), (damaged, text.replace("не", "\ufffd") if field == "utf-8" else text)):
                with self.subTest(field, left_over=left_over, shown=shown):
                    self.assertEqual(mail(f"Content-Type: text/html; charset={field}", data).text, shown)

    def test_a_long_text_in_a_wide_charset_is_one_wherever_it_is_looked_at(self) -> None:
        for shift in ("", "文"):  # so that one of them has half a character at each place
            text = shift + "😀" * 40_000
            with self.subTest(shift):
                found = mail("Content-Type: text/plain; charset=utf-16-le", text.encode("utf-16-le"))
                self.assertEqual(found.text, text)

    def test_a_charset_by_an_old_name(self) -> None:
        marked = codecs.BOM_UTF16_LE + "Привет".encode("utf-16-le")
        self.assertEqual(mail("Content-Type: text/plain; charset=unicode", marked).text, "Привет")
        for text in ("打印机坏了\ufffc", "Hello there", "Привет, принтер", "无法删除文件", "反映问题"):
            for charset in ("unicode", "utf-16le"):
                with self.subTest(text, charset=charset):
                    found = mail(f"Content-Type: text/plain; charset={charset}", text.encode("utf-16-le"))
                    self.assertEqual(found.text, text)
        for charset in ("unicode", "utf-16"):
            html = "<html><body>Привет, принтер</body></html>".encode("utf-16-be")
            self.assertEqual(mail(f"Content-Type: text/html; charset={charset}", html).text, "Привет, принтер")
        for charset, real in (("csWindows31J", "cp932"), ("x-x-big5", "big5")):
            found = mail(f"Content-Type: text/plain; charset={charset}", "印表機 壞了".encode(real, "ignore"))
            self.assertEqual(found.text, "印表機 壞了".encode(real, "ignore").decode(real))
        for charset in ("DOS-862", "IBM862", "cp862"):
            found = mail(f"Content-Type: text/plain; charset={charset}", "שלום".encode("cp862"))
            self.assertEqual(found.text, "שלום")

    def test_what_a_gateway_adds_in_utf_8_does_not_hide_the_charset_of_the_text(self) -> None:
        table = {"iso-2022-jp": "プリンター" * 9, "hz": "打印机坏了" * 9, "utf-7": "Größe über " * 9}
        for charset, text in table.items():
            with self.subTest(charset):
                fields = f"Content-Type: text/plain; charset={charset}\r\n\r\n"
                found = read(FROM + fields.encode() + text.encode(charset) + b" \xc2\xa0")
                self.assertTrue(found.text.startswith(text.rstrip()), found.text)

    def test_a_short_text_in_base64_before_a_footer_stays_one(self) -> None:
        fields = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64"
        text = base64.encodebytes(b"Der Drucker geht wieder, danke sehr!")
        found = mail(fields, text + b"-- \nThis mail was scanned, its checksum:\n" + b"0123456789abcdef" * 4 + b"\n")
        self.assertTrue(found.text.startswith("Der Drucker geht wieder, danke sehr!"), found.text)

    def test_utf_8_is_not_shifted_by_what_shifts_elsewhere(self) -> None:
        table = {"iso-2022-jp": "電話 +81 3 1234", "iso-2022-kr": "Größe \x1b[1m fett", "hz": "C++x für Größe"}
        for charset, text in table.items():
            with self.subTest(charset):
                fields = f"Content-Type: text/plain; charset={charset}\r\n\r\n"
                self.assertEqual(read(FROM + (fields + text).encode()).text, text)

    def test_a_charset_is_told_by_what_comes_late(self) -> None:
        style = "<style>" + "p { margin: 0 }\n" * 8_000 + "</style>"
        words = "Größe über alles, Straße und Mühe. "
        fields = FROM + b"Content-Type: text/html; charset=utf-8\r\n\r\n"
        self.assertTrue(read(fields + (style + words * 9).encode() + b"\xfc").text.startswith(words))
        russian = "Принтер на третьем этаже снова не отвечает с утра"
        for charset in ("cp1251", "koi8-r"):
            with self.subTest(charset):
                found = read(FROM + b"Content-Type: text/html\r\n\r\n" + (style + russian).encode(charset))
                self.assertEqual(found.text, russian)

    def test_a_few_bad_bytes_do_not_make_another_charset_of_utf_8(self) -> None:
        for fields in (b"Content-Type: text/plain; charset=utf-8\r\n", b""):
            table = {
                "Größe, über": b"\xa0", "Straße: schön": b"m\xfc", "Été à Noël, là-bas": b"\xed\xa0\xbd\xe9",
                "Mən sənə": b"\xa0", "Vreți o ofertă? Rețea, soluții": b"\xa0", "nǐ hǎo": b"\xa0",
            }  # fmt: skip
            for good, bad in table.items():
                with self.subTest(good, fields=fields):
                    found = read(FROM + fields + b"\r\n" + good.encode() + b" " + bad)
                    self.assertTrue(found.text.startswith(f"{good} "), found.text)

    def test_letters_at_the_very_end_are_enough_to_know_the_charset_by(self) -> None:
        for text in ("hello Мир", "ping нет", "VPN да", "слишком", "сначала", "ответил"):
            for charset in ("cp1251", "koi8-r", "cp866", "iso-8859-5"):
                with self.subTest(text, charset=charset):
                    found = read(FROM + b"Subject: " + text.encode(charset) + b"\r\n\r\n" + text.encode(charset))
                    self.assertEqual((found.text, found.subject), (text, text))

    def test_utf_8_that_ends_in_the_middle_of_a_character_is_utf_8(self) -> None:
        for end in ("й".encode()[:1], "€".encode()[:2], "€".encode()[:1], "😀".encode()[:3]):
            with self.subTest(end):
                self.assertEqual(read(FROM + b"\r\n" + "Привет, café".encode() + end).text, "Привет, café\ufffd")

    def test_japanese_of_windows_and_phones_in_iso_2022_jp(self) -> None:
        def encoded(text: str) -> bytes:
            """With the characters of Shift_JIS that ISO-2022-JP lacks, as Windows does it."""
            out, double = b"", False
            for character in text:
                raw = character.encode("cp932")
                if double != (len(raw) == 2):
                    double = not double
                    out += b"\x1b$B" if double else b"\x1b(B"
                if double:
                    lead, trail = raw
                    row = 2 * (lead - (0x81 if lead < 0xA0 else 0xC1)) + (trail >= 0x9F)
                    raw = bytes((row + 0x21, trail - (0x7E if trail >= 0x9F else 0x1F + (trail > 0x7F))))
                out += raw
            return out + (b"\x1b(B" if double else b"")

        for text in ("株式会社①の件です。㈱テスト", "①②③", "Ⅳ №5 と 髙橋 ㎡", "終わり。\n次の行①", "日本"):
            for charset in ("; charset=iso-2022-jp", ""):
                with self.subTest(text, charset=charset):
                    fields = f"Content-Type: text/plain{charset}\r\nSubject: ".encode()
                    found = read(FROM + fields + encoded(text.splitlines()[0]) + b"\r\n\r\n" + encoded(text))
                    self.assertEqual((found.text, found.subject), (text, text.splitlines()[0]))
        kana = read(FROM + b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n\x1b(I12\x1b(B \x1b$B-!\x1b(B")
        self.assertEqual(kana.text, "\uff71\uff72 \u2460")

    def test_japanese_of_windows_in_euc_jp(self) -> None:
        def encoded(text: str) -> bytes:
            """With the characters of Shift_JIS that Python's EUC-JP lacks, each in its row and cell."""
            out = b""
            for raw in (character.encode("cp932") for character in text):
                if len(raw) == 2:
                    row = 2 * (raw[0] - (0x81 if raw[0] < 0xA0 else 0xC1)) + (raw[1] >= 0x9F)
                    raw = bytes((row + 0xA1, raw[1] + (2 if raw[1] >= 0x9F else 0x61 - (raw[1] > 0x7F))))
                out += raw
            return out

        for charset in ("euc-jp", "EUC-JP", "eucJP-ms", "cp51932"):
            for text in ("第①回の会議", "株式会社と㈱", "Ⅳ №5 と 終わり。\n次の行②", "日本"):
                with self.subTest(text, charset=charset):
                    self.assertEqual(mail(f"Content-Type: text/plain; charset={charset}", encoded(text)).text, text)
        long = "".join(f"①番号{number}の一覧、担当者と㈱名簿。\n" for number in range(3_000))
        self.assertEqual(mail("Content-Type: text/plain; charset=euc-jp", encoded(long)).text, long.removesuffix("\n"))
        rest, there = "回" * 20, "Content-Type: text/plain; charset=euc-jp"
        odd = "第".encode("euc_jp") + b"\xad\xfe\xfe\xfe\xff\x8e\xb1 \x8f\xb0\xa1" + rest.encode("euc_jp") + b"\xa1"
        self.assertEqual(mail(there, odd).text, f"第\ufffd\ufffd\ufffdｱ 丂{rest}\ufffd")

    def test_big5_of_windows_and_of_hong_kong(self) -> None:
        for text in ("打印機壞了", "喺度㗎嘅", "台灣の好味", "① 開會 ② 報告", "ひらがな"):
            for charset in ("big5", "cn-big5", "x-big5", "Big5-HKSCS"):
                with self.subTest(text, charset=charset):
                    raw = text.encode("big5hkscs")
                    self.assertEqual(mail(f"Content-Type: text/plain; charset={charset}", raw).text, text)
        odd = "的票 ".encode("big5") + b"\x85what"
        self.assertEqual(mail("Content-Type: text/plain; charset=big5", odd).text, "的票 \ufffdwhat")
        euro = "10 € 的票".encode("cp950")
        self.assertEqual(mail("Content-Type: text/plain; charset=big5", euro + b" \xff").text, "10 € 的票 \ufffd")

    def test_what_a_gateway_puts_in_clear_around_base64(self) -> None:
        fields = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64"
        text = "Der Drucker im zweiten Stock druckt jede Seite doppelt; über Mittag geht nichts mehr."
        before, behind = "*** EXTERNAL MAIL: mind the links ***\n\n", "This list is for members\n"
        encoded = base64.encodebytes(text.encode()).decode()
        banners = (
            before, f"\n{before}", f"CAUTION\n{before}", f"Dear\n{before}", f"WARN\n{before}", "[EXT]\n\n",
            "[EXTERNAL]\n", "*** EXTERNAL ***\n", "CAUTION: EXTERNAL\n\n", "ВНИМАНИЕ: внешнее письмо\n",
        )  # fmt: skip
        footers = (behind, "-- \nlist\n", "Unsubscribe: http://a.example\n", "--\nlists.example.com\n")
        table = [*((above, "") for above in banners), *(("", below) for below in footers)]
        for above, below in (*table, (before, behind)):
            with self.subTest(above, below=below):
                found = mail(fields, (above + encoded + below).encode())
                self.assertEqual(found.text.rstrip("\n"), f"{above}{text}\n{below}".rstrip("\n"))
                self.assertEqual(found.defects, ())

    def test_base64_in_pieces_around_a_line_of_something_else(self) -> None:
        for charset in ("windows-1251", "koi8-r", "utf-8"):
            fields = f"Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: base64"
            data = "Здравствуйте".encode(charset)
            pieces = (b"Hello, my friend", data[:7], data[7:14], data[14:])
            body = b"\n*****\n".join((base64.b64encode(pieces[0]), b"\n".join(map(base64.b64encode, pieces[1:]))))
            with self.subTest(charset):
                self.assertEqual(mail(fields, body).text.strip(), "Hello, my friendЗдравствуйте")

    def test_a_footer_with_a_name_and_an_equals_sign_is_no_base64(self) -> None:
        fields = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64"
        for footer in ("Virenfrei: ja\nstatus=\n", "--\nBob=\n", "--\nOrderId=\n", "--\niPhone1=\n"):
            with self.subTest(footer):
                found = mail(fields, base64.encodebytes(b"Hello") + footer.encode())
                self.assertEqual(found.text, f"Hello\n{footer}")

    def test_clear_text_that_is_declared_as_base64(self) -> None:
        fields = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64"
        for text in ("Hello\n\nplease help me", "DEAR\nplease help me", "Danke\n\nHans Maier", "please help me"):
            with self.subTest(text):
                self.assertEqual(mail(fields, text.encode()).text, text)

    def test_utf_8_by_another_name_may_be_broken_too(self) -> None:
        for charset in ("utf-8", "utf8mb4", "unicode-1-1-utf-8", "utf-8-sig"):
            with self.subTest(charset):
                text = "Grüße aus Köln".encode("windows-1252")
                self.assertEqual(mail(f"Content-Type: text/plain; charset={charset}", text).text, "Grüße aus Köln")

    def test_a_charset_of_two_bytes_over_text_of_one(self) -> None:
        for charset in ("utf-16", "utf-16le", "UTF-32", "utf16"):
            html = f'<html><META http-equiv="Content-Type" content="text/html; charset={charset}">Hi, принтер'
            for kind in ("text/html", "text/html; charset=us-ascii", f"text/html; charset={charset}"):
                with self.subTest(charset, kind=kind):
                    self.assertEqual(mail(f"Content-Type: {kind}", html.encode()).text, "Hi, принтер")
            for text in ("only this", "Спасибо, до встречи", "Hello", "Hello!\n", "日本"):
                with self.subTest(charset, text=text):
                    found = mail(f"Content-Type: text/plain; charset={charset}", text.encode())
                    self.assertEqual(found.text, text.removesuffix("\n"))
        for charset in ("utf-16", "utf-16le", "utf-16be", "utf-32be"):
            for text in ("Привет, 日本\n", "日本", "你好世界", "中文字", "お客様各位"):
                with self.subTest("really", charset=charset, text=text):
                    body = base64.b64encode(text.encode(charset)).decode()
                    fields = f"Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: base64\r\n"
                    found = mail(f"{fields}Subject: =?{charset}?B?{body}?=", body.encode())
                    self.assertEqual((found.text, found.subject), (text, text.strip()))

    def test_a_comment_behind_a_charset_is_none_of_it(self) -> None:
        found = mail("Content-Type: text/plain; charset=iso-8859-2 (Plain text)", "zażółć".encode("iso-8859-2"))
        self.assertEqual(found.text, "zażółć")
        named = mail("Content-Type: text/plain; name=report (2).txt\r\nContent-Disposition: attachment", b"x")
        self.assertEqual(named.attachments, ("report (2).txt",))
        fields = "Content-Type: text/plain\r\nContent-Disposition: attachment; filename*=UTF-8''report%20(2).pdf"
        self.assertEqual(mail(fields).attachments, ("report (2).pdf",))

    def test_a_byte_order_mark_is_no_text(self) -> None:
        for charset in ("utf-8", "us-ascii", "utf-16le"):
            raw = "\ufeffHello".encode("utf-16le" if charset == "utf-16le" else "utf-8")
            with self.subTest(charset):
                self.assertEqual(mail(f"Content-Type: text/plain; charset={charset}", raw).text, "Hello")
        found = mail("Subject: \ufeff[Ticket #7] Mailer")
        self.assertEqual(found.ticket, 7)

    def test_only_what_is_hidden_is_left_out(self) -> None:
        words = "<p>Banner</p><div {}>Order <span style='font-size:14px'>77</span></div>"
        shown = ('style="overflow: hidden !important; width:600px"', 'style="overflow: hidden ;"', 'class="a hidden b"',
                 'title="the hidden cost"', 'style="overflow:\n hidden\n"', "data-x='a hidden b'",
                 'style="font-size:0px"', 'title="display: none"', 'style="max-height:0.5em"',
                 'style="white-space: pre"', "title=hidden", "style='mso-hide:all'")  # fmt: skip
        hidden = ("hidden", 'hidden=""', "class=a hidden", 'style="display:none"', "STYLE='DISPLAY: NONE'",
                  'style="max-height:0px;overflow:hidden"', 'title="x" hidden')  # fmt: skip
        for attributes in (*shown, *hidden):
            with self.subTest(attributes):
                found = mail("Content-Type: text/html", words.format(attributes).encode()).text
                self.assertEqual("Order 77" in found, attributes in shown, found)

    def test_what_is_hidden_ends_where_the_reader_sees_its_end(self) -> None:
        none = 'style="display:none"'
        table = "<table><tr><td>no</td></tr><tr><td>no</td></tr></table>"
        for html, expected in (
            (f"<table><tr {none}><td>{table}</td></tr><tr><td>yes</td></tr></table>", "yes"),
            (f"<table><tr><td {none}>no {table} no</td><td>yes</td></tr></table>", "yes"),
            (f"<table><tr><td {none}>no<td>yes</table>", "yes"),
            (f"<table><tr><td {none}>no</table>yes", "yes"),
            (f"<ul><li {none}>no<ul><li>no</li></ul></li><li>yes</li></ul>", "- yes"),
            (f"<ul><li>one<li {none}>no</ul>yes<ul><li>two</ul>", "- one\n\nyes\n\n- two"),
            (f"<p {none}>no<div>yes</div><p>and yes</p>", "yes\n\nand yes"),
            (f"<div><p {none}>no</div>yes", "yes"),
            (f"<p {none}>no<b>no</b></p>yes", "yes"),
            (f"<div {none}>no <!-- </div>yes", "yes"),
            (f"<dl><dt>yes<dd {none}>no<dl><dd>no</dl></dd><dt>too</dl>", "yes\ntoo"),
        ):
            with self.subTest(html):
                self.assertEqual(mail("Content-Type: text/html", html.encode()).text, expected)

    def test_what_is_no_text_ends_at_its_end_whatever_it_holds(self) -> None:
        for html in (
            "<style><!-- a{} </style><p>one</p><!--[if mso]><style>b{}</style><![endif]--><p>two</p>",
            "<style><!-- p {color:red} </style><p>one</p><!-- footer --><p>two</p>",
            "<script>var s='<!--';</script><p>one</p><!-- c --><script>x</script><p>two</p>",
            "<title>a <!-- b</title><p>one</p><p>two</p>",
            "<p>one</p><div hidden>x <!-- y </div><p>two</p>",
            "<div><div hidden><style><!-- .a{} </style>pre</div><p>one</p><!-- c --></div>two",
            "<div><div hidden><title><!--</title>pre</div><p>one</p><!-- c --></div>two",
            "<div><div hidden><img alt='<!--'>pre</div><p>one</p><!-- c --></div>two",
        ):
            with self.subTest(html):
                self.assertEqual(mail("Content-Type: text/html", html.encode()).text, "one\n\ntwo")

    def test_a_plain_version_in_which_nothing_is_to_be_seen_is_empty(self) -> None:
        html = b"--b\r\nContent-Type: text/html\r\n\r\n<p>words\r\n--b--\r\n"
        for plain in ("", " \n", "\xa0", "\u200b", "\ufeff\ufeff", "\u200c \xad\u034f", "\u2060\n\n\u200d"):
            with self.subTest(ascii(plain)):
                body = f"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{plain}\r\n".encode() + html
                self.assertEqual(mail("Content-Type: multipart/alternative; boundary=b", body).text, "words")

    def test_the_name_of_a_meeting_is_unfolded_and_unescaped(self) -> None:
        lines = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY;LANGUAGE=de:{}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
        kind = "Content-Type: text/calendar; charset=utf-8"
        for written, expected in (
            ("Besprechung\\, auch Leit\r\n ung\\nim Haus", "Besprechung, auch Leitung im Haus"),
            ("a\\\\b\\;c", "a\\b;c"),
            ("x", "x"),
        ):
            with self.subTest(written):
                self.assertEqual(mail(kind, lines.format(written).encode()).text, f"[Calendar: {expected}]")
        encoded = base64.b64encode(lines.format("a\r\n b").encode())
        self.assertEqual(mail(f"{kind}\r\nContent-Transfer-Encoding: base64", encoded).text, "[Calendar: ab]")
        cut = lines.format("Büro").encode().replace("ü".encode(), b"\xc3\r\n \xbc")
        self.assertEqual(mail(kind, cut).text, "[Calendar: Büro]")
        russian = lines.format("ФНС").replace("END:VEVENT", "DESCRIPTION:Обсуждаем отчётность за квартал\r\nEND:VEVENT")
        self.assertEqual(mail("Content-Type: text/calendar", russian.encode("cp1251")).text, "[Calendar: ФНС]")
        gujarati = lines.format("ગુજરાતી બેઠક આજે").encode("utf-16")
        found = mail("Content-Type: text/calendar; charset=utf-16", gujarati)
        self.assertEqual(found.text, "[Calendar: ગુજરાતી બેઠક આજે]")
        wide = russian.encode("utf-16")
        self.assertEqual(mail("Content-Type: text/calendar; charset=utf-16", wide).text, "[Calendar: ФНС]")

    def test_lines_that_a_style_keeps(self) -> None:
        lines = "One\n  two\n\nfour"
        for style in ("pre", "pre-wrap", "pre-line", "break-spaces"):
            with self.subTest(style):
                html = f'<div style="white-space: {style}; color: red">{lines}</div><div>a\nb</div>'
                self.assertEqual(mail("Content-Type: text/html", html.encode()).text, f"{lines}\na b")
        for html, expected in (
            ("<details><summary>Sum</summary>Text</details>", "Sum\nText"),
            ('<div style="white-space:pre">One\n  two   x</div>', "One\n  two   x"),
            ('<p style="white-space:pre-wrap">a\nb<p style="white-space:pre-wrap">c\nd</p>', "a\nb\n\nc\nd"),
            ('x<div style="display:none;white-space:pre">y</div>text\nmore', "xtext more"),
            ('<DIV STYLE="WHITE-SPACE: PRE">One\n  two</DIV>', "One\n  two"),
            ('Hi\nyou <span style="white-space:pre-wrap">x\ny</span> and\nmore', "Hi\nyou x\ny and more"),
        ):
            with self.subTest(html):
                self.assertEqual(mail("Content-Type: text/html", html.encode()).text, expected)
        nested = '<div style="white-space:pre-wrap">a\n<div style="white-space:pre-wrap">b\nc</div>d\ne</div>f\ng'
        self.assertEqual(mail("Content-Type: text/html", nested.encode()).text, "a\nb\nc\nd\ne\nf g")

    def test_a_text_with_a_name_is_read_where_there_is_nothing_else(self) -> None:
        text = b"Content-Type: text/plain; charset=utf-8; name=text_0.txt\r\n\r\nThe printer burns\r\n"
        smil = b"Content-Type: application/smil; name=0.smil\r\nContent-ID: <s>\r\n\r\n<smil></smil>\r\n"
        report = text.replace(b"\r\n\r\n", b"\r\nContent-Disposition: attachment\r\n\r\n")
        words = b"Content-Type: text/plain\r\n\r\nwords\r\n"
        for parts, expected in (([smil, text], "The printer burns"), ([PICTURE, text], "The printer burns"),
                                ([PICTURE, report], ""), ([words, text], "words")):  # fmt: skip
            body = b"".join(b"--b\r\n" + part for part in parts) + b"--b--\r\n"
            with self.subTest(expected, parts=len(parts)):
                found = mail("Content-Type: multipart/mixed; boundary=b", body)
                self.assertEqual(found.text, expected)
                self.assertIn("text_0.txt", found.attachments)
        self.assertEqual(related('; start="<s>"', smil, text).text, "The printer burns")

    def test_the_address_of_a_quoted_local_part(self) -> None:
        address = '"john..doe"@docomo.ne.jp'
        for sender in (f"Taro <{address}>", f'"Taro" < {address} >', address, f"Taro (a (b)) <{address}>"):
            with self.subTest(sender):
                self.assertEqual(read(f"From: {sender}\r\n\r\nx".encode()).sender, address)
        for sender in (f'"Bob" <bob@x.de>, "Q" <{address}>', f"Bob <bob@x.de> {address}"):
            with self.subTest(sender):
                self.assertEqual(read(f"From: {sender}\r\n\r\nx".encode()).sender, "bob@x.de")

    def test_zones_as_programs_write_them(self) -> None:
        for zone, expected in (("+05:30", "+05:30"), ("GMT+0300", "+03:00"), ("GMT+03:00 (MSK)", "+03:00"),
                               ("+03", "+03:00"), ("-0800", "-08:00"), ("UTC-02", "-02:00"), ("GMT", "+00:00"),
                               ("EST", "-05:00")):  # fmt: skip
            with self.subTest(zone):
                self.assertEqual(mail(f"Date: Mon, 1 Jan 2024 10:00:00 {zone}").date, f"2024-01-01T10:00:00{expected}")

    def test_a_receipt_for_a_mail_that_was_read_is_no_persons(self) -> None:
        body = b"--b\r\n\r\nread\r\n--b\r\nContent-Type: message/disposition-notification\r\n\r\nx: y\r\n--b--\r\n"
        found = mail("Content-Type: multipart/report; report-type=disposition-notification; boundary=b", body)
        self.assertEqual(found.reason, "auto_reply")

    def test_a_header_that_is_too_large_is_named_as_a_defect(self) -> None:
        for count, defects in ((9_000, ()), (10_000, ("header",))):
            with self.subTest(fields=count):
                found = read(b"X-0000001: v\n" * count + b"Subject: Re: [Ticket #5] Mailer\n\nhello\n")
                self.assertEqual((found.defects, found.ticket), (defects, None if defects else 5))
        endless = FROM + b"X: " + b"y" * 1_100_000
        for raw, complete in ((endless, True), (endless[:1_049_000], False), (endless[:65_536], False)):
            with self.subTest(len(raw)):
                self.assertEqual(read(raw, complete=complete).defects, ("header",) if len(raw) > 65_536 else ())

    def test_an_automatic_reply_may_name_its_ticket_in_its_subject_alone(self) -> None:
        for subject, ticket in (("Automatic reply: [Ticket #7] Mailer", 7),
                                ("Out of office: x[Ticket #7] Mailer", None),
                                ("Out of office: [Ticket #7] Mailer, later", None), ("Autoreply", None),
                                ("自动回复：[Ticket #7] Mailer", 7),
                                ("Automatic reply:[Ticket #7] Mailer", 7)):  # fmt: skip
            with self.subTest(subject):
                found = mail(f"Subject: {subject}\r\nAuto-Submitted: auto-replied")
                self.assertEqual((found.reason, found.ticket, found.related_ticket), ("auto_reply", None, ticket))

    def test_a_warning_of_the_mail_system_is_no_automatic_reply(self) -> None:
        fields = "Return-Path: <>\r\nFrom: Mail Delivery System <daemon@a.example>\r\nAuto-Submitted: auto-replied"
        body = b"The subject of the message is:     [Ticket #7] Mailer\r\nThe date of the message is: now\r\n"
        found = read(f"{fields}\r\nSubject: Warning: message 1x delayed 24 hours\r\n\r\n".encode() + body)
        self.assertEqual((found.reason, found.related_ticket), ("bounce", 7))
        found = read(f"{fields}\r\nSubject: Out of office: on holiday\r\n\r\n".encode() + body)
        self.assertEqual(found.reason, "auto_reply")

    def test_the_ticket_of_a_bounce_behind_a_large_part(self) -> None:
        returned = b"Content-Type: message/rfc822\r\n\r\nSubject: [Ticket #7] Mailer\r\n"
        report = multipart("report", "c", b"\r\nsorry", returned)
        large = b"Content-Type: a/b\r\n\r\n" + b"x" * 400_000
        for parts in ([report], [large, report], [large, multipart("mixed", "d", report)]):
            with self.subTest(len(parts)):
                found = read(b"From: mailer-daemon\r\n" + multipart("mixed", "b", *parts))
                self.assertEqual((found.reason, found.related_ticket), ("bounce", 7))

    def test_the_ticket_of_a_bounce_wherever_its_header_stands(self) -> None:
        for short in (*range(0, 3000, 300), 70_000):
            returned = b"Content-Type: message/rfc822\r\n\r\nX: " + b"y" * 900 + b"\r\nSubject: [Ticket #7] Mailer\r\n"
            large = b"Content-Type: a/b\r\n\r\n" + b"x" * (262_144 - short)
            found = read(b"From: mailer-daemon\r\n" + multipart("mixed", "b", large, returned))
            with self.subTest(short):
                self.assertEqual((found.reason, found.related_ticket), ("bounce", 7))

    def test_an_empty_multipart_has_no_text(self) -> None:
        for kind in ("alternative", "mixed", "related"):
            for name, part, text in (
                ("text", b"Content-Type: text/plain; name=message.txt\r\n\r\nthe printer burns", "the printer burns"),
                ("photo", PICTURE, ""),
            ):
                with self.subTest(kind, part=name):
                    found = read(FROM + multipart("mixed", "b", multipart(kind, "c"), part))
                    self.assertEqual(found.text, text)

    def test_a_multipart_without_a_part_is_text(self) -> None:
        for kind in ("alternative", "mixed", "related", "signed", "x-unknown"):
            for boundary in ("; boundary=never", "", '; boundary=""'):
                with self.subTest(kind, boundary=boundary):
                    found = mail(f"Content-Type: multipart/{kind}{boundary}", b"the printer burns")
                    self.assertEqual(found.text, "the printer burns")

    def test_a_boundary_without_an_empty_line_before_it_ends_the_header(self) -> None:
        fields = 'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b1"\r\n'
        part = "--b1\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b1--\r\n"
        for between in ("", " \r\n", "\r\n"):
            with self.subTest(between):
                self.assertEqual(read(FROM + (fields + between + part).encode()).text, "hello")

    def test_dashes_that_begin_no_part_are_a_stray_line(self) -> None:
        for stray in ("---- Forwarded by gate ----\r\n", "--b\r\n"):
            with self.subTest(stray):
                raw = f"{stray}From: a@b.example\r\n{stray}Subject: [Ticket #7] Mailer\r\n\r\nhi"
                found = read(raw.encode())
                self.assertEqual((found.ticket, found.text), (7, "hi"))

    def test_automatic_replies_are_known_by_their_subject_too(self) -> None:
        for words in (
            "Automatic reply", "Automatische Antwort", "Réponse automatique ", "Odpowiedź automatyczna",
            "Automatická odpověď", "Automatikus válasz", "Otomatik yanıt", "Resposta automática",
            "Automatisch antwoord", "Autosvar", "Automatisk svar", "Automatiskt svar",
            "自动回复", "自动答复", "自動応答", "자동 회신",
        ):  # fmt: skip
            with self.subTest(words):
                found = mail(f"Subject: {words}: [Ticket #7] Mailer")
                self.assertEqual((found.reason, found.related_ticket), ("auto_reply", 7))
        self.assertEqual(mail("Subject: Autosvar virker ikke").reason, "subject")

    def test_too_little_memory_is_no_fault_of_a_mail(self) -> None:
        with mock.patch("mailer.reading.mime.parse", side_effect=MemoryError):
            self.assertRaises(MemoryError, read, FROM + b"\r\nx")
            self.assertRaises(MemoryError, wants_more, FROM + b"\r\nx")

    def test_the_text_of_related_parts_wherever_it_stands(self) -> None:
        html = b"Content-Type: text/html\r\nContent-ID: <h>\r\n\r\n<p>words\r\n"
        note = b"Content-Type: text/html\r\nContent-ID: <n>\r\n\r\n<p>note\r\n"
        for parameters, parts in (
            ("", [html, PICTURE]),
            ("", [PICTURE, html]),
            ('; start="<h>"', [PICTURE, html]),
            ("; start=h", [PICTURE, html]),
            ('; start="<h>"', [note, html, PICTURE]),
            ("; start=q", [html, note]),
        ):
            with self.subTest(parameters, first=parts[0]):
                self.assertEqual(related(parameters, *parts).text, "words")

    def test_a_picture_in_the_html_hides_nothing(self) -> None:
        picture = base64.b64encode(bytes(1_500_000))
        for wrapped in (picture, picture[:76] + b"\r\n" + picture):
            html = b'<p>before</p><img src="data:image/png;base64,' + wrapped + b'"><p>after</p>'
            found = mail("Content-Type: text/html", html)
            self.assertEqual((found.text, found.truncated), ("before\n\nafter", False))

    def test_html_that_is_cut_in_a_tag_ends_before_it(self) -> None:
        found = mail("Content-Type: text/html", b'<p>before</p><img alt="' + b"a" * 1_200_000 + b'"><p>after</p>')
        self.assertEqual((found.text, found.truncated), ("before", True))

    def test_html_as_it_is_shown(self) -> None:
        table = {
            "<ol start=5><li>five<li>six</ol>": "5. five\n6. six",
            "<ol start=x><li>one</ol>": "1. one",
            "<img alt='Tom &amp Jerry, caf&eacute'>": "Tom & Jerry, café",
            "<a href='https://a.example/?a=1&notify'>x</a>": "x <https://a.example/?a=1&notify>",
            "<a href='https://a.example/?&copyright&section/2&amp;b'>x</a>":
                "x <https://a.example/?&copyright&section/2&b>",
            "<a href='https://a.example/?id=1&region=eu&copy=2&amp;lt=3&#38;x'>order</a>":
                "order <https://a.example/?id=1&region=eu&copy=2&lt=3&x>",
            "<div>one</div><div>&nbsp;</div><div>&nbsp;</div><div>two</div>": "one\n\ntwo",
            "<div>\xa0</div><p>one</p><p>&nbsp;</p><p>two": "one\n\ntwo",
            "<div>one</div><div>\xa0</div><div>two</div>": "one\n\ntwo",
            "<td>one</td><td>&nbsp;</td><td>two</td>": "one two",
            '<p style="x-display:none">shown': "shown",
            '<p style="display:nonexistent">shown': "shown",
            '<p style="color:red;display:none">hidden</p>shown': "shown",
        }
        for html, text in table.items():
            with self.subTest(html):
                self.assertEqual(mail("Content-Type: text/html", html.encode()).text, text)

    def test_a_file_name_of_encoded_words_in_sections(self) -> None:
        word = "=?utf-8?B?{}?="
        first, second = (word.format(base64.b64encode(part.encode()).decode()) for part in ("Отчёт ", "о работе.pdf"))
        body = (
            "--b\r\n\r\nhello\r\n--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment;\r\n"
            f' filename*0="{first}";\r\n filename*1="{second}"\r\n\r\nx\r\n--b--\r\n'
        )
        found = mail('Content-Type: multipart/mixed; boundary="b"', body.encode())
        self.assertEqual(found.attachments, ("Отчёт о работе.pdf",))

    def test_the_ticket_of_a_returned_message_that_was_encoded(self) -> None:
        returned = "Subject: [Ticket #12345] Mailer\r\nMessage-ID: <ticket.12345.ab@example.com>\r\n\r\nhello\r\n"
        for kind in ("message/rfc822", "message/global"):
            body = (
                "--b\r\n\r\nit failed\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nAction: failed\r\n"
                f"--b\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
                f"{base64.encodebytes(returned.encode()).decode()}\r\n--b--\r\n"
            )
            report = 'Content-Type: multipart/report; report-type=delivery-status; boundary="b"'
            footer = f"--m\r\n{report}\r\n\r\n{body}--m\r\n\r\nthis list\r\n--m--\r\n"
            for fields, whole in ((report, body), ('Content-Type: multipart/mixed; boundary="m"', footer)):
                with self.subTest(kind, fields=fields):
                    found = mail(fields, whole.encode())
                    self.assertEqual((found.reason, found.related_ticket), ("bounce", 12345))

    def test_a_person_who_is_the_postmaster(self) -> None:
        for fields, reason in (
            ("Subject: lunch?", "subject"), ("Subject: Undeliverable: x", "bounce"), ("Return-Path: <>", "auto_reply")
        ):
            found = read(f"From: postmaster@example.com\r\n{fields}\r\n\r\nx".encode())
            self.assertEqual(found.reason, reason)
        self.assertEqual(read(b"From: MAILER-DAEMON@example.com\r\nSubject: x\r\n\r\nx").reason, "bounce")


if __name__ == "__main__":
    unittest.main()
