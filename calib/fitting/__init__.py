"""Fits of every characteristic: each module takes measured values and returns an xarray node of the device model."""
