"""The commands, a module each: SUMMARY, EPILOG, ``add_flags`` and ``run``.

Only argparse and the settings are imported at the top of a command's module; what the work takes
is imported in ``run``, so that a help text or a typing error is answered at once.
"""
