"""Logins that ask a person: while one is asked, the bounds on connecting and on calls stand still.

The `mcp` package stops its own clocks so; flowkit's would give a person 30 seconds to find a password.
"""

from collections.abc import AsyncGenerator, Generator
from typing import Any

from flowkit.mcp_client.call_clocks import stand_still


def make_patient(auth: Any) -> Any:
    """Wrap an `httpx2.Auth` so that time spent in its own code, between its requests, doesn't count.

    Anything else that `httpx2` takes, such as a pair of user and password, asks nobody and is returned as it is.
    """
    from httpx2 import Auth

    if not isinstance(auth, Auth):
        return auth
    inner: Any = auth

    class PatientAuth(Auth):
        requires_request_body = inner.requires_request_body
        requires_response_body = inner.requires_response_body

        def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            return inner.sync_auth_flow(request)

        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            flow = inner.async_auth_flow(request)
            response: Any = None
            try:
                while True:
                    with stand_still():
                        try:
                            request = await flow.asend(response)
                        except StopAsyncIteration:
                            return
                    response = yield request
            finally:
                await flow.aclose()

    return PatientAuth()
