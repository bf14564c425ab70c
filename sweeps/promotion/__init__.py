"""From a sweep's best trial to the registered champion."""
