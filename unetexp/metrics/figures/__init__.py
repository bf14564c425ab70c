"""The figures of a split: what users of each field expect beside mIoU, with units and intervals."""
