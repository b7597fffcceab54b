"""The boot handler as a process: uvicorn on the loopback address, until SIGTERM."""

import logging

import uvicorn

from pxeboot_stack.boot_handler.app import create_app
from pxeboot_stack.boot_handler.settings import LISTEN_ADDRESS, LISTEN_PORT, Settings


def main() -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="boot_handler: %(levelname)s %(message)s", force=True)
    uvicorn.run(
        create_app(Settings.from_environment()),
        host=LISTEN_ADDRESS,
        port=LISTEN_PORT,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,  # ours stands
        access_log=False,  # nginx writes one
        proxy_headers=False,  # or uvicorn would replace the client's address by X-Forwarded-For
        server_header=False,
        timeout_graceful_shutdown=1,
    )
