"""Several hundred names that strangers may give a file: any text, and nothing of it may be believed or lost."""

from __future__ import annotations

import unicodedata

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
INVISIBLE = "\u00ad\u034f\u115f\u180e\u200b\u200c\u200d\u2060\u2061\u2064\ufeff\U000e0041\U000e007f"
SEPARATORS = "\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000"
MAX_NAME = 1024  # characters that storage keeps


def names() -> list[str]:
    """Each is different from all others, and none is longer than storage allows."""
    made = [*_controls(), *_paths(), *_markup(), *_unicode(), *_formulas(), *_long(), *_alike(), *_reserved()]
    return list(dict.fromkeys(made))


def _controls() -> list[str]:
    codes = [*range(0x01, 0x20), *range(0x7F, 0xA0)]
    found = [f"a{chr(code)}b.jpg" for code in codes]
    found += ["a\x00b.jpg", "\x00", "\r\n", "a\r\nBcc: all@example.com\r\n\r\nHello.jpg", "a\n\n{}\n.jpg"]
    found += ["\x1b[2J\x1b[31mred.jpg", "\x1b]0;title\x07.jpg", "\x9b31m.jpg", "over\x08\x08\x08write.jpg"]
    return found


def _paths() -> list[str]:
    found = [
        "../../etc/passwd",
        "..\\..\\windows\\win.ini",
        "/etc/passwd",
        "//server/share/a.jpg",
        "C:\\a.jpg",
        "C:a.jpg",
    ]
    found += [
        "a/../../b.jpg",
        "a/./b.jpg",
        "./a.jpg",
        "a//b.jpg",
        "a/",
        "/",
        "\\",
        ".",
        "..",
        "...",
        "~/a.jpg",
        "~root",
    ]
    found += [
        "file:///etc/passwd",
        "http://169.254.169.254/latest",
        "\\\\?\\C:\\a.jpg",
        "%2e%2e%2fetc%2fpasswd",
        "%00.jpg",
    ]
    found += [
        "..%252f..%252fa.jpg",
        "\u2025/\u2025/a.jpg",
        "a\u2215b.jpg",
        "a\uff0fb.jpg",
        "a\uff3cb.jpg",
        "\u2024\u2024/a",
    ]
    found += [
        "/blobs/x.jpg",
        "containers/in-other/blobs/a.jpg",
        "results/../in-acme/a.jpg",
        "-rf",
        "--help",
        "-",
        "a -o x.jpg",
    ]
    found += [
        "$HOME/a.jpg",
        "$(reboot).jpg",
        "`reboot`.jpg",
        "a;reboot.jpg",
        "a|b.jpg",
        "a&b.jpg",
        "*.jpg",
        "?.jpg",
        "a b.jpg ",
    ]
    return found


def _markup() -> list[str]:
    found = [
        "<script>alert(1)</script>.jpg",
        '"><img src=x onerror=alert(1)>.jpg',
        "'onmouseover='alert(1).jpg",
        "&lt;b&gt;.jpg",
    ]
    found += ["</title><h1>x.jpg", "<!--", "-->", "]]>", "<![CDATA[x", "javascript:alert(1)", "data:text/html,x.jpg"]
    found += [
        "{{ 7 * 7 }}.jpg",
        "{% raw %}.jpg",
        "${jndi:ldap://x/a}.jpg",
        "#{7*7}.jpg",
        "%(secret)s.jpg",
        "{0.__class__}.jpg",
        "%s%n.jpg",
    ]
    found += [
        "[link](http://x).jpg",
        "![i](http://x).jpg",
        "**bold**.jpg",
        "@channel.jpg",
        "<at>all</at>.jpg",
        "`code`.jpg",
        "# a.jpg",
    ]
    found += [
        '{"type":"RunCheck"}',
        "\\u0000.jpg",
        "\\.jpg",
        '"',
        "'",
        "'; DROP TABLE runs; --.jpg",
        "[red]rich[/red].jpg",
        "[/]",
        "a%.jpg",
    ]
    found += [
        "sig=abc&se=2030.jpg",
        'sig=a", "level": "critical", "x": "b.jpg',
        "sig=a\\",
        "password=a.jpg",
        "Bearer abc.jpg",
        "a?b=c.jpg",
        "a#b.jpg",
        "AccountKey=abc.jpg",
        "=?utf-8?b?QmNjOiB4?=.jpg",
        "a;b=c,d.jpg",
        "a+b%20c.jpg",
    ]
    return found


