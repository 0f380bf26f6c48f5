"""The CNI specification 1.1.0 as pure code: no file, process or clock is touched here."""
