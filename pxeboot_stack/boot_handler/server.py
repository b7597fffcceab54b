"""The boot handler as a process: uvicorn on the loopback address, until SIGTERM."""

import uvicorn

from pxeboot_stack import logs
from pxeboot_stack.boot_handler.app import create_app
from pxeboot_stack.boot_handler.settings import LISTEN_ADDRESS, LISTEN_PORT, Settings


def make_server(settings: Settings, *, port: int = LISTEN_PORT) -> uvicorn.Server:
    """Return the server that is to :meth:`uvicorn.Server.run`.

    :raises OSError: if the folder of tokens cannot be made.
    """
    return uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=LISTEN_ADDRESS,
            port=port,
            loop="asyncio",
            http="httptools",
            ws="none",
            lifespan="on",  # the upkeep
            log_config=None,  # ours stands
            access_log=False,  # nginx writes one
            proxy_headers=False,  # or uvicorn would replace the client's address by X-Forwarded-For
            server_header=False,
            backlog=4096,  # a storm of machines waits here, not in nginx's tries
            timeout_graceful_shutdown=1,
        )
    )


def main() -> None:
    """Serve until SIGTERM."""
    logs.configure("boot_handler")
    make_server(Settings.from_environment()).run()
