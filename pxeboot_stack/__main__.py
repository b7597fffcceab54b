"""``python3 -m pxeboot_stack``: the container's entry."""

from pxeboot_stack.entrypoint import main

main()
