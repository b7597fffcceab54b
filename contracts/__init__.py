"""The words all parts of pvmlab share: definitions, installer configuration, reports, NoCloud documents.

Standard library only, and no imports from the rest of the project: this package ships into the installer
initrd and into the services container.
"""
