"""Store tokens of MCP servers in files that only their user can read, for the `mcp` package's OAuth."""

import os
from pathlib import Path
from secrets import token_hex
from typing import Any


class FileTokens:
    """The tokens for one server, in the user's state folder, mode 600; pass it as `storage=` to a provider.

    A login is remembered for the next time. Tokens are never shown: the repr contains only the path.
    """

    def __init__(self, name: str, *, folder: Path | None = None) -> None:
        self._name = name
        self._folder = folder

    def __repr__(self) -> str:
        return f"<tokens of {self._name}>"

    async def get_tokens(self) -> Any:
        from mcp.shared.auth import OAuthToken

        return self._read("token", OAuthToken)

    async def set_tokens(self, tokens: Any) -> None:
        self._write("token", tokens)

    async def get_client_info(self) -> Any:
        from mcp.shared.auth import OAuthClientInformationFull

        return self._read("client", OAuthClientInformationFull)

    async def set_client_info(self, client_info: Any) -> None:
        self._write("client", client_info)

    def _find(self, kind: str) -> Path:
        import platformdirs

        folder = self._folder or Path(platformdirs.user_state_dir("flowkit")) / "tokens"
        safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in self._name)
        return folder / f"{safe}.{kind}.json"

    def _read(self, kind: str, model: Any) -> Any:
        try:
            return model.model_validate_json(self._find(kind).read_bytes())
        except (OSError, ValueError):
            return None  # nobody logged in yet, or what is there is of no use

    def _write(self, kind: str, value: Any) -> None:
        path = self._find(kind)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f"{path.name}.{token_hex(4)}.part")
        with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(value.model_dump_json(exclude_none=True))
        draft.replace(path)
