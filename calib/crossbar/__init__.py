"""Crossbar arrays: weights to conductances, conductances and voltages to currents, layers."""
