"""What people type: the invoke program, its output and errors, set-up, doctor and the test command.

Only this package, ``dodo.py`` and ``tasks.py`` turn errors into exit codes.
"""
