from __future__ import annotations

from pathlib import Path

import pytest

from docmill.settings.errors import SettingsError
from docmill.settings.load import effective, load_settings
from docmill.settings.masking import mask


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("rediss://user:secret@host/1", "rediss://user:***@host/1"),
        ("postgresql+psycopg://u:secret@host/db", "postgresql+psycopg://u:***@host/db"),
        ("redis://:sec@re/t@host/0", "redis://:***@host/0"),
        ("redis://host/0?password=secret&db=1", "redis://host/0?password=***&db=1"),
        ("rediss://host/0?ssl_password=secret&db=1", "rediss://host/0?ssl_password=***&db=1"),
        ("postgresql:///db?user=u&password=secret", "postgresql:///db?user=u&password=***"),
        ("no answer from redis://:secret@host, none", "no answer from redis://:***@host, none"),
        ("sqlite:////srv/docmill.db", "sqlite:////srv/docmill.db"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("postgresql://user@host/db", "postgresql://user@host/db"),
        ("me@example.com: hello", "me@example.com: hello"),
    ],
)
def test_passwords_of_urls_are_masked_and_nothing_else(url: str, shown: str) -> None:
    assert mask(url) == shown


def test_the_effective_settings_hold_no_password(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("broker: {url: 'redis://:hunter2@queue/0'}\n")
    settings = load_settings(config, environment={"DOCMILL_STORAGE__URL": "postgresql://u:hunter3@db/docmill"})
    assert settings.broker.url == "redis://:hunter2@queue/0"
    shown = {key: value for key, value, _ in effective(settings)}
    assert shown["broker.url"] == "redis://:***@queue/0"
    assert shown["storage.url"] == "postgresql://u:***@db/docmill"
    assert "hunter" not in str(list(effective(settings)))


@pytest.mark.parametrize(
    "text",
    [
        "broker: redis://:hunter2@queue/0\n",
        "broker: [redis://:hunter2@queue/0]\n",
        "broker: {url: [redis://:hunter2@queue/0]}\n",
        "broker: {url: {x: redis://:hunter2@queue/0}}\n",
        "worker: {engine: redis://:hunter2@queue/0}\n",
        "storage: {uri: postgresql://u:hunter2@db/docmill}\n",
        "storage: {url: postgresql://u:hunter2@db/docmill\n",
    ],
)
def test_no_error_holds_a_password(tmp_path: Path, text: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(config, environment={})
    assert "hunter2" not in str(caught.value)
