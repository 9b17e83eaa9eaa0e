"""From a file to a :class:`Config`, with every mistake told at once.

There are three steps: the TOML of all files becomes tables (:mod:`.sources`), the schema makes
values of them, and then what no single key can know is checked (:mod:`.checks`). What is allowed,
but probably not meant, is told by :mod:`.advice`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from requiretls_milter.config.checks import contradictions, in_two_lists, unusable_files
from requiretls_milter.config.mistakes import ConfigError, Mistake, explain
from requiretls_milter.config.patterns import PatternError, domain_pattern
from requiretls_milter.config.places import KeyPath, Place
from requiretls_milter.config.reading import ConfigOrigin, ConfigReader
from requiretls_milter.config.schema.whole import Config
from requiretls_milter.config.sources import (
    LISTS,
    MAX_FILE_BYTES,
    read_sources,
    read_whole,
)

DEFAULT_PATH = Path("/etc/requiretls-milter/config.toml")


def load(path: Path | None = None, instead: Mapping[Path, bytes] | None = None) -> Config:
    """Read and validate a configuration: the file, and what it includes.

    Args:
        path: the file; None is :data:`DEFAULT_PATH`, and all defaults if that does not exist.
        instead: what is to be taken for the content of some of the files.

    Raises:
        ConfigError: a file cannot be read, is not TOML, or has mistakes.
    """
    reading = ConfigReader(instead or {})
    main = DEFAULT_PATH if path is None else path
    try:
        try:
            content = reading.any_file(main, MAX_FILE_BYTES)
        except FileNotFoundError:
            if path is not None:
                raise
            config = Config()
            config.read_from(ConfigOrigin(reading.watched))
            return config
    except OSError as error:
        raise ConfigError(_unreadable(main, error).mistakes, reading.watched) from None
    return _parse(reading, main, content)


def parse(content: bytes, name: str) -> Config:
    """Validate the *content* of a file called *name*; raises ConfigError."""
    return _parse(ConfigReader(), Path(name), content)


def texts(path: Path | None) -> Mapping[Path, str]:
    """The text of each file of a configuration, the main file first; raises ConfigError."""
    reading, main = ConfigReader(), path or DEFAULT_PATH
    try:
        content = reading.any_file(main, MAX_FILE_BYTES)
    except FileNotFoundError:
        return {main: ""}
    except OSError as error:
        raise _unreadable(main, error) from None
    return {file.path: file.text for file in read_whole(reading, main, content).files}


def places(path: Path | None) -> Mapping[KeyPath, Place]:
    """Where each key of a configuration stands, which :func:`load` accepts; raises ConfigError.

    Names of domains are as the configuration has them: A-labels, in lower case.
    """
    reading, main = ConfigReader(), path or DEFAULT_PATH
    try:
        content = reading.any_file(main, MAX_FILE_BYTES)
    except OSError:
        return {}
    found = read_whole(reading, main, content).places()
    return {_canonical(key): place for key, place in found.items()}


def _canonical(path: KeyPath) -> KeyPath:
    if path[0] != "rules" or len(path) < 3 or path[1] == LISTS[1]:
        return path
    try:
        return (*path[:2], domain_pattern(str(path[2])), *path[3:])
    except PatternError:
        return path


def _parse(reading: ConfigReader, main: Path, content: bytes) -> Config:
    try:
        sources = read_sources(reading, main, content)
    except ConfigError as error:
        raise ConfigError(error.mistakes, reading.watched) from None
    raw = sources.raw
    mistakes: tuple[Mistake, ...] = ()
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        mistakes = explain(error, Config)
    else:
        if sources.is_whole:
            mistakes = (*contradictions(config), *in_two_lists(config, sources))
    mistakes += unusable_files(raw)
    told = (*sources.mistakes, *mistakes)
    if told:
        texts = (
            str(one if one.place or not one.path else replace(one, place=sources.place(one.path)))
            for one in told
        )
        raise ConfigError(tuple(texts), reading.watched)
    config.read_from(
        ConfigOrigin(
            reading.watched,
            tuple(file.path for file in sources.files[1:]),
            sources.file_of(("store", "url")),
            tuple(sources.warnings),
        )
    )
    return config


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError((f"{path}: cannot be read: {error.strerror or error}",))