def _unicode() -> list[str]:
    found = [f"a{character}b.jpg" for character in BIDI + INVISIBLE + SEPARATORS]
    found += [
        "photo\u202egpj.exe",
        "\u2067\u202edos\u2069.jpg",
        "\u200b",
        "\ufeff.jpg",
        "\ufffd.jpg",
        "\ufdd0.jpg",
        "\ue000.jpg",
        "\U000f0000.jpg",
    ]
    found += [
        "Zähler Straße.jpg",
        "счётчик.jpg",
        "メーター.jpg",
        "电表.jpg",
        "عداد.jpg",
        "מונה.jpg",
        "मीटर.jpg",
        "มิเตอร์.jpg",
        "தமிழ்.jpg",
        "전기.jpg",
    ]
    found += [
        "👩\u200d🔧.jpg",
        "🇬🇧.jpg",
        "👍🏽.jpg",
        "e\u0301" * 20 + ".jpg",
        "Z" + "\u0335\u0321\u0489" * 30 + ".jpg",
        "ﬁ.jpg",
        "ſ.jpg",
        "İıI.jpg",
    ]
    found += ["\U0001d4d0.jpg", "\U0010fffd.jpg", "𠜎.jpg", "ẞß.jpg", "Ǆǅǆ.jpg", "①½Ⅷ.jpg", "\u0300.jpg", "¨.jpg"]
    return found


def _formulas() -> list[str]:
    return [
        f"{sign}{tail}"
        for sign in "=+-@\t\r|%"
        for tail in ("1+1", "cmd|' /C calc'!A0", 'HYPERLINK("http://x")', "SUM(A1:A9).jpg")
    ]


def _long() -> list[str]:
    found = [character * count for character in "aé电👍" for count in (255, 256, 1_000, MAX_NAME)]
    found += [
        "a/" * 500 + "b.jpg",
        "/" * MAX_NAME,
        "." * 300 + "a",
        " " * 300,
        "%" * 341 + "x",
        "a" * 900 + "\u202e" * 100,
        "\u0301" * 500,
    ]
    return found


def _alike() -> list[str]:
    """Names that fold, normalise or cut into one another."""
    base = ["café.jpg", "Ångström.jpg", "Å.jpg", "ﬃ.jpg", "half½.jpg", "한글.jpg"]
    forms = [unicodedata.normalize(form, name) for name in base for form in ("NFC", "NFD", "NFKC", "NFKD")]
    found = [
        "IMG_1.jpg",
        "img_1.jpg",
        "IMG_1.JPG",
        "Img_1.jpg ",
        " IMG_1.jpg",
        "IMG_1.jpg.",
        "IMG_1\u200b.jpg",
        "ІMG_1.jpg",
        "IMG_1.jpg/",
    ]
    return forms + found + [f"{'x' * 100}{number}{'y' * 100}.jpg" for number in range(3)]


def _reserved() -> list[str]:
    devices = ["CON", "PRN", "AUX", "NUL", "COM1", "LPT9", "con.jpg", "aux.txt", "nul "]
    return [
        *devices,
        "desktop.ini",
        ".htaccess",
        ".env",
        "index.html",
        "$web",
        "manifest.json",
        "null",
        "undefined",
        "NaN",
        "0",
        "true",
        " ",
    ]
