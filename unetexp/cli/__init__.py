"""The command `unetexp`. Empty on purpose: `sweeps` imports the exit codes from here."""
