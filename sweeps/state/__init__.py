"""What survives a crash: the ledger, the manifest, trial files, and the progress they describe."""
