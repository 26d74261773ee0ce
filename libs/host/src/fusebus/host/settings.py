"""Typed settings from the environment and one optional TOML file, read once; every wrong value is named."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from fusebus.host.redaction import note_secret

PREFIX = "FUSEBUS"
FILE_VARIABLE = "FUSEBUS_SETTINGS"
STACK_FILE = Path(".fusebus/settings.toml")
"""What a running embedded stack leaves in the folder it was started from."""

S = TypeVar("S", bound=msgspec.Struct)


class Secret:
    """Text that never shows itself: not in a log, a repr or an error."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one client that needs it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret('***')" if self._text else "Secret('')"

    __str__ = __repr__


class SettingsError(ValueError):
    """One line for each setting that is wrong: its variable, what it holds and what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Field(msgspec.Struct, frozen=True):
    section: str
    name: str
    type: Any
    default: Any
    path: tuple[str, ...]

    @property
    def variable(self) -> str:
        return f"{PREFIX}_{self.section}_{self.name}".upper()


def load_settings(settings_type: type[S], section: str, environ: Mapping[str, str] = os.environ) -> S:
    """Read `settings_type`; own fields are FUSEBUS_<SECTION>_<FIELD>, a field that is a struct is a section of its own.

    The file named by FUSEBUS_SETTINGS has a TOML table for each section; the environment wins. Raises SettingsError
    with every problem at once.
    """
    fields = list(_fields(settings_type, section))
    problems: list[str] = []
    tables = _read_file(environ.get(FILE_VARIABLE, ""), problems)
    values: dict[tuple[str, ...], Any] = {}
    for field in fields:
        raw, origin = _raw(field, environ, tables)
        if raw is msgspec.NODEFAULT:
            if field.default is msgspec.NODEFAULT:
                problems.append(f"{field.variable} is not set; it must be {_allowed(field.type)}")
            continue
        try:
            values[field.path] = _convert(raw, field.type)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            shown = "***" if _is_secret(field.type) else repr(raw)
            problems.append(f"{origin}={shown}: {error}; allowed is {_allowed(field.type)}")
    problems += _misspelt(fields, environ, tables)
    if problems:
        raise SettingsError(problems)
    return _build(settings_type, values, ())


def environment_for_people(file: Path | None = None) -> dict[str, str]:
    """The environment of a command that a person runs: the settings file is `file`, else what FUSEBUS_SETTINGS names,
    else the embedded stack's, if one is up here."""
    environment = dict(os.environ)
    if file is not None:
        environment[FILE_VARIABLE] = str(file)
    elif FILE_VARIABLE not in environment and STACK_FILE.exists():
        environment[FILE_VARIABLE] = str(STACK_FILE)
    return environment


def describe_settings(settings_type: type[msgspec.Struct], section: str) -> str:
    """One entry for each setting: variable, what is allowed, default, consequence."""
    lines = []
    for field in _fields(settings_type, section):
        if field.default is msgspec.NODEFAULT:
            default = "required"
        elif isinstance(field.default, Secret):
            default = "default: empty"
        else:
            default = f"default: {_shown(field.default)}"
        lines.append(f"  {field.variable}  ({_allowed(field.type)}; {default})")
        if sentence := _description(field.type):
            lines.append(f"      {sentence}")
    return "\n".join(lines)


def environment_of(settings: msgspec.Struct, section: str) -> dict[str, str]:
    """The variables that `load_settings` would read these settings back from, secrets revealed: for a child process."""
    found: dict[str, str] = {}
    for field in _fields(type(settings), section):
        value: Any = settings
        for name in field.path:
            value = getattr(value, name)
        found[field.variable] = value.reveal() if isinstance(value, Secret) else _shown(value)
    return found


def _fields(settings_type: type[msgspec.Struct], section: str, path: tuple[str, ...] = ()) -> Iterator[_Field]:
    hints = get_type_hints(settings_type, include_extras=True)
    for field in msgspec.structs.fields(settings_type):
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from _fields(hint, field.name, (*path, field.name))
        else:
            default = field.default
            if field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            yield _Field(section, field.name, hint, default, (*path, field.name))


