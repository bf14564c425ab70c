"""One experiment in a folder: configuration, batches, losses, the loop. Imports nothing,
because a served model imports this package."""
