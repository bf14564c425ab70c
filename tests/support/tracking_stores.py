"""Hand-made tracking stores: sweeps whose trials were never trained."""

from sweeps.tracking.tracker import Tracker

MODEL = {"model/parameters": 14_000_000, "time/latency_ms": 12.5}


def write_sweep(store, name, trials, *, fingerprint="f00d", storage="/nowhere", epochs=4):
    """A sweep of `(params, scores per epoch, stop reason)` trials; reason None: it still runs.

    Classes are `back ground` and `cell`, 0.1 above and below val/miou; a trial costs 10 s/epoch.
    """
    tracker = Tracker(store)
    tracker.start_sweep(name, storage=storage, tags={"data.fingerprint": fingerprint})
    for number, (params, scores, reason) in enumerate(trials):
        trial = f"{number:04d}"
        tracker.start_trial(trial, f"{name}-{trial}", {"epochs": epochs, "seed": 0, **params})
        for epoch, score in enumerate(scores, start=1):
            values = {
                "val/miou": score,
                "val/loss": 1 - score,
                "val/iou/back ground": score + 0.1,
                "val/iou/cell": score - 0.1,
                "train/loss": 1 / epoch,
            }
            tracker.log_epoch(trial, epoch, values | (MODEL if epoch == 1 else {}))
        tracker.log_cost(trial, 10.0 * len(scores), at_s=0)
        if reason is not None:
            tracker.end_trial(trial, reason)
    if all(reason for _, _, reason in trials):
        tracker.end_sweep("completed")
    return tracker
