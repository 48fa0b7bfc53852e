"""The tokens that a model folder names outside tokenizer.json, as transformers' AutoTokenizer reads them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from panacea.errors import CheckpointError

_STANDARD = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("extra_special_tokens", "additional_special_tokens")
"""The first is transformers 5's name of the second. If it is an object, its tokens have names."""
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class TokenSettings:
    """What the tokenizer's configuration says about tokens."""

    names: Mapping[str, str]
    """Tokens by their names, such as `{"eos_token": "<|end|>"}`. Chat templates read them as variables."""
    numbered: tuple[AddedToken, ...]
    """Tokens that the configuration lists with ids, in their order."""
    special: tuple[AddedToken, ...]
    """Special tokens, with and without names."""

    def add_to(self, tokenizer: Tokenizer) -> None:
        """Adds the tokens that `tokenizer` lacks. They get the next free ids, as in transformers."""
        present = list(tokenizer.get_added_tokens_decoder().values())
        alike = {repr(token) for token in present}
        missing = [token for token in self.numbered if repr(token) not in alike]
        known = {token.content for token in (*present, *missing)}
        for token in self.special:
            if token.content not in known:
                known.add(token.content)
                missing.append(token)
        for token in missing:
            token.special = token.special or token.content in self.names.values()
        tokenizer.add_tokens(missing)


def read_token_settings(folder: Path) -> TokenSettings:
    """Reads tokenizer_config.json, special_tokens_map.json and added_tokens.json, of which each may be missing.

    As in transformers, the first replaces the other two if it lists the added tokens itself. Raises `CheckpointError`
    for a file that cannot be read, or a token that is neither a text nor an object.
    """
    settings = read_json(folder / "tokenizer_config.json")
    decoder = settings.get("added_tokens_decoder")
    numbered: dict[int, AddedToken] = {}
    if isinstance(decoder, dict):
        numbered = {int(number): _token(entry, folder) for number, entry in decoder.items()}
    else:
        settings = _merged(settings, read_json(folder / "special_tokens_map.json"))
        special = {token.content for _, token in _special(settings, folder)}
        for content, number in read_json(folder / "added_tokens.json").items():
            is_special = content in special
            numbered[int(number)] = AddedToken(content, special=is_special, normalized=not is_special)
    found = list(_special(settings, folder))
    return TokenSettings(
        names={name: token.content for name, token in found if name is not None},
        numbered=tuple(numbered[number] for number in sorted(numbered)),
        special=tuple(token for _, token in found),
    )


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`, or {} if there is no such file. Raises `CheckpointError` for any other content."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} does not hold a JSON object")
    return content  # pyright: ignore[reportUnknownVariableType]


def _merged(settings: dict[str, Any], special_tokens_map: dict[str, Any]) -> dict[str, Any]:
    merged = settings | {
        name: {**entry, "special": True} if isinstance(entry, dict) and name not in _LISTS else entry
        for name, entry in special_tokens_map.items()
    }
    both = [
        source["extra_special_tokens"] for source in (settings, special_tokens_map) if "extra_special_tokens" in source
    ]
    if len(both) > 1 and all(isinstance(tokens, list) for tokens in both):
        merged["extra_special_tokens"] = [*both[0], *(token for token in both[1] if token not in both[0])]
    return merged


def _special(settings: Mapping[str, Any], folder: Path) -> Iterator[tuple[str | None, AddedToken]]:
    """The special tokens, each with its name or None, in the order in which transformers adds them."""
    extra: Any = next((settings[name] for name in _LISTS if settings.get(name)), [])
    others = [name for name in settings if name.endswith("_token") and name not in _STANDARD]
    for name in (*_STANDARD, *others):
        entry = settings.get(name)
        # Settings such as "add_bos_token" have names like those of tokens.
        if isinstance(entry, str | dict):
            yield name, _token(entry, folder)
    if isinstance(extra, dict):
        yield from ((name, _token(entry, folder)) for name, entry in extra.items())
    else:
        yield from ((None, _token(entry, folder)) for entry in extra)


def _token(entry: Any, folder: Path) -> AddedToken:
    if isinstance(entry, str):
        return AddedToken(entry, special=True)
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise CheckpointError(f"{folder}: the tokenizer's configuration holds a token without content")
    flags: dict[str, bool] = {name: entry[name] for name in _FLAGS if isinstance(entry.get(name), bool)}
    return AddedToken(entry["content"], **flags)
