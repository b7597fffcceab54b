#!/bin/sh
# Put at /usr/sbin/policy-rc.d by ./pvmlab setup while it installs packages, and removed at its end.
# 101: do not start the services of a package that is being installed (Debian policy 9.3.3.2).
exit 101
