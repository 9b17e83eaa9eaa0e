"""The reference manual of the configuration, made from the schema.

``python -m requiretls_milter.config.manual`` prints docs/configuration.md.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator

from pydantic import BaseModel

from requiretls_milter.config.mistakes import tables_of
from requiretls_milter.config.removed import REMOVED
from requiretls_milter.config.schema.section import needs_restart
from requiretls_milter.config.schema.whole import Config
from requiretls_milter.config.text import EXAMPLES, value_text
from requiretls_milter.syntax.text import LINE_WIDTH

INTRODUCTION = """\
# Configuration

<!-- Made by "make docs" from the descriptions in requiretls_milter/config/schema/. -->

One TOML file, `/etc/requiretls-milter/config.toml` unless `--config` says otherwise. Without that
file, and for every key that it leaves out, the defaults below hold. An unknown key is an error.

At its top, before the first `[section]`, the file may include others:

```toml
include = ["conf.d/*.toml"]
```

- A name or pattern that does not begin with `/` is looked up where the main file lies. `*`, `?` and
  `[...]` stand for parts of a name; what a pattern matches is read by name, without hidden files.
- A file that is named has to be there; a pattern may match nothing. A directory that may not be
  listed is a mistake.
- Tables may be spread over the files. A key stands in one of them only: a second one is a mistake
  that names both places. So it does not matter which file is read first.
- An included file includes no others.
- At most 100 included files, 1 MiB each, 4 MiB together.

For rules of hundreds of domains see [domains.md](domains.md). The commands:

- `requiretls-milter config check [FILE]` tells every mistake as `FILE:LINE:COLUMN: key: what is
  wrong`, mostly with the line to write instead. It warns of what is allowed but probably not meant,
  and of a file with a secret (a password in it, `metrics.tls_key`) that every user of the host may
  read.
- `requiretls-milter config show` prints the configuration in force as one file, with `***` for a
  password in `store.url`, and `{...}` for the settings in the name of a table (`mysql:{...}`);
  nothing else is masked. Lists of domains stay in their files. It is a good configuration, but for
  these: `config show | requiretls-milter config check /dev/stdin` warns of them. `config show
  --secrets` prints one that means the same. `config show
  --defaults` prints this manual as a commented file.
- `requiretls-milter config explain SENDER RECIPIENT` tells which rule is in force, and from which
  table each value comes.

At SIGHUP the service reads all files again; one with mistakes changes nothing. A change of a key
that is marked *restart* takes effect at the next start. Durations are in seconds. Domains may be
given in Unicode or as A-labels.
"""

REMOVED_KEYS = """\
## Removed keys

A file that has one of these keys is accepted for this release, as if the key were not there, and
`config check` and `serve` warn of it. The next release refuses it.
"""


def markdown() -> str:
    """The manual, in Markdown."""
    return "\n".join(_manual()) + "\n"


def _manual() -> Iterator[str]:
    yield INTRODUCTION
    for name, field in Config.model_fields.items():
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            raise TypeError(f"[{name}] is no section")
        yield f"## [{name}]\n"
        yield f"{inspect.getdoc(section)}\n"
        yield from _section(name, section)
    yield REMOVED_KEYS
    for path, why in REMOVED.items():
        yield _item(f"- `{'.'.join(path)}`: {why}.")


def _section(name: str, section: type[BaseModel]) -> Iterator[str]:
    defaults = section().model_dump(mode="json")
    tables = tables_of(section)
    for key, field in section.model_fields.items():
        if key not in tables:
            mark = " *restart*" if needs_restart(field) else ""
            head = f"- `{key} = {value_text(defaults[key])}`{mark}: "
            yield _item(head + str(field.description))
    yield ""
    for key in tables:
        yield _item(str(section.model_fields[key].description), indent="")
        yield f"\n```toml\n{EXAMPLES[name, key]}\n```\n"
    by_schema: dict[type[BaseModel], list[str]] = {}
    for key, (inner, _) in tables.items():
        by_schema.setdefault(inner, []).append(f"[{name}.{key}]")
    for inner, below in by_schema.items():
        yield _item(f"Keys of the tables below {', '.join(below)}: {_keys(inner)}.", indent="")
        yield ""


def _keys(section: type[BaseModel]) -> str:
    return ", ".join(f"`{key}`" for key in section.model_fields)


def _item(text: str, indent: str = "  ") -> str:
    return textwrap.fill(
        text, LINE_WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


if __name__ == "__main__":
    sys.stdout.write(markdown())
