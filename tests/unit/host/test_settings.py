from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from fusebus.host import Secret, SettingsError, describe_settings, load_settings
from fusebus.host.settings import environment_of


class Store(msgspec.Struct, frozen=True, kw_only=True):
    connection: Secret = Secret()
    timeout: Annotated[float, msgspec.Meta(gt=0, description="Seconds until a request is given up.")] = 20.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    store: Store
    slots: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    kind: Literal["smtp", "folder"] = "folder"
    folder: Path = Path("out")
    names: list[str] = []
    careful: bool = False


def test_defaults_hold_where_nothing_is_set() -> None:
    settings = load_settings(Settings, "demo", {})
    assert (settings.slots, settings.kind, settings.folder, settings.store.timeout) == (4, "folder", Path("out"), 20.0)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[demo]\nslots = 7\nnames = ["a"]\n[store]\ntimeout = 3\nconnection = "k"\n')
    settings = load_settings(Settings, "demo", {"FUSEBUS_SETTINGS": str(file), "FUSEBUS_DEMO_SLOTS": "9"})
    assert (settings.slots, settings.names, settings.store.timeout) == (9, ["a"], 3.0)
    assert settings.store.connection.reveal() == "k"


def test_every_wrong_value_is_named_with_its_variable_and_what_is_allowed() -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(
            Settings, "demo", {"FUSEBUS_DEMO_SLOTS": "0", "FUSEBUS_STORE_TIMEOUT": "soon", "FUSEBUS_DEMO_KIND": "x"}
        )
    text = str(raised.value)
    assert len(raised.value.problems) == 3
    assert "FUSEBUS_DEMO_SLOTS='0'" in text
    assert "at least 1, at most 64" in text
    assert "FUSEBUS_STORE_TIMEOUT='soon'" in text
    assert "one of smtp, folder" in text


def test_a_misspelt_name_is_an_error_that_proposes_the_right_one() -> None:
    with pytest.raises(SettingsError, match="did you mean FUSEBUS_DEMO_SLOTS"):
        load_settings(Settings, "demo", {"FUSEBUS_DEMO_SLOT": "3"})


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsError, match=r"FUSEBUS_SETTINGS='/nowhere\.toml' can't be read"):
        load_settings(Settings, "demo", {"FUSEBUS_SETTINGS": "/nowhere.toml"})


def test_a_secret_never_shows_itself() -> None:
    settings = load_settings(Settings, "demo", {"FUSEBUS_STORE_CONNECTION": "AccountKey=canary"})
    assert "canary" not in repr(settings) + str(settings) + describe_settings(Settings, "demo")


def test_settings_survive_the_way_through_a_child_environment() -> None:
    before = load_settings(Settings, "demo", {"FUSEBUS_STORE_CONNECTION": "k", "FUSEBUS_DEMO_NAMES": '["a","b"]'})
    assert load_settings(Settings, "demo", environment_of(before, "demo")) == before
