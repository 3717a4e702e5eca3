"""Readers: one file per format; each member turns a file into a Measurement (see `calib.readers.base.Reader`)."""
