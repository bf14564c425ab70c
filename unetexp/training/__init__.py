"""One experiment in a folder: configuration, batches, losses, the loop. Empty on purpose: a
served model imports through here."""