def _read_file(name: str, problems: list[str]) -> dict[str, dict[str, Any]]:
    if not name:
        return {}
    try:
        tables = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{FILE_VARIABLE}={name!r} can't be read: {error.strerror}")
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{FILE_VARIABLE}={name!r} is not TOML: {error}")
        return {}
    return {section: table for section, table in tables.items() if isinstance(table, dict)}


def _raw(field: _Field, environ: Mapping[str, str], tables: Mapping[str, Mapping[str, Any]]) -> tuple[Any, str]:
    if field.variable in environ:
        return environ[field.variable], field.variable
    table = tables.get(field.section, {})
    if field.name in table:
        return table[field.name], f"[{field.section}] {field.name}"
    return msgspec.NODEFAULT, field.variable


def _convert(raw: Any, wanted: Any) -> Any:
    """Environment text for a list or a mapping is JSON; everything else is converted from text by msgspec."""
    if isinstance(raw, str) and _is_collection(wanted):
        return msgspec.json.decode(raw.encode(), type=wanted)
    return msgspec.convert(raw, wanted, strict=False, dec_hook=_hook)


def _hook(wanted: type, raw: Any) -> Any:
    if wanted is Secret and isinstance(raw, str):
        note_secret(raw)
        return Secret(raw)
    if wanted is Path and isinstance(raw, str):
        return Path(raw)
    raise msgspec.ValidationError(f"Expected text, got {type(raw).__name__}")


def _is_secret(wanted: Any) -> bool:
    return wanted is Secret or getattr(wanted, "__origin__", None) is Secret


def _plain(wanted: Any) -> Any:
    """The type without its Annotated wrapper."""
    return getattr(wanted, "__origin__", wanted) if hasattr(wanted, "__metadata__") else wanted


def _is_collection(wanted: Any) -> bool:
    return getattr(_plain(wanted), "__origin__", _plain(wanted)) in (list, tuple, dict, set, frozenset)


def _allowed(wanted: Any) -> str:
    plain = _plain(wanted)
    if _is_collection(wanted):
        return "JSON object" if getattr(plain, "__origin__", plain) is dict else "JSON list"
    if hasattr(plain, "__members__"):
        return "one of " + ", ".join(str(member.value) for member in plain)
    if getattr(plain, "__origin__", None) is not None and hasattr(plain, "__args__"):
        return "one of " + ", ".join(map(str, plain.__args__))
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        Secret: "secret text",
        Path: "a path",
    }
    limits = []
    for meta in getattr(wanted, "__metadata__", ()):
        for key, words in (
            ("ge", "at least"),
            ("gt", "above"),
            ("le", "at most"),
            ("lt", "below"),
            ("pattern", "matching"),
        ):
            if (value := getattr(meta, key, None)) is not None:
                limits.append(f"{words} {value}")
    return " ".join([names.get(plain, str(plain)), *([", ".join(limits)] if limits else [])])


def _description(wanted: Any) -> str:
    return next(
        (meta.description for meta in getattr(wanted, "__metadata__", ()) if getattr(meta, "description", None)), ""
    )


def _shown(value: Any) -> str:
    if isinstance(value, str | Path):
        return str(value)
    return msgspec.json.encode(value).decode()


def _misspelt(fields: list[_Field], environ: Mapping[str, str], tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A name that nobody reads is an error: a typo would silently leave the default in force."""
    known = {field.variable for field in fields}
    sections = {f"{PREFIX}_{field.section}_".upper() for field in fields}
    problems = []
    for name in sorted(environ):
        if name not in known and any(name.startswith(section) for section in sections):
            problems.append(f"{name} is not a setting{_nearest(name, known)}")
    names = {(field.section, field.name) for field in fields}
    for section in sorted({field.section for field in fields} & set(tables)):
        for name in sorted(tables[section]):
            if (section, name) not in names:
                own = {field.name for field in fields if field.section == section}
                problems.append(f"[{section}] {name} is not a setting{_nearest(name, own)}")
    return problems


def _nearest(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _build(settings_type: type[S], values: Mapping[tuple[str, ...], Any], path: tuple[str, ...]) -> S:
    hints = get_type_hints(settings_type, include_extras=True)
    arguments: dict[str, Any] = {}
    for field in msgspec.structs.fields(settings_type):
        here = (*path, field.name)
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            arguments[field.name] = _build(hint, values, here)
        elif here in values:
            arguments[field.name] = values[here]
    return settings_type(**arguments)
